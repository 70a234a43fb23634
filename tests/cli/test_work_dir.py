"""A work directory that cannot be used is refused before any work."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest
from helpers import ROOT

from mmslak.cli.config import process_rank
from mmslak.cli.run import _earlier_training, run
from mmslak.cli.work_dir import claimed

# Like a training with a process that loads data and outlives a killed training for some time.
TRAINING = """
import os, sys, time
from mmslak.cli.work_dir import claimed
with claimed(sys.argv[1]):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.read()
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


@pytest.fixture
def training(tmp_path):
    """Start a process that uses ``tmp_path / 'work'``."""
    process = subprocess.Popen(
        [sys.executable, '-c', TRAINING, str(tmp_path / 'work')], text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    loading = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.kill(loading, signal.SIGKILL)
    process.stdin.close()
    process.stdout.close()


#: A config whose data does not exist.
CONFIG = str(ROOT / 'configs' / 'sample' / 'slak_nano_in1k.py')
NO_DATA = ['--cfg-options', 'data_root=/no/data']


def test_a_second_training_is_refused(tmp_path, training):
    """Also while a process that loaded data outlives the killed training."""
    work_dir = tmp_path / 'work'
    with pytest.raises(ValueError) as error:
        run('train', [CONFIG, '--work-dir', str(work_dir), *NO_DATA])
    owner = rf'work_dir {work_dir} is used by another training \(process {training.pid} on .*\); '
    assert re.match(owner, str(error.value))
    # A test may use it.
    with claimed(work_dir, exclusive=False):
        pass
    training.kill()
    training.wait()
    for _ in range(2):
        with claimed(work_dir):
            pass
    with claimed(work_dir):
        assert str(os.getpid()) in (work_dir / '.lock').read_text()


@pytest.mark.parametrize('task', ['train', 'test'])
@pytest.mark.parametrize(
    ('work_dir', 'reason'),
    [('/proc/x', 'No such file or directory'), ('{}/file', 'File exists'),
     ('{}/file/below', 'Not a directory')],
)  # fmt: skip
def test_a_directory_that_cannot_be_written_to(tmp_path, task, work_dir, reason):
    (tmp_path / 'file').write_text('')
    work_dir = work_dir.format(tmp_path)
    checkpoint = ['none'] if task == 'test' else []
    with pytest.raises(ValueError) as error:
        run(task, [CONFIG, *checkpoint, '--work-dir', work_dir, *NO_DATA])
    assert str(error.value) == (
        f'work_dir {work_dir} cannot be written to ({reason}); choose another directory with '
        '--work-dir'
    )


@pytest.mark.parametrize(
    ('launcher', 'key'), [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'), ('none', 'RANK')]
)
def test_only_the_first_process_claims_it(tmp_path, monkeypatch, launcher, key):
    monkeypatch.setenv(key, '1')
    assert process_rank(launcher) == (launcher != 'none')


def test_the_checkpoints_of_an_earlier_training_are_named(tmp_path):
    assert _earlier_training(tmp_path) == []
    for name in ('iter_90.pth', 'iter_200.pth', 'best_mIoU_iter_300.pth'):
        (tmp_path / name).write_bytes(b'')
    (note,) = _earlier_training(tmp_path)
    assert note.startswith(f'{tmp_path} contains the checkpoints of an earlier training, up to ')
    assert 'iter_200.pth' in note and '--resume' in note
