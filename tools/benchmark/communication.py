"""Measure what the processes of a training send to each other, and estimate it for many GPUs.

    python tools/benchmark/communication.py configs/slak_t_in1k.py

Several processes build the model of the config and make one optimiser step with an update of the
masks. Every tensor that goes through torch.distributed is counted. Its size depends on the
parameters only, so that no images are needed. Synchronised batch norms need GPUs; what they send is
computed from their channels.
"""

import argparse
import copy
import json
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from rich.table import Table
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from mmslak.cli.config import load_config
from mmslak.console import guarded, print_table
from mmslak.engine.hooks.configured import configured_hooks
from mmslak.sparsity import DynamicSparsity, select_model_targets, snip_scores

GPUS = (8, 64, 512)
#: Bytes per second of one GPU in one direction, from the data sheets of NVIDIA: NVLink of an H100
#: SXM (900 GB/s in both directions) within 8 GPUs, else one ConnectX-7 port (400 Gb/s) for a GPU.
NVLINK, INFINIBAND = 450e9, 50e9


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--processes', type=int, default=2, help='processes (default: 2)')
    parser.add_argument('--json', action='store_true', help='print the numbers as JSON')
    args = parser.parse_args()
    if args.processes < 2:
        raise ValueError(f'--processes must be at least 2, got {args.processes}')
    return args


class ParameterSum(nn.Module):
    """Sum of all trainable parameters: its gradients have the sizes of those of any loss."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, factor: torch.Tensor) -> torch.Tensor:
        """Return ``factor`` times the sum."""
        return factor * sum(p.sum() for p in self.model.parameters() if p.requires_grad)


class Counter:
    """Count the bytes of the tensors that this process passes to torch.distributed."""

    def __init__(self):
        self.bytes = self.calls = 0
        for name in ('all_reduce', 'all_gather', 'all_gather_object', 'broadcast'):
            setattr(dist, name, self._counting(getattr(dist, name), name))

    def taken(self) -> dict[str, int]:
        """Return the counts, and start again from zero."""
        found = dict(bytes=self.bytes, calls=self.calls)
        self.bytes = self.calls = 0
        return found

    def _counting(self, function, name: str):
        def counted(first, second=None, *args, **kwargs):
            # all_gather gets the list of results first.
            tensor = second if name.startswith('all_gather') else first
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f'{name} of {type(tensor).__name__} is not counted')
            self.bytes += tensor.numel() * tensor.element_size()
            self.calls += 1
            given = (first,) if second is None else (first, second)
            return function(*given, *args, **kwargs)

        return counted


def build(cfg: Config) -> tuple[nn.Module, dict[str, int]]:
    """Return the model of a config, and the number and channels of its synchronised batch norms.

    They are replaced by ordinary ones, which run on CPUs.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        built = MODELS.build(copy.deepcopy(dict(cfg.model)))
    norms = [module for module in built.modules() if isinstance(module, nn.SyncBatchNorm)]
    counts = dict(layers=len(norms), channels=sum(norm.num_features for norm in norms))
    return revert_sync_batchnorm(built), counts


def measure(rank: int, processes: int, config: str, folder: str) -> None:
    """Make one step in one of several processes, and write the counts to ``folder``."""
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    rendezvous = f'file://{folder}/rendezvous'
    dist.init_process_group('gloo', init_method=rendezvous, rank=rank, world_size=processes)
    cfg = load_config(config)
    model, norms = build(cfg)
    hook = next(iter(configured_hooks(cfg, 'DynamicSparsityHook')), ConfigDict())
    parameters = select_model_targets(model, hook.get('targets', 'all'))
    whole = ParameterSum(model)
    counter, found = Counter(), {}
    one = torch.ones(())
    scores = snip_scores(whole, parameters, lambda: whole(one))
    found['snip'] = counter.taken()
    sparsity = DynamicSparsity(
        parameters, hook.get('sparsity', 0.4), 'erk', dict(every=1), total_steps=9
    )
    found['first_masks'] = counter.taken()

    wrapped = nn.parallel.DistributedDataParallel(whole, broadcast_buffers=False)
    # DDP's default reduces inside C++, where it cannot be counted; this one does the same.
    wrapped.register_comm_hook(None, allreduce_hook)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    wrapped(one).backward()
    found['gradients'] = counter.taken()
    sparsity.before_step()
    optimizer.step()
    sparsity.step(optimizer)
    found['update'] = counter.taken()
    if rank == 0:
        found['batch_norms'] = norms
        found['parameters'] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        found['targets'] = sum(score.numel() for score in scores.values())
        dynamic = hook.get('mode', 'dynamic') == 'dynamic'
        found['every'] = hook.get('update', {}).get('every') if dynamic else None
        found['snip_used'] = dynamic and hook.get('allocation', 'snip') == 'snip'
        Path(folder, 'found.json').write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def estimate(found: dict, gpus: int) -> dict[str, float]:
    """Estimate the bytes that each GPU sends in a step, and the time this takes.

    A ring all-reduce of S bytes sends 2 (N - 1) / N S bytes from each of N GPUs, a ring all-gather
    of s bytes from each GPU (N - 1) s. A synchronised batch norm of C channels gathers 2 C + 1
    numbers in the forward pass and reduces 2 C in the backward pass.
    """
    norms, ring = found['batch_norms'], 2 * (gpus - 1) / gpus
    gather = 4 * (2 * norms['channels'] + norms['layers']) * (gpus - 1)
    reduce = 4 * 2 * norms['channels'] * ring
    gradients = ring * found['gradients']['bytes']
    masks = found['update']['bytes'] * (gpus - 1) / found['every'] if found['every'] else 0
    speed = NVLINK if gpus <= 8 else INFINIBAND
    return dict(
        gpus=gpus,
        gradients_mb=gradients / 1e6,
        gradients_ms=gradients / speed * 1e3,
        batch_norms_mb=(gather + reduce) / 1e6,
        batch_norms_ms=(gather + reduce) / speed * 1e3,
        masks_bytes=masks,
    )


@guarded
def main() -> None:
    """Measure in several processes, and print the measurement and the estimate."""
    args = parse_args()
    load_config(args.config)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure, (args.processes, args.config, folder), nprocs=args.processes)
        found = json.loads(Path(folder, 'found.json').read_text())
    estimates = [estimate(found, gpus) for gpus in GPUS]
    if args.json:
        print(json.dumps(dict(measured=found, estimated=estimates)))
        return
    print(f'{args.config}: {found["parameters"]:,} trainable parameters, {found["targets"]:,} of')
    print(f'them can be masked; {args.processes} processes with gloo')
    table = Table('measured, from each process', 'when')
    for column in ('tensors', 'bytes'):
        table.add_column(column, justify='right')
    rows = [('gradients', 'every optimiser step', 'gradients')]
    if found['snip_used']:
        rows.append(('gradients for SNIP', 'once', 'snip'))
    rows.append(('hash of the first masks', 'once', 'first_masks'))
    if found['every']:
        when = f'every {found["every"]:,} optimiser steps'
        rows.append(('hash of masks and learning rates', when, 'update'))
    for label, when, key in rows:
        table.add_row(label, when, f'{found[key]["calls"]:,}', f'{found[key]["bytes"]:,}')
    print_table(table)
    table = Table('estimated, each GPU sends in a step')
    names = ['gradients, MB', 'ms', 'synchronised batch norms, MB', 'ms', 'hash, bytes']
    for column in names:
        table.add_column(column, justify='right')
    for row in estimates:
        norms = found['batch_norms']['layers']
        table.add_row(
            f'{row["gpus"]} GPUs',
            f'{row["gradients_mb"]:.1f}',
            f'{row["gradients_ms"]:.2f}',
            f'{row["batch_norms_mb"]:.1f}' if norms else '-',
            f'{row["batch_norms_ms"]:.2f}' if norms else '-',
            f'{row["masks_bytes"]:.2f}',
        )
    print_table(table)


if __name__ == '__main__':
    main()
