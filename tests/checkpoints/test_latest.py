"""The checkpoint from which an interrupted training continues."""

import pytest
import torch

from mmslak.checkpoints import CheckpointError, latest_checkpoint


def save(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        torch.save(dict(state_dict=dict(x=torch.ones(50))), folder / name)


def test_the_named_checkpoint_comes_first(tmp_path):
    save(tmp_path, 'iter_2.pth', 'iter_10.pth', 'best_mIoU_iter_99.pth')
    (tmp_path / 'last_checkpoint').write_text(f'{tmp_path}/iter_2.pth\n')
    assert latest_checkpoint(tmp_path) == (str(tmp_path / 'iter_2.pth'), [])


@pytest.mark.parametrize('pointer', [None, '', 'iter_12.pth', '/gone/iter_12.pth'])
def test_without_the_named_one_the_largest_number_is_used(tmp_path, pointer):
    save(tmp_path, 'iter_2.pth', 'iter_10.pth', 'best_mIoU_iter_99.pth', 'averaged.pth')
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    found, notes = latest_checkpoint(tmp_path)
    assert found == str(tmp_path / 'iter_10.pth')
    assert len(notes) == bool(pointer)
    if pointer:
        assert f'{pointer} does not exist; resuming from {found} instead' in notes[0]


@pytest.mark.parametrize('keep', [0, 10, 1000])
def test_a_torn_checkpoint_is_skipped(tmp_path, keep):
    save(tmp_path, 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth')
    torn = tmp_path / 'epoch_3.pth'
    torn.write_bytes(torn.read_bytes()[:keep])
    (tmp_path / 'last_checkpoint').write_text(str(torn))
    found, notes = latest_checkpoint(tmp_path)
    assert found == str(tmp_path / 'epoch_2.pth')
    assert len(notes) == 1 and 'epoch_3.pth is' in notes[0] and 'resuming from' in notes[0]


def test_a_moved_directory(tmp_path):
    save(tmp_path, 'iter_5.pth', 'iter_7.pth')
    (tmp_path / 'last_checkpoint').write_text('/before/the/move/iter_5.pth')
    assert latest_checkpoint(tmp_path) == (str(tmp_path / 'iter_5.pth'), [])


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'found no checkpoint in .*; pass its path'):
        latest_checkpoint(tmp_path)
    (tmp_path / 'iter_1.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match=r'that can be read: .*iter_1\.pth is not'):
        latest_checkpoint(tmp_path)
