"""Compares the classes of a classification dataset with its directories and the model's head."""

from pathlib import Path

from mmengine.config import Config

from .data_errors import AnnotationError
from .lookup import dataset_class, is_subclass

#: Number of names that a message lists.
_NAMED = 10


def check_folders(cfg: Config, dataset: dict, key: str) -> list[str]:
    """Compare the classes of a dataset in ImageNet's layout with its files and the model's head.

    Args:
        cfg (Config): The whole config.
        dataset (dict): The dataset. Types other than subclasses of MMPretrain's CustomDataset, and
            files on other machines, are not checked.
        key (str): Its key in the config, for messages.

    Returns:
        list[str]: No notes.

    Raises:
        AnnotationError: If the directories are not those of the classes, or a label is not that of
            a class.
        ValueError: If the head or the data preprocessor has another number of classes.
    """
    kind = dataset_class(cfg, dataset)
    if not is_subclass(kind, 'CustomDataset') or dataset.get('with_label') is False:
        return []
    metainfo = dataset.get('metainfo') or {}
    classes = metainfo.get('classes') or dataset.get('classes')
    if isinstance(classes, str):
        return []
    classes = list(classes or kind.METAINFO.get('classes') or ())
    folder, ann_file = _files(dataset)
    if ann_file is None and folder.is_dir():
        found = sorted(item.name for item in folder.iterdir() if item.is_dir())
        _compare(classes, found, folder, key)
        classes = classes or found
    model = cfg.get('model') or {}
    head = (model.get('head') or {}).get('num_classes')
    if classes and isinstance(head, int) and head != len(classes):
        raise ValueError(
            f'model.head.num_classes is {head}, but {key} has {len(classes)} classes; set '
            f'num_classes={len(classes)}, or the classes of the dataset with '
            'metainfo=dict(classes=...)'
        )
    other = (cfg.get('data_preprocessor') or {}).get('num_classes')
    if isinstance(head, int) and isinstance(other, int) and other != head:
        raise ValueError(
            f'data_preprocessor.num_classes is {other}, but model.head.num_classes is {head}; set '
            'both to the same number'
        )
    if ann_file is not None and isinstance(head, int):
        _check_labels(ann_file, head, key)
    return []


def _files(dataset: dict) -> tuple[Path, Path | None]:
    """Return the directory of the images, and the file that lists them with their labels."""
    root = Path(dataset.get('data_root') or '')
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    folder = root / (prefix if isinstance(prefix, str) else prefix.get('img_path') or '')
    ann_file = dataset.get('ann_file')
    if not ann_file and dataset.get('split'):
        # The default of ImageNet.
        default = root / 'meta' / f'{dataset["split"]}.txt'
        ann_file = default.relative_to(root) if default.is_file() else None
    return folder, root / ann_file if ann_file else None


def _compare(classes: list[str], found: list[str], folder: Path, key: str) -> None:
    """Check that the directories are those of the classes, in this order."""
    missing = [name for name in classes if name not in found]
    unknown = [name for name in found if name not in classes]
    named = len(missing) < len(classes)
    if not classes or found == classes or (not named and len(found) == len(classes)):
        # Directories of ImageNet have other names than its classes.
        return
    if len(found) != len(classes) or (named and missing):
        details = (
            f': {_names(missing)} not among the directories, {_names(unknown)} not in the classes'
            if named
            else ''
        )
        raise AnnotationError(
            f'{key}: {folder} has {len(found)} directories, but the config has {len(classes)} '
            f'classes{details}; set metainfo=dict(classes=...) for every dataset, or correct the '
            'directories'
        )
    raise AnnotationError(
        f'{key}.metainfo.classes must be in alphabetical order, because MMPretrain numbers the '
        f'directories of {folder} in that order: {found}'
    )


def _names(names: list[str]) -> str:
    more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
    return ', '.join(names[:_NAMED]) + more if names else 'nothing'


def _check_labels(file: Path, count: int, key: str) -> None:
    """Check the label in each line of an annotation file."""
    for i, line in enumerate(file.read_text().splitlines(), start=1):
        label = line.strip().rpartition(' ')[2]
        if not label.isdigit() or int(label) >= count:
            raise AnnotationError(
                f'{key}.ann_file: line {i} of {file} must end with a label from 0 to {count - 1} '
                f'(model.head.num_classes={count}), got {label!r}'
            )
