"""Train a config of this package, or any config of a toolbox.

python tools/train.py configs/upernet_slak_t_ade20k.py --work-dir work_dirs/slak_t
"""

from mmslak.cli.processes import ending_at_once
from mmslak.cli.run import run
from mmslak.console import guarded

if __name__ == '__main__':
    ending_at_once(guarded(run, debug='add --debug'))('train')
