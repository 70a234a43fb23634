"""Check the data of a config, and draw some samples with their labels.

python tools/browse.py configs/upernet_slak_t_ade20k.py --cfg-options data_root=PATH
"""

from mmslak.cli.browse import main

if __name__ == '__main__':
    main()
