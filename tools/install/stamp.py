"""Whether an environment is complete and made from the present pins."""

import contextlib
import hashlib
import os
import re

STAMP = 'mmslak-stamp'


def fingerprint(stack, python_version):
    """Return a hash of everything that decides what is in the environment of a Stack.

    That is the pins, this package, the packaging, the version of Python (``'3.11'``), and the path
    of the checkout, because an environment cannot be moved.
    """
    digest = hashlib.sha256()
    root = stack.root
    files = [root / 'setup.py', root / 'mmslak' / '__init__.py']
    files += [stack.lock_file, stack.mmcv_file]
    files += sorted((root / 'tools' / 'install').glob('*.py'))
    for file in files:
        digest.update(str(file.relative_to(root)).encode() + b'\0')
        if file.parent.name == 'mmslak':  # of the package, only the version is installed
            found = re.search(rb'^__version__ = .*$', file.read_bytes(), re.MULTILINE)
            digest.update(found.group(0) if found else b'')
        else:
            digest.update(file.read_bytes())
        digest.update(b'\0')
    digest.update(('%s\0%s' % (python_version, root)).encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def is_complete(venv):
    """Return whether ``venv`` was installed to the end, perhaps from other pins."""
    return (venv / STAMP).is_file() and os.access(str(venv / 'bin' / 'python'), os.X_OK)


def is_up_to_date(stack, python_version):
    """Return whether the environment is complete and made from the present pins."""
    if not is_complete(stack.venv):
        return False
    return (stack.venv / STAMP).read_text().strip() == fingerprint(stack, python_version)


def write(stack, python_version):
    """Write the stamp, in one step."""
    stamp = stack.venv / STAMP
    temporary = stamp.with_name(STAMP + '.new')
    temporary.write_text(fingerprint(stack, python_version) + '\n')
    os.replace(str(temporary), str(stamp))


def remove(stack):
    """Remove the stamp, if there is one."""
    with contextlib.suppress(OSError):
        (stack.venv / STAMP).unlink()
