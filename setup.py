"""Packaging of mmslak."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


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


BASE = [
    # register_vmap of torch.library; `make test-lowest` tests 2.5.1.
    'torch>=2.5',
    'mmengine>=0.10.7,<0.11',
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
# timm has one network of the paper's tables that no toolbox has (tools/analysis/paper_tables.py).
DEV = [
    *('pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'import-linter', 'timm'),
    # ONNX: PyTorch's exporter, and tests of its files.
    *('onnx', 'onnxscript', 'onnxruntime'),
]

setup(
    name='mmslak',
    version=read_version(),
    description='The SLaK large-kernel backbone for OpenMMLab',
    long_description=read_long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmslak', 'mmslak.*']),
    package_data={'': ['py.typed', '*.cpp', '*.h'], 'mmslak.pretrained': ['*.safetensors', '*.md']},
    install_requires=BASE,
    extras_require={
        **TASKS,
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
