"""Predict for images and videos, and write pictures and results.

python tools/predict.py configs/upernet_slak_t_ade20k.py CHECKPOINT photos/ --out predictions
"""

from mmslak.predict.predict_command import main

if __name__ == '__main__':
    main()
