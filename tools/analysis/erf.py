"""Measure and draw the effective receptive fields of networks, side by side.

    python tools/analysis/erf.py configs/slak_t_in1k.py=slak_t.pth \
        configs/baselines/convnext_t_in1k.py=convnext_t.pth \
        --images data/imagenet/val --num 50 --size 1024 --out work_dirs/erf

A model is CONFIG (its backbone as it is initialised) or CONFIG=CHECKPOINT; the config may be of
any toolbox. Written for each model: NAME.npy, the scores averaged over the images; NAME.png, the
heat map; NAME.npz, from which an interrupted run goes on. For all of them: erf.png side by side,
ratios.md and ratios.json, the high-contribution area ratios of the paper's table 10.
"""

import argparse
import hashlib
import json
import resource
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmslak.analysis.erf import (
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
from mmslak.cli.config import load_config
from mmslak.console import guarded

SCALES = {'log': rescaled_log, 'raw': lambda scores: scores}


def parse_model(text: str) -> tuple[Path, Path | None]:
    """Split ``CONFIG`` or ``CONFIG=CHECKPOINT``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If nothing follows the equals sign.
    """
    config, given, checkpoint = text.partition('=')
    if given and not checkpoint:
        raise ValueError(
            f'{text} names no checkpoint: add one after the =, or leave the = out for the network '
            'as it is initialised'
        )
    if checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(f'checkpoint {checkpoint} does not exist')
    return Path(config), Path(checkpoint) if checkpoint else None


def names_of(models: list[tuple[Path, Path | None]], names: list[str] | None) -> list[str]:
    """Name the models: as asked for, else by config and checkpoint.

    Raises:
        ValueError: If there are not as many names as models, or two are the same.
    """
    if names is None:
        names = [c.stem if p is None else f'{c.stem}-{p.stem}' for c, p in models]
    if len(names) != len(models):
        raise ValueError(f'--names must give {len(models)} names, one a model, got {len(names)}')
    if len(set(names)) != len(names) or any('/' in name for name in names):
        raise ValueError(f'--names must give every model a file name of its own, got {names}')
    return names


def draw(
    maps: dict[str, np.ndarray],
    path: Path,
    centres: dict[str, tuple[int, int] | None],
    gamma: float,
) -> None:
    """Draw heat maps of ``log10(1 + score)`` side by side, each over its own maximum."""
    figure, panels = plt.subplots(
        1,
        len(maps),
        figsize=(3.2 * len(maps) + 0.9, 3.3),
        squeeze=False,
        layout='constrained',
    )
    for panel, (name, scores) in zip(panels[0], maps.items(), strict=True):
        shown = panel.imshow(rescaled_log(scores), cmap='viridis', norm=PowerNorm(gamma, 0, 1))
        panel.set_title(name, fontsize=11)
        panel.set_xticks([0, scores.shape[1] - 1], ['0', str(scores.shape[1])])
        panel.set_yticks([0, scores.shape[0] - 1], ['0', str(scores.shape[0])])
        if centres[name] is not None:
            panel.plot(*centres[name], '+', color='red', markersize=6)
    label = 'log10(1 + score) / maximum'
    figure.colorbar(shown, ax=panels[0].tolist(), shrink=0.85, label=label, pad=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


@guarded
def main() -> None:
    """Measure, print the ratios, write matrices and figures."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'models',
        nargs='+',
        metavar='MODEL',
        help='CONFIG, for the backbone as it is initialised, or CONFIG=CHECKPOINT',
    )
    parser.add_argument('--images', type=Path, required=True, help='folder, searched in depth')
    parser.add_argument('--num', type=int, default=50, help='images to average over')
    parser.add_argument('--size', type=int, default=1024, help='side they are resized to, pixels')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/erf'))
    parser.add_argument('--names', nargs='+', help='names of the models, for files and figures')
    parser.add_argument(
        '--point',
        nargs=2,
        type=int,
        metavar=('X', 'Y'),
        help='column and row in the last feature map; default: its centre',
    )
    parser.add_argument(
        '--gamma',
        type=float,
        default=0.4,
        help='colours follow this power of the values, so that faint ones show; 1 as in the paper '
        '(default: 0.4)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='draws the images and untrained weights'
    )
    parser.add_argument('--device', default='cpu', help='such as cuda')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of all configs',
    )
    args = parser.parse_args()
    models = [parse_model(text) for text in args.models]
    names = names_of(models, args.names)
    if args.size < 1:
        raise ValueError(f'--size must be positive, got {args.size}')
    if not args.gamma > 0:
        raise ValueError(f'--gamma must be positive, got {args.gamma}')
    check_device(args.device)
    paths = sample_images(args.images, args.num, args.seed)
    point = tuple(args.point) if args.point else None
    cfgs = [load_config(config, args.cfg_options) for config, _ in models]
    states = []
    for name, cfg, (_, checkpoint) in zip(names, cfgs, models, strict=True):
        settings = dict(
            backbone=repr(backbone_settings(cfg)),
            # A path or a size would not tell a checkpoint from what training made of it later.
            checkpoint=checkpoint and hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            point=point,
            seed=args.seed,
            **InputReader(cfg, args.size).settings,
        )
        states.append(ERFState(args.out / f'{name}.npz', settings))

    # How every parameter was initialised is no news here.
    MMLogger.get_current_instance().setLevel('WARNING')
    # What is wrong with the last model should not come out after hours with the first.
    for cfg, state, (config, checkpoint) in zip(cfgs, states, models, strict=True):
        if state.left(paths):
            try:
                backbone = build_backbone(cfg, checkpoint, args.seed)
                check_backbone(backbone, (1, 3, args.size, args.size), point)
            except ValueError as error:
                raise ValueError(f'{config}: {error}') from error
    console = Console(width=110)
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    maps = {}
    with Progress(*columns, console=console) as bar:
        task = bar.add_task('images', total=len(models) * len(paths))
        for name, cfg, state, (_, checkpoint) in zip(names, cfgs, states, models, strict=True):
            bar.update(task, description=name)
            bar.advance(task, len(state.images))
            maps[name] = effective_receptive_field(
                partial(build_backbone, cfg, checkpoint, args.seed),
                InputReader(cfg, args.size),
                paths,
                state,
                point,
                args.device,
                lambda: bar.advance(task),
            )
            np.save(args.out / f'{name}.npy', maps[name])

    centres = {n: state.centre(point) for n, state in zip(names, states, strict=True)}
    for name, scores in maps.items():
        draw({name: scores}, args.out / f'{name}.png', centres, args.gamma)
    draw(maps, args.out / 'erf.png', centres, args.gamma)
    title = f'Area ratio r, {args.num} images of {args.size} x {args.size}'
    table = Table('model', 'scores', *(f't = {t:.0%}' for t in THRESHOLDS), title=title)
    lines = ['| model | scores | ' + ' | '.join(f't = {t:.0%}' for t in THRESHOLDS) + ' |']
    lines.append('|---|---|' + '---:|' * len(THRESHOLDS))
    ratios: dict[str, dict[str, list[float]]] = {}
    for name, scores in maps.items():
        for scale, transform in SCALES.items():
            found = [area_ratio(transform(scores), t, centres[name]) for t in THRESHOLDS]
            ratios.setdefault(name, {})[scale] = found
            row = (name if scale == 'log' else '', scale, *(f'{r:.1%}' for r in found))
            table.add_row(*row)
            lines.append('| ' + ' | '.join(row) + ' |')
    console.print(table)
    (args.out / 'ratios.md').write_text('\n'.join(lines) + '\n')
    (args.out / 'ratios.json').write_text(json.dumps(ratios, indent=2) + '\n')
    # Kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    console.print(f'Peak memory of this process: {peak:.2f} GB.')
    console.print(f'Written to {args.out}: erf.png, ratios.md, and NAME.npy and .png of each model')


if __name__ == '__main__':
    main()
