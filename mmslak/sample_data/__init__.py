"""Sample data: one scene renderer, and a writer for each of ADE20K, COCO, VOC2007 and ImageNet."""

from .classes import (
    CLASSES,
    CONTEXT_APPEARANCES,
    CONTEXT_CLASSES,
    CONTEXT_CUES,
    CONTEXT_PALETTE,
    CONTEXT_THING_CLASSES,
    PALETTE,
    STUFF_CLASSES,
    THING_CLASSES,
    classes_of,
    palette_of,
    thing_classes_of,
)
from .coco import COCO_CATEGORY_IDS, mask_to_polygons, mask_to_rle
from .dataset import LAYOUTS, MANIFEST, SampleData, write_sample_data
from .imagenet import largest_object
from .scenes import MIN_SIZE, Cue, Instance, Scene, render_scene

__all__ = [
    'CLASSES',
    'COCO_CATEGORY_IDS',
    'CONTEXT_APPEARANCES',
    'CONTEXT_CLASSES',
    'CONTEXT_CUES',
    'CONTEXT_PALETTE',
    'CONTEXT_THING_CLASSES',
    'LAYOUTS',
    'MANIFEST',
    'MIN_SIZE',
    'PALETTE',
    'STUFF_CLASSES',
    'THING_CLASSES',
    'Cue',
    'Instance',
    'SampleData',
    'Scene',
    'classes_of',
    'largest_object',
    'mask_to_polygons',
    'mask_to_rle',
    'palette_of',
    'render_scene',
    'thing_classes_of',
    'write_sample_data',
]
