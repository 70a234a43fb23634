"""Writing a network as a file of ONNX or ``torch.export``, and running such files."""

import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import write_atomically
from ..ops.depthwise import standard_operators

#: Format -> suffix of its files.
FORMATS = {'onnx': '.onnx', 'torch-export': '.pt2'}
#: File inside a file of ``torch.export``, with the meta data as JSON.
METADATA = 'mmslak.json'
#: Format -> packages that write it, and packages that run it.
_WRITERS, _RUNNERS = {'onnx': ('onnx', 'onnxscript')}, {'onnx': ('onnxruntime',)}
_AXES = {0: 'batch', 2: 'height', 3: 'width'}
#: Largest file of protocol buffers, in bytes.
_PROTOBUF_LIMIT = 2**31 - 1


def unavailable(file_format: str, run: bool = False) -> str:
    """Return the packages that a format needs and that are not installed, for ``pip install``.

    Args:
        file_format (str): One of :data:`FORMATS`.
        run (bool): The packages that run a file instead of those that write it.
    """
    packages = (_RUNNERS if run else _WRITERS).get(file_format, ())
    return ' '.join(name for name in packages if importlib.util.find_spec(name) is None)


def write_graph(
    network: nn.Module,
    image: Tensor,
    path: str | Path,
    file_format: str,
    names: list[str],
    meta: Mapping,
    min_size: int | None = None,
) -> None:
    """Write a network as standard operators. The file appears only when it is complete.

    Args:
        network (nn.Module): Computes a tuple of tensors from ``image``, in evaluation mode.
        image (Tensor): Example of the input, of shape (N, C, H, W); N at least 2 with ``min_size``.
        path (str or Path): File to write.
        file_format (str): One of :data:`FORMATS`.
        names (list[str]): Names of the outputs, for ONNX.
        meta (Mapping): Values that JSON can represent. ONNX stores each as JSON under its key,
            ``torch.export`` all of them in ``mmslak.json``.
        min_size (int, optional): Accept any N, and any H and W of at least so many pixels. None
            accepts the shape of ``image`` only.

    Raises:
        ValueError: If the network cannot be exported.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if file_format == 'onnx' and size >= _PROTOBUF_LIMIT:
        raise ValueError(
            'a network of more than 2 GB does not fit into one ONNX file; use --format torch-export'
        )
    write = dict(zip(FORMATS, (_onnx_bytes, _program_bytes), strict=True))[file_format]
    try:
        with torch.no_grad():
            content = write(network, image, names, meta, min_size)
    # Tracing runs the code of the network on symbols, which may raise anything.
    except Exception as error:
        raise ValueError(_explain(error, file_format, min_size is not None)) from error
    write_atomically(content, path)


def _explain(error: Exception, file_format: str, dynamic: bool) -> str:
    cause = error.__cause__ or error
    reason = next((line for line in str(cause).splitlines() if line.strip()), '')
    advice = 'without --dynamic it may work' if dynamic else 'its code must be changed'
    return f'this network cannot be exported as {file_format} ({reason.strip()}); {advice}'


def _onnx_bytes(network, image, names, meta, min_size) -> bytes:
    program = torch.onnx.export(
        network, (image,), dynamo=True, verbose=False, input_names=['image'], output_names=names,
        dynamic_shapes=(_AXES,) if min_size else None,
    )  # fmt: skip
    for key, value in meta.items():
        program.model.metadata_props[key] = json.dumps(value)
    return program.model_proto.SerializeToString()


def _program_bytes(network, image, names, meta, min_size) -> bytes:
    shapes = None
    if min_size:
        sizes = dict.fromkeys((2, 3), min_size)
        shapes = ({i: torch.export.Dim(name, min=sizes.get(i, 1)) for i, name in _AXES.items()},)
    program = torch.export.export(network, (image,), dynamic_shapes=shapes, strict=False)
    operator = torch.ops.mmslak.depthwise_conv2d.default
    program = program.run_decompositions({operator: standard_operators})
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(meta)})
    return buffer.getvalue()


def load_graph(path: str | Path, file_format: str) -> Callable[[Tensor], list[Tensor]]:
    """Load a file of :func:`write_graph` on the CPU, with the number of threads of PyTorch.

    Args:
        path (str or Path): The file.
        file_format (str): One of :data:`FORMATS`; ``onnx`` needs ONNX Runtime.

    Returns:
        Callable: Computes the outputs of a batch of images.
    """
    if file_format == 'torch-export':
        module = torch.export.load(path).module()
        return lambda image: list(module(image))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda image: [
        torch.from_numpy(out) for out in session.run(None, {'image': image.numpy()})
    ]
