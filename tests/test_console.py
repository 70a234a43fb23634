"""Error messages and tables of the command lines."""

import pytest
from rich.table import Table

from mmslak.console import guarded, table_text


@pytest.mark.parametrize('error', [ValueError, FileNotFoundError, ImportError])
def test_error_of_the_user_is_one_message(error, capsys, monkeypatch):
    monkeypatch.delenv('MMSLAK_TRACEBACK', raising=False)

    @guarded
    def main():
        raise error('change x')

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[0] == 'error: change x'
    monkeypatch.setenv('MMSLAK_TRACEBACK', '1')
    with pytest.raises(error, match='change x'):
        main()


def test_other_error_is_raised():
    @guarded
    def main():
        raise RuntimeError('a defect')

    with pytest.raises(RuntimeError, match='a defect'):
        main()


def test_keyboard_interrupt_exits_with_130(capsys):
    @guarded
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130 and '--resume' in capsys.readouterr().err


def test_table_text_has_no_empty_lines_or_trailing_spaces():
    table = Table('name', 'value', box=None)
    table.add_row('a', '1')
    table.add_row('b', '22')
    lines = table_text(table).splitlines()
    assert [line.split() for line in lines] == [['name', 'value'], ['a', '1'], ['b', '22']]
    assert all(line == line.rstrip() for line in lines)
