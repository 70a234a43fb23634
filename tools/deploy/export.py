"""Export a trained model to one file, for deployment.

    python tools/deploy/export.py CONFIG CHECKPOINT model.safetensors --meta licence=Apache-2.0
    python tools/deploy/export.py CONFIG CHECKPOINT model.onnx --dynamic
    python tools/deploy/export.py CONFIG CHECKPOINT model.pt2 --format torch-export

safetensors contains float16 weights, masks and the model config. tools/test.py reads it in place of
a checkpoint, and mmslak.pretrained.load_model(OUT) loads a segmentation model without a config.

onnx and torch-export contain the network in standard operators, with the branches of SLaK merged.
This package is not needed to run them. The normalisation of the data preprocessor is inside the
network: the input is float32 of shape (N, C, H, W) with values from 0 to 255, and its channels are
in the order that the meta data call channel_order. A classifier and a segmentor return logits. A
detector is exported without its heads and returns the feature maps of its neck. If a segmentor is
tested with a sliding window, the network for one window is exported. The file is then run and
compared with the model. Its meta data contain the classes and everything named here.
"""

import argparse
import json
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

import mmslak
from mmslak.analysis.complexity import default_shape
from mmslak.analysis.latency import measure_in_turns
from mmslak.checkpoints import SAFETENSORS, dataset_meta, export_checkpoint, read_checkpoint
from mmslak.cli.config import load_config
from mmslak.console import guarded
from mmslak.graphs import (
    FORMATS,
    MIN_SIZES,
    ImageNetwork,
    build_network,
    load_graph,
    unavailable,
    write_graph,
)

#: Largest difference between the outputs of file and model, relative to the largest output.
TOLERANCE = 1e-4
#: Sizes at which a file with dynamic shapes is checked, relative to --shape.
SCALES = ((1, 1), (1.5, 1), (1, 1.25))


def parse_notes(pairs: list[str]) -> dict:
    """Parse KEY=VALUE, where VALUE is JSON or else a string.

    Raises:
        ValueError: If there is no key, no equals sign, or the same key twice.
    """
    notes = {}
    for pair in pairs:
        key, given, text = pair.partition('=')
        if not key or not given or key in notes:
            raise ValueError(f'--meta must have entries KEY=VALUE with different keys, got {pair}')
        try:
            notes[key] = json.loads(text)
        except ValueError:
            notes[key] = text
    return notes


def resolve_format(args: argparse.Namespace) -> str:
    """Return the format of OUT, after checking all options that depend on it.

    Raises:
        ValueError: Naming the option.
    """
    suffixes = {**FORMATS, 'safetensors': SAFETENSORS}
    suffix = Path(args.out).suffix
    named = next((name for name, ending in suffixes.items() if ending == suffix), None)
    chosen = args.format or named
    if chosen is None or chosen != named:
        endings = [suffixes[chosen]] if chosen else suffixes.values()
        raise ValueError(f'OUT must end with {" or ".join(endings)}, got {args.out}')
    if Path(args.out).exists():
        raise ValueError(f'OUT {args.out} already exists; give another name or remove it')
    if chosen not in FORMATS and (args.dynamic or args.shape):
        raise ValueError('--dynamic and --shape are for onnx and torch-export, got safetensors')
    if missing := unavailable(chosen):
        raise ValueError(f'--format {chosen} needs other packages: pip install {missing}')
    return chosen


def export_weights(args: argparse.Namespace, cfg: Config, notes: dict, checkpoint: dict) -> None:
    """Write a safetensors file and print what it contains."""
    done = export_checkpoint(cfg, checkpoint, args.out, notes, args.checkpoint)
    print(f'wrote {args.out}: {done.size / 1e6:.2f} MB')
    print(
        f'{done.parameters:,} parameters, of which {done.active:,} are active '
        f'({done.active / done.parameters:.1%})'
    )


def example_images(
    network: ImageNetwork, cfg: Config, shape: list[int] | None, dynamic: bool
) -> list[torch.Tensor]:
    """Return noise of the sizes at which the file is checked, the size of the export first."""
    window = network.window().get('window')
    height, width = shape or window or cfg.get('crop_size') or default_shape(cfg)
    smallest = MIN_SIZES[network.task]
    if dynamic and min(height, width) < smallest:
        raise ValueError(
            f'--shape must be at least {smallest} {smallest} with --dynamic for {network.task}, '
            f'got {height} {width}'
        )
    generator = torch.Generator().manual_seed(0)
    images = []
    for tall, broad in SCALES if dynamic else SCALES[:1]:
        size = [int(s * f) for s, f in ((height, tall), (width, broad))]
        batch = 2 if dynamic and not images else 1
        noise = torch.rand(batch, len(network.mean), *size, generator=generator)
        images.append(255 * noise)
    return images


def describe(network: ImageNetwork, image: torch.Tensor, args: argparse.Namespace) -> dict:
    """Return the meta data of a graph, without classes and the user's entries."""
    sizes = ['any', image.shape[1], 'any', 'any'] if args.dynamic else list(image.shape)
    return dict(
        mmslak=mmslak.__version__,
        task=network.task,
        input=dict(name='image', shape=sizes, dtype='float32', values=[0, 255]),
        channel_order=network.channel_order,
        normalisation=dict(
            inside=True, mean=network.mean.flatten().tolist(), std=network.std.flatten().tolist()
        ),
        **network.window(),
    )


def export_graph(args: argparse.Namespace, cfg: Config, notes: dict, checkpoint: dict) -> None:
    """Write an ONNX or torch.export file, run it, and print how it compares with the model.

    Raises:
        ValueError: If the model cannot be exported, or if the outputs differ.
    """
    network = build_network(cfg, checkpoint, args.checkpoint)
    images = example_images(network, cfg, args.shape, args.dynamic)
    meta = {**describe(network, images[0], args), **dataset_meta(cfg, checkpoint)}
    if used := sorted(set(meta) & set(notes)):
        raise ValueError(f'the key {used[0]!r} of --meta is already used; choose another one')
    with torch.inference_mode():
        expected = [network(image) for image in images]
    network.prepare(args.dynamic)
    names = ['logits']
    if network.task == 'detection':
        names = [f'feature{i}' for i in range(len(expected[0]))]
    min_size = MIN_SIZES[network.task] if args.dynamic else None
    write_graph(network, images[0], args.out, args.format, names, {**meta, **notes}, min_size)
    print(f'wrote {args.out}: {Path(args.out).stat().st_size / 1e6:.2f} MB')
    if window := meta.get('window'):
        print(f'the network is for one window of {window[0]} x {window[1]} pixels')
    if missing := unavailable(args.format, run=True):
        print(f'not compared with the model; to do so: pip install {missing}')
        return
    check(network, images, expected, args)


def check(network: ImageNetwork, images: list, expected: list, args: argparse.Namespace) -> None:
    """Run the file, compare its outputs with those of the model, and time both."""
    run = load_graph(args.out, args.format)
    for image, outputs in zip(images, expected, strict=True):
        difference = max(
            ((a - b).abs().max() / b.abs().max()).item()
            for a, b in zip(run(image), outputs, strict=True)
        )
        size = ' x '.join(map(str, image.shape))
        print(f'{size}: largest difference, relative to the largest output: {difference:.1e}')
        if not difference <= TOLERANCE:
            raise ValueError(
                f'the outputs of {args.out} differ from those of the model by {difference:.1e}, '
                f'more than {TOLERANCE}; do not use the file'
            )
    image = images[0]
    name = 'ONNX Runtime' if args.format == 'onnx' else 'torch.export'
    with torch.inference_mode():
        ways = {'mmslak': lambda: lambda: network(image), name: lambda: lambda: run(image)}
        costs = measure_in_turns(ways, repeats=5)
    times = ', '.join(f'{way} {cost.ms:.1f} ms' for way, cost in costs.items())
    size, threads = ' x '.join(map(str, image.shape)), torch.get_num_threads()
    print(f'time of {size}, number of threads {threads}: {times}')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG', help='config of the trained model')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of the trained model')
    parser.add_argument(
        'out', metavar='OUT', help='file to write, NAME.safetensors, NAME.onnx or NAME.pt2'
    )
    parser.add_argument(
        '--format',
        choices=['safetensors', *FORMATS],
        help='format of OUT; default: by its suffix',
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='accept any batch size and images of any size of at least '
        + ', '.join(f'{size} x {size} ({task})' for task, size in MIN_SIZES.items()),
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='size of the images in pixels; default: the window, crop_size or input_size of the '
        "config, or the size of the paper's tables",
    )
    parser.add_argument(
        '--meta',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='meta data to add, such as scores and the licence; numbers and other JSON values are '
        'stored as such',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args()


@guarded
def main() -> None:
    """Export the checkpoint and print what was written."""
    args = parse_args()
    args.format = resolve_format(args)
    cfg = load_config(args.config, args.cfg_options)
    notes = parse_notes(args.meta)
    checkpoint = read_checkpoint(args.checkpoint)
    export = export_graph if args.format in FORMATS else export_weights
    export(args, cfg, notes, checkpoint)


if __name__ == '__main__':
    main()
