"""Names and colours of the classes of the sample data."""

#: Background classes, labels 1 to 4.
STUFF_CLASSES = ('sky', 'grass', 'water', 'sand')

#: Object classes, labels 5 to 12. In alphabetical order, so that labels follow sorted directories.
THING_CLASSES = ('ball', 'buoy', 'clover', 'crate', 'donut', 'melon', 'starfish', 'tent')

#: Appearances of scenes with context. Each is shared by two classes.
CONTEXT_APPEARANCES = ('ball', 'buoy', 'donut', 'starfish')

#: Names of the cue in scenes with context: a sun for ``'day'``, a moon for ``'night'``.
CONTEXT_CUES = ('day', 'night')

#: Object classes of scenes with context, labels 5 to 12.
CONTEXT_THING_CLASSES = tuple(
    f'{cue}_{name}' for cue in CONTEXT_CUES for name in CONTEXT_APPEARANCES
)

CLASSES = STUFF_CLASSES + THING_CLASSES
CONTEXT_CLASSES = STUFF_CLASSES + CONTEXT_THING_CLASSES

_STUFF_PALETTE = ((135, 190, 240), (80, 155, 60), (35, 100, 170), (225, 200, 140))
#: Colour (R, G, B) of each class of ``CLASSES`` in drawn label maps.
PALETTE = _STUFF_PALETTE + (
    (220, 50, 47),
    (255, 140, 0),
    (0, 200, 120),
    (130, 80, 35),
    (240, 110, 190),
    (160, 20, 90),
    (255, 230, 40),
    (110, 70, 210),
)
#: Colour (R, G, B) of each class of ``CONTEXT_CLASSES``: light by day, dark by night.
CONTEXT_PALETTE = _STUFF_PALETTE + (
    (255, 90, 80),
    (255, 165, 40),
    (255, 150, 215),
    (255, 235, 90),
    (125, 20, 20),
    (130, 75, 0),
    (140, 30, 110),
    (130, 115, 0),
)


def classes_of(context: bool = False) -> tuple[str, ...]:
    """Return the names of labels 1 to 12: backgrounds, then objects."""
    return CONTEXT_CLASSES if context else CLASSES


def thing_classes_of(context: bool = False) -> tuple[str, ...]:
    """Return the names of the object classes in alphabetical order."""
    return CONTEXT_THING_CLASSES if context else THING_CLASSES


def palette_of(context: bool = False) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of ``classes_of(context)``."""
    return CONTEXT_PALETTE if context else PALETTE
