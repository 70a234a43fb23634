"""Claiming a work directory: it can be written to, and no other training uses it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

#: File with the process of the last training. It stays, but only a running training locks it.
LOCK_FILE = '.lock'


@contextlib.contextmanager
def claimed(work_dir: str | Path, exclusive: bool = True) -> Iterator[None]:
    """Create a work directory, check that it can be written to, and lock it inside the context.

    The operating system releases the lock when the process ends, however it ends. Processes that
    load data do not inherit it.

    Args:
        work_dir (str or Path): The directory.
        exclusive (bool): Refuse a directory that another process has locked. A test may use the
            directory of a running training.

    Raises:
        ValueError: If it cannot be written to, or if another training uses it.
    """
    path = Path(work_dir) / LOCK_FILE
    new = not path.parent.exists()
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, 'a+'))
        except OSError as error:
            raise ValueError(
                f'work_dir {work_dir} cannot be written to ({error.strerror}); choose another '
                'directory with --work-dir'
            ) from None
        if exclusive:
            _lock(file, work_dir)
        try:
            yield
        finally:
            # A run that was refused leaves nothing.
            if new and path.parent.is_dir() and os.listdir(path.parent) == [LOCK_FILE]:
                path.unlink()
                path.parent.rmdir()


def _lock(file, work_dir: str | Path) -> None:
    try:
        # Unlike flock, a lock of lockf is not inherited by forked processes, which may outlive a
        # killed training for some seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read().strip() or 'another process'
        raise ValueError(
            f'work_dir {work_dir} is used by another training ({owner}); wait until it ends, or '
            'choose another directory with --work-dir'
        ) from None
    except OSError:
        # A file system without locks.
        return
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
