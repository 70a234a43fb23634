"""Mixed precision that also works without an accelerator."""

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper

from ...registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper``, which trains in bfloat16 on a CPU.

    MMEngine's own wrapper cannot be built without an accelerator, so that a config with mixed
    precision could not be tried on a laptop.

    Args:
        loss_scale (str, float or dict): Loss scaling of float16; ignored on a CPU.
        dtype (str, optional): ``float16`` or ``bfloat16``; on a CPU only ``bfloat16``.
        **kwargs: Passed to MMEngine's ``AmpOptimWrapper`` (on a CPU, ``OptimWrapper``).

    Raises:
        ValueError: If ``dtype`` is not ``bfloat16`` on a CPU.
    """

    def __init__(self, loss_scale='dynamic', dtype: str | None = None, **kwargs):
        if get_device() != 'cpu':
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(
                f"optim_wrapper.dtype must be 'bfloat16' to train in mixed precision on a CPU, "
                f'got {dtype!r}'
            )
        OptimWrapper.__init__(self, **kwargs)
        # bfloat16 has the range of float32, so that no loss scaling is needed.
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16
