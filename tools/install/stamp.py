"""Whether ``.venv`` is complete and made from the present pins."""

import contextlib
import hashlib
import os
import re

STAMP = 'mmslak-stamp'


def pinned_version(name, root):
    """Return the version that ``requirements/lock.txt`` pins ``name`` to."""
    text = (root / 'requirements' / 'lock.txt').read_text(encoding='utf-8')
    return re.search(r'^%s==([^\s;]+)' % re.escape(name), text, re.MULTILINE).group(1)


def count_pins(root):
    """Return the number of packages in ``requirements/lock.txt``."""
    text = (root / 'requirements' / 'lock.txt').read_text(encoding='utf-8')
    return len(set(re.findall(r'^([^\s#=]+)==', text, re.MULTILINE)))


def fingerprint(root, python_version):
    """Return a hash of everything that decides what is in ``.venv``.

    That is the pins, this package, the packaging, the version of Python (``'3.11'``), and the path
    of the checkout, because an environment cannot be moved.
    """
    digest = hashlib.sha256()
    files = [root / 'setup.py', root / 'mmslak' / '__init__.py']
    files += [root / 'requirements' / 'lock.txt', root / 'requirements' / 'mmcv.txt']
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


def is_up_to_date(root, python_version):
    """Return whether ``.venv`` is complete and made from the present pins."""
    venv = root / '.venv'
    return is_complete(venv) and (venv / STAMP).read_text().strip() == fingerprint(
        root, python_version
    )


def write(root, python_version):
    """Write the stamp, in one step."""
    stamp = root / '.venv' / STAMP
    temporary = stamp.with_name(STAMP + '.new')
    temporary.write_text(fingerprint(root, python_version) + '\n')
    os.replace(str(temporary), str(stamp))


def remove(root):
    """Remove the stamp, if there is one."""
    with contextlib.suppress(OSError):
        (root / '.venv' / STAMP).unlink()
