"""The last checkpoint of a resumed training equals that of an uninterrupted one."""

import os
import random
import signal

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, METRICS
from small_training import Call, SmallImages, small_runner
from states import assert_same_state

#: Nine batches of 2. The last one is smaller.
IMAGES = 17


@DATASETS.register_module(force=True)
class AugmentedImages(SmallImages):
    """Random images with noise from each of the three generators."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        noise = torch.rand(3, 1, 1) + random.random() + float(np.random.rand())
        return dict(item, inputs=item['inputs'] + noise)


@METRICS.register_module(force=True)
class SomeScore(BaseMetric):
    """A score that depends on the weights. The validation number ``fail`` is interrupted."""

    done, fail = 0, None

    def process(self, data_batch, data_samples):
        self.results.append(float(sum(scores.sum() for scores in data_samples)))

    def compute_metrics(self, results):
        SomeScore.done += 1
        if SomeScore.done == SomeScore.fail:
            raise KilledError
        return dict(score=sum(results))


class KilledError(Exception):
    """Stands for the end of a process."""


def killed(runner):
    raise KilledError


def terminated(runner):
    os.kill(os.getpid(), signal.SIGTERM)


def train(
    work_dir,
    by_epoch=True,
    workers=0,
    persistent=False,
    sampler=None,
    accumulate=1,
    checkpoint=None,
    seed=1,
    resume=False,
    custom=(),
):
    """Train for three passes with augmentation, dropout, an average and validations."""

    def loader(kind, data='AugmentedImages'):
        return dict(
            batch_size=2, num_workers=workers, persistent_workers=persistent,
            dataset=dict(type=data, images=IMAGES),
            sampler=dict(type=kind, shuffle=True), collate_fn=dict(type='default_collate'),
        )  # fmt: skip

    sampler = sampler or ('DefaultSampler' if by_epoch else 'InfiniteSampler')
    length = dict(max_epochs=3, val_interval=1) if by_epoch else dict(max_iters=27, val_interval=10)
    best = dict(type='CheckpointHook', save_best='score', rule='less')
    runner = small_runner(
        work_dir, by_epoch=by_epoch, custom=custom,
        optim=dict(accumulative_counts=accumulate),
        hooks=dict(
            checkpoint=dict(
                best, **(checkpoint or dict(by_epoch=by_epoch, interval=1 if by_epoch else 5))
            ),
            ema=dict(type='EMAHook', update_buffers=True),
            sparsity=dict(
                type='mmslak.DynamicSparsityHook', allocation='erk', sparsity=0.5,
                targets=dict(include=['*']), update=dict(every=4, rate=0.4, schedule='constant'),
            ),
        ),
        train_dataloader=loader(sampler),
        train_cfg=dict(by_epoch=by_epoch, **length),
        val_cfg=dict(), val_dataloader=loader('DefaultSampler', 'SmallImages'),
        val_evaluator=dict(type='SomeScore'),
        model=dict(type='SmallNetwork', dropout=0.5),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=20, by_epoch=False)],
        randomness=dict(seed=seed), resume=resume,
    )  # fmt: skip
    runner.train()
    return runner


def interrupted_and_resumed(work_dir, at, how=killed, error=KilledError, **options):
    """Train until iteration ``at``, resume, and return the number of iterations after resuming."""
    with pytest.raises(error):
        train(work_dir, custom=[Call(at, how)], **options)
    count = Count()
    train(work_dir, resume=True, custom=[count], **options)
    return count.seen


class Count(Hook):
    """Count the iterations of this process."""

    seen = 0

    def after_train_iter(self, runner, *args, **kwargs):
        self.seen += 1


@pytest.fixture(autouse=True)
def no_failing_validation():
    SomeScore.done, SomeScore.fail = 0, None


def every(interval):
    """Return settings of checkpoints that are counted by iterations."""
    return dict(by_epoch=False, interval=interval)


CASES = dict(
    # Options, last checkpoint, iteration of the interruption, iterations after resuming.
    epochs=(dict(), 'epoch_3', 14, 18),
    # In the middle of an epoch, and between two steps of the optimiser.
    in_an_epoch=(dict(checkpoint=every(5), accumulate=2), 'iter_27', 17, 12),
    # After the last iteration of an epoch, before its end.
    end_of_an_epoch=(dict(checkpoint=every(9)), 'iter_27', 20, 9),
    iterations=(dict(by_epoch=False), 'iter_27', 24, 7),
    # A sampler that the loop starts again, in a pass and after one.
    passes=(dict(by_epoch=False, sampler='DefaultSampler'), 'iter_27', 13, 17),
    end_of_a_pass=(
        dict(by_epoch=False, sampler='DefaultSampler', checkpoint=every(9)), 'iter_27', 20, 9
    ),
)  # fmt: skip
LOADING = {'0': (0, False), '2': (2, False), 'persistent': (2, True)}
FAST = {('epochs', 'persistent'), ('in_an_epoch', '2'), ('iterations', '0')}


@pytest.mark.parametrize(
    ('case', 'loading'),
    [
        pytest.param(case, loading, marks=() if (case, loading) in FAST else pytest.mark.slow)
        for case in CASES
        for loading in LOADING
    ],
)
def test_resumed_equals_uninterrupted(tmp_path, case, loading):
    options, last, at, left = CASES[case]
    workers, persistent = LOADING[loading]
    train(tmp_path / 'whole', **options)
    # The number of workers changes nothing either.
    options = dict(options, workers=workers, persistent=persistent)
    assert interrupted_and_resumed(tmp_path / 'cut', at, **options) == left
    assert_same_state(tmp_path / 'whole' / f'{last}.pth', tmp_path / 'cut' / f'{last}.pth')


def test_stopped_by_a_signal_in_an_epoch_and_without_a_seed_in_the_config(tmp_path):
    left = interrupted_and_resumed(tmp_path / 'cut', 12, terminated, SystemExit, seed=None)
    assert left == 27 - 12
    seed = torch.load(tmp_path / 'cut/stopped.pth', weights_only=True)['meta']['seed']
    train(tmp_path / 'whole', seed=seed)
    assert_same_state(tmp_path / 'whole/epoch_3.pth', tmp_path / 'cut/epoch_3.pth')


@pytest.mark.parametrize('number', [2, 3])
def test_an_interrupted_validation_is_repeated(tmp_path, number):
    """The one in the middle, and the one after the last epoch."""
    train(tmp_path / 'whole')
    SomeScore.done, SomeScore.fail = 0, number
    with pytest.raises(KilledError):
        train(tmp_path / 'cut')
    SomeScore.done, SomeScore.fail = 0, None
    resumed = train(tmp_path / 'cut', resume=True)
    assert SomeScore.done == 4 - number
    assert resumed.message_hub.get_info('validated_iter') == 27
    assert_same_state(tmp_path / 'whole/epoch_3.pth', tmp_path / 'cut/epoch_3.pth')
    best = [next((tmp_path / name).glob('best_*')).name for name in ('whole', 'cut')]
    assert best[0] == best[1]
