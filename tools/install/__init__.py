"""Installs mmslak and everything it needs, pinned, into ``.venv``; ``make install`` runs this.

``stacks.py`` lists the sets of toolboxes that can be installed, each with pins and an environment.
uv finds or downloads Python, makes the environment and installs ``requirements/lock.txt``. This
package does the rest: it fetches uv where it is missing, compiles mmcv's operators (quickly, for
the right device, once for each torch and Python), checks the machine before any work starts, and
shows the progress.

An installation may be interrupted and started again at any moment:

- ``mmslak-stamp`` in the environment is written last. It holds a hash of everything that decides
  what is in it: if it matches, there is nothing to do. It is removed before the first change, and
  an environment without it is made from scratch. That is quick, because uv keeps what it
  downloaded.
- mmcv is built in a directory of its own, and its wheel moves into the wheelhouse in one step.
  ``make clean`` leaves the wheelhouse alone, so the operators are compiled once.
- Locks keep apart two runs that share a checkout, a wheelhouse or a home directory.

Only the standard library is used, and no syntax newer than Python 3.6, because an unsupported
Python must get far enough to say so.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / 'requirements'
