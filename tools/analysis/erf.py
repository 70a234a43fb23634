"""Measure and draw the effective receptive fields of networks.

    python tools/analysis/erf.py configs/slak_t_in1k.py=slak_t.pth \\
        configs/baselines/convnext_t_in1k.py=convnext_t.pth \\
        --images data/imagenet/val --num 50 --size 1024 --out work_dirs/erf

A MODEL is CONFIG=CHECKPOINT, or CONFIG for random initialisation; the config may be of any
toolbox. For each model this writes NAME.npy (the scores averaged over the images), NAME.png (the
heat map) and NAME.npz (from which an interrupted run continues), and for all of them erf.png,
ratios.md and ratios.json (the high-contribution area ratios of the paper's table 10).
"""

import argparse
import hashlib
import json
import re
import resource
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmslak.analysis.erf import (
    GAMMA,
    THRESHOLDS,
    ERFState,
    InputReader,
    area_ratio,
    backbone_settings,
    build_backbone,
    check_backbone,
    effective_receptive_field,
    rescaled_log,
    sample_images,
)
from mmslak.analysis.latency import check_device
from mmslak.checkpoints import find_checkpoint
from mmslak.cli.config import load_config
from mmslak.console import guarded, progress_bar

#: Characters of a title that are as wide as a heat map.
TITLE_WIDTH = 26
SCALES = {'log': rescaled_log, 'raw': lambda scores: scores}


@dataclass
class Model:
    """A model to measure.

    Args:
        name (str): Its name in files and figures.
        path (Path): Its config file.
        cfg (Config): Its config.
        checkpoint (Path, optional): Its weights. Default: random initialisation.
        state (ERFState): The scores so far.
    """

    name: str
    path: Path
    cfg: Config
    checkpoint: Path | None
    state: ERFState


def parse_model(text: str) -> tuple[Path, Path | None]:
    """Split ``CONFIG`` or ``CONFIG=CHECKPOINT``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If there is no checkpoint after the equals sign.
    """
    config, given, checkpoint = text.partition('=')
    if given and not checkpoint:
        raise ValueError(
            f'{text} names no checkpoint: add one after the =, or remove the = for random '
            'initialisation'
        )
    return Path(config), Path(find_checkpoint(checkpoint)) if checkpoint else None


def names_of(models: list[tuple[Path, Path | None]], names: list[str] | None) -> list[str]:
    """Return the names of the models; by default those of config and checkpoint.

    Raises:
        ValueError: If the number of names is wrong, two names are the same or one has a slash.
    """
    if names is None:
        names = [c.stem if p is None else f'{c.stem}-{p.stem}' for c, p in models]
    if len(names) != len(models):
        raise ValueError(f'--names must have {len(models)} names, one per model, got {len(names)}')
    if len(set(names)) != len(names) or any('/' in name for name in names):
        raise ValueError(f'--names must be different and without slashes, got {names}')
    return names


def in_lines(name: str) -> str:
    """Break a name into lines that are as wide as a heat map, after hyphens and underscores."""
    lines = ['']
    # A part without them may be too long for a line.
    for part in re.findall(rf'[^_-]{{1,{TITLE_WIDTH - 1}}}[_-]?|[_-]', name):
        if len(lines[-1] + part) > TITLE_WIDTH:
            lines.append('')
        lines[-1] += part
    return '\n'.join(lines)


def draw(
    fields: dict[str, np.ndarray],
    path: Path,
    centres: dict[str, tuple[int, int] | None],
    gamma: float,
) -> None:
    """Draw heat maps of ``log10(1 + score)`` side by side, each relative to its maximum.

    Args:
        fields (dict[str, np.ndarray]): Scores of shape (H, W) by name of the model.
        path (Path): PNG file to write.
        centres (dict): Pixel (x, y) to mark in each heat map, or None.
        gamma (float): Colours show this power of the values.
    """
    titles = [in_lines(name) for name in fields]
    # Inches for the lines of the titles after the first.
    more = 0.2 * max(title.count('\n') for title in titles)
    figure, panels = plt.subplots(
        1,
        len(fields),
        figsize=(3.2 * len(fields) + 0.9, 3.3 + more),
        squeeze=False,
        layout='constrained',
    )
    for panel, title, (name, scores) in zip(panels[0], titles, fields.items(), strict=True):
        shown = panel.imshow(rescaled_log(scores), cmap='viridis', norm=PowerNorm(gamma, 0, 1))
        panel.set_title(title, fontsize=11)
        height, width = scores.shape
        panel.set_xticks([0, width - 1], ['0', str(width)])
        panel.set_yticks([0, height - 1], ['0', str(height)])
        # Labels inside the corners do not touch each other, the title or the next heat map.
        for label, side in zip(panel.get_xticklabels(), ('left', 'right'), strict=True):
            label.set_horizontalalignment(side)
        for label, side in zip(panel.get_yticklabels(), ('top', 'bottom'), strict=True):
            label.set_verticalalignment(side)
        if centres[name] is not None:
            panel.plot(*centres[name], '+', color='red', markersize=6)
    label = 'log10(1 + score) / maximum'
    figure.colorbar(shown, ax=panels[0].tolist(), shrink=0.85, label=label, pad=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'models',
        nargs='+',
        metavar='MODEL',
        help='CONFIG=CHECKPOINT, or CONFIG for random initialisation',
    )
    parser.add_argument(
        '--images',
        type=Path,
        required=True,
        metavar='DIR',
        help='directory of images, searched with its subdirectories',
    )
    parser.add_argument(
        '--num', type=int, default=50, help='number of images to average over (default: 50)'
    )
    parser.add_argument(
        '--size',
        type=int,
        default=1024,
        help='side in pixels to which images are resized (default: 1024)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/erf'),
        metavar='DIR',
        help='directory to write to (default: work_dirs/erf)',
    )
    parser.add_argument('--names', nargs='+', help='names of the models in files and figures')
    parser.add_argument(
        '--point',
        nargs=2,
        type=int,
        metavar=('X', 'Y'),
        help='column and row in the last feature map (default: its centre)',
    )
    parser.add_argument(
        '--gamma',
        type=float,
        default=GAMMA,
        help='colours show this power of the values, which makes small ones visible; the paper '
        'has 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of images and initialisation (default: 0)'
    )
    parser.add_argument('--device', default='cpu', help='such as cuda (default: cpu)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of all configs',
    )
    args = parser.parse_args()
    args.point = tuple(args.point) if args.point else None
    if args.size < 1:
        raise ValueError(f'--size must be positive, got {args.size}')
    if not args.gamma > 0:
        raise ValueError(f'--gamma must be positive, got {args.gamma}')
    check_device(args.device)
    return args


def load_models(args: argparse.Namespace) -> list[Model]:
    """Load the configs, and the scores that an earlier run has computed."""
    pairs = [parse_model(text) for text in args.models]
    models = []
    for name, (path, checkpoint) in zip(names_of(pairs, args.names), pairs, strict=True):
        cfg = load_config(path, args.cfg_options)
        settings = dict(
            backbone=repr(backbone_settings(cfg)),
            # A training may overwrite a checkpoint with one of the same path and size.
            checkpoint=checkpoint and hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            point=args.point,
            seed=args.seed,
            **InputReader(cfg, args.size).settings,
        )
        state = ERFState(args.out / f'{name}.npz', settings)
        models.append(Model(name, path, cfg, checkpoint, state))
    return models


def check_models(models: list[Model], paths: list[Path], args: argparse.Namespace) -> None:
    """Run every model once, because its error should not appear hours after the start."""
    for model in models:
        if model.state.left(paths):
            try:
                backbone = build_backbone(model.cfg, model.checkpoint, args.seed)
                check_backbone(backbone, (1, 3, args.size, args.size), args.point)
            except ValueError as error:
                raise ValueError(f'{model.path}: {error}') from error


def measure(
    models: list[Model], paths: list[Path], args: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Compute the scores of each model, averaged over the images, and save them."""
    fields = {}
    with progress_bar() as bar:
        task = bar.add_task('images', total=len(models) * len(paths))
        for model in models:
            bar.update(task, description=model.name)
            bar.advance(task, len(model.state.images))
            fields[model.name] = effective_receptive_field(
                partial(build_backbone, model.cfg, model.checkpoint, args.seed),
                InputReader(model.cfg, args.size),
                paths,
                model.state,
                args.point,
                args.device,
                lambda: bar.advance(task),
            )
            np.save(args.out / f'{model.name}.npy', fields[model.name])
    return fields


def report_ratios(
    fields: dict[str, np.ndarray], centres: dict[str, tuple[int, int] | None], title: str, out: Path
) -> Table:
    """Write the area ratios of each model to ratios.md and ratios.json, and return a table."""
    thresholds = [f't = {t:.0%}' for t in THRESHOLDS]
    table = Table('model', 'scores', *thresholds, title=title)
    lines = ['| model | scores | ' + ' | '.join(thresholds) + ' |']
    lines.append('|---|---|' + '---:|' * len(THRESHOLDS))
    ratios: dict[str, dict[str, list[float]]] = {}
    for name, scores in fields.items():
        for scale, transform in SCALES.items():
            found = [area_ratio(transform(scores), t, centres[name]) for t in THRESHOLDS]
            ratios.setdefault(name, {})[scale] = found
            row = (name if scale == 'log' else '', scale, *(f'{r:.1%}' for r in found))
            table.add_row(*row)
            lines.append('| ' + ' | '.join(row) + ' |')
    (out / 'ratios.md').write_text('\n'.join(lines) + '\n')
    (out / 'ratios.json').write_text(json.dumps(ratios, indent=2) + '\n')
    return table


@guarded
def main() -> None:
    """Measure the models, and write scores, figures and ratios."""
    args = parse_args()
    paths = sample_images(args.images, args.num, args.seed)
    models = load_models(args)
    # MMEngine logs how every parameter is initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    check_models(models, paths, args)
    fields = measure(models, paths, args)
    centres = {model.name: model.state.centre(args.point) for model in models}
    for name, scores in fields.items():
        draw({name: scores}, args.out / f'{name}.png', centres, args.gamma)
    draw(fields, args.out / 'erf.png', centres, args.gamma)
    title = f'Area ratio r, {args.num} images of {args.size} x {args.size}'
    console = Console(width=110)
    console.print(report_ratios(fields, centres, title, args.out))
    # In kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    console.print(f'Peak memory of this process: {peak:.2f} GB.')
    console.print(
        f'Wrote erf.png, ratios.md and ratios.json, and NAME.npy, NAME.npz and NAME.png of each '
        f'model, to {args.out}'
    )


if __name__ == '__main__':
    main()
