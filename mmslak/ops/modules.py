"""Large depth-wise convolutions for any network: a module, and in-place replacement."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .depthwise import depthwise_conv2d, resolve


class LargeKernelConv2d(nn.Conv2d):
    """``nn.Conv2d`` for depth-wise convolutions with large kernels, with the same state dict.

    Args:
        in_channels (int): Channels C of the input.
        out_channels (int): Equal to ``in_channels``.
        kernel_size (int or tuple[int, int]): Height and width of the kernel, odd.
        stride, padding, dilation, groups, bias, padding_mode: As for ``nn.Conv2d``. Only
            depth-wise convolutions with stride 1 and "same" zero padding are allowed, with any
            dilation; these are the defaults of ``padding`` and ``groups``.
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        device (torch.device or str, optional): Device of the parameters.
        dtype (torch.dtype, optional): Dtype of the parameters.

    Raises:
        ValueError: For a convolution that is not supported, or an unknown implementation.
    """

    #: Default for a module that was created as ``nn.Conv2d``.
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
            raise ValueError(f'LargeKernelConv2d does not support this convolution: {reason}')
        resolve(implementation)
        self.implementation = implementation

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` of shape (N, C, H, W) or (C, H, W); the shape stays the same.

        Raises:
            ValueError: If ``x`` has another shape.
        """
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f'x must have shape (N, {self.in_channels}, H, W) or ({self.in_channels}, H, W), '
                f'got {tuple(x.shape)}'
            )
        batch = x if x.dim() == 4 else x.unsqueeze(0)
        out = depthwise_conv2d(batch, self.weight, self.bias, self.implementation, self.dilation)
        return out if x.dim() == 4 else out.squeeze(0)

    def extra_repr(self) -> str:
        """Add the implementation."""
        return f'{super().extra_repr()}, implementation={self.implementation!r}'


def unsuitable(conv: nn.Conv2d) -> str:
    """Return why :func:`depthwise_conv2d` cannot compute a convolution, empty if it can."""
    same = tuple(k // 2 * step for k, step in zip(conv.kernel_size, conv.dilation, strict=True))
    if not conv.groups == conv.in_channels == conv.out_channels:
        return (
            f'not depth-wise ({conv.in_channels} input channels, {conv.out_channels} output '
            f'channels, {conv.groups} groups)'
        )
    if any(size % 2 == 0 for size in conv.kernel_size):
        return f'even kernel size {conv.kernel_size}'
    if tuple(conv.stride) != (1, 1):
        return f'stride {conv.stride} instead of 1'
    if conv.padding != 'same' and tuple(conv.padding) != same:
        return f'padding {conv.padding} instead of "same" padding {same}'
    if conv.padding_mode != 'zeros':
        return f"padding_mode {conv.padding_mode!r} instead of 'zeros'"
    return ''


@dataclass
class Swap:
    """A convolution that :func:`accelerate` considered.

    Attributes:
        name (str): Name of the module in the network.
        kernel_size (tuple[int, int]): Height and width of the kernel.
        shape (tuple[int, ...] or None): Shape (N, C, H, W) of its input in the example.
        before (float or None): Milliseconds as ``nn.Conv2d``.
        after (float or None): Milliseconds with this package's operator.
        swapped (bool): Whether the module was replaced; it is not if the operator is slower.
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
        return f'{self.name}: {size} on {shape}, {gain}' + (
            '' if self.swapped else ', not replaced'
        )


def accelerate(
    model: nn.Module,
    *inputs,
    run: Callable[[], object] | None = None,
    implementation: str = 'auto',
    log: Callable[[str], object] | None = print,
) -> list[Swap]:
    """Run the depth-wise convolutions of any network on this package's operator.

    The modules keep their parameters, names and hooks; only their computation changes. With an
    example input each convolution is timed both ways on an input of the same shape, and replaced
    if it becomes faster. Without an example all suitable convolutions are replaced.

    Args:
        model (nn.Module): The network, changed in place.
        *inputs: Example inputs for ``model(*inputs)``.
        run (Callable, optional): Runs the model on an example, if ``model(*inputs)`` does not
            suffice: for instance ``lambda: model(x, mode='tensor')``.
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        log (Callable, optional): Called with one line for each convolution; None for no output.

    Returns:
        list[Swap]: The suitable convolutions. Those that the example does not use are replaced
        without being timed.

    Raises:
        ValueError: For an unknown implementation.
    """
    resolve(implementation)
    # Subclasses of nn.Conv2d may compute something else.
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and not unsuitable(module)
    }
    if inputs and run is None:
        run = lambda: model(*inputs)  # noqa: E731
    seen = _inputs_of(model, found, run) if run else {}
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
            # The module stays the same object, so that hooks and references to it stay valid.
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
        log(f'{count} of {len(compared)} replaced, {before:.0f} ms -> {after:.0f} ms in total')
    if log and not swaps:
        log('no depth-wise convolution of stride 1 with "same" padding was found')
    return swaps


def _inputs_of(
    model: nn.Module, convs: dict[str, nn.Conv2d], run: Callable[[], object]
) -> dict[str, Tensor]:
    """Return the first input of each convolution as a tensor on the meta device."""
    seen = {}

    def look(name: str):
        def hook(_, inputs: tuple) -> None:
            seen.setdefault(name, torch.empty_like(inputs[0], device='meta'))

        return hook

    handles = [conv.register_forward_pre_hook(look(name)) for name, conv in convs.items()]
    # In training mode the example would change the running statistics of batch norms.
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
    """Return the milliseconds of PyTorch's convolution and of the operator."""
    # Imported here because it searches for a CUDA toolkit and prints warnings.
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

    medians = {}
    for name in ('native', implementation):
        # Timer would set the number of threads to 1.
        timer = Timer(
            'run(name)', globals=dict(run=run, name=name), num_threads=torch.get_num_threads()
        )
        medians[name] = 1e3 * timer.blocked_autorange(min_run_time=0.05).median
    return medians['native'], medians[implementation]
