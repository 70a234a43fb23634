"""Programs that act like others, and ways to run the installer among them."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

PYTHON = '{}.{}.{}'.format(*sys.version_info[:3])
MINOR = '{}.{}'.format(*sys.version_info[:2])
BASE_PYTHON = os.path.realpath(sys.executable)

# Acts like uv as far as the installer sees, and writes down what it was asked.
UV = """\
#!/bin/sh
if [ "$1" = --version ]; then
    echo "uv {version} (stand-in)"
    exit
fi
echo "$*" >>"$UV_CALLS"
case "$1 $2" in
'cache dir')
    echo "$HOME"
    ;;
'python find')
    test -n "$UV_FINDS" || exit 1
    echo "$UV_FINDS"
    ;;
'python install')
    echo 'error: Request failed\n  cause: no network' >&2
    exit 1
    ;;
'venv '*)
    for venv in "$@"; do :; done
    /bin/mkdir -p "$venv/bin"
    echo 'home = {home}\nversion_info = {number}' >"$venv/pyvenv.cfg"
    echo '#!/bin/sh\necho "{{\\"gpu\\": false}}"' >"$venv/bin/python"
    /bin/chmod +x "$venv/bin/python"
    ;;
'pip sync')
    test -z "$UV_SLEEPS" || /bin/sleep "$UV_SLEEPS"
    test -z "$UV_KILLS" || {{ kill -"$UV_KILLS" $PPID && exec /bin/sleep 60; }}
    ;;
esac
"""


def write_program(path, text):
    """Write an executable text file."""
    path.write_text(text)
    path.chmod(0o755)


def fake_python(path, version, include='/nowhere'):
    """Write a program that answers as Python of some version does."""
    answer = json.dumps([str(path), list(version), sysconfig.get_platform(), str(include)])
    write_program(path, f"#!/bin/sh\necho '{answer}'\n")
    return path


def uv_text(version='99.0.0'):
    """Return the text of a program that acts like uv."""
    return UV.format(home=Path(BASE_PYTHON).parent, number=PYTHON, version=version)


def write_uv_wheel(folder, version):
    """Write a wheel of a package ``uv`` with such a program; return its SHA-256."""
    folder.mkdir()
    wheel = folder / f'uv-{version}-py3-none-any.whl'
    about = f'uv-{version}.dist-info'
    files = {
        f'uv-{version}.data/scripts/uv': uv_text(version),
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
        [env['INSTALLER_PYTHON'], str(root / 'tools' / 'install'), *arguments],
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
