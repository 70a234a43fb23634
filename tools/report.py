"""Write a report of a training, or of two side by side, as one HTML file.

python tools/report.py work_dirs/upernet_slak_nano_camvid --images 50
"""

from mmslak.report.report_command import main

if __name__ == '__main__':
    main()
