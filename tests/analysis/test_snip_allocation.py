"""SNIP from images and from training data, against plain backpropagation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmpretrain')
from mmengine.registry import MODELS, DefaultScope

from mmslak.analysis.snip_allocation import (
    allocate_by_images,
    allocate_by_training_batch,
    image_batch,
    labelled_images,
)
from mmslak.cli.config import load_config
from mmslak.sample_data import write_sample_data

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """Three classes with two, one and three images."""
    random = np.random.default_rng(0)
    for name, count in (('a', 2), ('b', 1), ('c', 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f'{i}.png')
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def test_images_are_spread_over_the_classes(folder):
    chosen = labelled_images(folder, 3)
    assert [(path.parent.name, path.name) for path, _ in chosen] == [
        ('a', '0.png'),
        ('b', '0.png'),
        ('c', '1.png'),
    ]
    assert [label for _, label in chosen] == [0, 1, 2]


@pytest.mark.parametrize('count', [7, 100])
def test_too_few_images(folder, count):
    with pytest.raises(FileNotFoundError, match='6 images'):
        labelled_images(folder, count)


def test_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='0 images'):
        labelled_images(tmp_path / 'nowhere', 1)


def test_batch_is_normalised(tmp_path):
    Image.new('RGB', (10, 20), (255, 0, 0)).save(tmp_path / 'red.png')
    batch = image_batch([tmp_path / 'red.png'], 4)
    assert batch.shape == (1, 3, 4, 4)
    assert batch.dtype == torch.float32
    # (255 - mean) / std of red; -mean / std of green and blue.
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert torch.allclose(batch.mean((0, 2, 3)), torch.tensor(expected))


def test_snip_is_the_highest_scores_of_the_whole_network(folder):
    cfg = load_config(ROOT / 'configs/sample/slak_nano_in1k.py')
    images = labelled_images(folder, 4)
    kept = allocate_by_images(cfg, images, 0.4, size=64, seed=3)

    # The same network, batch and loss, by plain backpropagation.
    settings = cfg.model.copy()
    settings.pop('train_cfg', None)
    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(settings)
        model.init_weights()
    model.train()
    features = model.backbone(image_batch([path for path, _ in images], 64))
    labels = torch.tensor([label for _, label in images])
    scores = model.head.fc(features[-1])
    loss = torch.nn.functional.cross_entropy(scores, labels, label_smoothing=0.1)
    loss.backward()
    parameters = dict(model.named_parameters())
    assert set(kept) == {name for name, p in parameters.items() if p.ndim > 1}
    sensitivity = {name: (parameters[name].grad * parameters[name]).abs() for name in kept}
    total = sum(p.numel() for name, p in parameters.items() if name in kept)
    assert sum(kept.values()) == round(0.6 * total)

    # Layers that would be nearly dense are dense, and the others are allocated the rest.
    rest = [name for name in kept if kept[name] < parameters[name].numel()]
    everything = torch.cat([sensitivity[name].flatten() for name in rest])
    budget = sum(kept[name] for name in rest)
    threshold = everything.kthvalue(len(everything) - budget + 1).values
    for name in rest:
        # Up to the rounding of gradients that are summed in another order.
        expected = int((sensitivity[name] >= threshold).sum())
        assert kept[name] == pytest.approx(expected, abs=max(2, 0.005 * expected))


def test_snip_of_the_training_data(tmp_path):
    """The number of active weights is exact, and the result depends on the seed alone."""
    write_sample_data(tmp_path, images=10, size=64)
    options = dict(data_root=str(tmp_path / 'imagenet'))
    cfg = load_config(ROOT / 'configs/sample/slak_nano_in1k.py', options)
    before = cfg.to_dict()
    kept = allocate_by_training_batch(cfg, 4, 0.4)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.ndim > 1}
    assert set(kept) == set(sizes)
    assert sum(kept.values()) == round(0.6 * sum(sizes.values()))
    assert len({round(kept[name] / sizes[name], 3) for name in sizes}) > 3
    assert allocate_by_training_batch(cfg, 4, 0.4) == kept
    assert allocate_by_training_batch(cfg, 4, 0.4, seed=1) != kept
    assert cfg.to_dict() == before
    cfg = load_config(ROOT / 'configs/sample/slak_nano_in1k.py', dict(data_root='nowhere'))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        allocate_by_training_batch(cfg, 4, 0.4)
