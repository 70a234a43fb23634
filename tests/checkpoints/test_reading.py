"""Reading checkpoint files safely, and errors for files that cannot be read."""

import argparse
import pickle

import pytest
import torch

from mmslak.checkpoints import (
    CheckpointError,
    UnsafeCheckpointError,
    read_checkpoint,
    weights_of,
)

CHECKPOINT = dict(model={f'{i}.weight': torch.ones(20, 20) for i in range(20)})


def test_files_that_cannot_be_read(tmp_path):
    file = tmp_path / 'c.pth'
    with pytest.raises(FileNotFoundError, match=r'c\.pth does not exist'):
        read_checkpoint(file)
    torch.save(dict(CHECKPOINT), file)
    whole = file.read_bytes()
    for part in (len(whole) // 2, 10, 100):
        file.write_bytes(whole[:part])
        with pytest.raises(CheckpointError, match='truncated or damaged') as error:
            read_checkpoint(file)
        assert '\n' not in str(error.value)
    torch.save(dict(CHECKPOINT), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        read_checkpoint(file)
    with pytest.raises(CheckpointError, match='is a directory'):
        read_checkpoint(tmp_path)
    others = (b'', b'<html>not found</html>', b'\x89PNG\r\n\x1a\n', pickle.dumps(dict(a=1)))
    for content in others:
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match='not a checkpoint') as error:
            read_checkpoint(file)
        assert '\n' not in str(error.value)
    torch.save([1, 2], file)
    with pytest.raises(CheckpointError, match='must contain a dict of weights, got a list'):
        read_checkpoint(file)


class CreatesFile:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('zipped', [True, False])
def test_other_objects_are_not_unpickled(zipped, tmp_path):
    file, trace = tmp_path / 'c.pth', tmp_path / 'trace'
    torch.save(dict(CHECKPOINT, x=CreatesFile(trace)), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match=r'\.open.*--trust'):
        read_checkpoint(file)
    assert not trace.exists()


def test_trusted_objects_are_unpickled(tmp_path):
    file = tmp_path / 'c.pth'
    torch.save(dict(CHECKPOINT, args=argparse.Namespace(lr=1)), file)
    with pytest.raises(UnsafeCheckpointError, match=r'argparse\.Namespace'):
        read_checkpoint(file)
    assert read_checkpoint(file, trust=True)['args'].lr == 1


@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(state_dict=weights, meta={})])
def test_weights_of_a_checkpoint(wrap):
    weights = {'module.a': torch.ones(1), 'b.module.c': torch.zeros(2)}
    found = weights_of(wrap(weights))
    assert list(found) == ['a', 'b.module.c']
    assert found['a'] is weights['module.a']
