"""The command ``mmslak web``."""

import argparse
import importlib.util
import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

from ..console import guarded
from ..predict import Predictor
from ..predict.predict_command import model_arguments
from ..predict.predictor import DEFAULT_MODEL

#: Only this machine reaches it.
_HOST = '127.0.0.1'
#: Such variables could open the page to others, or files to the page.
_VARIABLES = 'GRADIO_'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        description='Show predictions and effective receptive fields in the browser. With CONFIG '
        'and CHECKPOINT trained models are used, with MODEL one that tools/deploy/export.py '
        f'wrote, and otherwise the model {DEFAULT_MODEL} of the package. Models for the same task '
        'are shown side by side.',
        usage='%(prog)s [options] [CONFIG CHECKPOINT | MODEL ...]',
    )
    found.add_argument(
        'models', nargs='*', metavar='MODEL', help='configs, each followed by its checkpoint'
    )
    found.add_argument(
        '--host', default=_HOST, metavar='H',
        help=f'address to listen on (default: {_HOST}, which only this machine reaches)',
    )  # fmt: skip
    found.add_argument(
        '--port', type=int, metavar='N', help='default: the first free one from 7860'
    )
    found.add_argument('--device', help='such as cuda:0 (default: a GPU if there is one)')
    found.add_argument(
        '--tile', type=int, metavar='N',
        help='segmentation: divide larger images into tiles of N x N pixels for the prediction',
    )  # fmt: skip
    found.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the configs, such as max_image_pixels=10000000',
    )  # fmt: skip
    return found


@guarded
def main() -> None:
    """Load the models, start the server, and wait until the user ends it."""
    args = parser().parse_args()
    models = split_models(args.models)
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ValueError(f'--port must be from 1 to 65535, got {args.port}')
    if importlib.util.find_spec('gradio') is None:
        raise ImportError(
            'the page needs gradio, which is not installed; install it with: '
            "pip install 'mmslak[web]'"
        )
    predictors = [
        Predictor(*model, device=args.device, options=args.cfg_options, tile=args.tile)
        for model in models
    ]
    for predictor in predictors:
        # Receptive fields need only the gradients with respect to the image.
        predictor.model.requires_grad_(False)
    ended = threading.Event()
    # The temporary directory is removed in any case.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix='mmslak-web-') as folder:
        named = dict(zip(names_of(models), predictors, strict=True))
        serve(named, args.host, args.port, folder, ended)


def split_models(arguments: Sequence[str]) -> list[list[str]]:
    """Separate the arguments of several models.

    Args:
        arguments (Sequence[str]): The positional arguments.

    Returns:
        list[list[str]]: The first arguments of a :class:`Predictor` for each model; those of the
        model of the package if there are none.

    Raises:
        ValueError: If one is not the name of a config or an exported model, or has no checkpoint.
    """
    left, models = list(arguments), []
    while left:
        count = model_arguments(left[0])
        if not count:
            raise ValueError(
                f'{left[0]} is neither a config nor an exported model: give CONFIG CHECKPOINT, or '
                f'a file of tools/deploy/export.py, or nothing for {DEFAULT_MODEL}'
            )
        if len(left) < count:
            raise ValueError(f'config {left[0]} needs a checkpoint: give CONFIG CHECKPOINT')
        models.append(left[:count])
        left = left[count:]
    return models or [[DEFAULT_MODEL]]


def names_of(models: Sequence[Sequence[str]]) -> list[str]:
    """Return a title for each model: its config, with its checkpoint or number if necessary."""
    names = [Path(model[0].rpartition('::')[2]).stem for model in models]
    if len(set(names)) < len(names):
        names = [
            ' '.join([name, *(Path(part).stem for part in model[1:])])
            for name, model in zip(names, models, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [f'{name} ({i})' for i, name in enumerate(names, 1)]
    return names


def serve(
    predictors: dict[str, Predictor],
    host: str,
    port: int | None,
    folder: str,
    ended: threading.Event,
) -> None:
    """Show models in the browser.

    Args:
        predictors (dict[str, Predictor]): The models by title.
        host (str): Address to listen on.
        port (int, optional): Default: the first free one from 7860.
        folder (str): Directory for the files of the page.
        ended (Event): Ends the server when it is set.

    Raises:
        OSError: If the port is not free.
    """
    for name in [name for name in os.environ if name.startswith(_VARIABLES)]:
        del os.environ[name]
    os.environ.update(GRADIO_ANALYTICS_ENABLED='False', GRADIO_TEMP_DIR=folder)
    # Gradio reads the environment when it is imported.
    from .browser_page import Model, start

    try:
        page, url = start([Model(*item) for item in predictors.items()], host, port)
    except OSError as error:
        where = 'the ports from 7860' if port is None else f'--port {port}'
        raise OSError(f'--host {host} cannot be used with {where}: give another') from error
    print(f'The page: {url} (Ctrl+C ends it)', flush=True)
    ended.wait()
    page.close(verbose=False)
