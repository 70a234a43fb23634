"""Trainings on a small file system that is full for a while, for test_safe_checkpoint.py.

Usage: full_disk.py DIRECTORY. The directory must be an empty file system of 8 MB.
"""

import json
import sys
import threading
import time
from pathlib import Path

from small_training import Call, hook_named, small_runner

from mmslak.checkpoints import latest_checkpoint

root = Path(sys.argv[1])


def fill(runner=None):
    with open(root / 'ballast', 'wb', buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def free(runner=None):
    (root / 'ballast').unlink()


def training(name, calls, **checkpoint):
    seen = {}

    def look(runner):
        work_dir = root / name
        seen[runner.iter] = sorted(path.name for path in work_dir.glob('*.pth*'))

    hook = dict(type='CheckpointHook', interval=2, by_epoch=False, max_keep_ckpts=1)
    runner = small_runner(
        root / name,
        model=dict(type='SmallNetwork', hidden=2000),
        hooks=dict(checkpoint=dict(hook, **checkpoint), logger=dict(type='LoggerHook', interval=1)),
        visualizer=dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        ),
        custom=[
            *(Call(at, function) for at, function in calls.items()),
            *(Call(at, look) for at in range(1, 9)),
        ],
        log_level='INFO',
    )
    error = ''
    try:
        runner.train()
    except (OSError, ValueError) as caught:
        error = f'{type(caught).__name__}: {caught}'
    look(runner)
    log = next((root / name).glob('*/*.log')).read_text()
    return dict(seen=seen, error=error, log=log, iter=runner.iter)


def main():
    result = dict(between=training('between', {3: fill, 7: free}))
    result['between']['latest'] = latest_checkpoint(root / 'between')[0]
    result['end'] = training('end', {7: fill}, patience=0.5)
    free()

    def free_later(runner):
        fill()

        def wait():
            while not hook._unsaved:
                time.sleep(0.05)
            free()

        hook = hook_named(runner, 'SafeCheckpointHook')
        hook.pause = 0.2
        threading.Thread(target=wait).start()

    result['later'] = training('later', {7: free_later}, patience=60)
    fill()
    with open(root / 'ballast', 'r+b') as file:
        file.truncate((root / 'ballast').stat().st_size - 200_000)
    result['start'] = training('start', {})
    print('RESULT' + json.dumps(result))


main()
