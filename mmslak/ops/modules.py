"""Large depth-wise convolutions in anyone's network: a module, and a swap in place."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .depthwise import depthwise_conv2d, resolve


class LargeKernelConv2d(nn.Conv2d):
    """``nn.Conv2d`` for depth-wise convolutions with large kernels; same state dict.

    Args:
        in_channels (int): Channels C of the input.
        out_channels (int): The same number.
        kernel_size (int or tuple[int, int]): Odd.
        stride, padding, dilation, groups, bias, padding_mode: As for ``nn.Conv2d``. Depth-wise
            with stride 1 and "same" zero padding is all that is allowed; ``padding`` and
            ``groups`` default to that.
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        device, dtype: Of the parameters.

    Raises:
        ValueError: For a convolution of another kind, or an unknown implementation.
    """

    #: For modules that were made as ``nn.Conv2d``.
    implementation = 'auto'

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 'same',
        dilation: int | tuple[int, int] = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: str = 'zeros',
        implementation: str = 'auto',
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation,
            in_channels if groups is None else groups, bias, padding_mode, device, dtype,
        )  # fmt: skip
        reason = unsuitable(self)
        if reason:
            raise ValueError(f'LargeKernelConv2d is for other convolutions than this: {reason}')
        resolve(implementation)
        self.implementation = implementation

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` of shape (N, C, H, W) or (C, H, W); the shape stays."""
        batch = x if x.dim() == 4 else x.unsqueeze(0)
        out = depthwise_conv2d(batch, self.weight, self.bias, self.implementation)
        return out if x.dim() == 4 else out.squeeze(0)

    def extra_repr(self) -> str:
        """Add what the convolution runs on."""
        return f'{super().extra_repr()}, implementation={self.implementation!r}'


def unsuitable(conv: nn.Conv2d) -> str:
    """Say why a convolution is not one of :func:`depthwise_conv2d`; empty if it is."""
    same = tuple(size // 2 for size in conv.kernel_size)
    if not conv.groups == conv.in_channels == conv.out_channels:
        return (
            f'not depth-wise, {conv.in_channels} channels to {conv.out_channels} in '
            f'{conv.groups} groups'
        )
    if any(size % 2 == 0 for size in conv.kernel_size):
        return f'an even kernel, {conv.kernel_size}'
    if tuple(conv.stride) != (1, 1) or tuple(conv.dilation) != (1, 1):
        return f'stride {conv.stride}, dilation {conv.dilation}'
    if conv.padding != 'same' and tuple(conv.padding) != same:
        return f'padding {conv.padding}, where "same" is {same}'
    if conv.padding_mode != 'zeros':
        return f'padding_mode {conv.padding_mode!r}'
    return ''


@dataclass
class Swap:
    """A convolution that :func:`accelerate` looked at.

    Attributes:
        name (str): In the network.
        kernel_size (tuple[int, int]): Height and width.
        shape (tuple[int, ...] or None): Of the map it ran on, (N, C, H, W).
        before (float or None): Milliseconds that it takes as ``nn.Conv2d``.
        after (float or None): The same with the large-kernel operator.
        swapped (bool): Whether it was exchanged; not where that does not gain.
    """

    name: str
    kernel_size: tuple[int, int]
    shape: tuple[int, ...] | None
    before: float | None
    after: float | None
    swapped: bool

    def __str__(self) -> str:
        size = 'x'.join(map(str, self.kernel_size))
        if self.shape is None:
            return f'{self.name}: {size}, not timed'
        shape = 'x'.join(map(str, self.shape))
        gain = f'{self.before:.2f} ms -> {self.after:.2f} ms, {self.before / self.after:.1f} times'
        return f'{self.name}: {size} on {shape}, {gain}' + ('' if self.swapped else ', left as is')


def accelerate(
    model: nn.Module,
    *inputs,
    run: Callable[[], object] | None = None,
    implementation: str = 'auto',
    log: Callable[[str], object] | None = print,
) -> list[Swap]:
    """Let every eligible depth-wise convolution of any network run on this package's operator.

    The modules stay where they are, with their parameters, names and hooks; only how they
    compute changes. With an example to run on, each is timed both ways on the map that it sees,
    and only those that gain are exchanged. Without one all eligible ones are.

    Args:
        model (nn.Module): The network, changed in place.
        *inputs: An example for ``model(*inputs)``.
        run (Callable, optional): Runs the model on an example, where ``model(*inputs)`` does not
            do, such as ``lambda: model(x, mode='tensor')``.
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        log (Callable, optional): Gets a line for each convolution; None: silent.

    Returns:
        list[Swap]: The eligible convolutions. Those that the example did not reach are
        exchanged, with no times.

    Raises:
        ValueError: For an unknown implementation.
    """
    resolve(implementation)
    # A subclass has a reason of its own to be one.
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and not unsuitable(module)
    }
    if inputs and run is None:
        run = lambda: model(*inputs)  # noqa: E731
    seen = _maps_seen(model, found, run) if run else {}
    swaps, timed = [], {}
    for name, conv in found.items():
        x, before, after = seen.get(name), None, None
        if x is not None:
            alike = (x.shape, x.stride(), x.dtype, conv.kernel_size)
            if alike not in timed:
                timed[alike] = _compare(conv, x, implementation)
            before, after = timed[alike]
        gains = x is None or after <= before
        if gains:
            # Not a new module: hooks, and whoever holds this one, stay valid.
            conv.__class__ = LargeKernelConv2d
            conv.implementation = implementation
        shape = None if x is None else tuple(x.shape)
        swaps.append(Swap(name, conv.kernel_size, shape, before, after, gains))
        if log:
            log(str(swaps[-1]))
    compared = [swap for swap in swaps if swap.before is not None]
    if log and compared:
        before = sum(swap.before for swap in compared)
        after = sum(min(swap.before, swap.after) for swap in compared)
        count = sum(swap.swapped for swap in compared)
        log(f'{count} of {len(compared)} exchanged, {before:.0f} ms -> {after:.0f} ms in all')
    if log and not swaps:
        log('no depth-wise convolution of stride 1 with "same" padding was found')
    return swaps


def _maps_seen(
    model: nn.Module, convs: dict[str, nn.Conv2d], run: Callable[[], object]
) -> dict[str, Tensor]:
    """Shape, strides and dtype of the map that each convolution meets first."""
    seen = {}

    def look(name: str):
        def hook(_, inputs: tuple) -> None:
            seen.setdefault(name, torch.empty_like(inputs[0], device='meta'))

        return hook

    handles = [conv.register_forward_pre_hook(look(name)) for name, conv in convs.items()]
    # In training mode the example would enter the running statistics of batch norms.
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        with torch.no_grad():
            run()
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    return seen


def _compare(conv: nn.Conv2d, like: Tensor, implementation: str) -> tuple[float, float]:
    """Milliseconds of the convolution as it is, and on the operator."""
    # Here, for it looks for a CUDA toolkit and warns of what it finds.
    from torch.utils.benchmark import Timer

    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    x = torch.randn_like(like, device=weight.device)
    grad = torch.randn_like(x)

    def run(name: str) -> None:
        if not conv.training:
            depthwise_conv2d(x, weight, bias, name)
            return
        leaves = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
        torch.autograd.grad(depthwise_conv2d(*leaves, bias, name), leaves, grad)

    both = {}
    for name in ('native', implementation):
        statement = Timer(
            'run(name)', globals=dict(run=run, name=name), num_threads=torch.get_num_threads()
        )
        both[name] = 1e3 * statement.blocked_autorange(min_run_time=0.05).median
    return both['native'], both[implementation]
