"""The command line: what it reads, what it writes, and what it refuses."""

import csv
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from PIL import Image

pytest.importorskip('mmseg')

from mmslak.predict.inputs import Source, Video, VideoWriter, check_sources, find_sources
from mmslak.predict.predict_command import split_arguments
from mmslak.predict.result_files import results_writer
from mmslak.validation.images import BadImageError

IMAGES = ROOT / 'tests/data/camvid/images/test'


def picture(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (10, 200, 30)).save(path)
    return path


def video(path, frames=5):
    writer = VideoWriter(path, 10)
    for i in range(frames):
        writer.add(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.close()
    return path


def test_writes_label_maps_and_pictures_of_a_directory_and_a_video(tmp_path):
    photos = tmp_path / 'photos'
    first = picture(photos / 'a.png', (96, 64))
    picture(photos / 'below/a.jpg', (64, 96))
    (photos / 'notes.txt').write_text('no image')
    clip = video(tmp_path / 'clip.mp4')
    out = tmp_path / 'out'
    text = run_tool('tools/predict.py', photos, clip, '--out', out, '--batch-size', 2)
    assert '7 images' in text
    names = ['a', 'below/a', *(f'clip/{i:06d}' for i in range(5))]
    written = sorted(
        path.relative_to(out / 'labels').as_posix() for path in out.rglob('labels/**/*.png')
    )
    assert written == sorted(f'{name}.png' for name in names)
    labels = np.asarray(Image.open(out / 'labels/a.png'))
    assert labels.shape == Image.open(first).size[::-1]
    assert labels.max() < 11
    assert (out / 'pictures/below/a.png').is_file()
    assert Video(out / 'pictures/clip.mp4').frame_count == 5
    # Nothing is overwritten.
    refused = run_tool('tools/predict.py', first, '--out', out, expect=2)
    assert f'--out {out} already exists' in refused
    assert 'Traceback' not in refused


def test_the_limit_of_pixels_can_be_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    image = picture(tmp_path / 'large.png', (96, 64))
    command = ['tools/predict.py', image, '--out', tmp_path / 'out']
    text = run_tool(*command, options=['max_image_pixels=6000'], expect=2)
    assert '6144 pixels are more than the limit of 6000' in text
    assert '1 image in' in run_tool(*command, options=['max_image_pixels=6144'])


def test_sources_of_files_directories_and_patterns(tmp_path):
    for name in ('x/1.png', 'x/2.JPG', 'y/1.png', 'y/deep/3.png'):
        picture(tmp_path / name)
    (tmp_path / 'x/readme.md').write_text('')
    found = find_sources([str(tmp_path / 'x'), str(tmp_path / '*/1.png'), str(tmp_path / 'y')])
    # Each file once; equal names are numbered.
    assert [(s.path.relative_to(tmp_path).as_posix(), s.name) for s in found] == [
        ('x/1.png', '1'), ('x/2.JPG', '2'), ('y/1.png', '1_2'), ('y/deep/3.png', 'deep/3'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'error', 'message'),
    [
        ('none.png', FileNotFoundError, 'does not exist'),
        ('*.webp', FileNotFoundError, 'no image and no video'),
        ('empty', FileNotFoundError, 'no image and no video'),
        ('notes.txt', ValueError, r'suffixes .*\.png'),
    ],
)
def test_sources_that_are_refused(name, error, message, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(error, match=message):
        find_sources([str(tmp_path / name)])


def test_all_damaged_files_are_named_before_the_model_is_loaded(tmp_path):
    good = Source(picture(tmp_path / 'good.png'), 'good')
    check_sources([good])
    torn, clip = tmp_path / 'torn.png', tmp_path / 'clip.mp4'
    torn.write_bytes(good.path.read_bytes()[:40])
    clip.write_bytes(b'no video')
    with pytest.raises(BadImageError, match=r'torn\.png.*clip\.mp4: no frame'):
        check_sources([good, Source(torn, 'torn'), Source(clip, 'clip')])


def test_frames_of_a_video(tmp_path):
    frames = list(Video(video(tmp_path / 'clip.mp4')))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5
    for i, frame in enumerate(frames):
        assert abs(float(frame.mean()) - 40 * i) < 6
    assert cv2.VideoCapture(str(tmp_path / 'clip.mp4')).get(cv2.CAP_PROP_FPS) == 10


@pytest.mark.parametrize(
    ('arguments', 'model'),
    [
        (['a.png', 'b'], []),
        (['slak_nano_camvid', 'a.png'], ['slak_nano_camvid']),
        (['model.safetensors', 'a.png'], ['model.safetensors']),
        (['cfg.py', 'x.pth', 'a.png'], ['cfg.py', 'x.pth']),
        (['upernet_slak_t_ade20k', 'x.pth', 'a.png'], ['upernet_slak_t_ade20k', 'x.pth']),
        (['mmdet::a/b.py', 'x.pth', 'a.png'], ['mmdet::a/b.py', 'x.pth']),
    ],
)
def test_what_names_the_model(arguments, model):
    assert split_arguments(arguments) == (model, arguments[len(model) :])


def test_an_input_is_needed():
    with pytest.raises(ValueError, match='no input: give CONFIG CHECKPOINT'):
        split_arguments(['cfg.py', 'x.pth'])


def detections():
    """Return the data sample of an image of 20 x 10 pixels with two objects."""
    mask = torch.zeros(2, 10, 20, dtype=torch.bool)
    mask[0, 2:6, 3:8] = True
    instances = dict(
        bboxes=torch.tensor([[3.0, 2.0, 8.0, 6.0], [0.0, 0.0, 5.5, 4.0]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.9, 0.2]),
        masks=mask,
    )
    return SimpleNamespace(ori_shape=(10, 20), pred_instances=instances)


def test_coco_results(tmp_path):
    coco = pytest.importorskip('pycocotools.coco')
    writer = results_writer('detection', tmp_path, dict(classes=['cat', 'dog']), 'coco', 0.3)
    writer.add('a', 'photos/a.jpg', detections())
    writer.close()
    found = coco.COCO(str(tmp_path / 'predictions.json'))
    assert found.imgs[1] == dict(id=1, file_name='photos/a.jpg', height=10, width=20)
    first, second = found.anns[1], found.anns[2]
    assert found.cats[first['category_id']]['name'] == 'dog'
    assert first['bbox'] == [3, 2, 5, 4]
    assert first['area'] == 20
    assert second['bbox'] == [0, 0, 5.5, 4]
    assert np.array_equal(found.annToMask(first), detections().pred_instances['masks'][0])


def test_voc_results(tmp_path):
    writer = results_writer('detection', tmp_path, dict(classes=['cat', 'dog']), 'voc', 0.3)
    writer.add('below/a', 'photos/a.jpg', detections())
    writer.close()
    root = ElementTree.parse(tmp_path / 'annotations/below/a.xml').getroot()
    assert root.findtext('size/width') == '20'
    (item,) = root.findall('object')
    assert item.findtext('name') == 'dog'
    box = [int(item.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
    assert box == [4, 3, 9, 7]


def test_class_table(tmp_path):
    meta = dict(classes=list('abcdefg'))
    writer = results_writer('classification', tmp_path, meta, 'coco', 0.3)
    scores = torch.tensor([0.1, 0.3, 0.05, 0.25, 0.15, 0.04, 0.11])
    writer.add('x', 'x.png', SimpleNamespace(pred_score=scores))
    writer.close()
    (row,) = csv.DictReader((tmp_path / 'predictions.csv').open())
    assert row['image'] == 'x.png'
    assert [row[f'class_{i}'] for i in range(1, 6)] == ['b', 'd', 'e', 'g', 'a']
    assert float(row['score_1']) == pytest.approx(0.3)


def test_label_maps_of_more_than_256_classes(tmp_path):
    writer = results_writer('segmentation', tmp_path, dict(classes=['c'] * 400), 'coco', 0.3)
    data = torch.tensor([[[0, 399], [256, 3]]])
    writer.add('x', 'x.png', SimpleNamespace(pred_sem_seg=SimpleNamespace(data=data)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'labels/x.png')), data[0])


def test_results_are_json(tmp_path):
    writer = results_writer('detection', tmp_path, dict(classes=['cat', 'dog']), 'coco', 0.3)
    assert str(tmp_path) in writer.close()
    assert json.loads((tmp_path / 'predictions.json').read_text())['annotations'] == []
