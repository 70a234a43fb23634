"""Studies of many trainings: finished ones are kept, and scores are averaged over seeds."""

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

from ..analysis.curves import read_scalars
from ..analysis.latency import machine
from ..console import progress_bar
from .config import load_config
from .run import run

#: File that a finished training leaves in its directory.
RESULT = 'result.json'
#: File with the output of a training.
OUTPUT = 'output.txt'


@dataclass
class Training:
    """One training of a study.

    Args:
        name (str): Name of the network, the same for all seeds. It is also the name of a directory,
            so it must not contain spaces or slashes.
        seed (int): Seed of the training.
        config (str): Config file.
        options (list[str]): ``KEY=VALUE`` as for ``--cfg-options``, including the seed.
        cost (float): Approximate duration relative to the other trainings, in any unit.
        metric (str): Name of its score in the validation.
        data (dict): Settings of the data that are not in the options.
        keep_checkpoint (bool): Keep its checkpoints.
    """

    name: str
    seed: int
    config: str
    options: list[str] = field(default_factory=list)
    cost: float = 1.0
    metric: str = 'mIoU'
    data: dict[str, int | bool] = field(default_factory=dict)
    keep_checkpoint: bool = False

    def folder(self, root: Path) -> Path:
        """Return its directory, below that of the study."""
        return root / self.name / f'seed{self.seed}'

    def settings(self) -> dict:
        """Return what its score depends on."""
        return dict(
            config=self.config,
            contents=_digest(self.config),
            options=self.options,
            data=self.data,
            metric=self.metric,
        )

    def result(self, root: Path) -> dict | None:
        """Return its ``score`` and ``seconds``, or None if it is not finished.

        Raises:
            ValueError: If the directory contains a result of other settings, naming them.
        """
        file = self.folder(root) / RESULT
        if not file.is_file():
            return None
        result = json.loads(file.read_text())
        wanted = self.settings()
        changed = [key for key in wanted if result.get(key) != wanted[key]]
        if changed:
            raise ValueError(
                f'{file} was trained with different {", ".join(changed)}: choose another '
                f'--work-dir, or delete {root} to start again'
            )
        return result


@functools.cache
def _digest(config: str) -> str:
    """Return a hash of the content of a config, including its bases."""
    text = json.dumps(load_config(config).to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def train(training: Training, root: Path) -> float:
    """Run one training, write its output to a file, and keep its score.

    Args:
        training (Training): The training.
        root (Path): Directory of the study.

    Returns:
        float: The last validation score.
    """
    begin = time.perf_counter()
    folder = training.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [training.config, '--work-dir', str(folder)]
    if training.options:
        arguments += ['--cfg-options', *training.options]
    with open(folder / OUTPUT, 'w') as file:
        # The descriptors of the process, because handlers of an earlier training still use them.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        run('train', arguments)
    scores = read_scalars(folder)[1].get(training.metric)
    if not scores:
        raise ValueError(f'{training.name} was not validated, or has no score {training.metric}')
    score = scores[-1][1]
    if not training.keep_checkpoint:
        # The checkpoints of a hundred trainings would fill a disk.
        for checkpoint in folder.glob('*.pth'):
            checkpoint.unlink()
    seconds = time.perf_counter() - begin
    result = dict(training.settings(), score=score, seconds=seconds)
    partial = folder / f'{RESULT}.partial'
    partial.write_text(json.dumps(result, indent=2) + '\n')
    os.replace(partial, folder / RESULT)
    return score


def add_study_options(
    parser: argparse.ArgumentParser, iters: int, data: str, work_dir: str
) -> None:
    """Add the options that all studies have.

    Args:
        parser (ArgumentParser): The parser of a tool.
        iters (int): Default of ``--iters``.
        data (str): Default of ``--data``.
        work_dir (str): Default of ``--work-dir``.
    """
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds of each network')
    parser.add_argument('--iters', type=int, default=iters, help='iterations of each training')
    parser.add_argument('--processes', type=int, default=1, help='number of trainings at a time')
    parser.add_argument('--data', type=Path, default=Path(data), help='directory of the data')
    parser.add_argument(
        '--work-dir', type=Path, default=Path(work_dir), help='directory of the results'
    )


def check_positive(args: argparse.Namespace, *names: str) -> None:
    """Check that options are positive.

    Raises:
        ValueError: Naming the option and the value got.
    """
    for name in names:
        if getattr(args, name) <= 0:
            raise ValueError(f'--{name} must be positive, got {getattr(args, name)}')


def run_study(trainings: Sequence[Training], root: str | Path, processes: int = 1) -> None:
    """Run the trainings that are not finished, with a progress bar and the time left.

    Args:
        trainings (Sequence[Training]): All trainings, in the order in which they start.
        root (str or Path): Directory of the study; an interrupted study continues there.
        processes (int): Number of trainings at a time; they share the threads of the CPU.

    Raises:
        ValueError: If ``processes`` is not positive, two trainings have the same directory, a
            directory contains a result of other settings, or a training is refused.
        RuntimeError: If a training fails in another way, naming the file with its output.
    """
    root = Path(root)
    if processes < 1:
        raise ValueError(f'--processes must be positive, got {processes}')
    folders = {training.folder(root) for training in trainings}
    if len(folders) != len(trainings):
        raise ValueError('two trainings of the study have the same name and seed')
    left = [training for training in trainings if training.result(root) is None]
    total = sum(training.cost for training in trainings)
    done = len(trainings) - len(left)
    begin = time.perf_counter()
    with progress_bar(count=False) as bar:
        bar.speed_estimate_period = 3600  # seconds; trainings take minutes
        task = bar.add_task(f'{done} of {len(trainings)} trainings', total=total)
        # The time left is estimated from the speed of this run.
        bar.reset(task, completed=total - sum(training.cost for training in left))
        context = multiprocessing.get_context('spawn')
        threads = max(1, (os.cpu_count() or 1) // processes)
        stop = context.Event()
        with ProcessPoolExecutor(processes, context, _begin, (threads, os.getpid(), stop)) as pool:
            running = {pool.submit(train, training, root): training for training in left}
            try:
                for future in as_completed(running):
                    training = running[future]
                    try:
                        score = future.result()
                    except (Exception, SystemExit) as error:
                        refused = isinstance(error, (ValueError, FileNotFoundError, ImportError))
                        output = training.folder(root) / OUTPUT
                        raise (ValueError if refused else RuntimeError)(
                            f'{training.name}, seed {training.seed}, failed: {error} (its '
                            f'output is in {output})'
                        ) from error
                    done += 1
                    bar.console.print(f'{training.name}, seed {training.seed}: {score:.2f}')
                    bar.update(
                        task,
                        advance=training.cost,
                        description=f'{done} of {len(trainings)} trainings',
                    )
            except BaseException:
                pool.shutdown(cancel_futures=True, wait=False)
                # Otherwise the pool would wait for the trainings that still run.
                stop.set()
                raise
        minutes = (time.perf_counter() - begin) / 60
        bar.console.print(
            f'{minutes:.0f} minutes for {len(left)} trainings, {processes} at a time, '
            f'{os.cpu_count()} cores, {machine()}'
        )


def _begin(threads: int, parent: int, stop: Event) -> None:
    """Initialise a process of a study: few threads, and an end when the study ends."""
    import torch

    # OMP_NUM_THREADS may ask for fewer: two threads on one core wait for each other.
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()


def _end_with(parent: int, stop: Event) -> None:
    while os.getppid() == parent and not stop.wait(1):
        pass
    os._exit(1)


def summarise(trainings: Sequence[Training], root: str | Path) -> dict[str, dict[int, float]]:
    """Return the scores of the finished trainings by name and seed, in the order of the seeds."""
    scores: dict[str, dict[int, float]] = {}
    for training in sorted(trainings, key=lambda item: item.seed):
        result = training.result(Path(root))
        if result is not None:
            scores.setdefault(training.name, {})[training.seed] = result['score']
    return scores


def mean_and_spread(values: Collection[float]) -> tuple[float, float]:
    """Return mean and standard deviation; the deviation of a single value is 0."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def paired_differences(
    scores: dict[str, dict[int, float]], pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Return the difference between the scores of pairs of networks, seed by seed.

    Args:
        scores (dict): Scores by name and seed, from :func:`summarise`.
        pairs (Sequence[tuple[str, str]]): Names of two networks each; the score of the second is
            subtracted from that of the first.

    Returns:
        list[float]: One difference for each pair and each seed that both were trained with.
    """
    return [
        scores[first][seed] - scores[second][seed]
        for first, second in pairs
        if first in scores and second in scores
        for seed in scores[first]
        if seed in scores[second]
    ]
