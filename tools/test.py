"""Evaluate a checkpoint; draw pictures and write predictions on request.

python tools/test.py configs/upernet_slak_t_ade20k.py CHECKPOINT --show-dir pictures
"""

from mmslak.cli.processes import ending_at_once
from mmslak.cli.run import run
from mmslak.console import guarded

if __name__ == '__main__':
    ending_at_once(guarded(run, debug='add --debug'))('test')
