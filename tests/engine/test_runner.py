"""The log on the terminal."""

import logging

from mmslak.engine.runner import ConsoleFilter, ConsoleFormatter


def test_terminal_shows_a_summary():
    def record(message, level=logging.INFO):
        return logging.LogRecord('mmengine', level, '', 0, message, None, None)

    assert not ConsoleFilter().filter(record('Config:\nmodel = dict()'))
    assert not ConsoleFilter().filter(record('\n' + '-' * 60 + '\nSystem environment:\n'))
    assert ConsoleFilter().filter(record('Iter(train) [1/2]  eta: 0:00:01'))
    table = '\n'.join(
        ['per class results:', '| Class | IoU | Acc |', '| wall | 1.5 | 2.0 |']
        + [f'| {name} | nan | nan |' for name in ('sky', 'tree')]
    )
    shown = ConsoleFormatter().format(record(table))
    assert 'wall' in shown and 'sky' not in shown and '2 classes' in shown
    assert 'WARNING' in ConsoleFormatter().format(record('careful', logging.WARNING))
