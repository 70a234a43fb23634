"""The warning about another number of images per step after resuming."""

from types import SimpleNamespace

import pytest

from mmslak.engine import StepImagesHook


def runner(processes, batch, steps, lines, resume=True):
    return SimpleNamespace(
        world_size=processes,
        train_dataloader=SimpleNamespace(batch_size=batch),
        optim_wrapper=SimpleNamespace(_accumulative_counts=steps),
        logger=SimpleNamespace(warning=lines.append),
        _resume=resume,
    )


@pytest.mark.parametrize(
    ('processes', 'batch', 'steps', 'resume', 'warned'),
    [
        (4, 2, 1, True, False),
        (2, 2, 2, True, False),
        (2, 2, 1, True, True),
        (2, 2, 1, False, False),
    ],
)
def test_a_resumed_training_warns_about_another_number(processes, batch, steps, resume, warned):
    checkpoint, lines = dict(meta={}), []
    StepImagesHook().before_save_checkpoint(runner(4, 2, 1, lines), checkpoint)
    assert checkpoint == dict(meta=dict(images_per_step=8))
    resumed, hook = runner(processes, batch, steps, lines, resume), StepImagesHook()
    hook.after_load_checkpoint(resumed, checkpoint)
    hook.before_train(resumed)
    assert bool(lines) == warned
    assert not warned or 'uses 4 images, but the resumed checkpoint was trained with 8' in lines[0]


def test_checkpoints_without_the_number_are_accepted():
    lines, hook = [], StepImagesHook()
    hook.after_load_checkpoint(runner(1, 2, 1, lines), dict(meta={}))
    hook.before_train(runner(1, 2, 1, lines))
    assert not lines
