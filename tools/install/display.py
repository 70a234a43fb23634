"""What the user sees: numbered steps and, for long ones, the progress and the time left."""

import re
import shutil
import sys
import time
from pathlib import Path

STEPS = 5


def as_time(seconds):
    """Return seconds as people write them: ``45 s``, ``3 min 05 s``."""
    seconds = round(seconds)
    return '%d s' % seconds if seconds < 60 else '%d min %02d s' % divmod(seconds, 60)


class Display:
    """Prints numbered steps, and the progress: on a terminal in one line, else every 15 s."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.number = 0
        self.began = time.monotonic()
        self.step_began = self.began
        self.last = 0.0

    def say(self, text):
        """Print a line of its own."""
        self.stream.write(('\r\033[K' if self.live else '') + text + '\n')
        self.stream.flush()

    def step(self, text, about):
        """Begin the next step, which takes about the time ``about``."""
        self.number += 1
        self.step_began = self.last = time.monotonic()
        self.say('[%d/%d] %s (about %s)' % (self.number, STEPS, text, about))

    def done(self, note=''):
        """End the step."""
        took = as_time(time.monotonic() - self.step_began)
        self.say('      done in %s%s' % (took, note))

    def tick(self, text):
        """Show ``text`` and the time since the step began, unless that was just shown."""
        now = time.monotonic()
        if now - self.last < (0.5 if self.live else 15):
            return
        self.last = now
        line = '      %s: %s' % (as_time(now - self.step_began), text)
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write('\r\033[K' + line[:width])
            self.stream.flush()
        else:
            self.say(line)


class FixedProgress:
    """The progress of a command whose output does not show any."""

    def __init__(self, text):
        self.text = text

    def watch(self, pid):
        """Take notice that the command runs as process ``pid``."""

    def feed(self, line):
        """Take a line of its output into account."""


def bytes_written(pid):
    """Return how many bytes a process has written, 0 if the system does not tell."""
    try:
        text = Path('/proc/%d/io' % pid).read_text()
        return int(re.search(r'^wchar: (\d+)', text, re.MULTILINE).group(1))
    except (OSError, AttributeError):
        return 0


class SyncProgress(FixedProgress):
    """Follows ``uv pip sync``: its output tells the sizes of downloads, but not how far they are.

    uv unpacks what arrives straight away, so the bytes it has written show how far it is.
    """

    # The packages of lock.txt are this much larger than their archives.
    UNPACKED = 1.83
    UNITS = {'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30}

    def __init__(self, clock=time.monotonic, written=bytes_written):
        self.clock = clock
        self.written = written
        self.total = 0.0
        self.stage = 'asking the index for packages'

    def watch(self, pid):
        self.pid = pid

    def feed(self, line):
        found = re.match(r'Downloading .* \(([\d.]+)([KMG]iB)\)', line)
        if found:
            if not self.total:
                self.began = self.clock()
                self.stage = None
            self.total += float(found.group(1)) * self.UNITS[found.group(2)]
        elif line.startswith('Prepared '):
            self.stage = 'linking the files into the environment'
        elif line.startswith('Installed '):
            self.stage = 'compiling to bytecode, a minute or two'

    @property
    def text(self):
        """What is going on and, for the downloads, the time left."""
        if self.stage:
            return self.stage
        text = 'downloading %.1f GB' % (self.total / 2**30)
        share = self.written(self.pid) / (self.total * self.UNPACKED)
        if share < 0.01:
            return text
        if share > 0.97:
            return text + ': nearly done'
        left = (self.clock() - self.began) * (1 / share - 1)
        return text + ': %d %%, about %s left' % (100 * share, as_time(left))


class NinjaProgress(FixedProgress):
    """Follows the output of the build of mmcv: the files compiled, and the time left."""

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.began = None
        self.text = 'preparing the header that all files share (about 25 s)'

    def feed(self, line):
        found = re.match(r'\[(\d+)/(\d+)\]', line)
        if line.startswith('precompiled header:'):
            self.began = self.clock()
            self.text = 'compiling the first files'
        elif found:
            done, total = int(found.group(1)), int(found.group(2))
            if self.began is None:
                self.began = self.clock()
            left = (self.clock() - self.began) / done * (total - done)
            self.text = '%3d %%, %d of %d files compiled' % (100 * done // total, done, total)
            self.text += ', about %s left' % as_time(left) if done < total else ', linking'
