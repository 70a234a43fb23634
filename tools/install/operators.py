"""mmcv with its compiled operators: for which device, built or found in the wheelhouse."""

import contextlib
import json
import os
import re
import shlex
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from .checks import InstallError, find_compiler
from .display import FixedProgress, NinjaProgress
from .process import locked
from .wheelhouse import directory_for, find_wheel

# -O2 because these replace Python's own flags, optimisation too; -g0 because debug information
# doubles the compile time.
CFLAGS = '-O2 -g0 -DNDEBUG'
# Nearly all of a file's compile time goes into this header and what it includes.
HEADER = 'mmcv/ops/csrc/common/pytorch_cpp_helper.hpp'

PROBE = """
import json, re, subprocess, torch
from torch.utils.cpp_extension import CUDA_HOME
gpu = torch.cuda.is_available()
out = dict(torch=torch.__version__, cuda=torch.version.cuda, gpu=gpu, nvcc=None, archs=[])
if gpu:
    found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    out['archs'] = ['%d.%d' % pair for pair in sorted(found)]
    try:
        text = subprocess.check_output([CUDA_HOME + '/bin/nvcc', '--version'], text=True)
        out['nvcc'] = re.search(r'release ([0-9]+[.][0-9]+)', text).group(1)
    except (OSError, TypeError, AttributeError, subprocess.CalledProcessError):
        pass
print(json.dumps(out))
"""


def probe_torch(environment):
    """Return what the installed torch reports about itself and the GPU, as a dict."""
    status, output, errors = environment.ask([environment.python, '-c', PROBE])
    if status:
        raise InstallError(
            'the installed torch cannot be imported (%s): run make clean install'
            % (errors.strip().splitlines() or ['no output'])[-1]
        )
    return json.loads(output.splitlines()[-1])


def choose_operators(probe):
    """Decide for which device mmcv's operators are built.

    Args:
        probe (dict): from ``probe_torch``.

    Returns:
        tuple: the CUDA tag of the wheelhouse directory, empty for the CPU, and a note for the user.
    """
    if not probe['gpu']:
        return '', 'no NVIDIA GPU: operators for the CPU'
    wanted, found = probe['cuda'], probe['nvcc']
    # torch itself refuses another major version and accepts another minor one.
    if found and found.split('.')[0] == wanted.split('.')[0]:
        archs = '-'.join('sm' + arch.replace('.', '') for arch in probe['archs'])
        tag = 'cu%s-%s' % (wanted.replace('.', ''), archs)
        return tag, 'NVIDIA GPU and nvcc %s: operators for CUDA' % found
    return '', (
        "this machine has an NVIDIA GPU, but %s, so mmcv's operators are built for the CPU only; "
        'for the GPU install the CUDA toolkit %s (or set CUDA_HOME to it) and run: '
        'make clean install' % ('nvcc is %s' % found if found else 'no nvcc', wanted)
    )


def count_jobs():
    """Return how many files to compile at once: one per core, as far as memory allows."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, AttributeError):
        text = Path('/proc/meminfo').read_text()
        free_kb = int(re.search(r'MemAvailable:\s+(\d+)', text).group(1))
        cores = min(cores, free_kb // (1500 * 1024))
    return max(1, cores)


def build_variables(variables, probe, cuda_tag, compiler, ninja_directory):
    """Return the environment variables for building mmcv."""
    variables = dict(
        variables,
        CFLAGS=CFLAGS,
        CXX=compiler,
        MAX_JOBS=str(count_jobs()),
        MMCV_WITH_OPS='1',
        PATH='%s%s%s' % (ninja_directory, os.pathsep, variables['PATH']),
    )
    if cuda_tag:
        variables['TORCH_CUDA_ARCH_LIST'] = ';'.join(probe['archs'])
    else:
        variables['CUDA_VISIBLE_DEVICES'] = ''  # mmcv builds for CUDA wherever torch sees a GPU
    return variables


def write_ninja_stand_in(directory, bin_directory):
    """Write a program ``ninja`` that precompiles mmcv's header before it runs the real one.

    The header must be compiled with exactly the flags of the build. They are known only when torch
    has written ``build.ninja``, that is, at the moment it calls ninja.
    """
    directory.mkdir()
    command = [bin_directory / 'python', Path(__file__).parent, '--ninja', bin_directory / 'ninja']
    words = ' '.join(shlex.quote(str(word)) for word in command)
    script = directory / 'ninja'
    script.write_text('#!/bin/sh\nexec %s "$@"\n' % words, encoding='utf-8')
    script.chmod(0o755)


def unpack_source(stack, environment, work):
    """Download mmcv's source into ``work``, check its hash, and return the unpacked directory."""
    # uv cannot download without installing.
    options = '--no-deps --no-binary :all: --no-build-isolation --progress-bar off'.split()
    command = [environment.python, '-m', 'pip', 'download'] + options
    command += ['-d', work, '-r', stack.mmcv_file]
    environment.run(command, FixedProgress('downloading the source'))
    with tarfile.open(str(next(work.glob(stack.mmcv_archive + '*.tar.gz')))) as archive:
        safely = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
        archive.extractall(str(work), **safely)
    return next(path.parent for path in work.glob(stack.mmcv_archive + '*/setup.py'))


def check_wheel(wheel, log):
    """Raise InstallError unless the wheel holds the compiled operators.

    mmcv builds without them, and without an error, if something is missing.

    Args:
        wheel (Path): the wheel.
        log (Path): the output of its build.
    """
    with zipfile.ZipFile(str(wheel)) as archive:
        names = archive.namelist()
    if not any(re.match(r'mmcv/_ext\..*so$', name) for name in names):
        raise InstallError('mmcv was built without its operators: see the end of %s' % log)


def build_wheel(stack, house, environment, probe, cuda_tag):
    """Build the pinned mmcv and move its wheel into the wheelhouse directory ``house``.

    Returns:
        Path: the wheel.
    """
    compiler = find_compiler(os.environ)
    for stale in house.glob('.build-*'):  # left by a killed run; we hold the lock
        shutil.rmtree(str(stale), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix='.build-', dir=str(house)) as name:
        work = Path(name)
        source = unpack_source(stack, environment, work)
        write_ninja_stand_in(work / 'bin', environment.bin)
        variables = build_variables(environment.variables, probe, cuda_tag, compiler, work / 'bin')
        variables['MMSLAK_MMCV_HEADER'] = str(source / HEADER)
        command = [environment.python, 'setup.py', 'bdist_wheel', '-d', work / 'wheel']
        environment.run(command, NinjaProgress(), variables, cwd=source)
        wheel = next((work / 'wheel').glob('*.whl'))
        check_wheel(wheel, environment.log)
        target = house / wheel.name
        os.replace(str(wheel), str(target))
    return target


def get_wheel(stack, interpreter, environment, probe, cuda_tag):
    """Return an mmcv wheel for ``cuda_tag``, from the wheelhouse or built into it."""
    house = directory_for(interpreter, os.environ, stack, cuda_tag)
    with locked(house / '.lock', environment.display, str(house)):
        wheel = find_wheel(house, stack.mmcv_archive)
        if wheel is None:
            interpreter.check_headers()
            wheel = build_wheel(stack, house, environment, probe, cuda_tag)
            environment.display.done(', kept in %s' % house)
        else:
            environment.display.done(': found in %s' % house)
    return wheel


def install_mmcv(uv, stack, interpreter, environment):
    """Install mmcv, with operators for the GPU if possible, else for the CPU.

    Returns:
        Path: the wheel.
    """
    display = environment.display
    probe = probe_torch(environment)
    cuda_tag, note = choose_operators(probe)
    house = directory_for(interpreter, os.environ, stack, cuda_tag)
    about = (
        '5 s'
        if find_wheel(house, stack.mmcv_archive)
        else '20 min or more'
        if cuda_tag
        else '4 min'
    )
    display.step('mmcv with its operators; ' + note, about)
    try:
        wheel = get_wheel(stack, interpreter, environment, probe, cuda_tag)
    except InstallError as error:
        if not cuda_tag:
            raise
        display.say('      the CUDA build failed: %s' % error)
        display.say('      building for the CPU instead; to try again: make clean install')
        wheel = get_wheel(stack, interpreter, environment, probe, '')
    # The same version may be there from another build.
    options = ['--no-deps', '--no-index', '--reinstall']
    command = uv.pip('install', environment) + options + [wheel]
    environment.run(command, FixedProgress('installing the wheel'))
    return wheel
