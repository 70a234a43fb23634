"""Mixed-precision training that also works on a CPU."""

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper

from ...registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper`` that also trains on a CPU, in bfloat16.

    MMEngine's own wrapper needs an accelerator. With this one, a config with mixed precision can be
    tried on a laptop.

    Args:
        loss_scale (str, float or dict): Loss scaling for float16; not used on a CPU.
        dtype (str, optional): ``float16`` or ``bfloat16``; on a CPU only ``bfloat16``.
        **kwargs: Arguments of MMEngine's ``AmpOptimWrapper`` or, on a CPU, ``OptimWrapper``.

    Raises:
        ValueError: If ``dtype`` is not ``bfloat16`` on a CPU.
    """

    def __init__(self, loss_scale='dynamic', dtype: str | None = None, **kwargs):
        if get_device() != 'cpu':
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(
                "optim_wrapper.dtype must be 'bfloat16' for mixed precision on a CPU, got "
                f'{dtype!r}'
            )
        OptimWrapper.__init__(self, **kwargs)
        # bfloat16 has the range of float32, so no loss scaling is needed.
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16
