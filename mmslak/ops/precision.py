"""Whether float32 products may be rounded to TF32, in the old and the new settings of PyTorch."""

import torch


def tf32_allowed() -> tuple[bool, bool]:
    """Return whether PyTorch allows TF32 in matrix products and in convolutions on GPUs."""
    backends = torch.backends
    try:
        settings = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    except AttributeError:  # before PyTorch 2.9
        return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    # The older settings `allow_tf32` and `set_float32_matmul_precision` also set these.
    return settings[0] == 'tf32', settings[1] == 'tf32'


def allow_tf32(allowed: bool) -> None:
    """Set whether matrix products on GPUs may be rounded to TF32."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):
        matmul.fp32_precision = 'tf32' if allowed else 'ieee'
    else:
        matmul.allow_tf32 = allowed
