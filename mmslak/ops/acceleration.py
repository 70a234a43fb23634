"""Replace convolutions of any network in place where this package's operator is faster."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .depthwise import resolve
from .measured import several_ranks
from .modules import LargeKernelConv2d, unsuitable


@dataclass
class Swap:
    """A convolution that :func:`accelerate` considered.

    Attributes:
        name (str): Name of the module in the network.
        kernel_size (tuple[int, int]): Height and width of the kernel.
        shape (tuple[int, ...] or None): Shape of its input in the example, (N, C, H, W) or
            (C, H, W).
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
        size = _times(self.kernel_size)
        if self.shape is None:
            return f'{self.name}: {size}, not timed'
        gain = f'{self.before:.2f} ms -> {self.after:.2f} ms, {self.before / self.after:.1f} times'
        return f'{self.name}: {size} on {_times(self.shape)}, {gain}' + (
            '' if self.swapped else ', not replaced'
        )


class Swaps(list[Swap]):
    """The convolutions that :func:`accelerate` considered, and the times of the whole network.

    ``str`` returns a table as plain text. Rich renders the same table.

    Attributes:
        before (float or None): Milliseconds of the whole network before.
        after (float or None): Milliseconds of the whole network afterwards.
        training (bool): Whether the times include gradients, as in training mode.
        already (int): Number of convolutions that used this package's operator before.
    """

    HEADS = ('kernel', 'feature map', 'number', 'nn.Conv2d', 'mmslak', 'times faster', 'replaced')
    #: The first columns are words, the others numbers.
    WORDS = 2

    def __init__(self, training: bool, already: int):
        super().__init__()
        self.training, self.already = training, already
        self.before = self.after = None

    @property
    def title(self) -> str:
        """What the times of the table are."""
        mode = 'forward and backward, training' if self.training else 'forward, evaluation'
        return f'milliseconds ({mode} mode)'

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table.

        Alike convolutions share a row with the times of one. Sums and the whole network follow.
        """
        groups = {}
        for swap in self:
            alike = (swap.kernel_size, swap.shape, swap.before, swap.after, swap.swapped)
            groups[alike] = groups.get(alike, 0) + 1
        rows = [
            (
                _times(kernel), _times(shape or ()) or '-', str(number), *_cells(before, after),
                'yes' if swapped else 'no',
            )
            for (kernel, shape, before, after, swapped), number in groups.items()
        ]  # fmt: skip
        count, swapped = str(len(self)), f'{sum(swap.swapped for swap in self)} of {len(self)}'
        timed = [swap for swap in self if swap.before is not None]
        before = sum(swap.before for swap in timed)
        after = sum(swap.after if swap.swapped else swap.before for swap in timed)
        convolutions = _cells(before or None, after)
        return [
            *rows,
            ('all convolutions', '', count, *convolutions, swapped),
            ('whole network', '', '', *_cells(self.before, self.after), ''),
        ]

    def __str__(self) -> str:
        rows = [self.HEADS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            '  '.join(
                cell.ljust(width) if i < self.WORDS else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return '\n'.join([self.title, *lines])

    def __rich__(self):
        """Return the table for Rich, which calls this and is therefore installed."""
        from rich.table import Table

        table = Table(title=self.title)
        for i, head in enumerate(self.HEADS):
            table.add_column(head, justify='left' if i < self.WORDS else 'right')
        for row in self.rows():
            table.add_row(*row)
        return table


def _times(sizes: tuple[int, ...]) -> str:
    return 'x'.join(map(str, sizes))


def _cells(before: float | None, after: float | None) -> tuple[str, str, str]:
    if before is None:
        return '-', '-', '-'
    return f'{before:.2f}', f'{after:.2f}', f'{before / after:.1f}'


def show(item: object) -> None:
    """Print a line, or a table in the style of Rich if it is installed."""
    try:
        from ..console import print_table
    except ImportError:
        print_table = print
    (print if isinstance(item, str) else print_table)(item)


def accelerate(
    model: nn.Module,
    *inputs,
    run: Callable[[], object] | None = None,
    implementation: str = 'auto',
    log: Callable[[object], object] | None = show,
    **keywords,
) -> Swaps:
    """Run the depth-wise convolutions of any network on this package's operator.

    The modules keep their parameters, names and hooks; only their computation changes. With an
    example each convolution is timed both ways on an input of the same shape, and replaced if it
    becomes faster. In training mode gradients are timed too. The whole network is timed before and
    afterwards, except with several processes. Hooks of the network are called each time. Buffers,
    gradients and the state of the random numbers stay the same.

    Without an example all suitable convolutions are replaced.

    Args:
        model (nn.Module): The network, changed in place. It may be a result of ``torch.compile``.
        *inputs: The example: arguments of ``model(*inputs, **keywords)``.
        run (Callable, optional): Runs the model on an example, if ``model(*inputs, **keywords)``
            does not suffice: for instance ``lambda: model.loss(images, samples)``.
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        log (Callable, optional): Called with one line for each convolution and, after an example,
            with the returned list, which ``str`` makes a table; None for no output.
        **keywords: Keyword arguments of the example. Those named ``run``, ``implementation`` and
            ``log`` need ``run``.

    Returns:
        Swaps: The list of the suitable convolutions. Those that the example does not use are
        replaced without being timed.

    Raises:
        ValueError: For an unknown implementation, if ``run`` is not callable, or if both ``run``
            and arguments of an example are given.
    """
    resolve(implementation)
    run = _example(model, inputs, keywords, run)
    # Subclasses of nn.Conv2d may compute something else, and so may a forward of the instance.
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and 'forward' not in vars(module) and not unsuitable(module)
    }
    already = sum(isinstance(module, LargeKernelConv2d) for module in model.modules())
    swaps, log = Swaps(_with_gradients(model), already), log or (lambda item: None)
    if already:
        log(f'convolutions that already use the operator of mmslak: {already}')
    if not found:
        other = 'other ' if already else ''
        log(f'no {other}depth-wise convolution of stride 1 with "same" padding was found')
        return swaps
    if run is None:
        for name, conv in found.items():
            _swap(conv, implementation)
            swaps.append(Swap(name, conv.kernel_size, None, None, None, True))
            log(str(swaps[-1]))
        return swaps
    with _restored(model):
        seen = _examples(model, found, run)
        # Each process would run the network another number of times, and wait for the others.
        whole = not several_ranks()
        swaps.before = _milliseconds(_step(model, run), 0.2) if whole else None
        timed = {}
        for name, conv in found.items():
            swaps.append(_decide(name, conv, seen.get(name), implementation, timed))
            log(str(swaps[-1]))
        changed = whole and any(swap.swapped for swap in swaps)
        swaps.after = _milliseconds(_step(model, run), 0.2) if changed else swaps.before
    log(swaps)
    return swaps


def _example(
    model: nn.Module, inputs: tuple, keywords: dict, run: Callable[[], object] | None
) -> Callable[[], object] | None:
    """Return the function that runs the example; None without an example."""
    given = bool(inputs or keywords)
    if run is None:
        return (lambda: model(*inputs, **keywords)) if given else None
    if given:
        raise ValueError(
            'an example is either arguments of the model or run, got both: call the model with '
            'these arguments in run'
        )
    if not callable(run):
        raise ValueError(
            'run must be a function without arguments, such as lambda: model(images), got '
            f'{type(run).__name__}'
        )
    return run


def _swap(conv: nn.Conv2d, implementation: str) -> None:
    # The module stays the same object, so that hooks and references to it stay valid.
    conv.__class__ = LargeKernelConv2d
    conv.implementation = implementation


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore the buffers, modes and the state of the random numbers afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module, _ in modes
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, value in buffers:
                with torch.no_grad():
                    buffer.copy_(value)
                setattr(module, name, buffer)


@dataclass
class _Example:
    """Input of a convolution on the meta device, and the dtype of autocast, None without it."""

    x: Tensor
    autocast: torch.dtype | None


def _examples(
    model: nn.Module, convs: dict[str, nn.Conv2d], run: Callable[[], object]
) -> dict[str, _Example]:
    """Return the first input of each convolution."""
    seen = {}

    def look(name: str):
        def hook(_, inputs: tuple, keywords: dict) -> None:
            (x,) = inputs or keywords.values()
            device = x.device.type
            autocast = None
            # PyTorch 2.5 cannot compile torch.amp.is_autocast_available.
            if device != 'meta' and torch.is_autocast_enabled(device):
                autocast = torch.get_autocast_dtype(device)
            seen.setdefault(name, _Example(torch.empty_like(x, device='meta'), autocast))

        return hook

    handles = [
        conv.register_forward_pre_hook(look(name), with_kwargs=True) for name, conv in convs.items()
    ]
    # In training mode, networks on several processes would wait for each other.
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    # Compiled code would be compiled again for the hooks. PyTorch 2.5 cannot leave this out.
    set_stance = getattr(torch.compiler, 'set_stance', None)
    try:
        with torch.no_grad(), set_stance('force_eager') if set_stance else nullcontext():
            run()
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    return seen


def _decide(
    name: str, conv: nn.Conv2d, example: _Example | None, implementation: str, timed: dict
) -> Swap:
    """Time a convolution, unless one alike is in ``timed``, and replace it if it gets faster."""
    shape = before = after = None
    if example is not None:
        x = example.x
        shape = tuple(x.shape)
        alike = (shape, x.stride(), x.dtype, example.autocast, conv.kernel_size, conv.dilation)
        if alike not in timed:
            timed[alike] = _compare(conv, example, implementation)
        before, after = timed[alike]
    gains = example is None or after <= before
    if gains:
        _swap(conv, implementation)
    return Swap(name, conv.kernel_size, shape, before, after, gains)


def _with_gradients(module: nn.Module) -> bool:
    """Return whether to time gradients. Inside torch.inference_mode there are none."""
    return module.training and not torch.is_inference_mode_enabled()


def _compare(conv: nn.Conv2d, example: _Example, implementation: str) -> tuple[float, float]:
    """Return the milliseconds of PyTorch's convolution and of the operator."""
    device, gradients = conv.weight.device, _with_gradients(conv)
    x = torch.randn_like(example.x, device=device)
    parameters = [parameter for parameter in conv.parameters() if parameter.requires_grad]
    ours = copy.copy(conv)
    _swap(ours, implementation)

    def forward(module: nn.Conv2d, x: Tensor) -> Tensor:
        if not torch.amp.is_autocast_available(device.type):
            return module.forward(x)
        # The cache may hold weights without gradients, from a call in torch.no_grad.
        enabled = example.autocast is not None
        with torch.autocast(device.type, example.autocast, enabled, cache_enabled=False):
            return module.forward(x)

    with torch.no_grad():
        grad = torch.randn_like(forward(ours, x))

    def step(module: nn.Conv2d):
        def run() -> None:
            with torch.set_grad_enabled(gradients):
                leaf = x.detach().requires_grad_(gradients)
                out = forward(module, leaf)
            if gradients:
                torch.autograd.grad(out, [leaf, *parameters], grad)

        return run

    return _milliseconds(step(conv), 0.05), _milliseconds(step(ours), 0.05)


def _step(model: nn.Module, run: Callable[[], object]) -> Callable[[], None]:
    """Return a function that runs the example, in training mode with all gradients."""

    gradients = _with_gradients(model)

    def step() -> None:
        with torch.set_grad_enabled(gradients):
            found = tree_leaves(run())
        outputs = [x for x in found if isinstance(x, Tensor) and x.requires_grad]
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if gradients and outputs and parameters:
            ones = [torch.ones_like(x) for x in outputs]
            # Unlike backward(), this leaves the gradients of the parameters as they are.
            torch.autograd.grad(outputs, parameters, ones, allow_unused=True)

    return step


def _milliseconds(run: Callable[[], object], seconds: float) -> float:
    """Return the median time of runs that take ``seconds`` together, after one that warms up."""
    # Imported here because it searches for a CUDA toolkit and prints warnings.
    from torch.utils.benchmark import Timer

    # Timer would set the number of threads to 1.
    timer = Timer('run()', globals=dict(run=run), num_threads=torch.get_num_threads())
    return 1e3 * timer.blocked_autorange(min_run_time=seconds).median
