"""Run a script that imports the extension, with this package's operator."""

import runpy
import sys
from pathlib import Path

if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit('usage: python -m mmslak.ops.implicit_gemm SCRIPT ARGUMENTS')
    sys.argv = sys.argv[1:]
    # As ``python SCRIPT`` does.
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name='__main__')
