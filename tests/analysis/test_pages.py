"""Tables of results in pages of the docs."""

import pytest
from rich.table import Table

from mmslak.analysis.pages import insert_table, markdown_table

MARKDOWN = '| name | score |\n|---|---:|\n| a | 1.0 |\n| b | - |\n'


def table():
    table = Table('name', title='not in the Markdown')
    table.add_column('score', justify='right')
    table.add_row('a', '1.0')
    table.add_row('b', '-')
    return table


def test_markdown_of_a_table():
    assert markdown_table(table()) == MARKDOWN


def test_a_table_replaces_what_stands_between_its_comments():
    page = 'first\n<!-- t -->\nold\n<!-- end of t -->\nlast\n'
    new = f'first\n<!-- t -->\n{MARKDOWN}<!-- end of t -->\nlast\n'
    assert insert_table(page, 't', table()) == new == insert_table(new, 't', table())
    with pytest.raises(ValueError, match='must contain the lines <!-- u -->'):
        insert_table(page, 'u', table())
