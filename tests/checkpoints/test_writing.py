"""Files are whole or absent."""

import os

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint

from mmslak.checkpoints import AtomicLocalBackend, read_checkpoint, write_atomically


def test_mmengine_saves_checkpoints_atomically(tmp_path):
    assert isinstance(get_file_backend(str(tmp_path)), AtomicLocalBackend)
    file = tmp_path / 'new' / 'iter_1.pth'
    save_checkpoint(dict(state_dict=dict(x=torch.ones(2))), str(file))
    assert read_checkpoint(file)['state_dict']['x'].tolist() == [1, 1]
    assert os.listdir(file.parent) == ['iter_1.pth']
    # The permissions are those of the umask.
    (tmp_path / 'other').write_bytes(b'')
    assert file.stat().st_mode == (tmp_path / 'other').stat().st_mode


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_the_old_file_survives_a_failure(step, tmp_path, monkeypatch):
    file = tmp_path / 'a'
    write_atomically(b'old', file)

    def fail(*arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(f'mmslak.checkpoints.writing.os.{step}', fail)
    with pytest.raises(OSError, match='No space left'):
        write_atomically(b'new', file)
    assert file.read_bytes() == b'old' and os.listdir(tmp_path) == ['a']


def test_nothing_is_visible_before_the_file_is_whole(tmp_path, monkeypatch):
    seen = []
    replace = os.replace

    def watch(source, target):
        seen.append((os.path.exists(target), os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr('mmslak.checkpoints.writing.os.replace', watch)
    write_atomically(b'x' * 1000, tmp_path / 'a')
    assert seen == [(False, 1000)]
