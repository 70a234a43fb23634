"""Bad input: one clear line, a non-zero exit code and no traceback.

A case is a row: its name, what is wrong (options, arguments, or a function that changes a copy of
the data), and words that the line must contain.
"""

import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
from mmslak.cli.run import run
from mmslak.console import guarded
from mmslak.models import SLaK

CONFIGS = {
    'seg': 'upernet_slak_nano_ade20k',
    'coco': 'cascade_mask_rcnn_slak_nano_coco',
    'voc': 'faster_rcnn_slak_nano_voc',
    'cls': 'slak_nano_in1k',
}
DATA = {
    'seg': 'ADEChallengeData2016',
    'coco': 'coco',
    'voc': 'VOCdevkit',
    'cls': 'imagenet',
}
#: One iteration without worker processes, so that input that is accepted by mistake ends soon.
SMALL = [
    'train_dataloader.batch_size=2',
    'default_hooks.sparsity.mode=off',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ),
]
SHORT = {
    'seg': ['train_cfg.max_iters=1'],
    **{task: ['train_cfg.max_epochs=1'] for task in ('coco', 'voc', 'cls')},
}


@pytest.fixture(scope='module')
def sample(sample_data):
    return sample_data(20, 64)


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """Return the configs as files without bases, which are read much faster."""
    folder, files = tmp_path_factory.mktemp('configs'), {}
    for task, name in CONFIGS.items():
        files[task] = folder / f'{name}.py'
        Config.fromfile(ROOT / f'configs/sample/{name}.py').dump(files[task])
    return files


@pytest.fixture
def line_of(tmp_path, capsys, monkeypatch):
    """Return a function that runs a command line in this process and returns its error line."""
    monkeypatch.delenv('MMSLAK_TRACEBACK', raising=False)
    monkeypatch.chdir(tmp_path)
    # MMEngine formats a config five times to log it, which takes longer than everything else.
    monkeypatch.setattr(Config, 'pretty_text', '')

    def call(task, *arguments):
        with pytest.raises(SystemExit) as ended:
            guarded(run)(task, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert 'Traceback' not in printed.err + printed.out
        (line,) = re.findall(r'^(?:\S+: )?error: (.*)', printed.err, re.MULTILINE)
        return line

    return call


def check(line, words):
    for word in words:
        assert word in line, line


# -- configs ---------------------------------------------------------------------------------

CONFIG_FILES = [
    ('missing file', {}, ['c.py does not exist']),
    ('missing base', {'c.py': "_base_ = 'no.py'"}, ['_base_', 'no.py']),
    ('base of itself', {'c.py': "_base_ = 'c.py'"}, ['c.py inherits from itself']),
    (
        'circular bases',
        {'c.py': "_base_ = 'b.py'", 'b.py': "_base_ = 'c.py'"},
        ['itself', '_base_'],
    ),
    ('base of a toolbox', {'c.py': "_base_ = 'mmseg::no/where.py'"}, ['_base_', 'no/where.py']),
    ('syntax', {'c.py': 'model = dict('}, ['c.py cannot be read', 'was never closed']),
    ('unknown name', {'c.py': 'model = dict(type=UNet)'}, ["'UNet' is not defined"]),
    ('no text', {'c.py': bytes(range(128, 255))}, ['c.py cannot be read']),
    ('nothing in it', {'c.py': ''}, ['no model, train_dataloader, train_cfg, optim_wrapper']),
    (
        'same key in two bases',
        {'c.py': "_base_ = ['a.py', 'b.py']", 'a.py': 'x = 1', 'b.py': 'x = 2'},
        ['Duplicate', "'x'"],
    ),
    (
        'missing module',
        {'c.py': "custom_imports = dict(imports=['no_module'])"},
        ['c.py cannot import', 'no_module'],
    ),
]


@pytest.mark.parametrize(
    ('files', 'words'), [row[1:] for row in CONFIG_FILES], ids=[row[0] for row in CONFIG_FILES]
)
def test_config_file(tmp_path, line_of, files, words):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    check(line_of('train', tmp_path / 'c.py'), words)


BACKBONE, HOOK, DATASET = 'model.backbone', 'default_hooks.sparsity', 'train_dataloader.dataset'
OPTIONS = [
    # Misspelt keys.
    ('seg', f'{BACKBONE}.kernel_size=[7,7,7,7]', ["'kernel_size'; did you mean kernel_sizes?"]),
    ('seg', f'{HOOK}.sparsty=0.5', ['DynamicSparsityHook', 'did you mean sparsity?']),
    ('seg', f'{HOOK}.update.evry=5', ['update', 'did you mean every?']),
    ('seg', 'param_scheduler.1.max_iter=5', ['param_scheduler.1.max_iter', 'has no argument']),
    ('seg', 'train_cfg.max_iter=5', ['did you mean max_iters?']),
    ('seg', 'optim_wrapper.optimizer.weight_decy=1', ['AdamW', 'did you mean weight_decay?']),
    ('seg', 'model.decode_head.in_chanels=5', ['UPerHead', 'did you mean in_channels?']),
    ('seg', 'train_dataloader.batchsize=2', ['did you mean batch_size?']),
    ('seg', f'{DATASET}.data_rot=x', ['did you mean data_root?']),
    ('seg', f'{DATASET}.pipeline.3.crop_sise=5', ['RandomCrop', 'did you mean crop_size?']),
    ('seg', 'trian_dataloader.batch_size=2', ['did you mean train_dataloader?']),
    ('seg', 'device=cuda', ["no key 'device'"]),
    ('seg', 'randomness.sed=1', ['did you mean seed?']),
    ('seg', 'model.test_cfg.mod=whole', ['model.test_cfg', 'did you mean mode?']),
    ('seg', 'default_hooks.chekpoint.interval=5', ['did you mean checkpoint?']),
    ('coco', 'model.roi_head.bbox_head.0.num_clases=8', ['did you mean num_classes?']),
    ('cls', 'model.backbone.droppath_rate=0.1', ['SLaK', 'did you mean drop_path_rate?']),
    # Misspelt names of classes.
    ('seg', 'model.type=EncoderDecodr', ["did you mean 'EncoderDecoder'?"]),
    ('seg', f'{BACKBONE}.type=mmslak.SLack', ["did you mean 'mmslak.SLaK'?"]),
    ('seg', f'{BACKBONE}.type=SLaK', ["did you mean 'mmslak.SLaK'?"]),
    ('seg', f'{HOOK}.type=mmslak.SparsityHook', ["'mmslak.DynamicSparsityHook'?"]),
    ('seg', f'{DATASET}.pipeline.1.type=LoadAnotations', ["did you mean 'LoadAnnotations'?"]),
    ('seg', 'train_cfg.type=IterBasedLoop', ["did you mean 'IterBasedTrainLoop'?"]),
    ('voc', 'model.neck.type=FNP', ['model.neck.type', "'FNP' is not registered"]),
    # Keys that do not exist in a list or below a number.
    ('seg', 'param_scheduler.9.end=5', ['param_scheduler is a list of 2 entries', "'9'"]),
    ('seg', f'{BACKBONE}.arch.depths=1', ["model.backbone.arch is 'nano'"]),
    # Wrong types and values.
    ('seg', 'train_cfg.max_iters=many', ['train_cfg.max_iters must be of type int', "'many'"]),
    ('seg', 'optim_wrapper.optimizer.lr=fast', ['optimizer.lr must be of type float', "'fast'"]),
    ('seg', f'{HOOK}.sparsity=high', ['sparsity must be of type float', "'high'"]),
    ('seg', 'model=SLaK', ['model must be a dict', "'SLaK'"]),
    ('cls', f'{BACKBONE}.arch=huge', ['arch must be one of', "'huge'"]),
    ('cls', f'{BACKBONE}.kernel_sizes=[51,49]', ['kernel_sizes must have 4 entries', '[51, 49]']),
    ('cls', f'{BACKBONE}.kernel_sizes=[8,8,8,8]', ['kernel_sizes must be odd', '8']),
    ('cls', f'{HOOK}.mode=on', ['mode must be one of', "'on'"]),
    ('seg', 'model.decode_head.in_index=[0,1]', ['UPerHead cannot be built']),
    ('seg', 'model.decode_head.num_classes=150', ['is 150', '12 classes', 'num_classes=12']),
    ('coco', 'model.roi_head.mask_head.num_classes=80', ['mask_head.num_classes is 80', 'has 8']),
    ('cls', 'model.head.num_classes=1000', ['head.num_classes is 1000', 'set num_classes=8']),
    ('cls', 'data_preprocessor.num_classes=9', ['data_preprocessor.num_classes is 9']),
    # What only shows in the first iteration.
    ('seg', f'{BACKBONE}.in_channels=4', ['model.backbone', 'expects 4 channels', 'has 3']),
    (
        'seg',
        'model.auxiliary_head.in_channels=99',
        ['model.auxiliary_head', 'expects 99 channels', 'has 83', 'in_channels'],
    ),
    ('cls', 'model.head.in_channels=99', ['model.head.fc expects 99 channels', 'has 166']),
    ('seg', 'train_dataloader.batch_size=1', ['batch norm', 'train_dataloader.batch_size to 2']),
]


@pytest.mark.parametrize(
    ('task', 'option', 'words'), OPTIONS, ids=[f'{row[0]} {row[1]}' for row in OPTIONS]
)
def test_option(sample, configs, tmp_path, line_of, task, option, words):
    data = f'data_root={sample / DATA[task]}'
    options = [data, *SMALL, *SHORT[task], option]
    check(line_of('train', configs[task], '--cfg-options', *options), words)


# -- arguments -------------------------------------------------------------------------------

ARGUMENTS = [
    ('train', 'seg', ['--cfg-options', 'data_root'], ['KEY=VALUE', "'data_root'"]),
    ('train', 'seg', ['--cfg-options', 'a=[1,(2'], ['Imbalanced brackets']),
    ('train', 'seg', ['--effective-batch', '3'], ['--effective-batch', 'got 3']),
    ('train', 'seg', ['--effective-batch', 'many'], ['--effective-batch', "'many'"]),
    (
        'train', 'seg',
        ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=0'],
        ['auto_scale_lr.base_batch_size', 'got 0'],
    ),
    ('train', 'seg', ['--launcher', 'pytorch'], ['needs torchrun']),
    ('train', 'seg', ['--launcher', 'horovod'], ['--launcher', "'horovod'"]),
    ('train', 'seg', ['--lr', '1'], ['unrecognized arguments']),
    ('train', 'seg', ['--resume'], ['--resume found no checkpoint in']),
    ('train', 'seg', ['--resume', 'no.pth'], ['no.pth does not exist']),
    ('train', 'seg', ['--resume', 'slak_nano_camvid'], ['only weights and masks']),
    ('train', 'seg', ['--cfg-options', 'load_from=no.pth'], ['no.pth does not exist']),
    (
        'train', 'seg',
        ['--cfg-options', f'{BACKBONE}.init_cfg.type=Pretrained',
         f'{BACKBONE}.init_cfg.checkpoint=no.pth',
         # The weights are looked for before the data.
         'train_dataloader.dataset.data_root=nowhere'],
        [f'{BACKBONE}.init_cfg.checkpoint: ', 'no.pth does not exist', 'github.com/VITA-Group'],
    ),
    ('train', 'seg', ['--no-exec-config'], ['accepts only .yaml, .yml, .json', 'would be run']),
    ('test', 'seg', ['none', '--no-exec-config'], ['accepts only .yaml', 'would be run']),
    ('train', 'seg', ['--cfg-options', 'max_image_pixels=many'], ['max_image_pixels', "'many'"]),
    ('test', 'seg', [], ['checkpoint']),
    ('test', 'seg', ['no.pth'], ['no.pth does not exist']),
    ('test', 'cls', ['none', '--tta'], ['--tta needs tta_model', 'define tta_model']),
    ('test', 'cls', ['none', '--out', 'x.txt'], ['--out must end with .json or .pkl']),
]  # fmt: skip


@pytest.mark.parametrize(
    ('tool', 'task', 'arguments', 'words'),
    ARGUMENTS,
    ids=[' '.join([*row[:2], *row[2]]) for row in ARGUMENTS],
)
def test_arguments(sample, configs, line_of, tool, task, arguments, words):
    options = [f'data_root={sample / DATA[task]}', *SMALL, *SHORT[task]]
    if '--cfg-options' not in arguments:
        arguments = [*arguments, '--cfg-options']
    check(line_of(tool, configs[task], *arguments, *options), words)


# -- data ------------------------------------------------------------------------------------


def first(folder):
    """Return the first file of a directory."""
    return sorted(Path(folder).iterdir())[0]


def image(root):
    return first(root / 'images/training')


def label(root):
    return first(root / 'annotations/training')


def write(change, find, **kwargs):
    """Return a function that replaces an image or a label map by a changed one."""

    def apply(root):
        path = find(root)
        with Image.open(path) as opened:
            changed = change(opened.copy())
        changed.save(path, **kwargs)

    return apply


def write_bytes(content, find):
    """Return a function that replaces a file by a part of itself or by other bytes."""

    def apply(root):
        path = find(root)
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return apply


def relabel(change, dtype=np.uint8):
    """Return a function that changes all label maps of the training."""

    def apply(root):
        for path in (root / 'annotations/training').iterdir():
            labels = np.asarray(Image.open(path)).astype(np.int32)
            Image.fromarray(change(labels).astype(dtype)).save(path)

    return apply


def rotated(root):
    """Mark an image as one that a camera has rotated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image(root)) as opened:
        opened.resize((64, 48)).save(image(root), exif=exif)
    with Image.open(label(root)) as opened:
        opened.resize((64, 48), Image.Resampling.NEAREST).save(label(root))


def empty_png(data):
    """Return a PNG file whose header has the size 0 x 0."""
    start = data.index(b'IHDR') + 4
    return data[:start] + bytes(8) + data[start + 8 :]


def giant_png(data):
    """Return a PNG file whose header has the size 30000 x 30000."""
    data = empty_png(data)
    start = data.index(b'IHDR')
    header = data[start : start + 4] + struct.pack('>II', 30000, 30000) + data[start + 12 :][:5]
    return data[:start] + header + struct.pack('>I', zlib.crc32(header)) + data[start + 21 :]


def list_file(root):
    """Write a list whose second line names an image in another directory."""
    (root / 'list.txt').write_text(f'{image(root).stem}\n../../../other/secret\n')


HALF = 'train_dataloader.dataset.reduce_zero_label=False'
KEEP_ZERO = [HALF, f'{DATASET}.pipeline.1.reduce_zero_label=False']
SEGMENTATION = [
    ('no directory', lambda root: shutil.rmtree(root), [], ['there is no directory']),
    ('no label maps', lambda root: shutil.rmtree(root / 'annotations/training'), [],
     ['no directory', 'annotations/training']),
    ('no images', lambda root: [p.unlink() for p in (root / 'images/training').iterdir()], [],
     ['there is no file in', 'images/training']),
    ('missing label map', lambda root: label(root).unlink(), [], ['no label map of']),
    ('empty image', write_bytes(b'', image), [], ['image', '.jpg: empty file']),
    ('truncated image', write_bytes(lambda data: data[:-200], image), [], ['.jpg', 'truncated']),
    ('text as image', write_bytes(b'hello', image), [], ['.jpg', 'cannot identify']),
    ('empty label map', write_bytes(b'', label), [], ['label map', '.png: empty file']),
    ('truncated label map', write_bytes(lambda data: data[:-30], label), [],
     ['label map', '.png']),
    ('label map of size zero', write_bytes(empty_png, label), [], ['label map', '.png']),
    ('colours as labels', write(lambda p: p.convert('RGB'), label), [],
     ['label map', 'mode RGB with 3 channels']),
    ('CMYK label map', write(lambda p: p.convert('CMYK'), label, format='TIFF'), [],
     ['mode CMYK with 4 channels']),
    ('16-bit labels', relabel(lambda labels: labels * 1000, np.uint16), [],
     ['label map', '8 bits']),
    ('label map of 900 million pixels', write_bytes(giant_png, label), [],
     ['label map', '900000000 pixels', 'limit of 100000000', 'max_image_pixels=900000000']),
    ('images above the limit', lambda root: None, ['max_image_pixels=1000'],
     ['image ', '.jpg', 'limit of 1000']),
    ('list with another directory', list_file, [f'{DATASET}.ann_file=list.txt'],
     ['list.txt names the file', 'other/secret.jpg', 'not in the data directory']),
    ('rotated by EXIF', rotated, [], ['64 x 48', '48 x 64', 'orientation 6 in EXIF']),
    ('label maps of half the size', write(lambda p: p.resize((32, 24)), label), [],
     ['label map', '32 x 24', 'its image']),
    ('label out of range', relabel(lambda labels: np.where(labels == 3, 200, labels)), [],
     ['label 200', '12 classes have the labels 1 to 12']),
    ('zero is a class', relabel(lambda labels: np.maximum(labels, 1) - 1), [],
     ['reduce_zero_label=True ignores label 0', 'set reduce_zero_label=False']),
    ('labels start at 1', relabel(lambda labels: np.maximum(labels, 1)), KEEP_ZERO,
     ['label 12', 'set reduce_zero_label=True']),
    ('two values of reduce_zero_label', lambda root: None, [HALF],
     ['reduce_zero_label is False', 'LoadAnnotations', 'is True']),
]  # fmt: skip


def coco_file(root):
    return root / 'annotations/instances_train2017.json'


def coco(change):
    """Return a function that changes the annotation file of the training."""

    def apply(root):
        content = json.loads(coco_file(root).read_text())
        change(content)
        coco_file(root).write_text(json.dumps(content))

    return apply


def entry(**changes):
    """Change entries of the first object that is no crowd; None removes an entry."""

    def change(content):
        item = next(a for a in content['annotations'] if not a['iscrowd'] and a['bbox'][2] > 1)
        item.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del item[name]

    return coco(change)


def one_image(root):
    return first(root / 'train2017')


def exif_of_one_image(root):
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(one_image(root)) as opened:
        opened.save(one_image(root), exif=exif)


COCO = [
    ('no annotation file', lambda root: coco_file(root).unlink(), ['there is no file']),
    ('empty annotation file', write_bytes(b'', coco_file), ['is not a JSON file']),
    ('image in another directory', coco(lambda c: c['images'][0].update(file_name='/etc/passwd')),
     ['names the file /etc/passwd', 'not in the data directory', 'data_prefix']),
    ('RLE of another size', entry(segmentation=dict(size=[9999, 9999], counts=[99980001])),
     ['size of the RLE must be', '[9999, 9999]']),
    ('giant box', entry(bbox=[0, 0, 1e30, 5]), ['more than 10 times as large as its image']),
    ('truncated annotation file', write_bytes(lambda data: data[: len(data) // 2], coco_file),
     ['is not a JSON file']),
    ('not in COCO format', write_bytes(b'{"shapes": []}', coco_file), ["no list 'categories'"]),
    ('negative width', entry(bbox=[30, 30, -10, 5]), ['annotation', '[30, 30, -10, 5]']),
    ('NaN in a box', entry(bbox=[1, 1, float('nan'), 5]), ['bbox must be [x, y, width, height]']),
    ('box of three numbers', entry(bbox=[1, 1, 5]), ['bbox must be', '[1, 1, 5]']),
    ('no area', entry(area=None), ["has no 'area'", 'width * height']),
    ('no masks', entry(segmentation=None), ["has no 'segmentation'", 'masks']),
    ('unknown category id', entry(category_id=4321), ['category_id 4321', 'the ids']),
    ('unknown image id', entry(image_id=4321), ['image_id 4321']),
    ('other classes', coco(lambda content: content['categories'][0].update(name='moon')),
     ['moon not in metainfo.classes']),
    ('other order', coco(lambda content: content['categories'].reverse()), ['in the order of']),
    ('boxes of another image size', coco(lambda c: c['images'][0].update(width=999)),
     ['says 999 x', 'another size']),
    ('image of size zero', coco(lambda c: c['images'][0].update(width=0)),
     ['positive width and height']),
    ('rotated by EXIF', exif_of_one_image, ['orientation 8 in EXIF']),
    ('missing image', lambda root: one_image(root).unlink(),
     ['images are missing or damaged']),
    ('truncated image', write_bytes(lambda data: data[:-200], one_image),
     ['images are missing or damaged']),
]  # fmt: skip


def xml_file(root):
    folder = root / 'VOC2007/Annotations'
    names = (root / 'VOC2007/ImageSets/Main/trainval.txt').read_text().split()
    return next(p for n in names if b'<object>' in (p := folder / f'{n}.xml').read_bytes())


def in_xml(pattern, text):
    return write_bytes(lambda data: re.sub(pattern, text, data, count=1), xml_file)


VOC = [
    ('no annotation file', lambda root: xml_file(root).unlink(), ['annotation file', 'not exist']),
    ('truncated', write_bytes(lambda data: data[:-50], xml_file), ['is not an XML file']),
    (
        'entities',
        in_xml(rb'<annotation>', b'<!DOCTYPE a [<!ENTITY b "b">]><annotation>'),
        ['has a DOCTYPE', 'remove it'],
    ),
    ('reversed box', in_xml(rb'<xmax>\d+', b'<xmax>-7'), ['xmax -7', 'must not be below']),
    ('no number in a box', in_xml(rb'<ymin>\d+', b'<ymin>top'), ['has no numbers', "'top'"]),
]


def listed_labels(root):
    """Give the first image of the training a label that no class has."""
    path = root / 'meta/train.txt'
    path.write_text(re.sub(r' \d+$', ' 8', path.read_text(), count=1, flags=re.MULTILINE))


def listed_elsewhere(root):
    path = root / 'meta/train.txt'
    path.write_text(f'../../other/secret.JPEG 0\n{path.read_text()}')


def use_folders(root):
    """Remove the lists of images, so that MMPretrain numbers the directories."""
    shutil.rmtree(root / 'meta')


def extra_folder(root):
    use_folders(root)
    (root / 'train/moon').mkdir()


def renamed_folder(root):
    use_folders(root)
    (root / 'train/tent').rename(root / 'train/moon')


def corrupt_image(root):
    use_folders(root)
    for path in root.glob('train/*/*'):
        path.write_bytes(b'no image')


CLASSES = 'train_dataloader.dataset.metainfo.classes'
CLASSIFICATION = [
    ('no directory', lambda root: shutil.rmtree(root / 'train'), [], ['no directory', 'train']),
    ('label beyond the head', listed_labels, [], ['line 1 of', 'from 0 to 7', "'8'"]),
    ('image in another directory', listed_elsewhere, [],
     ['train.txt names the file', 'other/secret.JPEG', 'not in the data directory']),
    ('images above the limit', use_folders, ['max_image_pixels=1000'],
     ['image ', '.JPEG', 'limit of 1000', '--skip-bad-images']),
    ('one directory too many', extra_folder, [], ['9 directories', '8 classes', 'moon not in']),
    ('directory of another name', renamed_folder, [], ['tent not among', 'moon not in the']),
    ('other order', use_folders, [f'{CLASSES}=[tent,ball,buoy,clover,crate,donut,melon,starfish]'],
     ['alphabetical order']),
    ('corrupt images', corrupt_image, [], ['.JPEG', 'cannot identify', '--skip-bad-images']),
]  # fmt: skip
DATA_CASES = [
    *(('seg', *row) for row in SEGMENTATION),
    *(('coco', name, change, [], words) for name, change, words in COCO),
    *(('voc', name, change, [], words) for name, change, words in VOC),
    *(('cls', *row) for row in CLASSIFICATION),
]


@pytest.mark.parametrize(
    ('task', 'change', 'options', 'words'),
    [(row[0], *row[2:]) for row in DATA_CASES],
    ids=[f'{row[0]} {row[1]}' for row in DATA_CASES],
)
def test_data(sample, configs, tmp_path, line_of, task, change, options, words):
    root = Path(shutil.copytree(sample / DATA[task], tmp_path / 'data'))
    change(root)
    options = [f'data_root={root}', *SMALL, *SHORT[task], *options]
    check(line_of('train', configs[task], '--cfg-options', *options), words)


# -- checkpoints -----------------------------------------------------------------------------


def saved(content, **kwargs):
    return lambda path: torch.save(content(), path, **kwargs)


def cut(content, **kwargs):
    def write(path):
        torch.save(content(), path, **kwargs)
        path.write_bytes(path.read_bytes()[:-2000])

    return write


def weights(**kwargs):
    """Return the weights of the backbone in a segmentation model."""
    backbone = SLaK('nano', **kwargs)
    return {f'backbone.{name}': value for name, value in backbone.state_dict().items()}


CHECKPOINTS = [
    ('text', lambda path: path.write_text('hello'), ['is not a checkpoint']),
    ('empty', lambda path: path.write_bytes(b''), ['is not a checkpoint']),
    ('directory', lambda path: path.mkdir(), ['is a directory', 'name one']),
    ('truncated', cut(weights), ['truncated or damaged', 'bytes']),
    ('truncated, older format', cut(weights, _use_new_zipfile_serialization=False),
     ['truncated or damaged', 'bytes']),
    ('pickled object', saved(lambda: dict(state_dict=Path())), ['can run any code']),
    ('list', saved(lambda: [1, 2]), ['must contain a dict']),
    ('of another network', saved(lambda: torch.nn.Linear(2, 2).state_dict()), ['does not fit']),
    ('of another size', saved(lambda: weights(width_factor=1.0)), ['does not fit', 'shape']),
    ('merged', saved(lambda: weights(deploy=True)), ['merged', 'model.backbone.deploy=True']),
]  # fmt: skip


@pytest.mark.parametrize(
    ('make', 'words'), [row[1:] for row in CHECKPOINTS], ids=[row[0] for row in CHECKPOINTS]
)
def test_checkpoint(sample, configs, tmp_path, line_of, make, words):
    make(tmp_path / 'file.pth')
    options = [f'data_root={sample / DATA["seg"]}', *SMALL]
    line = line_of('test', configs['seg'], tmp_path / 'file.pth', '--cfg-options', *options)
    check(line, words)


# -- the command line itself -----------------------------------------------------------------


def test_traceback_is_shown_on_request(sample, tmp_path):
    """In real processes: without and with --debug, and an error in a worker process."""
    command = ['tools/train.py', 'configs/none.py']
    text = run_tool(*command, expect=2)
    assert text.splitlines()[-2:] == [
        'error: config configs/none.py does not exist', '(add --debug to see the traceback)'
    ]  # fmt: skip
    assert 'Traceback' not in text
    text = run_tool(*command, '--debug', expect=1)
    assert 'Traceback' in text and 'FileNotFoundError: config configs/none.py' in text


def test_error_in_a_worker_process_is_one_line(sample, configs, tmp_path, line_of):
    root = Path(shutil.copytree(sample / DATA['cls'], tmp_path / 'data'))
    corrupt_image(root)
    options = [f'data_root={root}', *SMALL, 'train_dataloader.num_workers=1']
    line = line_of('train', configs['cls'], '--cfg-options', *options)
    check(line, ['image ', '.JPEG: cannot identify', '--skip-bad-images'])
