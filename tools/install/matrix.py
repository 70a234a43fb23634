"""Runs the tests on every stack and Python, and on the lowest torch; ``make test-matrix`` does."""

import collections
import re
import shlex
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

from . import REQUIREMENTS, ROOT, stacks
from .checks import InstallError
from .display import as_time
from .interpreter import SUPPORTED, inspect_found

HEADINGS = ('stack', 'Python', 'torch', 'passed', 'failed', 'skipped', 'time', '')


class Row(collections.namedtuple('Row', 'stack python torch counts seconds note')):
    """What became of one combination.

    Attributes:
        stack (str): the toolboxes.
        python (str): the version of Python.
        torch (str): the version of torch.
        counts (tuple of int): the tests that passed, failed and were skipped, or None.
        seconds (float): how long it took.
        note (str): what went wrong, or ''.
    """

    @property
    def cells(self):
        """The texts of the row."""
        counts = [str(count) for count in self.counts] if self.counts else ['-'] * 3
        took = as_time(self.seconds) if self.seconds else '-'
        return [self.stack, self.python, self.torch] + counts + [took, self.note]


LOWEST = 'lowest'


def name_of(combination):
    """Return the name of a combination: such as onedl-3.12, or lowest."""
    stack, minor = combination[:2]
    return '%s-%s' % (stack, minor) if minor else LOWEST


def choose(names):
    """Return all combinations, or those of the given names.

    Args:
        names (list of str): names as of ``name_of``; empty for all.

    Raises:
        InstallError: if there is no combination of a name.
    """
    known = {name_of(combination): combination for combination in combinations()}
    for name in names:
        if name not in known:
            raise InstallError('%r is not one of %s' % (name, ', '.join(known)))
    return [combination for name, combination in known.items() if name in names or not names]


def combinations():
    """Yield (stack, version of Python, version of torch, arguments of make), all texts."""
    for stack in map(stacks.get, stacks.NAMES):
        for version in SUPPORTED:
            minor = '%d.%d' % version
            arguments = ['test', 'STACK=' + stack.name]
            arguments += ['VENV=.venv-%s-%s' % (stack.name, minor)]
            yield stack.name, minor, stack.pinned_version('torch'), arguments
    pins = (REQUIREMENTS / 'lowest.txt').read_text(encoding='utf-8')
    torch = re.search(r'^torch==(\S+)', pins, re.MULTILINE).group(1)
    yield 'torch alone', '', torch, ['test-lowest']


def read_counts(report):
    """Return how many tests passed, failed and were skipped, from a report of pytest.

    Args:
        report (Path): the file that ``--junitxml`` wrote.

    Returns:
        tuple of int: the three counts, or None if there is no such file.
    """
    try:
        suites = xml.etree.ElementTree.parse(str(report)).getroot().iter('testsuite')
    except (OSError, xml.etree.ElementTree.ParseError):
        return None
    total, failed, skipped = 0, 0, 0
    for suite in suites:
        total += int(suite.get('tests'))
        failed += int(suite.get('failures')) + int(suite.get('errors'))
        skipped += int(suite.get('skipped'))
    return total - failed - skipped, failed, skipped


def run_make(arguments, environ, tests):
    """Run the tests with make; return the counts, or None, and a note."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / 'report.xml'
        options = '%s --junitxml=%s' % (environ.get('PYTEST_ADDOPTS', ''), shlex.quote(str(report)))
        status = subprocess.run(
            ['make', '--no-print-directory']
            + arguments
            + ['TESTS=' + ' '.join(tests)] * bool(tests),
            cwd=str(ROOT),
            env=dict(environ, PYTEST_ADDOPTS=options.strip()),
        ).returncode
        counts = read_counts(report)
    if status == 0:
        return counts, ''
    if counts is None:
        return None, 'no tests ran; make ended with status %d, see above' % status
    return counts, 'failed'


def run_one(combination, uv, environ, tests):
    """Run the tests on one combination; return a Row."""
    stack, minor, torch, arguments = combination
    began = time.monotonic()
    if minor:
        try:
            interpreter = inspect_found(uv.find_python(minor))
        except InstallError as error:
            return Row(stack, minor, torch, None, 0, 'not run: %s' % error)
        arguments = arguments + ['PYTHON=' + interpreter.path]
    counts, note = run_make(arguments, environ, tests if minor else [])
    return Row(stack, minor, torch, counts, time.monotonic() - began, note)


def as_table(rows):
    """Return the rows as lines of text below the headings."""
    lines = [list(HEADINGS)] + [row.cells for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    form = '{:%d}  {:%d}  {:%d}  {:>%d}  {:>%d}  {:>%d}  {:>%d}  {:%d}' % tuple(widths)
    return [form.format(*line).rstrip() for line in lines]


def run(uv, environ, tests, only):
    """Run the tests on all combinations, or some, and print a table at the end.

    Args:
        uv (Uv): finds Pythons.
        environ (mapping): the environment variables of the tests.
        tests (list of str): what pytest runs on the stacks; empty for all tests that are not slow.
        only (list of str): names of the combinations, as for ``choose``.

    Raises:
        InstallError: if there is no combination of a name.

    Returns:
        int: 0 if tests ran and none failed, else 1; 130 if it was interrupted.
    """
    chosen, rows, interrupted = choose(only), [], False
    try:
        for combination in chosen:
            uv.display.say(
                'make test-matrix: ' + ' '.join(part for part in combination[:3] if part)
            )
            rows.append(run_one(combination, uv, environ, tests))
    except KeyboardInterrupt:
        interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    uv.display.say('\n' + '\n'.join(as_table(rows)))
    if interrupted:
        uv.display.say('interrupted: the other combinations did not run')
        return 130
    ran = [row for row in rows if row.seconds]
    return 0 if ran and not any(row.note for row in ran) else 1
