"""Packaging of mmslak.

With MMSLAK_PREBUILT=1, as `make wheel` sets it, the CPU kernels are compiled for x86-64 and become
part of the wheel. Otherwise they are compiled at their first use.
"""

import os
import platform
import re
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PREBUILT = os.environ.get('MMSLAK_PREBUILT') == '1'
# The kernels call only functions of glibc 2.2.5. PyTorch needs 2.17 or newer.
PLATFORM = 'manylinux_2_17_x86_64'


def read_version():
    """Return the version in ``mmslak/__init__.py`` without importing it."""
    text = (HERE / 'mmslak' / '__init__.py').read_text(encoding='utf-8')
    found = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    if found is None:
        raise ValueError("mmslak/__init__.py must hold a line __version__ = '...'")
    return found.group(1)


def read_long_description():
    """Return the README, or nothing where only the package was copied."""
    readme = HERE / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


class BuildPy(build_py):
    """Adds the kernels, and the configs and tools in ``mmslak/.mim``, where OpenMMLab has them."""

    def run(self):
        if self.editable_mode:
            super().run()
            return
        package = Path(self.build_lib, 'mmslak')
        # An earlier build may have left files that are not part of the package now.
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        target = package / '.mim'
        ignored = shutil.ignore_patterns('__pycache__', 'install')
        for name in ('configs', 'tools'):
            shutil.copytree(HERE / name, target / name, ignore=ignored)
        shutil.copy(HERE / 'model-index.yml', target)
        if PREBUILT:
            compile_kernels(package / 'ops' / 'prebuilt')


def compile_kernels(folder):
    """Compile the CPU kernels for all variants of x86-64."""
    system = (sys.platform, platform.machine(), platform.libc_ver()[0])
    if system != ('linux', 'x86_64', 'glibc'):
        sys.exit(
            'MMSLAK_PREBUILT=1 needs Linux with glibc on x86-64; without it the wheel contains the '
            'source of the kernels, which is compiled at its first use'
        )
    compilation = runpy.run_path(str(HERE / 'mmslak' / 'ops' / 'compilation.py'))
    compiler = compilation['find_compiler']()
    if compiler is None:
        sys.exit('MMSLAK_PREBUILT=1 needs a C++ compiler: install g++, or name one in CXX')
    folder.mkdir()
    for variant in compilation['VARIANTS']:
        out = folder / compilation['library_name'](variant)
        compilation['compile_library'](compiler, variant, out)


class PlatformDistribution(Distribution):
    """A distribution with compiled libraries."""

    def has_ext_modules(self):
        return True


def commands():
    """Return the commands that differ from those of setuptools."""
    if not PREBUILT:
        return {'build_py': BuildPy}
    from setuptools.command.bdist_wheel import bdist_wheel

    class BdistWheel(bdist_wheel):
        """Makes one wheel for every Python and PyTorch: the libraries use neither."""

        def get_tag(self):
            return 'py3', 'none', PLATFORM

    return {'build_py': BuildPy, 'bdist_wheel': BdistWheel}


BASE = [
    # register_vmap of torch.library; `make test-lowest` tests 2.5.1.
    'torch>=2.5',
    'mmengine>=0.10.7,<0.11',
    'filelock',
    'mmcv>=2.0.0,<2.2.0',
    'numpy',
    'pillow',
    'rich',
    'safetensors>=0.4.3',
    'tensorboard',
    # Bases such as 'mmseg::...' are looked up with pkg_resources at run time.
    'setuptools<81',
]
TASKS = {
    'seg': ['mmsegmentation>=1.2.2,<1.3', 'ftfy', 'regex'],
    'det': ['mmdet>=3.3.0,<3.4', 'pycocotools'],
    # MMEngine's file backend reads image sets packed into LMDB.
    'pretrain': ['mmpretrain>=1.2.0,<1.3', 'torchvision', 'lmdb'],
}
# The libraries that download weights by name.
WEIGHTS = ['gdown>=6.5', 'huggingface_hub']
# timm has one network of the paper's tables that no toolbox has (tools/analysis/paper_tables.py).
DEV = [
    *('pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'import-linter', 'timm'),
    # The systems on which a wheel with compiled libraries runs.
    'auditwheel',
    # PyTorch's exporter to ONNX, and tests of its files.
    *('onnx', 'onnxscript', 'onnxruntime'),
    *WEIGHTS,
    # They run the notebook of the documentation.
    *('nbclient', 'ipykernel'),
]

setup(
    name='mmslak',
    version=read_version(),
    description='The SLaK large-kernel backbone for OpenMMLab',
    long_description=read_long_description(),
    long_description_content_type='text/markdown',
    author='The mmslak authors',
    url='https://arxiv.org/abs/2207.03620',
    project_urls={
        'Paper': 'https://arxiv.org/abs/2207.03620',
        "The authors' code": 'https://github.com/VITA-Group/SLaK',
    },
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmslak', 'mmslak.*']),
    package_data={'': ['py.typed', '*.cpp', '*.h'], 'mmslak.pretrained': ['*.safetensors', '*.md']},
    distclass=PlatformDistribution if PREBUILT else Distribution,
    cmdclass=commands(),
    entry_points={'console_scripts': ['mmslak=mmslak.__main__:main']},
    install_requires=BASE,
    extras_require={
        **TASKS,
        # Older versions unpickle checkpoints, which can run code.
        'timm': ['timm>=1.0.26'],
        'weights': WEIGHTS,
        # Older versions have not been tried.
        'web': ['gradio>=6.31,<7'],
        'all': sorted({name for task in TASKS.values() for name in task}),
        'dev': DEV,
    },
    classifiers=[
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    zip_safe=False,
)
