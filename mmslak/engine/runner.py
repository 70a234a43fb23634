"""MMEngine's runner with a short log on the terminal, checked images and exact resuming."""

import logging
import re
import sys
from itertools import chain, repeat

from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    find_latest_checkpoint,
)
from mmengine.runner import Runner as MMEngineRunner
from mmengine.visualization import Visualizer
from torch import nn

from ..checkpoints import read_checkpoint
from ..validation.images import BadImageError, check_images, name_bad_images, no_image_left
from .hooks.checkpoint_fit import check_fit
from .hooks.exact_resume import POSITION, VALIDATED
from .hooks.stop_signal import ShieldedWorker, StopSignalHook
from .seeded_batches import SeededBatches, seed_batches

# Messages of MMEngine that go to the log file, but not to the terminal.
_LOG_FILE_ONLY = re.compile(
    r'\s*-{20,}\nSystem environment|\s*Config:\n|Hooks will be executed|Exp name:'
    r'|Distributed training is not used|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias|Checkpoints will be saved to'
    r'|The prefix is not set in metric class'
)
# A row of a table without any value (detection), or with an IoU but without an accuracy
# (segmentation): the class does not occur.
_EMPTY_ROW = re.compile(r'^\|[^|]+((\|\s*nan\s*)+|\|[^|]+\|\s*nan\s*)\|$')


class ConsoleFilter(logging.Filter):
    """Remove the messages that are only for the log file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is shown on the terminal."""
        return not _LOG_FILE_ONLY.match(record.getMessage())


class ConsoleFormatter(logging.Formatter):
    """Format messages for the terminal: time and text, and tables without empty rows."""

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record``. The level is shown only for warnings and errors."""
        lines = record.getMessage().strip('\n').split('\n')
        kept = [line for line in lines if not _EMPTY_ROW.match(line)]
        if len(kept) < len(lines):
            kept.append(f'({len(lines) - len(kept)} classes that do not occur are not shown)')
        level = f'{record.levelname}: ' if record.levelno >= logging.WARNING else ''
        return f'{self.formatTime(record, "%H:%M:%S")}  {level}' + '\n'.join(kept)


class Runner(MMEngineRunner):
    """MMEngine's ``Runner`` with a short log on the terminal, checked images and exact resuming.

    The log file contains everything that MMEngine logs. The terminal shows a summary. The random
    numbers of a batch depend only on the seed, the rank and the iteration. A resumed training skips
    the batches that were used, without loading them.
    """

    _log_is_lost = False
    #: Meta data of the checkpoint from which the training continues.
    _resumed: dict | None = None

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build MMEngine's logger with a filter and a short format for the terminal."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                # setStream would flush the old stream, which may be closed.
                handler.stream = sys.stdout
                handler.setFormatter(ConsoleFormatter())
                handler.addFilter(ConsoleFilter())
            elif isinstance(handler, logging.FileHandler):
                handler.handleError = lambda record: self._report_lost_log(sys.exc_info()[1])
        return logger

    def build_visualizer(self, visualizer=None) -> Visualizer:
        """Build MMEngine's visualiser, so that a full disk does not end a training."""
        visualizer = super().build_visualizer(visualizer)
        add_scalars = visualizer.add_scalars

        def add_scalars_if_possible(*args, **kwargs) -> None:
            try:
                add_scalars(*args, **kwargs)
            except OSError as error:
                self._report_lost_log(error)

        visualizer.add_scalars = add_scalars_if_possible
        return visualizer

    def _report_lost_log(self, error: BaseException | None) -> None:
        """Log once that lines of the log or curves cannot be written."""
        if not self._log_is_lost:
            self._log_is_lost = True
            self.logger.error(f'the log in {self.log_dir} cannot be written: {error}')

    def train(self) -> nn.Module:
        """Train, after checking that a checkpoint to resume fits the model, before data is read.

        Raises:
            ValueError: If it does not fit, naming a difference.
        """
        if self._resume and self._load_from is None:
            self._load_from = find_latest_checkpoint(self.work_dir)
        if self._resume and self._load_from:
            checkpoint = read_checkpoint(self._load_from)
            check_fit(checkpoint, self.model, str(self._load_from))
            self._resumed = checkpoint.get('meta', {})
            self._resume_seed()
        try:
            return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, StopSignalHook):
                    hook.release()

    def _resume_seed(self) -> None:
        """Use the seed of the checkpoint. MMEngine does so only after it has built the data."""
        saved, given = self._resumed.get('seed'), self._randomness_cfg.get('seed')
        if saved is None or saved == given:
            return
        if given is not None:
            self.logger.warning(
                f'randomness.seed={given} of the config is not used, because the checkpoint was '
                f'trained with {saved}'
            )
        self._randomness_cfg['seed'] = saved
        self.set_randomness(**self._randomness_cfg)

    def build_train_loop(self, loop) -> BaseLoop:
        """Build MMEngine's loop, which continues at the position of the checkpoint."""
        if isinstance(loop, BaseLoop):
            return loop
        loader = self.build_dataloader(
            self._train_dataloader, self.seed, self._randomness_cfg.get('diff_rank_seed', False)
        )
        batches = seed_batches(loader, (self.seed, self.rank), lambda: self.iter)
        resumed = batches is not None and POSITION in (self._resumed or {})
        if resumed:
            used, length = self._resumed[POSITION]
            # Another batch size or number of processes changes the length.
            skip = used * len(loader) // length
            batches.resume(self._resumed['iter'], skip)
        # MMEngine's loop takes the loader from here, and the scaling of the learning rate reads the
        # batch size from the config.
        config, self._train_dataloader = self._train_dataloader, loader
        try:
            loop = super().build_train_loop(loop)
        finally:
            self._train_dataloader = config
        if resumed:
            _skip_used(loop, batches, self._resumed, skip)
        return loop

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Call a hook, and repeat a validation that may have been interrupted."""
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train' and self._resumed is not None and self._validation_is_due():
            self.logger.info('Validating first, because the checkpoint does not contain the score')
            for hook in self.hooks:
                if isinstance(hook, CheckpointHook) and hook.last_ckpt is None:
                    # MMEngine writes this checkpoint again if the score is the best one.
                    hook.last_ckpt = self._load_from
            self.val_loop.run()

    def _validation_is_due(self) -> bool:
        """Return whether a validation is due at the iteration of the resumed checkpoint.

        MMEngine writes a checkpoint before the validation, and then once more if the score is the
        best one. Otherwise the validation may have been interrupted.
        """
        loop = self.train_loop
        if self.val_loop is None or self.message_hub.runtime_info.get(VALIDATED) == self.iter:
            return False
        if isinstance(loop, EpochBasedTrainLoop):
            done, end = loop.epoch, loop.max_epochs
            if self._resumed.get(POSITION, [0])[0]:
                return False
        elif isinstance(loop, IterBasedTrainLoop):
            done, end = loop.iter, loop.max_iters
        else:
            return False
        loop._decide_current_val_interval()
        return done >= max(loop.val_begin, 1) and (done % loop.val_interval == 0 or done == end)

    def build_dataloader(self, dataloader, seed: int | None = None, diff_rank_seed: bool = False):
        """Build a data loader after checking that its images exist and can be read.

        Raises:
            BadImageError: If images are missing or damaged (with ``skip_bad_images`` in the config
                they are skipped instead), or if no image is left.
        """
        if isinstance(dataloader, dict) and isinstance(dataloader.get('dataset'), dict):
            try:
                dataset = DATASETS.build(dataloader['dataset'])
                if hasattr(dataset, 'full_init'):
                    dataset.full_init()
            except ValueError as error:
                # NumPy's message if MMEngine packs an empty list of images.
                if 'need at least one array' in str(error):
                    raise BadImageError(no_image_left(dataloader['dataset'])) from None
                raise
            check_images(dataset, bool(self.cfg.get('skip_bad_images')), self.logger)
            name_bad_images(dataset)
            dataloader = dict(dataloader, dataset=dataset)
        loader = super().build_dataloader(dataloader, seed, diff_rank_seed)
        if getattr(loader, 'num_workers', 0) and not isinstance(
            loader.worker_init_fn, ShieldedWorker
        ):
            loader.worker_init_fn = ShieldedWorker(loader.worker_init_fn)
        return loader

    @property
    def iter(self) -> int:
        """Number of training iterations so far, 0 if there is no training.

        MMEngine's own property would build the training loop and its dataset when
        MMSegmentation's visualisation reads it in a test.
        """
        return self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0


def _skip_used(loop: BaseLoop, batches: SeededBatches, meta: dict, skip: int) -> None:
    """Let a loop continue behind the batches that were used.

    Args:
        loop (BaseLoop): Training loop, just built.
        batches (SeededBatches): Batch sampler, which skips the batches.
        meta (dict): Meta data of the checkpoint.
        skip (int): Number of batches.
    """
    if isinstance(loop, IterBasedTrainLoop):
        # How often a finite sampler has started again.
        iterator = loop.dataloader_iterator
        iterator._epoch = max(skip - 1, 0) // len(batches)
        # MMEngine skips as many items as there were iterations, its fork with a method.
        if hasattr(iterator, 'skip_iter'):
            iterator.skip_iter = lambda iterations: None
        else:
            loop.dataloader_iterator = chain(repeat(None, meta['iter']), iterator)
    elif isinstance(loop, EpochBasedTrainLoop):
        run_iter, epoch = loop.run_iter, meta['epoch']
        # A pass after the last epoch has its order. MMEngine sets that of each epoch itself.
        batches.set_epoch(max(epoch - 1, 0))
        # MMEngine counts the batches of each epoch from 0.
        loop.run_iter = lambda index, batch: run_iter(
            index + (skip if loop.epoch == epoch else 0), batch
        )
    else:
        batches.resume(0, 0)
