"""The page: one tab for each task of the models.

Only ``mmslak web`` imports this module, because Gradio is an optional package and reads the
environment when it is imported.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..analysis.drawing import OPACITY, enlargement, legend, overlay
from ..predict import Predictor
from ..validation.images import BadImageError
from .captions import legend_html, message_html, top_classes
from .display_size import MOST_PIXELS, resized_labels, shrunk
from .pixel_field import area_text, draw_field, pixel_field
from .uploads import FORMATS, read_upload

#: Largest file that the page accepts.
MAX_FILE_SIZE = '100mb'
#: Temporary files are removed after so many seconds, and all of them when the page ends.
_KEPT = 3600
#: Sessions whose last image is kept in memory.
_SESSIONS = 16
#: Settings of functions that run a network, one after the other. None is part of an API.
_NETWORK = dict(api_visibility='private', concurrency_id='network', concurrency_limit=1)
_QUICK = dict(api_visibility='private', show_progress='hidden', trigger_mode='always_last')
_CSS = """
.gradio-container {width: 100%; max-width: 1280px !important; margin: auto}
.picture img {width: 100%; height: auto}
.predicted img {cursor: crosshair}
"""
_HINT = (
    'Click a pixel of a prediction: this shows which pixels of the image contribute to the class '
    'that is predicted there.'
)


class Model(NamedTuple):
    """A model of the page.

    Args:
        name (str): Its title.
        predictor (Predictor): Its predictions.
    """

    name: str
    predictor: Predictor


class Segmented(NamedTuple):
    """An image and its label maps, as the page shows them.

    Args:
        image (np.ndarray): Shape (H, W, 3), BGR.
        labels (list[np.ndarray]): Of each model, shape (H, W).
    """

    image: np.ndarray
    labels: list[np.ndarray]


def start(models: Sequence[Model], host: str, port: int | None) -> tuple[gr.Blocks, str]:
    """Start the server in another thread.

    Args:
        models (Sequence[Model]): The models to show.
        host (str): Address to listen on.
        port (int, optional): Default: the first free one from 7860.

    Returns:
        tuple[gr.Blocks, str]: The page, whose ``close`` ends the server, and its URL.

    Raises:
        OSError: If the port is not free.
    """
    page = build(models)
    page.queue(api_open=False, max_size=32)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        inbrowser=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        max_file_size=MAX_FILE_SIZE,
        state_session_capacity=_SESSIONS,
        # Fonts of the system: nothing is loaded from other servers.
        theme=gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
        css=_CSS,
        app_kwargs=dict(
            docs_url=None, redoc_url=None, openapi_url=None, middleware=_own_names(host)
        ),
    )
    return page, url


def _own_names(host: str) -> list[Middleware]:
    """Return what refuses requests by other names of a server that only this machine reaches.

    Otherwise a page of another server, whose name is made to point to this machine, could read the
    answers.
    """
    names = ['127.0.0.1', 'localhost']
    return [Middleware(TrustedHostMiddleware, allowed_hosts=names)] if host in names else []


def build(models: Sequence[Model]) -> gr.Blocks:
    """Return the page with a tab for each task of the models."""
    tabs = dict(segmentation=_segmentation, detection=_detection, classification=_classification)
    found = {task: [m for m in models if m.predictor.task == task] for task in tabs}
    with gr.Blocks(
        title='mmslak', analytics_enabled=False, delete_cache=(_KEPT, _KEPT), fill_width=True
    ) as page:
        gr.Markdown('# mmslak')
        for task, fill in tabs.items():
            if found[task]:
                with gr.Tab(task.capitalize()):
                    fill(found[task])
    return page


def _upload() -> tuple[gr.File, gr.HTML]:
    """Add the field for files and the place of messages."""
    limit = Image.MAX_IMAGE_PIXELS
    gr.Markdown(f'An image ({", ".join(FORMATS)}) of up to {limit / 1e6:,.6g} million pixels:')
    return gr.File(label='Image', height=170), gr.HTML(visible=False, padding=False)


def _predict(path: str | None, models: Sequence[Model]) -> tuple[np.ndarray | None, list, dict]:
    """Return the image of an upload, its data samples, and what happens to the message.

    Args:
        path (str, optional): The upload; None if the user removed it.
        models (Sequence[Model]): The models.

    Returns:
        tuple: The image of shape (H, W, 3) in BGR, or None without an image that can be used.
    """
    hidden = gr.update(value='', visible=False)
    if path is None:
        return None, [], hidden
    try:
        image = read_upload(path)
        return image, [model.predictor(image) for model in models], hidden
    except BadImageError as error:
        text = str(error)
    except Exception as error:  # A network may raise anything, such as for an unusual size.
        reason = ' '.join(str(error).split())[:200]
        text = f'{Path(path).name} cannot be processed: {reason or type(error).__name__}'
    return None, [], gr.update(value=message_html(text), visible=True)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def _picture(title: str, kind: str) -> gr.Image:
    """Add a picture below its title."""
    gr.Markdown(f'### {title}')
    return gr.Image(
        label=title, show_label=False, interactive=False, buttons=['fullscreen'],
        elem_classes=['picture', kind], format='png',
    )  # fmt: skip


def _segmentation(models: Sequence[Model]) -> None:
    """Add overlays with legends, and the receptive fields of a pixel that the user clicks."""
    upload, notice = _upload()
    state = gr.State()
    with gr.Column(visible=False) as results:
        opacity = gr.Slider(0, 1, OPACITY, step=0.05, label='Opacity of the classes')
        pictures, legends, fields, areas = [], [], [], []
        with gr.Row():
            for model in models:
                with gr.Column(min_width=320):
                    pictures.append(_picture(model.name, 'predicted'))
                    legends.append(gr.HTML(padding=False))
            if len(models) == 1:
                _add_field(models[0], fields, areas)
        if len(models) > 1:
            with gr.Row():
                for model in models:
                    _add_field(model, fields, areas)

    def predict(path, share):
        image, samples, message = _predict(path, models)
        blank = [None] * len(models)
        if image is None:
            hidden = gr.update(visible=False)
            return [None, message, hidden, *blank, *blank, *blank, *[_HINT] * len(models)]
        labels = [sample.pred_sem_seg.data[0].cpu().numpy() for sample in samples]
        texts = [
            legend_html(legend(label, m.predictor.meta))
            for label, m in zip(labels, models, strict=True)
        ]
        small = shrunk(image, MOST_PIXELS)
        shown = Segmented(small, [resized_labels(label, small.shape[:2]) for label in labels])
        visible = gr.update(visible=True)
        overlays = draw(shown, share)
        return [shown, message, visible, *overlays, *texts, *blank, *[_HINT] * len(models)]

    def draw(shown, share):
        return [
            overlay(_rgb(shown.image), label, m.predictor.meta, share)
            for label, m in zip(shown.labels, models, strict=True)
        ]

    def redraw(shown, share):
        found = [gr.skip()] * len(models) if shown is None else draw(shown, share)
        return found if len(models) > 1 else found[0]

    def explain(shown, event: gr.SelectData):
        if shown is None:
            return [gr.skip()] * (2 * len(models))
        # Small pictures are shown enlarged. The centre of the pixel is meant.
        sides = (side * enlargement(shown.image) for side in shown.image.shape[1::-1])
        point = tuple(
            (min(max(0, at), side - 1) + 0.5) / side
            for at, side in zip(event.index, sides, strict=True)
        )
        drawn, texts = [], []
        for model, labels in zip(models, shown.labels, strict=True):
            field = pixel_field(model.predictor, shown.image, point)
            drawn.append(draw_field(_rgb(shown.image), field))
            x, y = (
                int(share * size) for share, size in zip(point, labels.shape[::-1], strict=True)
            )
            name = model.predictor.meta['classes'][labels[y, x]]
            texts.append(f'Predicted class: {name}. {area_text(field)}')
        return [*drawn, *texts]

    outputs = [state, notice, results, *pictures, *legends, *fields, *areas]
    for event in (upload.upload, upload.clear):
        event(predict, [upload, opacity], outputs, **_NETWORK)
    opacity.change(redraw, [state, opacity], pictures, **_QUICK)
    for picture in pictures:
        picture.select(explain, [state], [*fields, *areas], **_NETWORK)


def _add_field(model: Model, fields: list, areas: list) -> None:
    """Add a receptive field and the text below it."""
    with gr.Column(min_width=320):
        fields.append(_picture(f'Effective receptive field, {model.name}', 'field'))
        areas.append(gr.Markdown(_HINT))


def _detection(models: Sequence[Model]) -> None:
    """Add boxes and masks, with a slider for the least score."""
    upload, notice = _upload()
    state = gr.State()
    with gr.Column(visible=False) as results:
        score = gr.Slider(0, 1, 0.3, step=0.05, label='Least score of the objects')
        with gr.Row():
            pictures = []
            for model in models:
                with gr.Column(min_width=320):
                    pictures.append(_picture(model.name, 'detected'))

    def predict(path, least):
        image, samples, message = _predict(path, models)
        if image is None:
            return [None, message, gr.update(visible=False), *[None] * len(models)]
        shown = image, samples
        return [shown, message, gr.update(visible=True), *draw(shown, least)]

    def draw(shown, least):
        image, samples = shown
        drawn = [
            m.predictor.draw(image, sample, least)
            for m, sample in zip(models, samples, strict=True)
        ]
        return [shrunk(np.asarray(picture), MOST_PIXELS) for picture in drawn]

    def redraw(shown, least):
        found = [gr.skip()] * len(models) if shown is None else draw(shown, least)
        return found if len(models) > 1 else found[0]

    for event in (upload.upload, upload.clear):
        event(predict, [upload, score], [state, notice, results, *pictures], **_NETWORK)
    score.change(redraw, [state, score], pictures, **_QUICK)


def _classification(models: Sequence[Model]) -> None:
    """Add the image and the five best classes."""
    upload, notice = _upload()
    with gr.Column(visible=False) as results:
        with gr.Row():
            with gr.Column(min_width=320):
                picture = _picture('Image', 'classified')
            with gr.Column(min_width=320):
                labels = [
                    gr.Label(label=model.name, num_top_classes=5, elem_classes='best')
                    for model in models
                ]

    def predict(path):
        image, samples, message = _predict(path, models)
        if image is None:
            return [message, gr.update(visible=False), None, *[None] * len(models)]
        best = [
            top_classes(sample.pred_score.cpu().numpy(), m.predictor.meta['classes'])
            for sample, m in zip(samples, models, strict=True)
        ]
        return [message, gr.update(visible=True), _rgb(shrunk(image, MOST_PIXELS)), *best]

    for event in (upload.upload, upload.clear):
        event(predict, [upload], [notice, results, picture, *labels], **_NETWORK)
