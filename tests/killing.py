"""A hook that kills its training with SIGKILL, for configs that name it in ``custom_imports``."""

import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class Kill(Hook):
    """Kill the process at event number ``KILL_AT`` of the environment.

    An event is the start or the end of an iteration, an iteration of a validation, the moment when
    half of a checkpoint is written, or the one before or after it is moved into its place.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.left = int(os.environ.get('KILL_AT', 0))

    def before_train(self, runner):
        fsync, replace = os.fsync, os.replace

        def torn(file):
            if self.left == 1 and os.fstat(file).st_size > 1000:
                os.ftruncate(file, os.fstat(file).st_size // 2)
            self.event()
            fsync(file)

        def moved(*paths):
            self.event()
            replace(*paths)
            self.event()

        os.fsync, os.replace = torn, moved

    def before_train_iter(self, runner, *args, **kwargs):
        self.event()

    def after_train_iter(self, runner, *args, **kwargs):
        self.event()

    def before_val_iter(self, runner, *args, **kwargs):
        self.event()

    def event(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
