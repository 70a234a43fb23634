"""Where compiled mmcv wheels are kept."""

from pathlib import Path


def directory(environ, torch_version, python_tag, platform, cuda_tag=''):
    """Return the directory for mmcv wheels built for this torch, Python, platform and CUDA.

    The caches of pip and uv do not know which torch a wheel was built for, and mmcv crashes with
    another one.

    Args:
        environ (mapping): the environment variables; ``MMSLAK_WHEELHOUSE`` moves the wheelhouse.
        torch_version (str): for example ``'2.11.0'``.
        python_tag (str): for example ``'cp311'``.
        platform (str): for example ``'linux_x86_64'``.
        cuda_tag (str): for example ``'cu130-sm90'``; empty for the operators for the CPU.
    """
    base = environ.get('MMSLAK_WHEELHOUSE') or '~/.cache/mmslak/wheelhouse'
    name = 'torch%s-%s-%s' % (torch_version, python_tag, platform)
    return Path(base).expanduser().absolute() / ('-'.join([name] + [cuda_tag] * bool(cuda_tag)))


def directory_for(interpreter, environ, stack, cuda_tag=''):
    """Return the directory for an Interpreter and the torch that a Stack pins."""
    return directory(
        environ,
        stack.pinned_version('torch'),
        'cp%d%d' % interpreter.version[:2],
        interpreter.platform.replace('-', '_').replace('.', '_'),
        cuda_tag,
    )


def find_wheel(folder, archive):
    """Return the wheel of mmcv in a directory of the wheelhouse, or None.

    Args:
        folder (Path): the directory.
        archive (str): the start of its name, for example ``'mmcv-2.1.0'``.
    """
    return next(iter(sorted(folder.glob(archive + '-*.whl'))), None)


def has_wheel(folder, archive):
    """Return whether there is a wheel in ``folder`` or in its counterparts for CUDA."""
    return any(find_wheel(each, archive) for each in folder.parent.glob(folder.name + '*'))
