"""What a process of a distributed run does when it or another one fails."""

import functools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from ..sparsity import RankDifferenceError, rank_list

#: Seconds after which a rank that waits for others in vain fails (``env_cfg.dist_cfg.timeout``).
TIMEOUT = 600
#: Seconds in which the other ranks can report their own failure.
GRACE = 5
#: File for the error of a process, from torchrun.
ERROR_FILE = 'TORCHELASTIC_ERROR_FILE'
_CONNECTION = re.compile(r'gloo|Connection (closed|reset|refused)|Timed out|Broken pipe', re.I)


class RankFailureError(RuntimeError):
    """Another process of a distributed run failed or does not respond."""


@contextmanager
def shared_failure() -> Iterator[None]:
    """Name the rank that failed first, and leave the process group after success.

    A rank that waits for a failed one in a collective operation gets an error about a connection.
    This context replaces it by an error that names the failed rank. After a failure the process
    group is not left, because this would wait for the other ranks.

    Raises:
        RankFailureError: If the error is a consequence of the failure of another rank.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error) if _in_group() else None
        if reason:
            raise RankFailureError(reason) from error
        raise
    # At the end of the process the threads of the process group can outlive what they use, and
    # abort a run that has finished.
    if dist.is_initialized():
        dist.destroy_process_group()


def ending_at_once(main: Callable) -> Callable:
    """End a failed process of a distributed run at once, and record its error for the launcher.

    An ordinary exit can wait for threads of the process group, which wait for the other ranks.

    Args:
        main (Callable): The main function of a command line.

    Returns:
        Callable: The same function, but it does not return after a failure in a distributed run.
    """

    @functools.wraps(main)
    def run_rank(*args):
        try:
            return main(*args)
        except BaseException as error:
            stopping = isinstance(error, SystemExit)
            if not (ERROR_FILE in os.environ or _in_group()) or (stopping and not error.code):
                raise
            # The command line has already shown an error that the user can correct.
            cause = (error.__context__ or error) if stopping else error
            if isinstance(error, (RankFailureError, RankDifferenceError)):
                print(f'error: {error}', file=sys.stderr)
            elif not stopping:
                traceback.print_exc()
            record_error(cause)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.code if stopping and isinstance(error.code, int) else 1)

    return run_rank


def record_error(error: BaseException) -> None:
    """Write an error to the file that the launcher reads, in torchrun's format."""
    path = os.environ.get(ERROR_FILE)
    if not path or isinstance(error, SystemExit):
        return
    text = str(error)
    if not isinstance(
        error, (ValueError, FileNotFoundError, RankFailureError, RankDifferenceError)
    ):
        text = f'{type(error).__name__}: {text}'
    details = dict(
        py_callstack=''.join(traceback.format_exception(error)),
        timestamp=str(int(time.time())),
        consequence=isinstance(error, RankFailureError),
    )
    with open(path, 'w') as file:
        json.dump(dict(message=dict(message=text, extraInfo=details)), file)


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _reason(error: Exception) -> str | None:
    """Report the error of this rank to the others.

    Returns:
        str or None: If the error is only a consequence: what happened to which other rank.
    """
    lost = isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _CONNECTION.search(str(error)) is not None
    )
    first_line = (str(error).splitlines() or [''])[0]
    own = '' if lost else f'{type(error).__name__}: {first_line}'
    others = [rank for rank in range(dist.get_world_size()) if rank != dist.get_rank()]
    # The store may be kept by a process that was killed or hangs, so that it never answers.
    found: list[dict[int, str]] = []
    exchange = threading.Thread(
        target=_exchange, args=(dist.get_rank(), own, others, found), daemon=True
    )
    exchange.start()
    exchange.join(GRACE if own else 2 * GRACE)
    if not lost:
        return None
    # Rank 0 or its launcher keeps the store, so that no answer means that rank 0 is lost.
    reports = found[0] if found else dict.fromkeys([rank for rank in others if rank], '')
    failed = [f'rank {rank} failed with {text}' for rank, text in reports.items() if text]
    silent = [rank for rank in others if rank not in reports]
    if failed:
        return '; '.join(failed)
    if silent:
        verb = 'do' if len(silent) > 1 else 'does'
        return (
            f'{rank_list(silent)} {verb} not respond: it was killed, ran out of memory, or took '
            f'longer than env_cfg.dist_cfg.timeout for a step'
        )
    return f'the connection between the ranks was lost ({first_line})'


def _exchange(rank: int, own: str, others: list[int], found: list[dict[int, str]]) -> None:
    """Report an error, empty if it is a consequence, and append the reports of the others."""
    # MMEngine creates the process group on GPUs and keeps no store.
    store = dist.distributed_c10d._get_default_store()
    deadline = time.monotonic() + GRACE
    try:
        store.set(_key(rank), own)
        while not own and time.monotonic() < deadline:
            if store.check([_key(other) for other in others]):
                break
            time.sleep(GRACE / 10)
        if not own:
            present = [other for other in others if store.check([_key(other)])]
            found.append({other: store.get(_key(other)).decode() for other in present})
    except RuntimeError:
        # The process that keeps the store has ended.
        return


def _key(rank: int) -> str:
    return f'mmslak/failure/{rank}'
