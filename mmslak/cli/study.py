"""Studies of many trainings with one score each: finished ones are kept, seeds averaged."""

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

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..analysis.curves import read_scalars
from .config import load_config

#: What a finished training leaves in its folder.
RESULT = 'result.json'
#: What it printed.
OUTPUT = 'output.txt'


@dataclass
class Training:
    """One training of a study.

    Args:
        name: what is averaged over seeds; also the folder, so without blanks or slashes.
        seed: of the training.
        config: config file.
        options: ``KEY=VALUE`` as of ``--cfg-options``, the seed's included.
        cost: roughly how long it takes beside the others, in any unit.
        metric: name of its score among those of validation.
        data: what the data were made with, where the options do not say it.
    """

    name: str
    seed: int
    config: str
    options: list[str] = field(default_factory=list)
    cost: float = 1.0
    metric: str = 'mIoU'
    data: dict[str, int | bool] = field(default_factory=dict)

    def folder(self, root: Path) -> Path:
        """Where it works, below the folder of the study."""
        return root / self.name / f'seed{self.seed}'

    def settings(self) -> dict:
        """What its score depends on."""
        return dict(
            config=self.config,
            contents=_digest(self.config),
            options=self.options,
            data=self.data,
            metric=self.metric,
        )

    def result(self, root: Path) -> dict | None:
        """Its ``score`` and how many ``seconds`` it took, or None where it is not finished.

        Raises:
            ValueError: If the folder holds the result of other settings, naming them.
        """
        file = self.folder(root) / RESULT
        if not file.is_file():
            return None
        result = json.loads(file.read_text())
        wanted = self.settings()
        changed = [key for key in wanted if result.get(key) != wanted[key]]
        if changed:
            raise ValueError(
                f'{file} was trained with another {", ".join(changed)}: give another --work-dir, '
                f'or delete {root} to start over'
            )
        return result


@functools.cache
def _digest(config: str) -> str:
    """Identify what a config says, its bases included."""
    text = json.dumps(load_config(config).to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def train(training: Training, root: Path) -> float:
    """Run one training, with what it prints in a file of its folder, and keep its score.

    Args:
        training (Training): What to train.
        root (Path): Folder of the study.

    Returns:
        float: Its last validation score.
    """
    from .launch import run

    begin = time.perf_counter()
    folder = training.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [training.config, '--work-dir', str(folder)]
    if training.options:
        arguments += ['--cfg-options', *training.options]
    with open(folder / OUTPUT, 'w') as file:
        # Of the process, not only of Python: handlers of an earlier training still hold them.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        run('train', arguments)
    scores = read_scalars(folder)[1].get(training.metric)
    if not scores:
        raise ValueError(f'{training.name} was not validated, or has no score {training.metric}')
    score = scores[-1][1]
    for checkpoint in folder.glob('*.pth'):
        # A hundred of them would fill a disk, and nobody reads them.
        checkpoint.unlink()
    seconds = time.perf_counter() - begin
    result = dict(training.settings(), score=score, seconds=seconds)
    partial = folder / f'{RESULT}.partial'
    partial.write_text(json.dumps(result, indent=2) + '\n')
    os.replace(partial, folder / RESULT)
    return score


def run_study(trainings: Sequence[Training], root: str | Path, processes: int = 1) -> None:
    """Run the trainings that are not finished yet, with a progress bar and the time left.

    Args:
        trainings (Sequence[Training]): In the order in which they start.
        root (str or Path): Folder of the study; an interrupted one goes on from it.
        processes (int): Trainings at a time, each with its share of the CPU's threads.

    Raises:
        ValueError: If ``processes`` is not positive, two trainings have one folder, a folder holds
            the result of other settings, or a training is refused.
        RuntimeError: If a training fails in another way, naming the file with what it printed.
    """
    root = Path(root)
    if processes < 1:
        raise ValueError(f'--processes must be positive, got {processes}')
    folders = {training.folder(root) for training in trainings}
    if len(folders) != len(trainings):
        raise ValueError('two trainings of a study have the same name and seed')
    left = [training for training in trainings if training.result(root) is None]
    total = sum(training.cost for training in trainings)
    columns = (
        TextColumn('{task.fields[done]} of {task.fields[count]} trainings'),
        BarColumn(),
        TextColumn('{task.percentage:.0f} % of the work, time left'),
        TimeRemainingColumn(),
    )
    done = len(trainings) - len(left)
    with Progress(*columns, console=Console(width=110), speed_estimate_period=3600) as bar:
        task = bar.add_task('study', total=total, done=done, count=len(trainings))
        # The time left is that of this run's own speed.
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
                            f'{training.name}, seed {training.seed}, failed: {error} (what it '
                            f'printed is in {output})'
                        ) from error
                    done += 1
                    bar.console.print(f'{training.name}, seed {training.seed}: {score:.2f}')
                    bar.update(task, advance=training.cost, done=done)
            except BaseException:
                pool.shutdown(cancel_futures=True, wait=False)
                # What still runs would be waited for.
                stop.set()
                raise


def _begin(threads: int, parent: int, stop: Event) -> None:
    """Begin a process of a study: with few threads, and no longer than the study lives."""
    import torch

    # Fewer where OMP_NUM_THREADS says so: two threads on one core wait for each other.
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()


def _end_with(parent: int, stop: Event) -> None:
    while os.getppid() == parent and not stop.wait(1):
        pass
    os._exit(1)


def summarise(trainings: Sequence[Training], root: str | Path) -> dict[str, dict[int, float]]:
    """Give the scores of each name's finished trainings by their seeds, in order."""
    scores: dict[str, dict[int, float]] = {}
    for training in sorted(trainings, key=lambda item: item.seed):
        result = training.result(Path(root))
        if result is not None:
            scores.setdefault(training.name, {})[training.seed] = result['score']
    return scores


def mean_and_spread(values: Collection[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample; of a single value 0."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def paired_differences(
    scores: dict[str, dict[int, float]], pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Give by how much the first of each pair of names exceeds the second, seed by seed.

    Args:
        scores (dict): Scores by name and seed, as of :func:`summarise`.
        pairs (Sequence[tuple[str, str]]): Names of two networks each.

    Returns:
        list[float]: A difference for each pair and each seed with which both were trained.
    """
    return [
        scores[first][seed] - scores[second][seed]
        for first, second in pairs
        if first in scores and second in scores
        for seed in scores[first]
        if seed in scores[second]
    ]
