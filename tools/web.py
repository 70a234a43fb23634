"""Show predictions and effective receptive fields in the browser.

python tools/web.py configs/upernet_slak_t_ade20k.py CHECKPOINT
"""

from mmslak.web.web_command import main

if __name__ == '__main__':
    main()
