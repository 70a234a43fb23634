"""Trained models as files of ONNX and torch.export."""

import argparse
import io
import json
import sys

import onnx
import onnxruntime
import pytest
import torch
from helpers import ROOT, randomise_as_trained, run_tool
from mmengine.config import Config
from torch import nn

from mmslak.checkpoints import CheckpointError
from mmslak.cli.config import load_config
from mmslak.graphs import FORMATS, ImageNetwork, build_network, load_graph, write_graph
from mmslak.graphs.network import _AveragePool
from mmslak.models import SLaK, build_model
from mmslak.ops import LargeKernelConv2d, depthwise

CONFIGS = dict(
    classification='configs/sample/slak_nano_in1k.py',
    segmentation='configs/sample/upernet_slak_nano_ade20k.py',
    detection='configs/sample/faster_rcnn_slak_nano_voc.py',
)
TOOLBOXES = dict(classification='mmpretrain', segmentation='mmseg', detection='mmdet')


class Features(nn.Module):
    """Stands for a model of a toolbox, with one block in each stage."""

    def __init__(self):
        super().__init__()
        # 100 channels: in eager mode these linear layers are computed on padded widths.
        arch = dict(depths=[1, 1, 1, 1], widths=[100, 8, 8, 8])
        self.backbone = SLaK(arch, (21, 5, 5, 9), out_indices=(0, 3), layer_scale_init_value=1.0)

    def forward(self, image):
        return self.backbone(image / 255)


class Tiny(nn.Module):
    """One wide convolution, with two outputs of different sizes."""

    def __init__(self):
        super().__init__()
        self.conv = LargeKernelConv2d(3, 3, (5, 21))

    def forward(self, image):
        x = self.conv(image / 255)
        return x, x[:, :, ::4, ::4]


def merged_features():
    network = Features()
    randomise_as_trained(network).backbone.switch_to_deploy()
    return network


def in_evaluation(network):
    return network.eval().requires_grad_(False)


def trained(task):
    """Return the config of a task and a checkpoint for it."""
    pytest.importorskip(TOOLBOXES[task])
    cfg = load_config(ROOT / CONFIGS[task])
    state = randomise_as_trained(build_model(cfg)).state_dict()
    return cfg, dict(state_dict=state, meta=dict(dataset_meta=dict(classes=['ä', 'b'])))


@pytest.mark.parametrize('file_format', FORMATS)
@pytest.mark.parametrize('make', [Tiny, pytest.param(merged_features, marks=pytest.mark.slow)])
def test_outputs_and_meta_data(make, file_format, tmp_path):
    torch.manual_seed(0)
    network = in_evaluation(make())
    file = tmp_path / f'new/network{FORMATS[file_format]}'
    meta, names = dict(classes=['ä', 'b'], score=1.5), ['low', 'high']
    write_graph(network, torch.rand(2, 3, 64, 96), file, file_format, names, meta, 64)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    run = load_graph(file, file_format)
    for shape in ((2, 3, 64, 96), (1, 3, 100, 70), (3, 3, 65, 160)):
        image = 255 * torch.rand(shape)
        for out, wanted in zip(run(image), network(image), strict=True):
            torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-4)
    if file_format == 'onnx':
        model = onnx.load(file)
        found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        assert found.items() >= meta.items()
        assert [out.name for out in model.graph.output] == names
        assert {node.domain for node in model.graph.node} == {''}
    else:
        extra = {'mmslak.json': ''}
        program = torch.export.load(file, extra_files=extra)
        assert json.loads(extra['mmslak.json']) == meta
        assert 'mmslak' not in str(program.graph)


@pytest.mark.parametrize('merged', [True, False])
def test_torchscript_exporter(merged):
    network = merged_features() if merged else randomise_as_trained(Features())
    network = in_evaluation(network)
    file, axes = io.BytesIO(), {'image': {0: 'batch', 2: 'height', 3: 'width'}}
    example = torch.rand(1, 3, 64, 96)
    torch.onnx.export(
        network, (example,), file, dynamo=False, input_names=['image'], dynamic_axes=axes
    )
    session = onnxruntime.InferenceSession(file.getvalue(), providers=['CPUExecutionProvider'])
    for shape in ((1, 3, 64, 96), (2, 3, 100, 70)):
        image = 255 * torch.rand(shape)
        outputs = session.run(None, {'image': image.numpy()})
        for out, wanted in zip(outputs, network(image), strict=True):
            torch.testing.assert_close(torch.from_numpy(out), wanted, rtol=1e-4, atol=1e-4)


def test_a_network_that_depends_on_values(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            return (x if x.sum() > 0 else -x,)

    for file_format in FORMATS:
        with pytest.raises(ValueError, match=f'cannot be exported as {file_format} .*; its code'):
            write_graph(Branching(), torch.ones(1, 3, 8, 8), tmp_path / 'a', file_format, ['x'], {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [1, 3, (2, 6), (None, 4)])
def test_pooling(size):
    x = torch.randn(2, 3, 11, 16, dtype=torch.float64)
    wanted = nn.AdaptiveAvgPool2d(size)(x)
    torch.testing.assert_close(_AveragePool(size)(x), wanted)


def test_classifier_scores_as_in_its_test():
    cfg, checkpoint = trained('classification')
    network = build_network(cfg, checkpoint)
    assert (network.task, network.channel_order) == ('classification', 'RGB')
    model = network.model
    bgr = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    from mmpretrain.structures import DataSample

    batch = dict(inputs=list(bgr), data_samples=[DataSample(), DataSample()])
    wanted = torch.stack([sample.pred_score for sample in model.test_step(batch)])
    network.prepare(dynamic=True)
    (logits,) = network(bgr.flip(1).float())
    torch.testing.assert_close(logits.softmax(1), wanted, rtol=1e-4, atol=1e-5)
    assert model.backbone.stages[0][0].mixing.deploy


def test_other_models_are_refused():
    with pytest.raises(ValueError, match=r'model\.type must be a classifier .* got Linear'):
        ImageNetwork(nn.Linear(1, 1))


def test_small_images_with_any_size(load_tool):
    cfg, checkpoint = trained('classification')
    network = build_network(cfg, checkpoint)
    images = load_tool('deploy/export.py').example_images
    with pytest.raises(ValueError, match=r'at least 64 64 with --dynamic for .* got 32 64'):
        images(network, cfg, [32, 64], dynamic=True)
    assert [image.shape for image in images(network, cfg, [32, 64], False)] == [(1, 3, 32, 64)]


def test_checkpoint_of_another_model():
    cfg, checkpoint = trained('classification')
    checkpoint['state_dict'].popitem()
    with pytest.raises(CheckpointError, match=r'c\.pth does not fit the model'):
        build_network(cfg, checkpoint, 'c.pth')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a.txt'], r'OUT must end with .onnx or .pt2 or .safetensors, got a.txt'),
        (['a.pt2', '--format', 'onnx'], 'OUT must end with .onnx, got a.pt2'),
        (['a.safetensors', '--dynamic'], '--dynamic and --shape are for onnx and torch-export'),
        ([str(ROOT / 'LICENSE.onnx'), '--shape', '64', '64'], 'needs other packages: pip install'),
    ],
)
def test_wrong_options(arguments, message, load_tool, monkeypatch, capsys):
    tool = load_tool('deploy/export.py')
    if 'packages' in message:
        monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setattr(sys, 'argv', ['export.py', 'missing.py', 'missing.pth', *arguments])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2 and message in capsys.readouterr().err


def export(task, tmp_path, name, *arguments, options=()):
    _, checkpoint = trained(task)
    torch.save(checkpoint, tmp_path / 'c.pth')
    command = ['tools/deploy/export.py', CONFIGS[task], tmp_path / 'c.pth', tmp_path / name]
    return run_tool(*command, *arguments, options=options)


@pytest.mark.slow
@pytest.mark.parametrize('file_format', FORMATS)
@pytest.mark.parametrize(
    ('task', 'options'),
    [
        ('classification', []),
        ('segmentation', ['model.test_cfg.mode=whole']),
        ('detection', []),
    ],
)
def test_command_line_with_any_size(task, options, file_format, tmp_path):
    name = f'm{FORMATS[file_format]}'
    shape = ['--shape', '160', '224'] if task == 'detection' else []
    printed = export(task, tmp_path, name, '--dynamic', *shape, options=options)
    assert printed.count('largest difference') == 3 and 'time of 2 x 3 x' in printed
    assert 'window' not in printed


@pytest.mark.slow
def test_command_line_with_one_window(tmp_path):
    printed = export('segmentation', tmp_path, 'm.onnx', '--meta', 'licence=MIT')
    assert 'for one window of 128 x 128 pixels' in printed
    assert printed.count('1 x 3 x 128 x 128: largest difference') == 1
    model = onnx.load(tmp_path / 'm.onnx')
    meta = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert meta['classes'] == ['ä', 'b'] and meta['licence'] == 'MIT'
    assert (meta['window'], meta['window_stride']) == ([128, 128], [85, 85])
    assert meta['channel_order'] == 'RGB' and meta['normalisation']['inside'] is True
    assert meta['input']['shape'] == [1, 3, 128, 128]


def test_differences_are_an_error(load_tool, monkeypatch):
    tool = load_tool('deploy/export.py')
    monkeypatch.setattr(tool, 'load_graph', lambda path, name: lambda x: [x + 0.01])
    args = type('Arguments', (), dict(out='m.onnx', format='onnx'))
    with pytest.raises(ValueError, match='do not use the file'):
        tool.check(Tiny(), [torch.ones(1, 3, 64, 64)], [(torch.ones(1, 3, 64, 64),)], args)


class Classifier(nn.Module):
    """Stands for a classifier of MMPretrain."""

    __module__ = 'mmpretrain.models'
    data_preprocessor = nn.Identity()

    def forward(self, x, mode):
        return x.mean((2, 3))


def test_without_onnx_runtime(load_tool, monkeypatch, tmp_path, capsys):
    tool = load_tool('deploy/export.py')
    monkeypatch.setattr(tool, 'build_network', lambda *_: ImageNetwork(Classifier()))
    monkeypatch.setattr(tool, 'unavailable', lambda name, run: 'onnxruntime')
    file = tmp_path / 'm.pt2'
    args = dict(out=str(file), format='torch-export', shape=None, dynamic=False, checkpoint='c.pth')
    cfg = Config(dict(crop_size=(64, 80)))
    with pytest.raises(ValueError, match="the key 'task' of --meta is already used"):
        tool.export_graph(argparse.Namespace(**args), cfg, dict(task=1), {})
    assert not file.exists()
    tool.export_graph(argparse.Namespace(**args), cfg, dict(score=1), {})
    printed = capsys.readouterr().out
    assert 'not compared with the model; to do so: pip install onnxruntime' in printed
    extra = {'mmslak.json': ''}
    torch.export.load(file, extra_files=extra)
    meta = json.loads(extra['mmslak.json'])
    assert meta['input']['shape'] == [1, 3, 64, 80] and meta['score'] == 1
    assert meta['channel_order'] == 'BGR' and 'classes' not in meta


def test_the_operator_is_used_outside_of_exports():
    assert not depthwise._is_exporting_to_onnx()
