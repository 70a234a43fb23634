"""Start a command line in several processes: for ``dist_train.sh`` and ``dist_test.sh``.

    python tools/launch.py PROCESSES SCRIPT [options of the launcher, arguments of SCRIPT]

This starts PyTorch's torchrun, and shows as the last line which rank failed first and why. It
imports only PyTorch, so that it starts fast and takes little memory.
"""

import argparse
import os
import signal
import sys
import tempfile

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

_HINTS = {
    signal.SIGKILL: ', as when the machine runs out of memory',
    signal.SIGABRT: ', as when it waited for another rank longer than env_cfg.dist_cfg.timeout',
}


def launcher_parser() -> argparse.ArgumentParser:
    """Return the parser of the options of the launcher. Their defaults are in the environment."""
    parser = argparse.ArgumentParser(prog='launch', allow_abbrev=False, add_help=False)
    parser.add_argument('--max-restarts', type=int, default=0)
    parser.add_argument('--nnodes', default=os.environ.get('NNODES', '1'))
    parser.add_argument('--node-rank', default=os.environ.get('NODE_RANK'))
    parser.add_argument('--rdzv-endpoint')
    parser.add_argument('--rdzv-id', default='mmslak')
    return parser


def torchrun_arguments(processes: str, arguments: list[str], log_dir: str) -> list[str]:
    """Translate the command line of the launcher into that of torchrun.

    Args:
        processes (str): Number of processes on this machine.
        arguments (list[str]): The script, and options of the launcher and of the script.
        log_dir (str): Directory for the files in which the processes record their errors.

    Returns:
        list[str]: The arguments of torchrun.
    """
    options, command = launcher_parser().parse_known_args(arguments)
    if not processes.isdecimal() or int(processes) < 1:
        raise ValueError(f'the number of processes must be a positive integer, got {processes!r}')
    if options.max_restarts < 0:
        raise ValueError(f'--max-restarts must not be negative, got {options.max_restarts}')
    address, port = os.environ.get('MASTER_ADDR'), os.environ.get('PORT')
    result = [f'--nproc-per-node={processes}', f'--max-restarts={options.max_restarts}']
    result += [f'--log-dir={log_dir}', f'--nnodes={options.nnodes}']
    if options.rdzv_endpoint:
        result += ['--rdzv-backend=c10d', f'--rdzv-endpoint={options.rdzv_endpoint}']
        result += [f'--rdzv-id={options.rdzv_id}']
    elif options.nnodes == '1':
        result += ['--standalone']
    elif options.node_rank is not None:
        result += [f'--node-rank={options.node_rank}']
        result += [f'--master-addr={address or "127.0.0.1"}', f'--master-port={port or 29500}']
    else:
        raise ValueError(
            f'--nnodes {options.nnodes} needs --rdzv-endpoint HOST:PORT, the same on every machine'
        )
    return result + command


def launch(processes: str, arguments: list[str]) -> None:
    """Run the processes, and end with the exit code and the error of the rank that failed first."""
    # Slurm sends it before the time limit. The processes save a checkpoint after SIGTERM.
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    options = launcher_parser().parse_known_args(arguments)[0]
    if options.max_restarts or options.rdzv_endpoint:
        # torchrun keeps one store for all starts of the processes. After a restart they could read
        # addresses of the processes before. With this variable each start has its own store.
        os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
    with tempfile.TemporaryDirectory(prefix='mmslak-launch-') as log_dir:
        try:
            torchrun.run(torchrun.parse_args(torchrun_arguments(processes, arguments, log_dir)))
        except ChildFailedError as error:
            rank, failure = first_failure(error.failures)
            code = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
            message = f'error: {describe(rank, failure)}'
        except SignalException as error:
            code, name = 128 + error.sigval, signal.Signals(error.sigval).name
            message = f'stopped by {name}; to continue a training, add --resume to the same command'
        except ValueError as error:
            code, message = 2, f'error: {error}'
        else:
            return
    print(message, file=sys.stderr)
    sys.exit(code)


def first_failure(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the rank that failed first, and its failure.

    Times are in whole seconds. Among failures of the same second, those that the launcher caused
    with SIGTERM and those that are consequences of others come last.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple:
        failure = item[1]
        ended = failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM)
        return failure.timestamp, ended, bool(_recorded(failure).get('consequence'))

    return min(failures.items(), key=order)


def describe(rank: int, failure: ProcessFailure) -> str:
    """Return one line about a failure."""
    if failure.exitcode < 0:
        number = signal.Signals(-failure.exitcode)
        return f'rank {rank} was ended by {number.name}{_HINTS.get(number, "")}'
    if _recorded(failure):
        text = ' '.join(failure.message['message'].split())
        return text if _recorded(failure)['consequence'] else f'rank {rank}: {text}'
    return f'rank {rank} ended with exit code {failure.exitcode}; its message is above'


def _recorded(failure: ProcessFailure) -> dict:
    return failure.message['extraInfo'] if isinstance(failure.message, dict) else {}


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(f'usage: {sys.argv[0]} PROCESSES SCRIPT [arguments]')
    launch(sys.argv[1], sys.argv[2:])
