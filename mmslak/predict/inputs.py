"""Images and videos that a command line names: files, directories and patterns."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..validation.images import BadImageError, image_fault

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')
#: Number of faults that a message names.
_NAMED = 5


@dataclass(frozen=True)
class Source:
    """An image or a video.

    Args:
        path (Path): The file.
        name (str): Path of its results without suffix, unique among the sources.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.path.suffix.lower() in VIDEOS


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """Return the images and videos that arguments name, in their order.

    Args:
        arguments (Sequence[str]): Files, directories (with all images and videos below them) and
            patterns such as ``'photos/*.jpg'``.

    Returns:
        list[Source]: Each file once.

    Raises:
        FileNotFoundError: If a file does not exist, or nothing is found.
        ValueError: If a file is neither an image nor a video.
    """
    found: dict[Path, str] = {}
    for argument in arguments:
        pairs = list(_expanded(argument))
        if not pairs:
            raise FileNotFoundError(
                f'{argument} contains no image and no video ({", ".join((*IMAGES, *VIDEOS))})'
            )
        for path, name in pairs:
            found.setdefault(path, name)
    taken: set[str] = set()
    sources = []
    for path, name in found.items():
        unique, number = name, 2
        while unique in taken:
            unique, number = f'{name}_{number}', number + 1
        taken.add(unique)
        sources.append(Source(path, unique))
    return sources


def _expanded(argument: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of an argument and the names of their results."""
    path = Path(argument)
    if path.is_dir():
        for file in sorted(path.rglob('*')):
            if file.suffix.lower() in (*IMAGES, *VIDEOS) and file.is_file():
                yield file, file.relative_to(path).with_suffix('').as_posix()
        return
    files = [path]
    if not path.exists() and glob.has_magic(argument):
        files = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
        files = [file for file in files if file.is_file()]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f'{argument} does not exist')
        if file.suffix.lower() not in (*IMAGES, *VIDEOS):
            raise ValueError(
                f'{file} must be an image or a video, with one of the suffixes '
                f'{", ".join((*IMAGES, *VIDEOS))}'
            )
        yield file, file.stem


def check_sources(sources: Sequence[Source]) -> None:
    """Check that all images and videos can be read.

    Args:
        sources (Sequence[Source]): From :func:`find_sources`.

    Raises:
        BadImageError: Naming those that cannot be read, or have too many pixels.
    """
    faults = []
    for source in sources:
        fault = None if source.is_video else image_fault(source.path)
        if source.is_video and Video(source.path).frame_count < 1:
            fault = 'no frame can be read'
        if fault:
            faults.append(f'{source.path}: {fault}')
    if faults:
        more = f' and {len(faults) - _NAMED} more' if len(faults) > _NAMED else ''
        raise BadImageError('; '.join(faults[:_NAMED]) + more)


class Video:
    """A video that is read frame by frame.

    Args:
        path (Path): The file.

    Attributes:
        frame_count (int): Number of frames that the file names; 0 if it cannot be read.
        frames_per_second (float): Of the video.
    """

    def __init__(self, path: Path):
        self.path = path
        capture = cv2.VideoCapture(str(path))
        self.frame_count = max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.frames_per_second = capture.get(cv2.CAP_PROP_FPS) or 25.0
        capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, of shape (H, W, 3) in BGR."""
        capture = cv2.VideoCapture(str(self.path))
        try:
            while True:
                read, frame = capture.read()
                if not read:
                    return
                yield frame
        finally:
            capture.release()


class VideoWriter:
    """Writes pictures of one size into an MP4 file.

    Args:
        path (Path): File to write; its directory is created.
        frames_per_second (float): Of the video.
    """

    def __init__(self, path: Path, frames_per_second: float):
        self.path, self.frames_per_second = path, frames_per_second
        self._writer = None

    def add(self, picture: np.ndarray) -> None:
        """Add a picture of shape (H, W, 3) in RGB."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            height, width = picture.shape[:2]
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self._size = (width, height)
            self._writer = cv2.VideoWriter(str(self.path), code, self.frames_per_second, self._size)
            if not self._writer.isOpened():
                raise OSError(f'{self.path} cannot be written as a video')
        if picture.shape[1::-1] != self._size:
            # The panel of a frame can be wider than that of the first one.
            picture = _fitted(picture, self._size)
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop or extend a picture with white to (width, height)."""
    width, height = size
    out = np.full((height, width, 3), 255, np.uint8)
    part = picture[:height, :width]
    out[: part.shape[0], : part.shape[1]] = part
    return out
