"""The wheel of ``make wheel``: built, installed into a new environment, and used there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT, TIMEOUT
from mmengine.config import Config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (sys.platform, os.uname().machine) != ('linux', 'x86_64'), reason='not Linux on x86-64'
    ),
]
#: What a build reads.
READ = (
    'configs', 'tools', 'mmslak', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md',
    'LICENSE', 'model-index.yml',
)  # fmt: skip


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Copy what a build reads, because it writes files there."""
    source = tmp_path_factory.mktemp('source') / 'mmslak'
    source.mkdir()
    for name in READ:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    """Build the wheel with the command of the Makefile."""
    out = tmp_path_factory.mktemp('dist')
    # A file of an earlier build, which must not be in the wheel.
    stale = source / 'build' / f'lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}'
    (stale / 'mmslak').mkdir(parents=True)
    (stale / 'mmslak' / 'removed.py').touch()
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-build-isolation', '--no-deps']
    command += ['--no-index', '--wheel-dir', out, source]
    run(*command, environment={**os.environ, 'MMSLAK_PREBUILT': '1'})
    (wheel,) = out.iterdir()
    return wheel


@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory):
    """Install the wheel into an environment without the checkout, and return its directory."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path('purelib', vars={'base': str(folder)}))
    # The packages that the wheel needs. Paths in this file are not searched for further .pth files,
    # so that an editable installation of the checkout has no effect.
    installed = [path for path in sys.path if Path(path).name == 'site-packages']
    (site / 'base.pth').write_text('\n'.join(installed))
    pip = [sys.executable, '-m', 'pip', '--python', folder / 'bin' / 'python', 'install']
    run(*pip, '--no-deps', '--no-index', '--ignore-installed', wheel)
    where = run(folder / 'bin' / 'python', '-c', 'import mmslak; print(mmslak.__file__)')
    assert where.strip() == str(site / 'mmslak' / '__init__.py')
    return folder


def run(*command, environment=None, cwd='/'):
    """Run a command without the checkout on Python's path, and return what it prints."""
    environment = dict(os.environ if environment is None else environment)
    environment.pop('PYTHONPATH', None)
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, timeout=TIMEOUT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_source_distribution_has_what_the_wheel_needs(source, tmp_path):
    run(sys.executable, 'setup.py', '--quiet', 'sdist', '--dist-dir', tmp_path, cwd=source)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as file:
        packed = {name.partition('/')[2] for name in file.getnames()}
    wanted = {path for name in ('configs', 'tools') for path in (ROOT / name).rglob('*.py')}
    wanted |= {ROOT / 'model-index.yml', ROOT / 'configs/metafile.yml', *ROOT.glob('tools/*.sh')}
    wanted |= {ROOT / 'mmslak/ops/depthwise.cpp', *(ROOT / 'mmslak').rglob('*.safetensors')}
    wanted -= {*(ROOT / 'tools/install').rglob('*')}
    assert {path.relative_to(ROOT).as_posix() for path in wanted} <= packed


def test_contents(wheel):
    assert wheel.name.endswith('-py3-none-manylinux_2_17_x86_64.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    for variant in ('baseline', 'avx2', 'avx512'):
        assert f'mmslak/ops/prebuilt/depthwise-{variant}.so' in names
    for folder, suffix in (('configs', '.py'), ('tools', '.py'), ('tools', '.sh')):
        files = set((ROOT / folder).rglob(f'*{suffix}'))
        files -= {*(ROOT / 'tools/install').rglob('*')}
        wanted = {f'mmslak/.mim/{path.relative_to(ROOT).as_posix()}' for path in files}
        packed = {
            name
            for name in names
            if name.startswith(f'mmslak/.mim/{folder}/') and name.endswith(suffix)
        }
        assert packed == wanted
    assert {'mmslak/.mim/model-index.yml', 'mmslak/.mim/configs/metafile.yml'} <= names
    assert 'mmslak/ops/depthwise.cpp' in names and 'mmslak/removed.py' not in names


def test_auditwheel_names_the_platform(wheel):
    pytest.importorskip('auditwheel')
    out = ' '.join(run(sys.executable, '-m', 'auditwheel', 'show', wheel).split())
    # Any glibc of x86-64 has what the kernels need; the name of the wheel is that of PyTorch's.
    assert 'platform tag: "manylinux_2_5_x86_64"' in out
    assert 'requires no external shared libraries' in out


#: Computes with each variant, and prints its name if the results agree with the reference.
VARIANTS = """
import os
import torch
from mmslak.ops import cpp, depthwise_conv2d, reference
from mmslak.ops.compilation import VARIANTS, find_compiler
from mmslak.ops.depthwise import choose

assert find_compiler() is None
torch.manual_seed(0)
x, grad, weight = torch.randn(2, 19, 30, 41), torch.randn(2, 19, 30, 41), torch.randn(19, 1, 5, 21)
for variant in [None, *VARIANTS]:
    cpp._library.cache_clear()
    os.environ.pop(cpp.VARIANT, None)
    if variant:
        os.environ[cpp.VARIANT] = variant
    try:
        cpp.available()
    except ValueError as error:
        print('refused', error)
        continue
    assert choose(x, (5, 21)) == 'cpp', variant
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = depthwise_conv2d(*leaves)
    results = out, *torch.autograd.grad(out, leaves, grad)
    wanted = (
        reference.forward(x, weight),
        reference.input_gradient(grad, weight),
        reference.weight_gradient(x, grad, (5, 21)),
    )
    for result, value in zip(results, wanted):
        error = (result.double() - value).abs().max() / value.abs().max()
        assert error < 1e-5, (variant, error)
    print('agrees', variant)
loaded = {line.split()[-1] for line in open('/proc/self/maps') if 'depthwise-' in line}
print('loaded', *sorted(map(os.path.basename, loaded)))
"""


@pytest.fixture(scope='module')
def results_of_variants(environment, tmp_path_factory):
    """Return what the variants print where no compiler is on the PATH."""
    home = tmp_path_factory.mktemp('home')
    python = environment / 'bin' / 'python'
    text = run(python, '-c', VARIANTS, environment={'PATH': '/nowhere', 'HOME': str(home)})
    assert not list(home.rglob('*.so'))
    return text


@pytest.mark.parametrize('variant', ['None', 'baseline', 'avx2', 'avx512'])
def test_variant_agrees_with_the_reference_without_a_compiler(results_of_variants, variant):
    if f'refused MMSLAK_CPU_KERNELS={variant} needs a processor with' in results_of_variants:
        pytest.skip(f'this processor has no {variant}')
    assert f'agrees {variant}\n' in results_of_variants
    if variant != 'None':
        assert f'depthwise-{variant}.so' in results_of_variants.splitlines()[-1]


#: Settings with which the sample recipe takes seconds.
SMALL = (
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=2', 'train_dataloader.batch_size=2',
    'model.decode_head.channels=16', 'default_hooks.sparsity.update.every=1',
    'param_scheduler.1.end=8',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ),
)  # fmt: skip


def test_training_and_test_outside_the_checkout(environment, sample_data, tmp_path):
    pytest.importorskip('mmseg')
    options = ['--cfg-options', f'data_root={sample_data(20, 96)}/ADEChallengeData2016', *SMALL]
    mmslak, name = environment / 'bin' / 'mmslak', 'sample/upernet_slak_nano_ade20k'
    text = run(mmslak, 'train', name, *options, cwd=tmp_path)
    work_dir = tmp_path / 'work_dirs' / 'upernet_slak_nano_ade20k'
    assert str(ROOT) not in text and (work_dir / 'iter_2.pth').is_file()
    # A config of the user that inherits from one of the package.
    config = tmp_path / 'own.py'
    config.write_text(f"_base_ = 'mmslak::{name}.py'\n")
    text = run(mmslak, 'test', config, work_dir / 'iter_2.pth', *options, cwd=tmp_path)
    assert 'mIoU' in text and str(ROOT) not in text
    image = ROOT / 'tests/data/camvid/images/test/0001TP_008550.jpg'
    run(mmslak, 'predict', config, work_dir / 'iter_2.pth', image, *options, cwd=tmp_path)
    assert (tmp_path / 'predictions/labels/0001TP_008550.png').is_file()


def test_mim_searches_copies_and_trains_configs(environment, sample_data, tmp_path):
    pytest.importorskip('mmseg')
    pytest.importorskip('mim', reason='openmim is not installed')
    mim = environment / 'bin' / 'python', '-m', 'mim'
    found = run(*mim, 'search', 'mmslak', '--valid-config', cwd=tmp_path)
    names = 'upernet_slak_t_ade20k', 'slak_nano_camvid'
    assert all(f"'{name}'" in found for name in names)
    run(*mim, 'download', 'mmslak', '--config', *names, '--dest', 'copies', cwd=tmp_path)
    copies = tmp_path / 'copies'
    assert {path.name for path in copies.iterdir()} == {f'{name}.py' for name in names}
    copy = Config.fromfile(copies / f'{names[0]}.py')
    wanted = Config.fromfile(ROOT / f'configs/{names[0]}.py')
    assert copy.to_dict() == wanted.to_dict()
    options = [f'data_root={sample_data(20, 96)}/ADEChallengeData2016', *SMALL]
    command = 'train', 'mmslak', 'upernet_slak_nano_ade20k.py', '--gpus', '0', '--work-dir', 'out'
    run(*mim, *command, '--cfg-options', *options, cwd=tmp_path)
    assert (tmp_path / 'out/iter_2.pth').is_file()
