"""Published weights by name: downloaded at their first use, converted, kept and checked.

The directory ``mmslak/weights`` in the user's cache has three files for each name. ``NAME.pth`` is
the authors' file if the user put it there. ``NAME.safetensors`` is the converted file.
``NAME.json`` records the SHA-256 of both.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from ..ops.cpp import cache_root
from .errors import CheckpointError, DownloadError, UnsafeCheckpointError
from .file_content import read_file
from .official import from_official, select_weights
from .published import PUBLISHED
from .safetensors_file import SAFETENSORS, SPARSITY_STATE, write_safetensors
from .writing import write_atomically

#: Beginning of the names of published weights where a path is expected.
SCHEME = 'slak://'
#: Environment variable with a directory or the address of a server that has files ``NAME.pth``.
MIRROR = 'MMSLAK_MIRROR'
#: Seconds to wait for a server.
_TIMEOUT = 30


def fetch(name: str) -> Path:
    """Return the file of published weights, downloaded and converted at its first use.

    Several processes may call this at once: one of them downloads, and the others wait.

    Args:
        name (str): A key of :data:`mmslak.checkpoints.PUBLISHED`.

    Returns:
        Path: A safetensors file in the format of this package, with the recovered masks.

    Raises:
        DownloadError: If the name is unknown or the file cannot be downloaded.
        ImportError: If a download is needed and gdown is not installed.
        CheckpointError: If a SHA-256 differs from the recorded one, or if the file of the authors
            cannot be read safely.
    """
    if name not in PUBLISHED:
        raise DownloadError(
            f'{SCHEME}{name} names no published weights; the names are {", ".join(PUBLISHED)}'
        )
    cache = cache_root() / 'mmslak' / 'weights'
    file, record = cache / f'{name}{SAFETENSORS}', cache / f'{name}.json'
    if not (file.is_file() and record.is_file()):
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f'{name}.lock'):
            # Another process may have been faster.
            if not (file.is_file() and record.is_file()):
                _add(name, file, record)
    expected, found = _read_record(record).get('safetensors_sha256'), sha256(file)
    if found != expected:
        raise CheckpointError(
            f'{file} has the SHA-256 {found}, but {expected} was recorded when {SCHEME}{name} was '
            'first loaded; delete the file, and it will be downloaded again'
        )
    return file


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, 'rb') as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock. On file systems without locks, processes may do the same work twice."""
    lock = FileLock(path)
    with contextlib.suppress(NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _add(name: str, file: Path, record: Path) -> None:
    """Write the converted file and its record, each of which appears when it is complete."""
    with tempfile.TemporaryDirectory(dir=file.parent) as side:
        source, origin = _find(name, file.with_suffix('.pth'), Path(side))
        digest = sha256(source)
        known = _read_record(record).get('sha256', digest) if record.is_file() else digest
        if digest != known:
            raise CheckpointError(
                f'{SCHEME}{name}: the file from {origin} has the SHA-256 {digest}, but {known} was '
                f'recorded when it was first loaded; if you trust the new file, delete {record}'
            )
        checkpoint = _convert(name, source, origin, file.with_suffix('.pth'))
        converted = Path(side, file.name)
        write_safetensors(
            converted, checkpoint['state_dict'], checkpoint.get(SPARSITY_STATE),
            checkpoint['meta'], half=False,
        )  # fmt: skip
        content = dict(origin=origin, sha256=digest, safetensors_sha256=sha256(converted))
        write_atomically(json.dumps(content, indent=2).encode(), record)
        os.replace(converted, file)


def _read_record(record: Path) -> dict:
    try:
        content = json.loads(record.read_text(encoding='utf-8'))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f'{record} is damaged; delete it')
    return content


def _find(name: str, by_hand: Path, side: Path) -> tuple[Path, str]:
    """Return the authors' file and where it is from, downloaded into a directory if necessary."""
    if by_hand.is_file():
        return by_hand, str(by_hand)
    weights, mirror = PUBLISHED[name], os.environ.get(MIRROR)
    if not mirror:
        url = weights.url
    elif '://' in mirror:
        url = f'{mirror.rstrip("/")}/{name}.pth'
    else:
        local = Path(mirror).expanduser() / f'{name}.pth'
        if not local.is_file():
            raise DownloadError(
                f'{SCHEME}{name}: {MIRROR}={mirror} has no file {name}.pth; {_advice(name, local)}'
            )
        return local, str(local)
    return _download(name, url, by_hand, side / f'{name}.pth'), url


def _advice(name: str, path: Path) -> str:
    return f'download {PUBLISHED[name].page} by hand and save it as {path}'


def _download(name: str, url: str, by_hand: Path, target: Path) -> Path:
    try:
        import gdown
        from requests import exceptions
    except ImportError:
        raise ImportError(
            f'{SCHEME}{name} needs gdown, which is not installed; install it with: '
            f"pip install 'mmslak[weights]', or {_advice(name, by_hand)}"
        ) from None
    try:
        gdown.download(
            url, str(target), use_cookies=False, timeout=_TIMEOUT,
            log_messages=dict(start=f'Downloading {SCHEME}{name}\n', output=''),
        )  # fmt: skip
        return target
    except exceptions.HTTPError as error:
        response = error.response
        reason = f'the server answers {response.status_code} {response.reason}'
    except exceptions.Timeout:
        reason = f'the server does not answer within {_TIMEOUT} seconds'
    except exceptions.ConnectionError:
        reason = 'there is no connection to the server'
    except gdown.exceptions.FileURLRetrievalError:
        reason = 'Google Drive refuses it, because it was removed or downloaded too often'
    except (gdown.exceptions.DownloadError, exceptions.RequestException) as error:
        reason = str(error).split('\n')[0].rstrip('.')
    raise DownloadError(
        f'{SCHEME}{name} could not be downloaded from {url}: {reason}; {_advice(name, by_hand)}'
    )


def _convert(name: str, source: Path, origin: str, by_hand: Path) -> dict:
    """Return the content of the authors' file, or of its conversion, in this package's format."""
    shown = f'the file of {SCHEME}{name} from {origin}'
    try:
        checkpoint = read_file(source, shown)
        _, kind, _ = select_weights(checkpoint, False, shown)
        if kind != 'ours':
            checkpoint = from_official(checkpoint, source=shown).checkpoint()
    except UnsafeCheckpointError as error:
        page = PUBLISHED[name].page
        raise UnsafeCheckpointError(f'{error}; SRC is {page}, DST is {by_hand}') from None
    except CheckpointError as error:
        raise CheckpointError(f'{error}; {_advice(name, by_hand)}') from None
    note = dict(name=name, **dataclasses.asdict(PUBLISHED[name]))
    meta = dict(mmslak=(checkpoint.get('meta') or {}).get('mmslak'), published=note)
    return {**checkpoint, 'meta': meta}
