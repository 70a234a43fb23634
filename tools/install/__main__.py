"""``python3 tools/install`` runs this file."""

import sys
from pathlib import Path

# Python looks for modules in this directory; the package is in the one above.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from install.command import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
