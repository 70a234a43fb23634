"""Writes scenes in the layout of ImageNet."""

from .base_writer import BaseWriter, encode_jpeg, write_text
from .scenes import Instance, Scene


class ImageNetWriter(BaseWriter):
    """``{train,val}/<class>/*.JPEG`` and ``meta/{train,val}.txt`` with paths and labels.

    The class of a scene is that of its :func:`largest_object`; a scene without one is skipped. The
    image is cropped to the box of that object with a margin of a quarter of its longer side. With
    context it is the whole scene, because the cue is far away.
    """

    name = 'ImageNet'
    directory = 'imagenet'

    def __init__(self, root, context):
        super().__init__(root, context)
        self.lines = {'train': [], 'val': []}

    def subdirectories(self):
        # Every class has a directory, even without images: labels are the order of directories.
        names = self.class_names()
        return ['meta', *(f'{split}/{name}' for split in ('train', 'val') for name in names)]

    def add(self, scene, jpeg):
        instance = largest_object(scene)
        if instance is None:
            return
        split, class_name = scene.split, scene.classes[instance.class_id - 1]
        if not self.context:
            x0, y0, x1, y1 = instance.bbox
            margin = max(x1 - x0, y1 - y0) // 4 + 2
            rows = slice(max(0, y0 - margin), y1 + margin)
            jpeg = encode_jpeg(scene.image[rows, max(0, x0 - margin) : x1 + margin])
        path = f'{class_name}/sample_{split}_{scene.index + 1:08d}_{class_name}.JPEG'
        (self.folder / split / path).write_bytes(jpeg)
        self.lines[split].append(f'{path} {self.class_names().index(class_name)}\n')
        self.counts[split] += 1

    def finish(self):
        for split, lines in self.lines.items():
            write_text(self.folder / 'meta' / f'{split}.txt', ''.join(sorted(lines)))


def largest_object(scene: Scene) -> Instance | None:
    """Return the object with the most visible pixels.

    Crowds and difficult objects do not count. If there is no other object, it is None.
    """
    clear = [instance for instance in scene.instances if not (instance.crowd or instance.difficult)]
    return max(clear, key=lambda instance: instance.area, default=None)
