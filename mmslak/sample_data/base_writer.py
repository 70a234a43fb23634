"""What the writers of the four layouts share."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from .classes import thing_classes_of
from .scenes import Scene

#: Version of the sample data, increased whenever the same parameters give other files.
FORMAT_VERSION = 1


class BaseWriter:
    """Base class of the writers: call ``add`` for each scene, then ``finish``.

    Args:
        root (Path): Directory of the whole sample data.
        context (bool): The scenes have context.
    """

    #: Name of the layout.
    name = ''
    #: Directory of the layout, below the root.
    directory = ''

    def __init__(self, root: Path, context: bool):
        self.folder = root / self.directory
        self.context = context
        #: Number of images of each split.
        self.counts = {'train': 0, 'val': 0}
        for path in self.subdirectories():
            (self.folder / path).mkdir(parents=True)

    def subdirectories(self) -> list[str]:
        """Return the directories to create, below that of the layout."""
        raise NotImplementedError

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes in the order of their labels."""
        return thing_classes_of(self.context)

    def add(self, scene: Scene, jpeg: bytes) -> None:
        """Write one scene.

        Args:
            scene (Scene): The scene.
            jpeg (bytes): Its image as a JPEG file.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Write the files that describe all scenes."""


def encode_jpeg(image: np.ndarray) -> bytes:
    """Return an image, uint8 (H, W, 3), as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, 'JPEG', quality=95, subsampling=0)
    return stream.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a text file with the same line endings on every system."""
    path.write_bytes(text.encode())
