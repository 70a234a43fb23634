#!/usr/bin/env python3
"""Make ``.venv`` with everything mmslak needs, pinned; ``make install`` runs this.

It may be interrupted and started again at any moment. What protects it:

- ``.venv/mmslak-stamp`` is removed first and written last, and holds a hash of all
  that decides what is in ``.venv``: where it matches there is nothing to do.
- ``.venv/mmslak-incomplete`` exists while packages are being written; found at the
  start, the environment is made anew, because pip cannot tell half a package from
  a whole one.
- mmcv is built in a folder of its own, and its wheel moves into the wheelhouse in
  one step. Only the wheelhouse outlives ``.venv``, so the compiling is done once.
- A lock keeps two runs in one checkout, or on one wheelhouse, apart.

Only the standard library is used, and no syntax newer than Python 3.6: an unsupported
Python must get far enough to say so.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SUPPORTED = ((3, 10), (3, 11), (3, 12))
MIN_FREE_GB = 12  # 6 for .venv, 3 for downloads on their way into it, 3 for pip's cache

STAMP = 'mmslak-stamp'
INCOMPLETE = 'mmslak-incomplete'
STEPS = 5

# -O2 because these replace Python's own flags, optimisation too; -g0 because debug
# information doubles the time.
MMCV_CFLAGS = '-O2 -g0 -DNDEBUG'
# Nearly all of a file's compile time goes into this header and what it includes.
MMCV_HEADER = 'mmcv/ops/csrc/common/pytorch_cpp_helper.hpp'

# Settings of the caller's shell that would change what gets installed or built.
# Where pip finds packages (index, proxy, certificates, cache) stays the user's choice.
UNWANTED_ENV = (
    'PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_NO_DEPS PIP_REQUIRE_HASHES PIP_DRY_RUN '
    'PIP_NO_BINARY PIP_ONLY_BINARY PIP_CONSTRAINT PIP_REQUIREMENT PIP_EDITABLE PIP_PRE '
    'PIP_IGNORE_INSTALLED PIP_FORCE_REINSTALL PIP_UPGRADE PIP_QUIET PIP_VERBOSE PIP_LOG '
    'VIRTUAL_ENV FORCE_CUDA FORCE_MLU FORCE_NPU FORCE_MPS MMCV_WITH_DIOPI MMCV_CUDA_ARGS '
    'TORCH_CUDA_ARCH_LIST MAX_JOBS'
).split()

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

SMOKE = """
import importlib.util, pkg_resources
import mmdet, mmpretrain, mmseg, torch, torchvision
assert importlib.util.find_spec('mmslak'), 'mmslak is not found'
from mmcv import ops
box, score = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.9, 0.8])
assert ops.nms(box, score, 0.5)[1].tolist() == [0], 'mmcv.ops.nms is wrong'
assert torchvision.ops.nms(box, score, 0.5).tolist() == [0], 'torchvision::nms is wrong'
"""


class InstallError(Exception):
    """Something the user can put right; the message says what, in one sentence."""


# ---------------------------------------------------------------------------
# Checks, all made before anything is downloaded


def runs(program):
    """Return whether ``program`` is on the PATH and starts; a version manager's may not."""
    try:
        return not subprocess.call([program, '-c', ''], stderr=subprocess.DEVNULL)
    except OSError:
        return False


def check_python(version, executable, runs=runs):
    """Raise InstallError unless ``version`` is a Python this project supports.

    Args:
        version (sequence of int): ``sys.version_info`` or its first numbers.
        executable (str): the interpreter, for the message.
        runs (callable): whether a Python of that name can be started.
    """
    if tuple(version[:2]) in SUPPORTED:
        return
    names = ['python%d.%d' % pair for pair in SUPPORTED]
    found = [name for name in names if runs(name)]
    if found:
        remedy = 'run: make install PYTHON=%s' % found[-1]
    else:
        remedy = 'install one of them and run, for example: make install PYTHON=python3.11'
    raise InstallError(
        'mmslak needs Python 3.10, 3.11 or 3.12, but %s is Python %s; %s'
        % (executable, '.'.join(str(number) for number in version[:3]), remedy)
    )


def check_venv_module():
    """Raise InstallError where this Python cannot make environments (Debian splits it off)."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise InstallError(
            'Python at %s lacks its venv module: install it (Debian and Ubuntu: apt-get install '
            'python%d.%d-venv) and run make install again'
            % ((sys.executable,) + sys.version_info[:2])
        ) from None


def find_compiler(environ, which=shutil.which):
    """Return the path of the C++ compiler: $CXX where set, else c++, g++ or clang++.

    Args:
        environ (mapping): the environment variables.
        which (callable): finds a program on the PATH.

    Raises:
        InstallError: if there is none, or it cannot compile an empty program.
    """
    remedy = 'install one (Debian and Ubuntu: apt-get install g++) and run make install again'
    wanted = environ.get('CXX')
    paths = [which(name) for name in ([wanted] if wanted else ['c++', 'g++', 'clang++'])]
    path = next((path for path in paths if path), None)
    if path is None and wanted:
        raise InstallError(
            'CXX is %r, which is no program here: set it to a C++ compiler or unset it' % wanted
        )
    if path is None:
        raise InstallError(
            "no C++ compiler (c++, g++ or clang++) is on the PATH, and mmcv's operators are to be "
            'compiled: ' + remedy
        )
    trial = subprocess.run(
        [path, '-std=c++17', '-fsyntax-only', '-x', 'c++', '-'],
        input=b'#include <vector>\nint main() { return 0; }\n',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if trial.returncode:
        raise InstallError(
            'the C++ compiler %s cannot compile an empty C++17 program: %s' % (path, remedy)
        )
    return path


def check_python_headers(include=None):
    """Raise InstallError where Python's C headers are missing (Debian splits them off)."""
    include = include or sysconfig.get_path('include')
    if not (Path(include) / 'Python.h').is_file():
        raise InstallError(
            'Python.h is missing from %s, and mmcv is to be compiled: install the headers (Debian '
            'and Ubuntu: apt-get install python%d.%d-dev) and run make install again'
            % ((include,) + sys.version_info[:2])
        )


def check_disk(folder, free_bytes=None):
    """Raise InstallError unless the disk under ``folder`` has room for the environment."""
    free = shutil.disk_usage(str(folder)).free if free_bytes is None else free_bytes
    if free < MIN_FREE_GB * 2**30:
        raise InstallError(
            'installing needs %d GB of free disk space and %s has %.1f GB: free some space or move '
            'the checkout to a larger disk' % (MIN_FREE_GB, folder, free / 2**30)
        )


# ---------------------------------------------------------------------------
# What is installed, and whether it is there already


def pinned_version(name, root=ROOT):
    """Return the version that ``requirements/lock.txt`` pins ``name`` to."""
    text = (root / 'requirements' / 'lock.txt').read_text(encoding='utf-8')
    return re.search(r'^%s==([^\s;]+)' % re.escape(name), text, re.MULTILINE).group(1)


def count_pins(root=ROOT):
    """Return how many packages ``requirements/lock.txt`` names."""
    text = (root / 'requirements' / 'lock.txt').read_text(encoding='utf-8')
    return len(set(re.findall(r'^([^\s#=]+)==', text, re.MULTILINE)))


def fingerprint(root, python_version):
    """Return a hash of all that decides what is in ``.venv``.

    That is the pins, this script, the packaging, the version of Python, and the place of the
    checkout, because an environment cannot be moved.
    """
    digest = hashlib.sha256()
    files = [root / 'setup.py', root / 'tools' / 'install.py', root / 'mmslak' / '__init__.py']
    files += sorted((root / 'requirements').glob('*.txt'))
    for file in files:
        digest.update(file.name.encode() + b'\0')
        if file.name == '__init__.py':  # of the package, only the version is installed
            found = re.search(rb'^__version__ = .*$', file.read_bytes(), re.MULTILINE)
            digest.update(found.group(0) if found else b'')
        else:
            digest.update(file.read_bytes())
        digest.update(b'\0')
    digest.update(('%s\0%s' % (python_version, root)).encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def is_up_to_date(root, python_version):
    """Return whether ``.venv`` is complete and made from the present pins."""
    venv = root / '.venv'
    stamp = venv / STAMP
    return (
        stamp.is_file()
        and not (venv / INCOMPLETE).exists()
        and os.access(str(venv / 'bin' / 'python'), os.X_OK)
        and stamp.read_text().strip() == fingerprint(root, python_version)
    )


def read_venv_config(venv):
    """Return the settings in ``pyvenv.cfg`` as a dict, empty where there is no environment."""
    try:
        lines = (venv / 'pyvenv.cfg').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return {}
    pairs = [line.split('=', 1) for line in lines if '=' in line]
    return {key.strip(): value.strip() for key, value in pairs}


def python_of_venv(venv):
    """Return (interpreter that made ``venv``, its version), or None where unknown."""
    config = read_venv_config(venv)
    version = config.get('version', '')
    python = os.path.join(config.get('home', ''), 'python' + '.'.join(version.split('.')[:2]))
    return (python, version) if os.access(python, os.X_OK) else None


def wheelhouse_folder(environ, torch_version, python_tag, platform, cuda_tag=''):
    """Return the folder for mmcv wheels built for this torch, Python, platform and CUDA.

    pip's own cache knows nothing of torch, and a wheel built for another one crashes.

    Args:
        environ (mapping): the environment variables; ``MMSLAK_WHEELHOUSE`` moves it all.
        torch_version (str): for example ``'2.11.0'``.
        python_tag (str): for example ``'cp311'``.
        platform (str): for example ``'linux_x86_64'``.
        cuda_tag (str): for example ``'cu130-sm90'``; empty for the CPU's operators.
    """
    base = environ.get('MMSLAK_WHEELHOUSE') or '~/.cache/mmslak/wheelhouse'
    name = 'torch%s-%s-%s' % (torch_version, python_tag, platform)
    return Path(base).expanduser().absolute() / ('-'.join([name] + [cuda_tag] * bool(cuda_tag)))


def my_wheelhouse(environ, cuda_tag=''):
    """Return the wheelhouse folder for the pinned torch and the running Python."""
    return wheelhouse_folder(
        environ,
        pinned_version('torch'),
        'cp%d%d' % sys.version_info[:2],
        sysconfig.get_platform().replace('-', '_').replace('.', '_'),
        cuda_tag,
    )


def find_wheel(folder):
    """Return the mmcv wheel in a wheelhouse folder, or None."""
    return next(iter(sorted(folder.glob('mmcv-*.whl'))), None)


# ---------------------------------------------------------------------------
# Showing what goes on


def as_time(seconds):
    """Return seconds as people write them: ``45 s``, ``3 min 05 s``."""
    seconds = round(seconds)
    return '%d s' % seconds if seconds < 60 else '%d min %02d s' % divmod(seconds, 60)


class Display:
    """Numbered steps, and a sign of life: one changing line, or one every 15 s without a TTY."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.number = 0
        self.began = time.monotonic()
        self.step_began = self.began
        self.last = 0.0

    def say(self, text):
        """Print a line of its own."""
        self.stream.write(('\r\033[K' if self.live else '') + text + '\n')
        self.stream.flush()

    def step(self, text, about):
        """Begin the next step, which takes ``about`` so long."""
        self.number += 1
        self.step_began = self.last = time.monotonic()
        self.say('[%d/%d] %s (about %s)' % (self.number, STEPS, text, about))

    def done(self, note=''):
        """End the step."""
        took = as_time(time.monotonic() - self.step_began)
        self.say('      done in %s%s' % (took, note))

    def tick(self, text):
        """Show ``text`` and the time since the step began, if it is time to."""
        now = time.monotonic()
        if now - self.last < (0.5 if self.live else 15):
            return
        self.last = now
        line = '      %s: %s' % (as_time(now - self.step_began), text)
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write('\r\033[K' + line[:width])
            self.stream.flush()
        else:
            self.say(line)


class PipProgress:
    """Reads pip's output: which of the packages it is at."""

    def __init__(self, total):
        self.total = total
        self.seen = 0
        self.text = 'asking for packages'

    def feed(self, line):
        if line.startswith(('Collecting ', 'Processing ')):
            self.seen += 1
            name = os.path.basename(line.split()[1])
            name = name.split('-')[0] if name.endswith('.whl') else re.split('[=<>!~;[]', name)[0]
            self.text = 'downloading package %d of %d, %s' % (self.seen, self.total, name)
        elif line.startswith('Installing collected packages'):
            self.text = 'downloaded; unpacking %d packages' % self.seen


class NinjaProgress:
    """Reads the output of the mmcv build: files compiled, and what that leaves to do."""

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.began = None
        self.text = 'preparing the header that all files share (about 25 s)'

    def feed(self, line):
        found = re.match(r'\[(\d+)/(\d+)\]', line)
        if line.startswith('precompiled header:'):
            self.began = self.clock()
            self.text = 'compiling the first files'
        elif found:
            done, total = int(found.group(1)), int(found.group(2))
            if self.began is None:
                self.began = self.clock()
            left = (self.clock() - self.began) / done * (total - done)
            self.text = '%3d %%, %d of %d files compiled' % (100 * done // total, done, total)
            self.text += ', about %s left' % as_time(left) if done < total else ', linking'


class NoProgress:
    """For commands that say nothing on their way."""

    def __init__(self, text):
        self.text = text

    def feed(self, line):
        """Ignore the line."""


# ---------------------------------------------------------------------------
# Running commands


def die_with_parent():
    """In a child process: ask Linux to end it when this script is killed outright."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def run(command, log, display, progress, env, cwd=None):
    """Run a command to its end with its output in a file, showing the progress.

    Args:
        command (list of str): the program and its arguments.
        log (Path): the file that gets its output.
        display (Display): shows ``progress.text``.
        progress: an object with ``feed(line)`` and ``text``.
        env (mapping): its environment variables.
        cwd (Path, optional): its working directory.

    Raises:
        InstallError: if it fails, with the end of its output printed before.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=str(cwd or ROOT),
        start_new_session=True,  # so that it can be ended together with its children
        preexec_fn=die_with_parent,
    )

    def read():
        with open(str(log), 'ab') as file:
            for raw in process.stdout:
                file.write(raw)
                file.flush()
                progress.feed(raw.decode('utf-8', 'replace'))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            display.tick(progress.text)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(5)
    if process.returncode:
        lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
        display.say('\n'.join('      | ' + line[:200] for line in lines[-15:]))
        raise InstallError(
            '%s ended with status %d; its last lines are above, all of them are in %s, and make '
            'install goes on from here' % (describe(command), process.returncode, log)
        )


def describe(command):
    """Return what a command is, short enough for a message."""
    words = [os.path.basename(str(part)) for part in command[:4]]
    return ' '.join(words).replace('\n', ' ')[:60]


def clean_environment(environ, venv, tmp):
    """Return the environment for commands in ``venv``: the caller's, without what would leak in."""
    env = {
        key: value
        for key, value in environ.items()
        if key not in UNWANTED_ENV and not key.startswith('PYTHON')
    }
    env.update(
        PATH='%s%s%s' % (venv / 'bin', os.pathsep, environ.get('PATH', os.defpath)),
        PIP_DISABLE_PIP_VERSION_CHECK='1',
        PIP_NO_INPUT='1',
        PYTHONNOUSERSITE='1',
        PYTHONUNBUFFERED='1',
        PYTHONUTF8='1',
        # /tmp is often small, and what a killed run leaves here goes with .venv.
        TMPDIR=str(tmp),
    )
    return env


@contextlib.contextmanager
def locked(path, display, what):
    """Hold a lock file; the system releases it however this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(str(path), 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            display.say('another make install is using %s; waiting for it to end' % what)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writing(venv):
    """Mark ``venv`` as incomplete for as long as packages are written into it."""
    marker = venv / INCOMPLETE
    marker.touch()
    yield
    marker.unlink()


# ---------------------------------------------------------------------------
# The steps


def venv_is_usable(venv, python_version):
    """Return whether an environment can be completed, rather than made anew."""
    return (
        read_venv_config(venv).get('version') == python_version
        and not (venv / INCOMPLETE).exists()
        and (venv / 'bin' / 'pip').exists()
        and os.access(str(venv / 'bin' / 'python'), os.X_OK)
    )


def remove_venv(venv):
    """Remove an environment; renamed first, so that half of one is never taken for a whole."""
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        doomed = Path(tempfile.mkdtemp(prefix='.venv-old-', dir=str(venv.parent)))
        os.replace(str(venv), str(doomed / 'venv'))
    for doomed in venv.parent.glob('.venv-old-*'):
        shutil.rmtree(str(doomed), ignore_errors=True)


def make_venv(venv, display):
    """Make an empty environment in place of whatever is there."""
    remove_venv(venv)
    venv.mkdir()
    with writing(venv):
        command = [sys.executable, '-m', 'venv', str(venv)]
        env = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
        run(command, venv / 'install.log', display, NoProgress('making it'), env)


def pip_command(venv, *arguments):
    """Return the command that runs pip in ``venv``."""
    return [venv / 'bin' / 'python', '-m', 'pip'] + list(arguments)


def install_pins(venv, display, env):
    """Install the frozen packages, and compile them to bytecode on all cores."""
    pins = ROOT / 'requirements' / 'lock.txt'
    log = venv / 'install.log'
    # pip's own byte-compiling uses one core only.
    arguments = '--no-deps --no-compile --only-binary :all: --progress-bar off -r'.split()
    with writing(venv):
        command = pip_command(venv, 'install', *(arguments + [pins]))
        run(command, log, display, PipProgress(count_pins()), env)
        packages = next(venv.glob('lib/python3*/site-packages'))
        command = [venv / 'bin' / 'python', '-m', 'compileall', '-q', '-j', '0', packages]
        try:
            run(command, log, display, NoProgress('compiling to bytecode'), env)
        except InstallError:
            # Some package ships a file for another Python: it stays uncompiled, no harm.
            display.say('      (not every file could be compiled to bytecode; this is harmless)')


def probe_torch(venv, env):
    """Return what the installed torch says of itself and of the GPU, as a dict."""
    command = [str(venv / 'bin' / 'python'), '-c', PROBE]
    result = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if result.returncode:
        raise InstallError(
            'the installed torch cannot be imported (%s): run make clean install'
            % result.stderr.decode('utf-8', 'replace').strip().splitlines()[-1]
        )
    return json.loads(result.stdout.decode().splitlines()[-1])


def choose_operators(probe):
    """Decide for which device mmcv's operators are built.

    Args:
        probe (dict): from ``probe_torch``.

    Returns:
        tuple: the CUDA tag of the wheelhouse folder, empty for the CPU, and a note for the user.
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
        'for the GPU ones install the CUDA toolkit %s (or set CUDA_HOME to it) and run: '
        'make clean install' % ('nvcc is %s' % found if found else 'no nvcc', wanted)
    )


def build_environment(env, probe, cuda_tag, compiler, ninja_folder):
    """Return the environment variables for building mmcv."""
    env = dict(
        env,
        CFLAGS=MMCV_CFLAGS,
        CXX=compiler,
        MAX_JOBS=str(count_jobs()),
        MMCV_WITH_OPS='1',
        PATH='%s%s%s' % (ninja_folder, os.pathsep, env['PATH']),
    )
    if cuda_tag:
        env['TORCH_CUDA_ARCH_LIST'] = ';'.join(probe['archs'])
    else:
        env['CUDA_VISIBLE_DEVICES'] = ''  # mmcv builds for CUDA wherever torch sees a GPU
    return env


def count_jobs():
    """Return how many files to compile at once: one a core, as far as memory goes."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, AttributeError):
        text = Path('/proc/meminfo').read_text()
        free_kb = int(re.search(r'MemAvailable:\s+(\d+)', text).group(1))
        cores = min(cores, free_kb // (1500 * 1024))
    return max(1, cores)


def write_ninja_stand_in(folder, venv):
    """Write a program ``ninja`` that precompiles mmcv's header before it runs the real one.

    The header must be compiled with exactly the flags of the build. Those are known only once
    torch has written ``build.ninja``, that is, at the moment it calls ninja.
    """
    folder.mkdir()
    command = [
        venv / 'bin' / 'python',
        ROOT / 'tools' / 'install.py',
        '--ninja',
        venv / 'bin' / 'ninja',
    ]
    words = ' '.join(shlex.quote(str(word)) for word in command)
    script = folder / 'ninja'
    script.write_text('#!/bin/sh\nexec %s "$@"\n' % words, encoding='utf-8')
    script.chmod(0o755)


def run_as_ninja(arguments):
    """Precompile mmcv's header with the flags in ``build.ninja``, then become ninja.

    Args:
        arguments (list of str): the real ninja and its arguments.
    """
    header = os.environ.get('MMSLAK_MMCV_HEADER')
    if header and os.path.isfile('build.ninja') and '--version' not in arguments:
        began = time.monotonic()
        try:
            precompile_header(header, Path('build.ninja').read_text(encoding='utf-8'))
            outcome = 'done in ' + as_time(time.monotonic() - began)
        except (OSError, AttributeError, ValueError, subprocess.SubprocessError) as error:
            # It only saves time: without it every file takes 14 s in place of 3 s.
            with contextlib.suppress(OSError):
                os.remove(header + '.gch')
            outcome = 'left out (%s)' % error
        print('precompiled header: ' + outcome, flush=True)
    die_with_parent()
    os.execv(arguments[0], arguments)


def precompile_header(header, build_file):
    """Compile ``header`` beside itself with the compiler and flags in a ninja file's text."""

    def words(name):
        return shlex.split(re.search(r'^%s = (.*)$' % name, build_file, re.MULTILINE).group(1))

    compiler = words('cxx')
    about = subprocess.check_output(compiler + ['--version'], stderr=subprocess.STDOUT)
    if b'clang' in about:
        raise ValueError('clang does not find such a header by itself')
    flags = [word for word in words('cflags') + words('post_cflags') if word != '-c']
    command = compiler + flags + ['-x', 'c++-header', header, '-o', header + '.gch']
    subprocess.check_call(command)


def build_wheel(venv, house, display, env, probe, cuda_tag, compiler):
    """Build the pinned mmcv and put its wheel into the wheelhouse folder ``house``.

    Returns:
        Path: the wheel.
    """
    python, log = venv / 'bin' / 'python', venv / 'install.log'
    for stale in house.glob('.build-*'):  # left by a killed run; we hold the lock
        shutil.rmtree(str(stale), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix='.build-', dir=str(house)) as name:
        work = Path(name)
        write_ninja_stand_in(work / 'bin', venv)
        env = build_environment(env, probe, cuda_tag, compiler, work / 'bin')
        arguments = '--no-deps --no-binary :all: --no-build-isolation --progress-bar off'.split()
        arguments += ['-d', work, '-r', ROOT / 'requirements' / 'mmcv.txt']  # checks the hash
        command = pip_command(venv, 'download', *arguments)
        run(command, log, display, NoProgress('downloading the source'), env)
        with tarfile.open(str(next(work.glob('mmcv-*.tar.gz')))) as archive:
            safely = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
            archive.extractall(str(work), **safely)
        source = next(path.parent for path in work.glob('mmcv-*/setup.py'))
        env['MMSLAK_MMCV_HEADER'] = str(source / MMCV_HEADER)
        command = [python, 'setup.py', 'bdist_wheel', '-d', work / 'wheel']
        run(command, log, display, NinjaProgress(), env, cwd=source)
        wheel = next((work / 'wheel').glob('mmcv-*.whl'))
        check_wheel(wheel)
        target = house / wheel.name
        os.replace(str(wheel), str(target))
    return target


def check_wheel(wheel):
    """Raise InstallError unless the wheel holds the compiled operators.

    mmcv builds without them, and without an error, wherever something is missing.
    """
    with zipfile.ZipFile(str(wheel)) as archive:
        names = archive.namelist()
    if not any(re.match(r'mmcv/_ext\..*so$', name) for name in names):
        raise InstallError(
            'mmcv was built without its operators: see the end of install.log in .venv'
        )


def get_wheel(venv, display, env, probe, cuda_tag):
    """Return an mmcv wheel for ``cuda_tag``, from the wheelhouse or built into it."""
    house = my_wheelhouse(os.environ, cuda_tag)
    with locked(house / '.lock', display, str(house)):
        wheel = find_wheel(house)
        if wheel is None:
            compiler = find_compiler(os.environ)
            check_python_headers()
            wheel = build_wheel(venv, house, display, env, probe, cuda_tag, compiler)
            display.done(', kept in %s' % house)
        else:
            display.done(': found in %s' % house)
    return wheel


def install_mmcv(venv, display, env):
    """Install mmcv with operators for the GPU where that can be, else for the CPU."""
    probe = probe_torch(venv, env)
    cuda_tag, note = choose_operators(probe)
    cached = find_wheel(my_wheelhouse(os.environ, cuda_tag))
    about = '5 s' if cached else '20 min or more' if cuda_tag else '4 min'
    display.step('mmcv with its operators; ' + note, about)
    try:
        wheel = get_wheel(venv, display, env, probe, cuda_tag)
    except InstallError as error:
        if not cuda_tag:
            raise
        display.say('      the CUDA build failed: %s' % error)
        display.say(
            '      going on with the operators for the CPU; to try again: make clean install'
        )
        wheel = get_wheel(venv, display, env, probe, '')
    with writing(venv):
        # The same version may be there from another build, which pip would leave alone.
        command = pip_command(
            venv, 'install', '--no-deps', '--no-index', '--force-reinstall', wheel
        )
        run(command, venv / 'install.log', display, NoProgress('installing the wheel'), env)
    return wheel


def install_project(venv, display, env):
    """Install mmslak itself, editable."""
    with writing(venv):
        command = pip_command(
            venv, 'install', '--no-deps', '--no-build-isolation', '--no-index', '-e', ROOT
        )
        run(command, venv / 'install.log', display, NoProgress('installing it'), env)


def check_installation(venv, display, env, wheel):
    """Import everything and run one compiled operator of mmcv and of torchvision."""
    command = [venv / 'bin' / 'python', '-W', 'ignore', '-c', SMOKE]
    try:
        run(command, venv / 'install.log', display, NoProgress('importing everything'), env, '/')
    except InstallError:
        (venv / INCOMPLETE).touch()
        raise InstallError(
            'what was installed does not work together (the last lines are above): remove %s and '
            'run make install again, which makes it all anew' % wheel
        ) from None


def install(this_python):
    """Bring ``.venv`` up to date.

    Args:
        this_python (bool): use the running Python, even where ``.venv`` was made by another.
    """
    venv = ROOT / '.venv'
    python_version = '%d.%d.%d' % sys.version_info[:3]
    made_by = None if this_python else python_of_venv(venv)
    if made_by and made_by[1] != python_version:
        # `make install PYTHON=...` chose it; a plain `make test` keeps to that.
        arguments = [made_by[0], str(Path(__file__).resolve()), '--this-python']
        os.execv(made_by[0], arguments)
    check_python(sys.version_info, sys.executable)

    display = Display()
    with locked(ROOT / '.install.lock', display, str(ROOT)):
        if is_up_to_date(ROOT, python_version):
            display.say('make install: .venv is up to date')
            return
        usable = venv_is_usable(venv, python_version)
        house = my_wheelhouse(os.environ)
        cached = any(find_wheel(folder) for folder in house.parent.glob(house.name + '*'))
        check_venv_module()
        if not cached:
            find_compiler(os.environ)
            check_python_headers()
        if not usable:
            check_disk(ROOT)

        total = '2 to 3 min' if cached else '6 to 8 min'
        display.say(
            'Installing mmslak into %s with Python %s: about %s' % (venv, python_version, total)
        )
        with contextlib.suppress(OSError):
            (venv / STAMP).unlink()
        if usable:
            display.step('environment: completing the one that is there', '1 s')
        else:
            display.step('environment', '5 s')
            make_venv(venv, display)
        tmp = venv / 'tmp'
        shutil.rmtree(str(tmp), ignore_errors=True)
        tmp.mkdir()
        env = clean_environment(os.environ, venv, tmp)
        display.done()

        text = 'torch %s and %d other packages, 6 GB' % (pinned_version('torch'), count_pins() - 1)
        display.step(text, '10 s to 2 min' if usable else '2 min')
        install_pins(venv, display, env)
        display.done()
        wheel = install_mmcv(venv, display, env)
        display.step('mmslak itself', '5 s')
        install_project(venv, display, env)
        display.done()
        display.step('trying it out', '20 s')
        check_installation(venv, display, env, wheel)
        display.done()

        shutil.rmtree(str(tmp), ignore_errors=True)
        temporary = venv / (STAMP + '.new')
        temporary.write_text(fingerprint(ROOT, python_version) + '\n')
        os.replace(str(temporary), str(venv / STAMP))
        display.say('Installed in %s.' % as_time(time.monotonic() - display.began))


def stop(signum, frame):
    """End as Ctrl-C does, so that children are ended too."""
    raise KeyboardInterrupt


def main(arguments):
    """Run the command line; return the exit status."""
    if arguments[:1] == ['--ninja']:
        run_as_ninja(arguments[1:])
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        install('--this-python' in arguments)
    except InstallError as error:
        print('make install: %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nmake install: interrupted; run it again to go on', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
