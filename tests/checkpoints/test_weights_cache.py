"""Weights by name, downloaded from a server on this machine or copied from a mirror."""

import concurrent.futures
import hashlib
import http.server
import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path, PurePosixPath

import pytest
import torch
from authors_files import nano, sparse_nano
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmslak.checkpoints import (
    PUBLISHED,
    SPARSITY_STATE,
    CheckpointError,
    DownloadError,
    PublishedWeights,
    UnsafeCheckpointError,
    find_checkpoint,
    from_official,
    read_checkpoint,
    weights_cache,
)
from mmslak.cli import run
from mmslak.models import SLaK
from mmslak.sparsity import unpack_masks

gdown = pytest.importorskip('gdown')

NAME = 'slak_tiny_300e_in1k'
PAGE = PUBLISHED[NAME].page
FILE = f'{NAME}.pth'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no connection beyond this machine."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.delenv('MMSLAK_MIRROR', raising=False)
    return tmp_path / 'cache' / 'mmslak' / 'weights'


@pytest.fixture
def authors(tmp_path):
    """A directory with a file of the authors, and what is in it."""
    state, zeros = sparse_nano()
    (tmp_path / 'authors').mkdir()
    torch.save(dict(model=state, epoch=299), tmp_path / 'authors' / FILE)
    return tmp_path / 'authors', state, zeros


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, or half of them if the server is told so."""

    def do_GET(self):
        """Answer, and count the requests for files."""
        self.server.asked.append(self.path)
        file = Path(self.directory, self.path.lstrip('/'))
        if not file.is_file() or not self.server.cut:
            super().do_GET()
            return
        content = file.read_bytes()
        self.send_response(200)
        if self.server.cut == 'announced':
            self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])

    def log_message(self, *arguments):
        """Print nothing."""


@pytest.fixture
def server(authors, monkeypatch):
    """A server of the directory, which the variable for mirrors names."""

    def handler(*arguments):
        return Handler(*arguments, directory=authors[0])

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        server.asked, server.cut = [], None
        server.url = f'http://127.0.0.1:{server.server_port}'
        monkeypatch.setenv('MMSLAK_MIRROR', f'{server.url}/')
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refused(error=DownloadError, name=NAME):
    """Return the one line with which a name is refused."""
    with pytest.raises(error) as caught:
        find_checkpoint(f'slak://{name}')
    text = str(caught.value)
    assert '\n' not in text
    return text


def advice(path):
    """Return what to do if a download is impossible."""
    return f'download {PAGE} by hand and save it as {path}'


def test_downloaded_converted_and_kept(cache, server, authors, capfd):
    _, state, zeros = authors
    found = read_checkpoint(f'slak://{NAME}')
    expected = from_official(dict(model=state))
    assert list(found['state_dict']) != [] and set(found['state_dict']) == set(expected.state_dict)
    for name, value in expected.state_dict.items():
        assert torch.equal(found['state_dict'][name], value), name
    masks = unpack_masks(found[SPARSITY_STATE])
    assert len(masks) == len(zeros)
    assert all(torch.equal(masks[name], mask) for name, mask in expected.masks.items())
    assert found['meta']['mmslak']['backbone']['arch'] == 'nano'
    assert found['meta']['published']['page'] == PAGE
    assert f'Downloading slak://{NAME}' in capfd.readouterr().err
    # A second time nothing is downloaded, also without a connection.
    server.cut = 'announced'
    assert find_checkpoint(f'slak://{NAME}') == str(cache / f'{NAME}.safetensors')
    assert server.asked == [f'/{FILE}']
    record = json.loads((cache / f'{NAME}.json').read_text())
    assert record['sha256'] == hashlib.sha256((authors[0] / FILE).read_bytes()).hexdigest()
    content = (cache / f'{NAME}.safetensors').read_bytes()
    assert record['safetensors_sha256'] == hashlib.sha256(content).hexdigest()
    left = {path.name for path in cache.iterdir()} - {f'{NAME}.lock'}
    assert left == {f'{NAME}.safetensors', f'{NAME}.json'}


def test_the_address_of_the_authors(cache, server, monkeypatch):
    monkeypatch.delenv('MMSLAK_MIRROR')
    page = f'{server.url}/surfdrive/abc'
    monkeypatch.setitem(PUBLISHED, NAME, PublishedWeights('SLaK-T', '82.5', page))
    text = refused()
    assert server.asked == ['/surfdrive/abc/download']
    assert f'download {page} by hand' in text


def test_drive_links_have_their_file_id():
    for name in ('slak_tiny_300e_in1k', 'slak_small_300e_in1k', 'slak_base_300e_in1k'):
        file_id, _ = gdown.parse_url.parse_url(PUBLISHED[name].url)
        assert len(file_id) == 33 and f'/{file_id}/' in PUBLISHED[name].page
    for name, weights in PUBLISHED.items():
        if not name.endswith('300e_in1k'):
            assert weights.url == f'{weights.page}/download'
    assert len({weights.page for weights in PUBLISHED.values()}) == len(PUBLISHED) == 12


def test_used_as_a_checkpoint(cache, server, authors):
    """By the initialiser of the backbone, MMEngine's loader, and the check before a training."""
    name = f'slak://{NAME}'
    backbone = SLaK('nano', init_cfg=dict(type='Pretrained', checkpoint=name))
    backbone.init_weights()
    theirs = authors[1]['stages.0.0.large_kernel.LoRA1.conv.weight']
    assert torch.equal(backbone.stages[0][0].mixing.tall.conv.weight, theirs)
    assert 'backbone.norm3.weight' in CheckpointLoader.load_checkpoint(name)['state_dict']
    pretrained = dict(type='Pretrained', checkpoint=name)
    run._check_weights(Config(dict(load_from=name, model=dict(init_cfg=pretrained))))
    with pytest.raises(CheckpointError, match=rf'{name} does not fit .* SLaK\(arch=.nano'):
        SLaK('nano', (7, 7, 7, 7), init_cfg=pretrained).init_weights()


def test_the_backbone_with_its_own_arguments(cache, server, authors):
    backbone = SLaK.from_pretrained(NAME, drop_path_rate=0.2)
    assert backbone.arguments['arch'] == 'nano' and backbone.arguments['drop_path_rate'] == 0.2
    assert torch.equal(backbone.norm3.weight, authors[1]['norm.weight'])
    again = SLaK.from_pretrained(f'slak://{NAME}', out_indices=3, gap_before_final_norm=True)
    assert torch.equal(again.norm3.weight, authors[1]['norm.weight'])


def test_unknown_name(cache):
    text = refused(name='slak_tiny')
    assert text.startswith('slak://slak_tiny names no published weights; the names are slak_tiny_3')
    assert all(name in text for name in PUBLISHED)
    assert not cache.exists()


def test_vanished_link(cache, server, authors):
    (authors[0] / FILE).unlink()
    expected = f'could not be downloaded from {server.url}/{FILE}: the server answers 404 '
    text = refused()
    assert expected in text and text.endswith(advice(cache / FILE))
    with pytest.raises(
        FileNotFoundError, match=rf'^load_from: slak://{NAME} could not be'
    ) as error:
        run._check_weights(Config(dict(load_from=f'slak://{NAME}', model=dict())))
    assert str(error.value).endswith(advice(cache / FILE))


def test_without_a_connection(cache, server):
    server.shutdown()
    server.server_close()
    assert refused().endswith(f'there is no connection to the server; {advice(cache / FILE)}')


def test_truncated_download(cache, server, authors):
    size = (authors[0] / FILE).stat().st_size
    server.cut = 'announced'
    text = refused()
    assert 'Download is incomplete' in text
    assert f'bytes but the server announced {size} bytes; {advice(cache / FILE)}' in text
    # A server that announces no size.
    server.cut = 'unannounced'
    text = refused(CheckpointError)
    assert f'slak://{NAME} from {server.url}/{FILE} is truncated or damaged' in text
    assert text.endswith(advice(cache / FILE))
    assert not [path for path in cache.iterdir() if path.name != f'{NAME}.lock']
    server.cut = None
    find_checkpoint(f'slak://{NAME}')


def test_page_in_place_of_a_file(cache, server, authors):
    (authors[0] / FILE).write_text('<html>This share has moved.</html>')
    text = refused(CheckpointError)
    assert 'is not a checkpoint' in text and text.endswith(advice(cache / FILE))


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (
            gdown.exceptions.FileURLRetrievalError('Failed:\n\n\tToo many'),
            'Google Drive refuses it',
        ),
        (gdown.exceptions.DownloadError('first.\nsecond'), ': first; download'),
    ],
)
def test_errors_of_the_library(error, words, cache, monkeypatch):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(gdown, 'download', fail)
    assert words in refused()


def test_without_the_library(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gdown', None)
    text = refused(ImportError)
    assert "needs gdown, which is not installed; install it with: pip install 'mmslak[we" in text
    assert text.endswith(advice(cache / FILE))


def test_file_put_there_by_hand(cache, authors, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gdown', None)
    cache.mkdir(parents=True)
    os.replace(authors[0] / FILE, cache / FILE)
    found = read_checkpoint(f'slak://{NAME}')
    assert len(unpack_masks(found[SPARSITY_STATE])) == len(authors[2])


def test_directory_as_mirror(cache, authors, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gdown', None)
    monkeypatch.setenv('MMSLAK_MIRROR', str(authors[0]))
    before = (authors[0] / FILE).read_bytes()
    assert read_checkpoint(f'slak://{NAME}')['state_dict']
    assert (authors[0] / FILE).read_bytes() == before
    text = refused(name='slak_base_300e_in1k')
    assert f'MMSLAK_MIRROR={authors[0]} has no file slak_base_300e_in1k.pth; download' in text


def test_changed_files_are_refused(cache, authors, monkeypatch):
    monkeypatch.setenv('MMSLAK_MIRROR', str(authors[0]))
    file, record = (cache / f'{NAME}.{suffix}' for suffix in ('safetensors', 'json'))
    find_checkpoint(f'slak://{NAME}')
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for read in (find_checkpoint, read_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            read(f'slak://{NAME}')
        found = hashlib.sha256(content).hexdigest()
        assert f'{file} has the SHA-256 {found}, but ' in str(caught.value)
        assert 'delete the file, and it will be downloaded again' in str(caught.value)
    file.unlink()
    find_checkpoint(f'slak://{NAME}')
    # Then another file is published under the same name.
    file.unlink()
    torch.save(dict(model=nano()), authors[0] / FILE)
    text = refused(CheckpointError)
    assert 'was recorded when it was first loaded; if you trust the new file, delete' in text
    assert text.endswith(str(record)) and not file.exists()
    record.unlink()
    find_checkpoint(f'slak://{NAME}')
    record.write_text('{')
    assert refused(CheckpointError) == f'{record} is damaged; delete it'


def test_no_code_of_a_file_is_run(cache, authors, monkeypatch):
    monkeypatch.setenv('MMSLAK_MIRROR', str(authors[0]))
    torch.save(dict(model=authors[1], path=PurePosixPath('a')), authors[0] / FILE)
    text = refused(UnsafeCheckpointError)
    assert 'pathlib.PurePosixPath' in text
    assert text.endswith(f'official.py SRC DST --trust; SRC is {PAGE}, DST is {cache / FILE}')
    # The converted file is accepted there.
    torch.save(from_official(dict(model=authors[1])).checkpoint(), cache / FILE)
    found = read_checkpoint(f'slak://{NAME}')
    assert len(unpack_masks(found[SPARSITY_STATE])) == len(authors[2])


def fetch_in_process(environment, queue):
    """Load weights and send the path of the file and its checksum."""
    os.environ.update(environment)
    file = weights_cache.fetch(NAME)
    queue.put((str(file), weights_cache.sha256(file)))


@pytest.mark.slow
def test_several_processes_download_once(cache, server):
    context = multiprocessing.get_context('forkserver')
    queue = context.Queue()
    names = ('XDG_CACHE_HOME', 'MMSLAK_MIRROR', 'no_proxy')
    environment = {name: os.environ[name] for name in names}
    processes = [
        context.Process(target=fetch_in_process, args=(environment, queue)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = {queue.get(timeout=300) for _ in processes}
    for process in processes:
        process.join()
    record = json.loads((cache / f'{NAME}.json').read_text())
    assert found == {(str(cache / f'{NAME}.safetensors'), record['safetensors_sha256'])}
    assert server.asked == [f'/{FILE}']


def test_several_threads_download_once(cache, server):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = set(pool.map(weights_cache.fetch, [NAME] * 3))
    assert found == {cache / f'{NAME}.safetensors'}
    assert server.asked == [f'/{FILE}']


def test_file_systems_without_locks(cache, server, monkeypatch):
    """Another process downloads and moves its file there in the meantime."""
    download, others = gdown.download, []

    def refuse(self):
        raise NotImplementedError

    def download_twice(*arguments, **keywords):
        if not others:
            others.append(None)
            others.append(weights_cache.fetch(NAME).stat().st_ino)
        return download(*arguments, **keywords)

    monkeypatch.setattr(weights_cache.FileLock, 'acquire', refuse)
    monkeypatch.setattr(gdown, 'download', download_twice)
    file = weights_cache.fetch(NAME)
    assert len(server.asked) == 2 and file.stat().st_ino != others[1]
    assert weights_cache.fetch(NAME) == file
