"""The page in a real browser: a server as a process, and headless Chromium that clicks."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from helpers import ROOT, TIMEOUT
from PIL import Image

pytest.importorskip('gradio', reason="gradio is not installed: pip install 'mmslak[web]'")
pytest.importorskip(
    'playwright.sync_api', reason='playwright is not installed: pip install playwright'
)
pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

from playwright import sync_api

from mmslak.cli.config import load_config
from mmslak.models import build_model

IMAGE = ROOT / 'tests/data/camvid/images/test/0001TP_008550.jpg'
#: Milliseconds for a prediction on a busy machine.
PATIENCE = 300_000
CHROMIUM = shutil.which('chromium')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed'),
]


@contextmanager
def server(folder, *arguments):
    """Run the command as a process, and yield the URL of its page.

    Afterwards it must have ended by itself without an error, and have removed its files.
    """
    files = folder / 'files'
    files.mkdir()
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, 'tools/web.py', '--port', str(port), '--device', 'cpu', *arguments]
    # Settings of Gradio in the environment have no effect.
    environment = {
        'OMP_NUM_THREADS': '2', **os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(files),
        'GRADIO_SERVER_NAME': '0.0.0.0', 'GRADIO_ALLOWED_PATHS': str(ROOT),
    }  # fmt: skip
    with open(folder / 'log.txt', 'w+') as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            line = ''
            while not line.startswith('The page: '):
                line = process.stdout.readline()
                assert line, (folder / 'log.txt').read_text()
            yield line.split()[2]
            assert list(files.iterdir())
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    # PyTorch may leave an empty directory for compiled code.
    assert {path.name.partition('_')[0] for path in files.iterdir()} <= {'torchinductor'}
    assert not [path for path in files.rglob('*') if path.is_file()]


@contextmanager
def browser_page(url, width=1200):
    """Yield a page in Chromium, which must not have asked any other server."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=width, height=1000))
        page.set_default_timeout(PATIENCE)
        asked = []
        page.on('request', lambda request: asked.append(urlsplit(request.url)))
        page.goto(url)
        yield page
        browser.close()
    assert {part.hostname for part in asked if part.scheme.startswith('http')} == {'127.0.0.1'}


def upload(page, path):
    """Choose a file in the visible tab."""
    page.locator('[role=tabpanel]:visible input[type=file]').set_input_files(path)


def shown(page, selector):
    """Return the picture that an element shows, once it is there."""
    locator = page.locator(f'{selector} img').first
    locator.wait_for()
    content = page.request.get(locator.get_attribute('src')).body()
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB')).astype(int)


def changed(page, selector, action):
    """Return the picture of an element after an action that replaces it."""
    before = page.locator(f'{selector} img').first.get_attribute('src')
    action()
    page.wait_for_function(
        '([s, b]) => { const i = document.querySelector(s + " img"); return i && i.src != b; }',
        arg=[selector, before],
    )
    return shown(page, selector)


def test_segmentation_step_by_step(tmp_path):
    photo = np.asarray(Image.open(IMAGE).convert('RGB')).astype(int)
    notes = tmp_path / 'notes.png'
    notes.write_text('not an image')
    with server(tmp_path) as url, browser_page(url) as page:
        assert url.startswith('http://127.0.0.1:')
        upload(page, IMAGE)
        overlay = shown(page, '.predicted')
        assert overlay.shape == photo.shape
        assert abs(overlay - photo).mean() > 10
        assert page.get_by_text('road', exact=False).first.is_visible()
        assert page.get_by_role('tab').count() == 1

        slider = page.get_by_role('slider')
        bare = changed(page, '.predicted', lambda: slider.fill('0'))
        assert np.array_equal(bare, photo)

        box = page.locator('.predicted img').bounding_box()
        # A pixel of the road by the ground truth.
        x, y = 0.4, 0.8
        page.mouse.click(box['x'] + x * box['width'], box['y'] + y * box['height'])
        field = shown(page, '.field')
        assert field.shape == photo.shape
        rows, columns = np.nonzero((field == (255, 0, 0)).all(-1))
        # The cross is where the click was.
        assert abs(np.median(rows) - y * photo.shape[0]) < 4
        assert abs(np.median(columns) - x * photo.shape[1]) < 4
        assert page.get_by_text('Predicted class: road. 50% of the contributions').is_visible()

        page.get_by_label('Clear').first.click()
        page.locator('.predicted').wait_for(state='hidden')
        upload(page, notes)
        message = page.get_by_role('alert')
        message.wait_for()
        assert message.inner_text().startswith('notes.png is not an image: choose a file')

        # The pipeline resizes it to a height of 0.
        page.get_by_label('Clear').first.click()
        message.wait_for(state='hidden')
        Image.new('RGB', (3000, 1)).save(tmp_path / 'thin.png')
        upload(page, tmp_path / 'thin.png')
        message.wait_for()
        assert message.inner_text().startswith('thin.png cannot be processed: ')

        for path in ('docs', 'redoc', 'openapi.json', 'monitoring', f'gradio_api/file={IMAGE}'):
            assert page.request.get(f'{url}{path}').status >= 400, path
        # A name that was made to point to this machine.
        asked = urllib.request.Request(url, headers={'Host': 'other.example'})
        with pytest.raises(urllib.error.HTTPError, match='400'):
            urllib.request.urlopen(asked)
        info = page.request.get(f'{url}gradio_api/info').json()
        assert not info['named_endpoints'] and not info['unnamed_endpoints']


def test_several_tasks_and_two_models_side_by_side(tmp_path, sample_data):
    names = ('upernet_slak_nano_ade20k', 'faster_rcnn_slak_nano_voc', 'slak_nano_in1k')
    models = ['slak_nano_camvid']
    for name in names:
        torch.manual_seed(0)
        config = ROOT / f'configs/sample/{name}.py'
        model = build_model(load_config(config), init_weights=True)
        torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / f'{name}.pth')
        models += [str(config), str(tmp_path / f'{name}.pth')]
    image = sorted((sample_data(8, 96) / 'ADEChallengeData2016').rglob('*.jpg'))[0]
    limit = ('--cfg-options', 'max_image_pixels=20000')
    with server(tmp_path, *models, *limit) as url, browser_page(url) as page:
        tabs = page.get_by_role('tab')
        tabs.nth(2).wait_for()
        assert tabs.all_inner_texts() == ['Segmentation', 'Detection', 'Classification']
        upload(page, IMAGE)
        message = page.get_by_role('alert')
        message.wait_for()
        assert 'more than 20,000 pixels' in message.inner_text()
        page.get_by_label('Clear').first.click()
        message.wait_for(state='hidden')
        upload(page, image)
        page.locator('.predicted img').nth(1).wait_for()
        page.locator('.predicted img').nth(1).click()
        page.locator('.field img').nth(1).wait_for()
        assert page.locator('.field img').count() == 2

        tabs.nth(1).click()
        upload(page, image)
        page.locator('.detected img').wait_for()
        tabs.nth(2).click()
        upload(page, image)
        page.locator('.best').get_by_text('%').first.wait_for()
        assert page.locator('.best').get_by_text('%').count() == 5
