"""Running commands: their environment, their output in a log, and locks between runs."""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import threading

from . import ROOT
from .checks import InstallError

# Settings of the caller's shell that would change what gets installed or built. Where packages
# are found (index, proxy, certificates, caches) stays the user's choice.
UNWANTED = (
    'PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_REQUIRE_HASHES PIP_DRY_RUN PIP_NO_BINARY '
    'PIP_ONLY_BINARY PIP_CONSTRAINT PIP_REQUIREMENT PIP_EDITABLE PIP_PRE PIP_IGNORE_INSTALLED '
    'PIP_FORCE_REINSTALL PIP_UPGRADE PIP_REQUIRE_VIRTUALENV PIP_QUIET PIP_VERBOSE PIP_LOG '
    'UV_PYTHON UV_SYSTEM_PYTHON UV_BREAK_SYSTEM_PACKAGES UV_CONSTRAINT UV_OVERRIDE UV_EXCLUDE '
    'UV_BUILD_CONSTRAINT UV_NO_BUILD UV_NO_BUILD_PACKAGE UV_NO_BINARY UV_NO_BINARY_PACKAGE '
    'UV_NO_BUILD_ISOLATION UV_NO_VERIFY_HASHES UV_REQUIRE_HASHES UV_TORCH_BACKEND UV_RESOLUTION '
    'UV_PRERELEASE UV_FORK_STRATEGY UV_EXCLUDE_NEWER UV_CUSTOM_COMPILE_COMMAND UV_PROJECT '
    'UV_WORKING_DIR UV_WORKING_DIRECTORY UV_VENV_SEED UV_VENV_RELOCATABLE '
    'VIRTUAL_ENV CONDA_PREFIX FORCE_CUDA FORCE_MLU FORCE_NPU FORCE_MPS MMCV_WITH_DIOPI '
    'MMCV_CUDA_ARGS TORCH_CUDA_ARCH_LIST MAX_JOBS'
).split()


def clean_environment(environ):
    """Return the environment for commands: the caller's, without what would leak in."""
    env = {
        key: value
        for key, value in environ.items()
        if key not in UNWANTED and not key.startswith('PYTHON')
    }
    env.update(
        PIP_DISABLE_PIP_VERSION_CHECK='1',
        PIP_NO_INPUT='1',
        PIP_USER='0',
        PYTHONNOUSERSITE='1',
        PYTHONUNBUFFERED='1',
        PYTHONUTF8='1',
        UV_NO_PROGRESS='1',
    )
    return env


def die_with_parent():
    """In a child process: ask Linux to end it if the parent is killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def run(command, log, display, progress, env, cwd=None):
    """Run a command to its end, with its output in a file, and show the progress.

    Args:
        command (list): the program and its arguments.
        log (Path): the file that gets the output.
        display (Display): shows ``progress.text``.
        progress (FixedProgress): follows the command.
        env (mapping): the environment variables of the command.
        cwd (Path, optional): its working directory.

    Raises:
        InstallError: if it fails; the end of its output is printed first.
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
    progress.watch(process.pid)

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
            '%s failed with status %d: the end of its output is above, all of it is in %s; fix the '
            'cause and run make install again' % (describe(command), process.returncode, log)
        )


def ask(command, env):
    """Run a short command; return (status, output, errors), the last two as text.

    The status is 127 if the command cannot be started.
    """
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        return 127, '', str(error)
    output, errors = process.communicate()
    return process.returncode, output.decode('utf-8', 'replace'), errors.decode('utf-8', 'replace')


def describe(command):
    """Return what a command is, short enough for a message."""
    words = [os.path.basename(str(part)) for part in command[:4]]
    return ' '.join(words).replace('\n', ' ')[:60]


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
