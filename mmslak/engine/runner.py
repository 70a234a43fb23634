"""MMEngine's runner, with a terminal for people."""

import logging
import re
import sys

from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner

from ..validation.images import BadImageError, check_images, no_image_left

# What MMEngine logs for the record; in the log file, but not on the terminal.
_RECORD_ONLY = re.compile(
    r'\s*-{20,}\nSystem environment|\s*Config:\n|Hooks will be executed|Exp name:'
    r'|Distributed training is not used|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias|Checkpoints will be saved to'
    r'|The prefix is not set in metric class'
)
# No value at all (detection), or no accuracy beside the IoU (segmentation).
_EMPTY_ROW = re.compile(r'^\|[^|]+((\|\s*nan\s*)+|\|[^|]+\|\s*nan\s*)\|$')


class ConsoleFilter(logging.Filter):
    """Keep what is only for the record off the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether ``record`` is for the terminal."""
        return not _RECORD_ONLY.match(record.getMessage())


class ConsoleFormatter(logging.Formatter):
    """Format for the terminal: time and message, tables without the rows that have no value."""

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record``; a level is named only where something is wrong."""
        lines = record.getMessage().strip('\n').split('\n')
        kept = [line for line in lines if not _EMPTY_ROW.match(line)]
        if len(kept) < len(lines):
            kept.append(f'({len(lines) - len(kept)} classes that do not occur are left out)')
        level = f'{record.levelname}: ' if record.levelno >= logging.WARNING else ''
        return f'{self.formatTime(record, "%H:%M:%S")}  {level}' + '\n'.join(kept)


class Runner(MMEngineRunner):
    """MMEngine's ``Runner`` with a quiet terminal.

    The log file holds all that MMEngine logs; the terminal what a person reads.
    """

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build MMEngine's logger and make its terminal handler readable."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stdout)
                handler.setFormatter(ConsoleFormatter())
                handler.addFilter(ConsoleFilter())
        return logger

    def build_dataloader(self, dataloader, seed: int | None = None, diff_rank_seed: bool = False):
        """Build a loader of data whose images are known to be there.

        Raises:
            BadImageError: If images are missing or damaged, unless the config's
                ``skip_bad_images`` is true, which leaves them out.
        """
        if isinstance(dataloader, dict) and isinstance(dataloader.get('dataset'), dict):
            try:
                dataset = DATASETS.build(dataloader['dataset'])
                if hasattr(dataset, 'full_init'):
                    dataset.full_init()
            except ValueError as error:
                # What NumPy says where MMEngine packs an empty list of images.
                if 'need at least one array' in str(error):
                    raise BadImageError(no_image_left(dataloader['dataset'])) from None
                raise
            check_images(dataset, bool(self.cfg.get('skip_bad_images')), self.logger)
            dataloader = dict(dataloader, dataset=dataset)
        return super().build_dataloader(dataloader, seed, diff_rank_seed)

    @property
    def iter(self) -> int:
        """Iterations trained so far; 0 where nothing trains.

        MMEngine builds the training loop and its data to answer, which MMSegmentation's
        drawing asks in every test.
        """
        return self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0
