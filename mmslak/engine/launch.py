"""From a command line to a run: what ``tools/train.py`` and ``tools/test.py`` share."""

import argparse
import functools
import json
import logging
import os
import sys
import warnings
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

from ..datasets.checks import check_datasets
from .config import default_work_dir, enable_amp, enable_tta, load_config, prepare

_SCORE_SUFFIX, _PREDICTION_SUFFIXES = '.json', ('.pkl', '.pickle')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', metavar='D', help='folder for logs and checkpoints')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as data_root=PATH',
    )
    # torch.distributed.launch passes it; torchrun does not.
    parser.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def guarded(main):
    """Turn what a user can put right into one clear message, without a traceback."""

    @functools.wraps(main)
    def run():
        warnings.filterwarnings('ignore', category=UserWarning)
        warnings.filterwarnings('ignore', category=FutureWarning)
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        try:
            main()
        except (ValueError, FileNotFoundError, ImportError) as error:
            if os.environ.get('MMSLAK_TRACEBACK'):
                raise
            print(f'error: {error}', file=sys.stderr)
            print('(MMSLAK_TRACEBACK=1 shows where)', file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print('\ninterrupted; --resume goes on from the last checkpoint', file=sys.stderr)
            sys.exit(130)

    return run


def load(args: argparse.Namespace) -> Config:
    """Load and check the config of a command line, before anything expensive starts."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or default_work_dir(cfg, args.config)
    return cfg


def start(cfg: Config, args: argparse.Namespace, task: str):
    """Run ``task``, ``train`` or ``test``, and print where everything went.

    Returns:
        Runner: The runner, after its work.
    """
    if task == 'train':
        check_datasets(cfg, ('train', 'val'))
        if args.amp:
            enable_amp(cfg)
        _set_resume(cfg, args.resume)
    else:
        _require_file(args.checkpoint)
        check_datasets(cfg, ('test',))
        cfg.load_from, cfg.resume = args.checkpoint, False
        if args.show_dir:
            _draw_into(cfg, args.show_dir)
        if args.out:
            _write_predictions(cfg, args.out)
        if args.tta:
            enable_tta(cfg)
    prepare(cfg, args.launcher)
    if task == 'test' or cfg.get('resume'):
        cfg.default_hooks.checkpoint_fit = dict(type='mmslak.CheckpointFitHook')

    # Toolboxes take seconds to import; what can be wrong above is told before that.
    from .runner import Runner

    runner = Runner.from_cfg(cfg)
    log = runner.logger
    log.info(f'Config, environment and full log: {runner.log_dir}')
    if task == 'train':
        _warn_untrained_backbone(cfg, log)
        runner.train()
        _report_training(runner, log)
    else:
        metrics = runner.test()
        _report_test(args, metrics, log)
    return runner


def _require_file(path: str) -> None:
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is None:
        return
    cfg.resume = True
    if resume == 'auto':
        cfg.load_from = None
        if not (Path(cfg.work_dir) / 'last_checkpoint').is_file():
            raise FileNotFoundError(
                f'--resume found no checkpoint in {cfg.work_dir}: give its path, or the '
                f'--work-dir that the stopped run had'
            )
    else:
        _require_file(resume)
        cfg.load_from = resume


def _draw_into(cfg: Config, folder: str) -> None:
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise ValueError('--show-dir needs default_hooks.visualization in the config')
    hook.update(draw=True, interval=1)
    # Only pictures go there, and right there: event files belong to training.
    cfg.visualizer.vis_backends = [
        dict(type='LocalVisBackend', save_dir=folder, img_save_dir='.')
    ]


def _write_predictions(cfg: Config, out: str) -> None:
    suffix = Path(out).suffix
    if suffix == _SCORE_SUFFIX:
        return
    if suffix in _PREDICTION_SUFFIXES:
        metrics = cfg.test_evaluator
        metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
        cfg.test_evaluator = [*metrics, ConfigDict(type='DumpResults', out_file_path=out)]
    elif cfg.get('default_scope') == 'mmseg':
        cfg.test_evaluator.update(output_dir=out)
    else:
        raise ValueError(f'--out must end in .json or .pkl for this task, got {out!r}')


def _warn_untrained_backbone(cfg: Config, log: logging.Logger) -> None:
    backbone = cfg.model.get('backbone', {})
    sample = 'sample' in str(cfg.get('data_root', ''))
    if not (backbone.get('init_cfg') or cfg.get('load_from') or cfg.get('resume') or sample):
        log.info(
            'The backbone starts untrained. To start from a pre-trained one: --cfg-options '
            'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE'
        )


def _report_training(runner, log: logging.Logger) -> None:
    info = runner.message_hub.runtime_info
    lines = ['Done. Everything is in ' + runner.work_dir]
    if info.get('last_ckpt'):
        lines.append(f'  last checkpoint   {info["last_ckpt"]}')
    if info.get('best_ckpt'):
        lines.append(f'  best checkpoint   {info["best_ckpt"]} (score {info["best_score"]:.4g})')
    lines.append(f'  log and config    {runner.log_dir}')
    lines.append(f'  curves            tensorboard --logdir {runner.work_dir}')
    log.info('\n'.join(lines))


def _report_test(args: argparse.Namespace, metrics: dict, log: logging.Logger) -> None:
    lines = [f'Tested {args.checkpoint}:']
    lines += [f'  {name:<17} {value:.4g}' for name, value in metrics.items()]
    if args.out and Path(args.out).suffix == _SCORE_SUFFIX:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        scores = {name: float(value) for name, value in metrics.items()}
        Path(args.out).write_text(json.dumps(scores, indent=2) + '\n')
    if args.show_dir:
        lines.append(f'  pictures          {args.show_dir}')
    if args.out:
        lines.append(f'  results           {args.out}')
    log.info('\n'.join(lines))
