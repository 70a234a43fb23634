"""The backbone where MMEngine and MMCV are not installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HIDE = """
import importlib.abc
import importlib.util
import sys

hidden = ('mmengine', 'mmcv')
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.split('.')[0] in hidden else find(name, *a)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split('.')[0] in hidden:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Finder())
"""
CODE = """
import torch
from mmslak.models import SLaK

torch.manual_seed(0)
arch = dict(depths=(1, 1, 1, 1), widths=(8, 12, 16, 20))
network = SLaK(arch, (7, 7, 7, 7), 3, drop_path_rate=0.3, layer_scale_init_value=1.0)
image = torch.randn(2, 3, 64, 64)
sum(out.square().mean() for out in network(image)).backward()
assert all(p.grad is not None for p in network.parameters())
network.eval()
before = network(image)
after = network.switch_to_deploy()(image)
assert all((a - b).abs().max() < 1e-4 * b.abs().max() for a, b in zip(after, before))
for settings in (dict(type='Pretrained', checkpoint='a.pth'),):
    try:
        SLaK('nano', init_cfg=settings)
    except ValueError as error:
        print(error)
"""


def test_training_and_merging():
    done = subprocess.run(
        [sys.executable, '-c', HIDE + CODE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('init_cfg with a checkpoint needs MMEngine and MMCV; install')
