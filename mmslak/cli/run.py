"""Training and testing from the command line: ``mmslak`` and the scripts of ``tools/``."""

import argparse
import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_main_process

from ..checkpoints import (
    SAFETENSORS,
    DownloadError,
    find_checkpoint,
    has_checkpoint,
    latest_checkpoint,
    numbered_checkpoints,
)
from ..console import TRACEBACK
from ..engine.hooks.configured import add_default_hooks
from ..engine.runner import Runner
from ..validation.coco_annotations import read_annotations
from ..validation.layouts import check_datasets
from .config import (
    default_work_dir,
    enable_amp,
    enable_lr_scaling,
    enable_tta,
    load_config,
    prepare,
    process_count,
    process_rank,
    set_effective_batch,
)
from .config_check import check_config
from .data_config import OPTION, check_data, configs_as_data
from .explain import explained
from .pictures import PictureHook
from .processes import shared_failure
from .work_dir import claimed

#: Value of the argument CHECKPOINT for testing an untrained network.
UNTRAINED = 'none'
_AUTHORS = 'https://github.com/VITA-Group/SLaK'
_SCORE_SUFFIX, _PREDICTION_SUFFIXES = '.json', ('.pkl', '.pickle')


class _OptionAction(DictAction):
    """MMEngine's parser of ``KEY=VALUE``, with a message for a text that is not of this form."""

    def __call__(self, parser, namespace, values, option_string=None):
        for text in values:
            if not all(text.partition('=')):
                parser.error(f'{option_string} needs KEY=VALUE without spaces, got {text!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string}: {error}')


def argument_parser(task: str) -> argparse.ArgumentParser:
    """Return the parser of the command line of ``task``, ``train`` or ``test``."""
    parser = argparse.ArgumentParser(
        description='Train a config of this package, or any config of a toolbox.'
        if task == 'train'
        else 'Evaluate a checkpoint; draw pictures and write predictions on request.'
    )
    parser.add_argument(
        'config',
        help='config file, or the name of a config of this package, such as '
        'upernet_slak_nano_camvid',
    )
    if task == 'train':
        _add_training_options(parser)
    else:
        _add_test_options(parser)
    parser.add_argument(
        '--skip-bad-images',
        action='store_true',
        help='decode every image first, skip missing and damaged ones, and report their number',
    )
    parser.add_argument('--work-dir', metavar='D', help='directory for logs and checkpoints')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_OptionAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as data_root=PATH',
    )
    parser.add_argument(
        OPTION,
        action='store_true',
        help='accept only configs in YAML or JSON, and run no code from them',
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    # torch.distributed.launch passes this option; torchrun does not.
    parser.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='resume from PATH, or from the last checkpoint in the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size, relative to that of the config '
        '(auto_scale_lr.base_batch_size)',
    )
    parser.add_argument(
        '--effective-batch',
        type=int,
        metavar='N',
        help='images per optimiser step, over all processes, by accumulating gradients',
    )


def _add_test_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'checkpoint',
        help='checkpoint of a training, name of a model in the package, or "none" for the '
        'untrained network',
    )
    parser.add_argument(
        '--show-dir', metavar='D', help='draw images, their labels and predictions into directory D'
    )
    parser.add_argument(
        '--out',
        metavar='F',
        help='write the results. F.pkl: all predictions. Detection: F.json for boxes and masks '
        'in COCO format (the scores are in a JSON file in the work directory). Other tasks: '
        'F.json for the scores, any other name for a directory of predictions in the format '
        'of the dataset (segmentation: label maps)',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: several scales and flips'
    )


def run(task: str, arguments: list[str] | None = None) -> dict:
    """Run ``task`` as its command line does, and log where the results are.

    Args:
        task (str): ``train`` or ``test``.
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        dict: The scores of a test, or the checkpoints and the best score of a training.
    """
    args = argument_parser(task).parse_args(arguments)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.debug:
        os.environ[TRACEBACK] = '1'
    with configs_as_data() if args.no_exec_config else contextlib.nullcontext():
        return _run_config(task, args)


def _run_config(task: str, args: argparse.Namespace) -> dict:
    cfg = load_config(args.config, args.cfg_options)
    if args.no_exec_config:
        check_data(cfg.to_dict())
    add_default_hooks(cfg)
    if task == 'train' and args.amp:
        # Before the check, because the options of mixed precision belong to this wrapper.
        enable_amp(cfg)
    check_config(cfg, task)
    cfg.skip_bad_images = args.skip_bad_images
    cfg.work_dir = args.work_dir or default_work_dir(cfg, args.config)
    # The other processes of this run share the directory.
    first = process_rank(args.launcher) == 0
    with claimed(cfg.work_dir, task == 'train') if first else contextlib.nullcontext():
        return _run(task, args, cfg)


def _run(task: str, args: argparse.Namespace, cfg: Config) -> dict:
    notes = _set_up_training(cfg, args) if task == 'train' else _set_up_test(cfg, args)
    # MMEngine looks up visualisers by name; a second run in this process needs a new one.
    cfg.get('visualizer', {}).pop('name', None)
    prepare(cfg, args.launcher)
    if task == 'test' or cfg.get('resume'):
        cfg.default_hooks.checkpoint_fit = dict(type='mmslak.CheckpointFitHook')

    runner = None
    with shared_failure():
        try:
            runner = Runner.from_cfg(cfg)
            log = runner.logger
            log.info(f'Config, environment and full log: {runner.log_dir}')
            for note in notes:
                log.warning(note)
            if task == 'train':
                _warn_untrained_backbone(cfg, log)
                runner.train()
                return _report_training(runner, log)
            if args.show_dir:
                runner.register_hook(PictureHook(cfg, args.show_dir))
            return _report_test(args, runner.test(), log, _is_detection(cfg))
        except Exception as error:
            explanation = explained(error, runner and runner.model)
            if explanation is error:
                raise
            raise explanation from error


def _set_up_training(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Check files and data, apply the options of training, and return notes to log."""
    _check_weights(cfg)
    notes = check_datasets(cfg, ('train', 'val'))
    if args.effective_batch is not None:
        set_effective_batch(cfg, args.effective_batch, process_count(args.launcher))
    if args.auto_scale_lr:
        enable_lr_scaling(cfg)
    return notes + _set_resume(cfg, args.resume)


def _check_weights(cfg: Config) -> None:
    """Check that the weights which the config names exist, because reading the data takes longer.

    Raises:
        FileNotFoundError: Naming the key and the file.
    """
    named = {'load_from': cfg.get('load_from'), **dict(_pretrained(cfg.model, 'model'))}
    for key, checkpoint in named.items():
        if not isinstance(checkpoint, str):
            continue
        try:
            find_checkpoint(checkpoint)
        except FileNotFoundError as error:
            hint = f'; the weights of the authors of SLaK are linked at {_AUTHORS}'
            if key == 'load_from' or isinstance(error, DownloadError):
                hint = ''
            raise FileNotFoundError(f'{key}: {error}{hint}') from None


def _pretrained(node, path: str) -> Iterator[tuple[str, str]]:
    """Yield the checkpoints of the initialisers in a part of the config, with their keys."""
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] == 'Pretrained':
            yield f'{path}.checkpoint', node.get('checkpoint')
        items = node.items()
    else:
        items = enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        yield from _pretrained(value, f'{path}.{key}')


def _set_up_test(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Check the data, apply the options of testing to the config, and return notes to log."""
    if args.checkpoint != UNTRAINED:
        find_checkpoint(args.checkpoint)
    notes = check_datasets(cfg, ('test',))
    cfg.load_from = None if args.checkpoint == UNTRAINED else args.checkpoint
    cfg.resume = False
    if args.out:
        _write_predictions(cfg, args.out)
    if args.tta:
        enable_tta(cfg)
    return notes


def _set_resume(cfg: Config, resume: str | None) -> list[str]:
    """Set the checkpoint from which the training continues, and return notes to log."""
    if int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0)) > 0:
        if resume not in (None, 'auto'):
            raise ValueError(
                f'--resume {resume} cannot be combined with --max-restarts, because a restart '
                'continues from the last checkpoint in the work directory; use --resume alone'
            )
        if not has_checkpoint(cfg.work_dir):
            return []
        resume = 'auto'
    if resume is None:
        # A config of the user may set resume itself.
        return [] if cfg.get('resume') else _earlier_training(cfg.work_dir)
    cfg.resume = True
    notes = []
    if resume == 'auto':
        cfg.load_from, notes = latest_checkpoint(cfg.work_dir)
    else:
        if find_checkpoint(resume).endswith(SAFETENSORS):
            raise ValueError(
                f'--resume needs a checkpoint of a training, but {resume} has only weights and '
                f'masks; start a training from them with --cfg-options load_from={resume}'
            )
        cfg.load_from = resume
    return notes


def _earlier_training(work_dir: str) -> list[str]:
    """Return a note if the work directory contains the checkpoints of another training."""
    found = numbered_checkpoints(work_dir)
    if not found:
        return []
    return [
        f'{work_dir} contains the checkpoints of an earlier training, up to {found[0].name}; this '
        'training starts at iteration 0 and overwrites those of the same names. To continue the '
        'earlier one, add --resume; to keep it, choose another directory with --work-dir'
    ]


def _is_detection(cfg: Config) -> bool:
    return cfg.get('default_scope') == 'mmdet'


def _write_predictions(cfg: Config, out: str) -> None:
    suffix = Path(out).suffix
    if suffix == _SCORE_SUFFIX and not _is_detection(cfg):
        return
    if suffix == _SCORE_SUFFIX:
        writer = dict(type='mmslak.DetectionResults', out_file=out, category_ids=_categories(cfg))
    elif suffix in _PREDICTION_SUFFIXES:
        writer = dict(type='DumpResults', out_file_path=out)
    if suffix in (_SCORE_SUFFIX, *_PREDICTION_SUFFIXES):
        metrics = cfg.test_evaluator
        metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
        cfg.test_evaluator = [*metrics, ConfigDict(writer)]
    elif cfg.get('default_scope') == 'mmseg':
        cfg.test_evaluator.update(output_dir=out)
    else:
        raise ValueError(f'--out must end with .json or .pkl for this task, got {out!r}')


def _categories(cfg: Config) -> list[int] | None:
    """Return the category ids if the test data has an annotation file in COCO format."""
    dataset = cfg.test_dataloader.dataset
    file = Path(dataset.get('data_root') or '') / (dataset.get('ann_file') or '')
    if file.suffix != '.json' or not file.is_file():
        return None
    classes = (dataset.get('metainfo') or {}).get('classes')
    # Without a class list the dataset has COCO's classes, which check_datasets has compared.
    found = read_annotations(file)['categories']
    return [item['id'] for item in found if classes is None or item['name'] in classes]


def _warn_untrained_backbone(cfg: Config, log: logging.Logger) -> None:
    backbone = cfg.model.get('backbone')
    sample = Path(cfg.filename or '').parent.name == 'sample'
    # A distilled classifier has a student in place of a backbone.
    if backbone is None or sample or cfg.get('load_from') or cfg.get('resume'):
        return
    if not backbone.get('init_cfg'):
        log.info(
            'The backbone is initialised randomly. To start from pre-trained weights: '
            '--cfg-options model.backbone.init_cfg.type=Pretrained '
            'model.backbone.init_cfg.checkpoint=FILE'
        )


def _report_training(runner, log: logging.Logger) -> dict:
    info = runner.message_hub.runtime_info
    lines = [f'Done. All files are in {runner.work_dir}']
    if info.get('last_ckpt'):
        lines.append(f'  last checkpoint   {info["last_ckpt"]}')
    if info.get('best_ckpt'):
        lines.append(f'  best checkpoint   {info["best_ckpt"]} (score {info["best_score"]:.4g})')
    lines.append(f'  log and config    {runner.log_dir}')
    lines.append(f'  curves            tensorboard --logdir {runner.work_dir}')
    log.info('\n'.join(lines))
    best = info.get('best_score')
    return dict(
        last_ckpt=info.get('last_ckpt'),
        best_ckpt=info.get('best_ckpt'),
        best_score=None if best is None else float(best),
    )


def _report_test(
    args: argparse.Namespace, metrics: dict, log: logging.Logger, detection: bool
) -> dict:
    scores = {name: float(value) for name, value in metrics.items()}
    lines = [f'Tested {args.checkpoint}:']
    # The log already shows a table of the scores of each class.
    lines += [
        f'  {name:<21} {value:.4g}'
        for name, value in scores.items()
        if not name.endswith('_precision')
    ]
    scores_only = args.out and Path(args.out).suffix == _SCORE_SUFFIX and not detection
    if scores_only and is_main_process():
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(scores, indent=2) + '\n')
    if args.show_dir:
        lines.append(f'  pictures          {args.show_dir}')
    if args.out:
        lines.append(f'  results           {args.out}')
    log.info('\n'.join(lines))
    return scores
