"""Receptive fields against networks whose receptive field is known exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mmengine.config import Config
from PIL import Image
from torch import nn

from mmslak.analysis.erf import (
    ERFState,
    InputReader,
    area_ratio,
    backbone_settings,
    build_backbone,
    contribution_scores,
    effective_receptive_field,
    rescaled_log,
    sample_images,
)
from mmslak.checkpoints import CheckpointError, read_checkpoint
from mmslak.cli.config import load_config
from mmslak.models import SLaK, SpatialMixing

ROOT = Path(__file__).parents[2]


def ones(*sizes, in_channels=1, **kwargs):
    """A convolution whose weights are all one."""
    layer = nn.Conv2d(in_channels, 1, *sizes, bias=False, **kwargs)
    nn.init.ones_(layer.weight)
    return layer


def field(size, kernel, centre):
    """Place a kernel (h, w), odd, around (x, y) on zeros of (size, size)."""
    expected = np.zeros((size, size))
    h, w = kernel.shape
    x, y = centre
    expected[y - h // 2 : y + h // 2 + 1, x - w // 2 : x + w // 2 + 1] = kernel
    return expected


def test_one_convolution_sees_its_kernel():
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator))
    scores, size = contribution_scores(layer, torch.ones(1, 2, 9, 9))
    # Inputs and weights are positive, so rectification has no effect: the score of a pixel is the
    # sum of its weights over input and output channels.
    kernel = layer.weight.detach().double().sum((0, 1)).numpy()
    np.testing.assert_allclose(scores, field(9, kernel, (4, 4)), rtol=1e-6)
    assert size == (9, 9)


def test_negative_features_and_gradients_are_rectified():
    layer = nn.Conv2d(2, 2, 1, bias=False)
    # Output 0 is positive, with a gradient of 2 for input 0 and a negative one for input 1, which
    # does not count. Output 1 is negative and does not count.
    weight = torch.tensor([[2.0, -1.0], [-3.0, 1.0]]).reshape(2, 2, 1, 1)
    layer.weight.data.copy_(weight)
    scores, _ = contribution_scores(layer, torch.ones(1, 2, 5, 5))
    np.testing.assert_array_equal(scores, field(5, np.array([[2.0]]), (2, 2)))


def test_stack_sees_the_product_of_triangles():
    model = nn.Sequential(ones(3, padding=1), ones(3, padding=1))
    scores, _ = contribution_scores(model, torch.ones(1, 1, 11, 11))
    triangle = np.array([1, 2, 3, 2, 1])
    np.testing.assert_array_equal(scores, field(11, np.outer(triangle, triangle), (5, 5)))


def test_strided_stack_at_its_centre_and_elsewhere():
    # A stem of stride 4, a 3 x 3 convolution and a downsampling by 2, as in ConvNeXt.
    model = nn.Sequential(ones(4, stride=4), ones(3, padding=1), ones(2, stride=2))
    image = torch.ones(1, 1, 64, 64)
    # Position p of the last feature map depends on positions 2p and 2p + 1 and their neighbours:
    # four positions, counted 1, 2, 2 and 1 times, of four pixels each, from 4 (2p - 1) on.
    line = np.repeat([1, 2, 2, 1], 4)
    for point, (x, y) in ((None, (4, 4)), ((2, 5), (2, 5))):
        scores, size = contribution_scores(model, image, point)
        expected = np.zeros((64, 64))
        top, left = 4 * (2 * y - 1), 4 * (2 * x - 1)
        expected[top : top + 16, left : left + 16] = np.outer(line, line)
        np.testing.assert_array_equal(scores, expected)
        assert size == (8, 8)


def test_decomposed_block_sees_a_cross():
    mixing = SpatialMixing(1, 9, 3, 'decomposed').eval()
    for branch in mixing.branch_names:
        nn.init.ones_(getattr(mixing, branch).conv.weight)
    scores, _ = contribution_scores(mixing, torch.ones(1, 1, 21, 21))
    cross = np.zeros((9, 9))
    cross[:, 3:6] += 1  # 9 x 3
    cross[3:6, :] += 1  # 3 x 9
    cross[3:6, 3:6] += 1  # 3 x 3
    # Each branch goes through a batch norm of mean 0, variance 1 and eps 1e-5.
    expected = field(21, cross, (10, 10)) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_last_feature_map_is_used():
    class Two(nn.Module):
        def forward(self, x):
            return x * 7, nn.functional.avg_pool2d(x, 2)

    scores, size = contribution_scores(Two(), torch.ones(1, 1, 4, 4))
    expected = np.zeros((4, 4))
    expected[2:, 2:] = 0.25
    np.testing.assert_array_equal(scores, expected)
    assert size == (2, 2)


def test_point_outside_and_vectors_are_named():
    with pytest.raises(ValueError, match=r'--point 9 0 .* x must be in 0\.\.7'):
        contribution_scores(nn.Identity(), torch.ones(1, 3, 8, 8), (9, 0))
    with pytest.raises(ValueError, match=r'a feature map of shape \(N, C, H, W\), got \(1, 192\)'):
        contribution_scores(nn.Flatten(), torch.ones(1, 3, 8, 8))


def test_area_ratio_by_hand():
    scores = np.zeros((10, 10))
    scores[5, 5] = 3.0  # the centre, W // 2 and H // 2
    scores[4, 5] = 1.0  # in the square of side 3
    scores[0, 0] = 6.0  # only the whole image contains it
    assert area_ratio(scores, 0.29) == 0.01
    assert area_ratio(scores, 0.3) == 0.09  # 0.3 is not more than 0.3
    assert area_ratio(scores, 0.4) == 1.0
    # Around (9, 0), the upper right corner, squares are cropped: side 9 covers rows 0 to 4 and
    # columns 5 to 9, 5 x 5 pixels.
    assert area_ratio(scores, 0.05, (9, 0)) == 0.25


def test_area_ratio_of_a_uniform_field():
    # 1024 x 1024: the smallest odd side A with (A / 1024)^2 > t.
    scores = np.ones((1024, 1024))
    for threshold, side in ((0.2, 459), (0.3, 561), (0.5, 725), (0.99, 1019)):
        assert area_ratio(scores, threshold) == side**2 / 1024**2


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)),
    st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.99]),
)
def test_area_ratio_against_a_sum_over_pixels(scores, threshold):
    if scores.sum() == 0:
        with pytest.raises(ValueError, match='all scores are zero'):
            area_ratio(scores, threshold)
        return
    height, width = scores.shape
    for reach in range(9):
        inside = [
            scores[y, x]
            for y in range(height)
            for x in range(width)
            if abs(y - height // 2) <= reach and abs(x - width // 2) <= reach
        ]
        if sum(inside) / scores.sum() > threshold:
            break
    assert area_ratio(scores, threshold) == pytest.approx(len(inside) / scores.size)


def test_logarithm_by_hand():
    np.testing.assert_allclose(rescaled_log(np.array([[0.0, 9.0, 99.0]])), [[0, 0.5, 1]])
    assert not rescaled_log(np.zeros((2, 2))).any()


def folder_of_images(folder, count, size=48):
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        pixels = draw.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return folder


def test_larger_samples_begin_with_the_same_images(tmp_path):
    folder = folder_of_images(tmp_path / 'images', 8)
    five = sample_images(folder, 5)
    assert sample_images(folder, 8)[:5] == five and len(set(five)) == 5
    with pytest.raises(ValueError, match='from 1 to 8, the number of images'):
        sample_images(folder, 9)
    with pytest.raises(FileNotFoundError, match='is not a directory'):
        sample_images(tmp_path / 'nowhere', 1)


@pytest.mark.parametrize('rgb', [True, False])
def test_pixels_are_normalised_in_the_models_order(tmp_path, rgb):
    Image.new('RGB', (5, 3), (10, 20, 30)).save(tmp_path / 'a.png')
    preprocessor = dict(mean=[1, 2, 3], std=[1, 2, 4], bgr_to_rgb=rgb)
    image = InputReader(Config(dict(model=dict(data_preprocessor=preprocessor))), 4)(
        tmp_path / 'a.png'
    )
    assert image.shape == (1, 3, 4, 4)
    order = [10, 20, 30] if rgb else [30, 20, 10]
    expected = [(order[0] - 1) / 1, (order[1] - 2) / 2, (order[2] - 3) / 4]
    np.testing.assert_allclose(image[0, :, 2, 1], expected)


def test_average_continues_after_an_interruption(tmp_path):
    paths = sample_images(folder_of_images(tmp_path / 'images', 4), 4)
    # The gradient of x^2 is 2x, which depends on the image.
    values = dict(zip(paths, (1.0, 2.0, 3.0, 6.0), strict=True))
    read_now = []

    def read(path):
        read_now.append(path)
        return torch.full((1, 1, 2, 2), values[path])

    class Square(nn.Module):
        def forward(self, x):
            return (x**2).sum((-2, -1), keepdim=True)

    file = tmp_path / 'out' / 'a.npz'

    def run(count):
        state = ERFState(file, dict(size=2))
        return effective_receptive_field(Square, read, paths[:count], state)

    np.testing.assert_allclose(run(2), np.full((2, 2), 3.0))  # of 2 and 4
    np.testing.assert_allclose(run(4), np.full((2, 2), 6.0))  # of 2, 4, 6 and 12
    assert read_now == paths
    run(4)
    assert read_now == paths
    with pytest.raises(ValueError, match=r'contains 4 images, .* the same or a larger --num'):
        run(3)
    with pytest.raises(ValueError, match=r'other settings \(size\): give another --out'):
        ERFState(file, dict(size=4))


def nano_config(**backbone):
    settings = dict(type='mmslak.SLaK', arch='nano', kernel_sizes=(7, 7, 7, 5), **backbone)
    return Config(dict(model=dict(backbone=settings)))


def test_classifier_returns_its_feature_map_instead_of_the_pooled_vector():
    cfg = nano_config(
        gap_before_final_norm=True,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'),
    )
    assert backbone_settings(cfg)['init_cfg'] is None
    backbone = build_backbone(cfg)
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())
    assert backbone(torch.zeros(1, 3, 64, 64))[-1].shape == (1, 166, 2, 2)
    assert torch.equal(backbone.norm3.weight, torch.ones(166))


def test_untrained_weights_follow_the_seed_and_checkpoints_replace_them(tmp_path):
    cfg = nano_config()

    def weight(model):
        return model.stages[0][0].pwconv1.weight

    first = weight(build_backbone(cfg, seed=1))
    assert torch.equal(first, weight(build_backbone(cfg, seed=1)))
    assert not torch.equal(first, weight(build_backbone(cfg, seed=2)))
    trained = SLaK('nano', (7, 7, 7, 5))
    state = {f'backbone.{k}': v for k, v in trained.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'c.pth')
    assert torch.equal(weight(build_backbone(cfg, tmp_path / 'c.pth')), weight(trained))
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth does not exist'):
        build_backbone(cfg, tmp_path / 'nowhere.pth')


def test_models_of_the_package_are_loaded_by_name():
    pytest.importorskip('mmseg')
    backbone = build_backbone(
        load_config(ROOT / 'configs/upernet_slak_nano_camvid.py'), 'slak_nano_camvid'
    )
    state = read_checkpoint('slak_nano_camvid')['state_dict']
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}'])


def test_backbones_of_the_toolboxes(tmp_path):
    pytest.importorskip('mmpretrain')
    arch = dict(depths=[1, 1, 1, 1], channels=[4, 4, 8, 8])
    backbone = dict(type='ConvNeXt', arch=arch, layer_scale_init_value=1.0)
    cfg = Config(dict(default_scope='mmpretrain', model=dict(backbone=backbone)))
    import mmpretrain.models  # noqa: F401

    built = build_backbone(cfg)
    scores, size = contribution_scores(built, torch.rand(1, 3, 64, 64))
    assert size == (2, 2) and scores.max() > 0
    torch.save(dict(state_dict=built.state_dict()), tmp_path / 'c.pth')
    loaded = build_backbone(cfg, tmp_path / 'c.pth', seed=5)
    assert all(map(torch.equal, loaded.parameters(), built.parameters()))
    torch.save(dict(state_dict={'backbone.other': torch.ones(1)}), tmp_path / 'd.pth')
    with pytest.raises(CheckpointError, match='is missing in the file and'):
        build_backbone(cfg, tmp_path / 'd.pth')
    with pytest.raises(ValueError, match=r'has no model\.backbone'):
        build_backbone(Config(dict(model=dict(type='A'))))


def test_recomputed_activations_change_no_score():
    cfg = nano_config(layer_scale_init_value=1.0)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    recomputing = build_backbone(cfg)
    assert recomputing.stages[0][0].with_cp
    keeping = build_backbone(cfg)
    for module in keeping.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = False
    first, second = (contribution_scores(m, image)[0] for m in (recomputing, keeping))
    np.testing.assert_array_equal(first, second)
    assert first.max() > 0


def test_vision_transformers_return_their_feature_map():
    pytest.importorskip('mmpretrain')
    cfg = load_config('mmpretrain::deit/deit-small_4xb256_in1k.py')
    cfg.model.backbone.arch = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=8)
    backbone = build_backbone(cfg)
    scores, size = contribution_scores(backbone, torch.rand(1, 3, 64, 96))
    assert size == (4, 6) and scores.max() > 0


def test_pixels_are_normalised_as_the_config_says(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 100  # red
    Image.fromarray(image).save(tmp_path / 'red.png')

    def channels(**preprocessor):
        cfg = Config(dict(model=dict(data_preprocessor=preprocessor)))
        return InputReader(cfg, 2)(tmp_path / 'red.png')[0, :, 0, 0].tolist()

    # MMDetection's default: neither converted to RGB nor normalised.
    assert channels(type='DetDataPreprocessor', pad_size_divisor=32) == [0, 0, 100]
    assert channels(mean=[10, 0, 0], std=[2, 1, 1], bgr_to_rgb=True) == [45, 0, 0]
    assert channels(mean=[10, 0, 0], std=[2, 1, 1]) == [-5, 0, 100]


def test_command(tmp_path, monkeypatch, capsys, load_tool):
    tool = load_tool('analysis/erf.py')
    images = folder_of_images(tmp_path / 'images', 3)
    small = tmp_path / 'small.py'
    large = tmp_path / 'large.py'
    for path, kernels in ((small, (7, 7, 7, 5)), (large, (31, 15, 7, 5))):
        path.write_text(
            "custom_imports = dict(imports=['mmslak'])\n"
            "model = dict(backbone=dict(type='mmslak.SLaK', arch='nano', "
            f'layer_scale_init_value=1.0, kernel_sizes={kernels}))\n'
        )

    def run(*options):
        arguments = ['erf.py', str(small), str(large), '--images', str(images), '--size', '64']
        monkeypatch.setattr('sys.argv', [*arguments, '--out', str(tmp_path / 'out'), *options])
        tool.main()
        return capsys.readouterr().out

    printed = run('--num', '2')
    assert 'small' in printed and 'raw' in printed and 'Peak memory' in printed
    out = tmp_path / 'out'
    matrix = np.load(out / 'large.npy')
    assert matrix.shape == (64, 64) and matrix.min() >= 0 < matrix.max()
    ratios = json.loads((out / 'ratios.json').read_text())
    assert list(ratios) == ['small', 'large']
    assert ratios['large']['raw'][2] == area_ratio(matrix, 0.5)
    for name in ('erf', 'small', 'large'):
        assert Image.open(out / f'{name}.png').size[0] > 100
    assert '| small | log | ' in (out / 'ratios.md').read_text()

    # Another output position depends on other pixels: rows 32 to 63, columns 0 to 31.
    run('--num', '2', '--out', str(tmp_path / 'corner'), '--point', '0', '1')
    corner = np.load(tmp_path / 'corner' / 'small.npy')
    assert corner[32:, :32].mean() > 2 * corner.mean()
    for options, message in (
        (('--num', '1'), 'the same or a larger --num'),
        (('--num', '2', '--seed', '3'), 'other settings (seed)'),
        (('--num', '4'), 'from 1 to 3, the number of images'),
        (('--names', 'a', '--num', '2'), '--names must have 2 names'),
        (('--device', 'nothing', '--num', '2'), '--device nothing cannot be used here'),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*options)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize('models', [1, 3])
def test_long_titles_and_ticks_are_readable(tmp_path, monkeypatch, load_tool, models):
    """All texts are inside the figure, and no two of them overlap."""
    tool = load_tool('analysis/erf.py')
    figures = []
    monkeypatch.setattr(tool.plt, 'close', figures.append)
    # The default names are those of config and checkpoint.
    names = [f'upernet_slak_nano_colour_camvid-best_mIoU_iter_{i}' for i in range(models - 1)]
    names.append('A' * 40)
    fields = {name: np.ones((1024, 1024)) for name in names}
    tool.draw(fields, tmp_path / 'f.png', dict.fromkeys(names), 0.4)
    (figure,) = figures
    monkeypatch.undo()
    panels = figure.axes[:models]
    texts = [panel.title for panel in panels]
    assert [text.get_text().replace('\n', '') for text in texts] == names
    texts += [label for p in panels for label in p.get_xticklabels() + p.get_yticklabels()]
    boxes = [text.get_window_extent() for text in texts]
    tool.plt.close(figure)
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, texts[i]
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, texts[i]
        assert not any(box.overlaps(other) for other in boxes[:i]), texts[i]


def test_command_checks_all_models_before_it_starts(tmp_path, monkeypatch, capsys, load_tool):
    tool = load_tool('analysis/erf.py')
    images, checkpoint = folder_of_images(tmp_path / 'images', 2), tmp_path / 'c.pth'
    good = tmp_path / 'good.py'
    good.write_text(
        "custom_imports = dict(imports=['mmslak'])\n"
        "model = dict(backbone=dict(type='mmslak.SLaK', arch='nano', kernel_sizes=(7, 7, 7, 5)))\n"
    )

    def run(*models, num=1, options=()):
        arguments = ['--images', images, '--size', '64', '--num', num, '--out', tmp_path / 'out']
        monkeypatch.setattr('sys.argv', ['erf.py', *map(str, [*models, *arguments, *options])])
        tool.main()

    def refused(*arguments, **options):
        with pytest.raises(SystemExit):
            run(*arguments, **options)
        return capsys.readouterr().err

    torch.save(dict(state_dict={'other': torch.ones(1)}), checkpoint)
    assert 'good.py: ' in refused(good, f'{good}={checkpoint}')
    assert 'is outside the last feature map' in refused(good, options=['--point', 2, 0])
    assert 'names no checkpoint' in refused(good, f'{good}=')
    assert not (tmp_path / 'out').exists()

    # A training may overwrite a checkpoint with a file of the same name and size.
    def save(seed):
        torch.manual_seed(seed)
        torch.save(dict(state_dict=SLaK('nano', (7, 7, 7, 5)).state_dict()), checkpoint)
        return checkpoint.stat().st_size

    size = save(1)
    run(f'{good}={checkpoint}')
    assert save(2) == size
    assert 'other settings (checkpoint): give another --out' in refused(
        f'{good}={checkpoint}', num=2
    )
    save(1)
    run(f'{good}={checkpoint}', num=2)
