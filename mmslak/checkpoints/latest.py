"""The checkpoint from which an interrupted training continues."""

import re
from pathlib import Path

from .errors import CheckpointError
from .reading import read_checkpoint

#: Names that MMEngine gives to the checkpoints of a training.
_NAME = re.compile(r'(?:iter|epoch)_(\d+)\.pth')
#: File of MMEngine with the path of the last checkpoint.
_POINTER = 'last_checkpoint'


def has_checkpoint(work_dir: str | Path) -> bool:
    """Return whether a training has saved a checkpoint in a work directory, even a damaged one."""
    return (Path(work_dir) / _POINTER).is_file() or bool(numbered_checkpoints(work_dir))


def numbered_checkpoints(work_dir: str | Path) -> list[Path]:
    """Return the files ``iter_N.pth`` and ``epoch_N.pth`` in a directory, from the largest N."""
    found = [(m, p) for p in Path(work_dir).glob('*.pth') if (m := _NAME.fullmatch(p.name))]
    found.sort(key=lambda item: int(item[0][1]), reverse=True)
    return [path for _, path in found]


def latest_checkpoint(work_dir: str | Path) -> tuple[str, list[str]]:
    """Return the newest checkpoint in a work directory that can be read.

    The one that ``last_checkpoint`` names comes first, then ``iter_N.pth`` and ``epoch_N.pth`` from
    the largest N.

    Args:
        work_dir (str or Path): Directory of the training.

    Returns:
        tuple[str, list[str]]: Path of the checkpoint, and one note for each file that was skipped
        because it is missing or damaged.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        CheckpointError: If all of them are damaged, naming the first one.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / _POINTER
    named = pointer.read_text().strip() if pointer.is_file() else ''
    numbered = numbered_checkpoints(work_dir)
    candidates = [Path(named)] if named else []
    # A work directory may have been moved, so that its pointer is outdated.
    candidates += [path for path in numbered if path.name != Path(named).name or not named]
    moved = work_dir / Path(named).name
    if named and not Path(named).is_file() and moved.is_file():
        candidates[0] = moved
    problems: list[Exception] = []
    for path in candidates:
        try:
            read_checkpoint(path)
        except (CheckpointError, FileNotFoundError) as error:
            problems.append(error)
        else:
            return str(path), [f'{problem}; resuming from {path} instead' for problem in problems]
    if any(isinstance(problem, CheckpointError) for problem in problems):
        raise CheckpointError(
            f'--resume found no checkpoint in {work_dir} that can be read: {problems[0]}'
        )
    raise FileNotFoundError(
        f'--resume found no checkpoint in {work_dir}; pass its path, or --work-dir of the '
        'interrupted run'
    )
