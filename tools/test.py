"""Evaluate a checkpoint, with pictures and predictions where asked for.

python tools/test.py configs/upernet_slak_t_ade20k.py CHECKPOINT --show-dir pictures
"""

from mmslak.engine.launch import guarded, run

if __name__ == '__main__':
    guarded(run)('test')
