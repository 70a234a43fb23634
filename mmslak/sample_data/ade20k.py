"""Writes scenes in the layout of ADE20K."""

from PIL import Image

from .base_writer import BaseWriter, write_text
from .classes import classes_of, palette_of


class Ade20kWriter(BaseWriter):
    """``images/{training,validation}/*.jpg`` and ``annotations/{training,validation}/*.png``.

    Annotations are palette images of labels, in which 0 is unlabelled.
    """

    name = 'ADE20K'
    directory = 'ADEChallengeData2016'
    _splits = {'train': 'training', 'val': 'validation'}

    def subdirectories(self):
        return [
            f'{kind}/{split}'
            for kind in ('images', 'annotations')
            for split in self._splits.values()
        ]

    def class_names(self):
        return classes_of(self.context)

    def add(self, scene, jpeg):
        split = self._splits[scene.split]
        name = f'ADE_{scene.split}_{scene.index + 1:08d}'
        (self.folder / 'images' / split / f'{name}.jpg').write_bytes(jpeg)
        labels = Image.fromarray(scene.semantic).convert('P')
        labels.putpalette([0, 0, 0, *(value for rgb in palette_of(self.context) for value in rgb)])
        labels.save(self.folder / 'annotations' / split / f'{name}.png')
        self.counts[scene.split] += 1

    def finish(self):
        write_text(self.folder / 'classes.txt', '\n'.join([*self.class_names(), '']))
