"""Launches of Triton kernels without the work that Triton repeats in every call."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction


@dataclass
class Plan:
    """What a launch needs besides the tensors. It depends on their shapes and strides alone."""

    programs: int
    arguments: dict  #: of the kernel, by name, without the tensors
    warps: int = 4
    stages: int = 1
    registers: int | None = None
    #: Compiled kernels by device and by whether the tensors start at multiples of 16 bytes.
    compiled: dict = field(default_factory=dict)


_MOST_PLANS = 4096
_plans: dict[Hashable, Plan] = {}


def planned(key: Hashable, make: Callable[[], Plan]) -> Plan:
    """Return the plan of this key. Making a plan takes longer than a small convolution.

    Args:
        key (Hashable): Everything that the plan depends on.
        make (Callable): Makes the plan if it is new.
    """
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        plan = _plans[key] = make()
    return plan


def launch(kernel, plan: Plan, *tensors: Tensor) -> None:
    """Run a kernel on the current stream of the device of the tensors.

    Args:
        kernel: The Triton function. Its first arguments are the tensors.
        plan (Plan): Its other arguments.
        *tensors (Tensor): Tensors of one device.
    """
    device = tensors[0].device
    if device.type == 'cuda' and device.index != torch.cuda.current_device():
        # Triton launches on the current device.
        with torch.cuda.device(device):
            return launch(kernel, plan, *tensors)
    key = (device, *[tensor.data_ptr() % 16 for tensor in tensors])
    compiled = plan.compiled.get(key)
    if compiled is not None:
        # Triton would examine all arguments again, which takes longer than a small kernel.
        compiled[(plan.programs, 1, 1)](*tensors, *plan.arguments.values())
        return None
    result = kernel[(plan.programs,)](
        *tensors,
        **plan.arguments,
        num_warps=plan.warps,
        num_stages=plan.stages,
        maxnreg=plan.registers,
    )
    if not isinstance(kernel, InterpretedFunction):
        # In the order of the kernel's signature, as a compiled kernel expects them.
        names = kernel.arg_names[len(tensors) :]
        plan.arguments = {name: plan.arguments[name] for name in names}
        plan.compiled[key] = result
    return None
