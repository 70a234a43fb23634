"""Checks that files named by annotation files lie in the directories of the config."""

import os
from collections.abc import Iterable

from .data_errors import AnnotationError


def check_inside(paths: Iterable, folders: Iterable, source: str) -> None:
    """Check that files lie in one of the directories that the config names.

    A config is written by the user, but an annotation file or a list of images may come from
    elsewhere. An absolute name or ``..`` in it could name any file of the machine. Only the text of
    the paths is compared, so symbolic links in a data directory are followed.

    Args:
        paths (Iterable): Paths of files. Entries that are not local paths are not checked.
        folders (Iterable): The directories; empty ones are left out. Without any, nothing is
            checked.
        source (str): The file that names them, for the message.

    Raises:
        AnnotationError: Naming the first file in another directory.
    """
    folders = [os.path.abspath(folder) for folder in folders if _is_local(folder)]
    starts = tuple(os.path.join(folder, '') for folder in folders)
    if not starts:
        return
    for path in paths:
        if _is_local(path) and not os.path.abspath(path).startswith(starts):
            raise AnnotationError(
                f'{source} names the file {path}, which is not in the data directory {folders[0]}; '
                'correct the name, or set data_root or data_prefix to a directory that contains it'
            )


def _is_local(path) -> bool:
    return isinstance(path, str) and bool(path) and '://' not in path
