"""Programs that act like others, and ways to run the installer among them."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

PYTHON = '{}.{}.{}'.format(*sys.version_info[:3])
BASE_PYTHON = os.path.realpath(sys.executable)

# Acts like uv as far as the installer sees, and writes down what it was asked.
UV = """\
#!{python}
import os, sys, time
from pathlib import Path

words = sys.argv[1:]
if words == ['--version']:
    print('uv {version} (stand-in)')
    sys.exit()
with open(os.environ['UV_CALLS'], 'a') as file:
    print(*words, file=file)
if words[0] == 'cache':
    print(os.environ['HOME'])
elif words[:2] == ['python', 'find']:
    print(os.environ.get('UV_FINDS', ''))
    sys.exit('UV_FINDS' not in os.environ)
elif words[:2] == ['python', 'install']:
    sys.exit('error: Request failed\\n  cause: no network')
elif words[0] == 'venv':
    venv = Path(words[-1])
    (venv / 'bin').mkdir(parents=True)
    (venv / 'pyvenv.cfg').write_text('home = {home}\\nversion_info = {number}\\n')
    program = venv / 'bin' / 'python'
    program.write_text('#!/bin/sh\\necho \\'{{"gpu": false}}\\'\\n')
    program.chmod(0o755)
elif words[:2] == ['pip', 'sync']:
    time.sleep(float(os.environ.get('UV_SLEEPS', 0)))
    if 'UV_KILLS' in os.environ:
        os.kill(os.getppid(), int(os.environ['UV_KILLS']))
        time.sleep(60)
"""


def write_program(path, text):
    """Write an executable text file."""
    path.write_text(text)
    path.chmod(0o755)


def uv_text(version='99.0.0'):
    """Return the text of a program that acts like uv."""
    home = Path(BASE_PYTHON).parent
    return UV.format(python=BASE_PYTHON, home=home, number=PYTHON, version=version)


def write_uv_wheel(folder, version):
    """Write a wheel of a package ``uv`` with such a program; return its SHA-256."""
    folder.mkdir()
    wheel = folder / f'uv-{version}-py3-none-any.whl'
    about = f'uv-{version}.dist-info'
    files = {
        f'uv-{version}.data/scripts/uv': uv_text(version).replace(f'#!{BASE_PYTHON}', '#!python'),
        f'{about}/METADATA': f'Metadata-Version: 2.1\nName: uv\nVersion: {version}\n',
        f'{about}/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    record = ''.join(f'{name},,\n' for name in files)
    with zipfile.ZipFile(wheel, 'w') as archive:
        for name, text in {**files, f'{about}/RECORD': record}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16  # pip keeps the permission to execute
            archive.writestr(entry, text)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def calls(env):
    """Return what the stand-in for uv was asked, a list of lines."""
    path = Path(env['UV_CALLS'])
    return path.read_text().splitlines() if path.exists() else []


def start(root, env, *arguments):
    """Start the installer on ``root``; return the process."""
    return subprocess.Popen(
        [sys.executable, str(root / 'tools' / 'install'), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(root, env, *arguments):
    """Run the installer on ``root``; return (status, output, errors)."""
    process = start(root, env, *arguments)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors
