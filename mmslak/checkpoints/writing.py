"""Writing files so that a crash leaves either the old file or the whole new one."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


def write_atomically(content: bytes, path: str | Path) -> None:
    """Write a file next to its place, wait until it is on the disk, and move it there.

    Args:
        content (bytes): Content of the file.
        path (str or Path): File to write; its directory is created. If writing fails, a file that
            was there is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    # The new name is in the directory, which is written separately.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class AtomicLocalBackend(LocalBackend):
    """MMEngine's backend for local files, with which it saves checkpoints, made atomic."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes with :func:`write_atomically`."""
        write_atomically(obj, filepath)


# MMEngine chooses a backend by the beginning of the path. The empty one is that of local files.
register_backend('local', AtomicLocalBackend, force=True, prefixes='')
