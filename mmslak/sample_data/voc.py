"""Writes scenes in the layout of PASCAL VOC 2007."""

from xml.etree import ElementTree

from .base_writer import BaseWriter, write_text
from .scenes import Scene


class VocWriter(BaseWriter):
    """``JPEGImages``, ``Annotations`` and ``ImageSets/Main`` of VOC2007.

    The validation scenes are ``test``, the other ones ``trainval``. One in four of ``trainval`` is
    ``val``, which is empty if there are fewer than five scenes.
    """

    name = 'VOC2007'
    directory = 'VOCdevkit/VOC2007'

    def __init__(self, root, context):
        super().__init__(root, context)
        self.sets = {'train': [], 'val': [], 'trainval': [], 'test': []}
        self.present = {}

    def subdirectories(self):
        return ['JPEGImages', 'Annotations', 'ImageSets/Main']

    def add(self, scene, jpeg):
        name = f'{scene.index + 1:06d}'
        (self.folder / 'JPEGImages' / f'{name}.jpg').write_bytes(jpeg)
        write_text(self.folder / 'Annotations' / f'{name}.xml', annotation_xml(scene, name))
        if scene.split == 'val':
            self.sets['test'].append(name)
        else:
            self.sets['trainval'].append(name)
            self.sets['val' if scene.index % 5 == 4 else 'train'].append(name)
        found = self.present[name] = {}
        for instance in scene.instances:
            class_name = scene.classes[instance.class_id - 1]
            flag = 0 if instance.difficult else 1
            found[class_name] = max(found.get(class_name, 0), flag)
        self.counts[scene.split] += 1

    def finish(self):
        folder = self.folder / 'ImageSets/Main'
        for split, names in self.sets.items():
            write_text(folder / f'{split}.txt', ''.join(f'{name}\n' for name in names))
            for class_name in self.class_names():
                # 1: the image contains the class; 0: only difficult objects of it; -1: none.
                lines = [f'{n} {self.present[n].get(class_name, -1):2d}\n' for n in names]
                write_text(folder / f'{class_name}_{split}.txt', ''.join(lines))


def annotation_xml(scene: Scene, name: str) -> str:
    """Return the annotation file of a scene.

    Args:
        scene (Scene): The scene.
        name (str): Name of the image without its suffix.
    """
    height, width = scene.semantic.shape
    source = dict.fromkeys(('database', 'annotation'), 'mmslak sample data')
    root = _element(
        'annotation',
        folder='VOC2007',
        filename=f'{name}.jpg',
        source=_element('source', **source, image='rendered'),
        size=_element('size', width=width, height=height, depth=3),
        segmented=0,
    )
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.bbox
        root.append(
            _element(
                'object',
                name=scene.classes[instance.class_id - 1],
                pose='Unspecified',
                truncated=int(instance.truncated),
                difficult=int(instance.difficult),
                # VOC counts pixels from one, and its boxes include the last pixel.
                bndbox=_element('bndbox', xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1),
            )
        )
    ElementTree.indent(root, '\t')
    return ElementTree.tostring(root, 'unicode') + '\n'


def _element(tag: str, /, **children) -> ElementTree.Element:
    """Make an element with one child for each keyword: an element, or a tag with its text."""
    element = ElementTree.Element(tag)
    for key, value in children.items():
        if isinstance(value, ElementTree.Element):
            element.append(value)
        else:
            ElementTree.SubElement(element, key).text = str(value)
    return element
