"""Tables of results in pages of the docs."""

from rich.table import Table


def markdown_table(table: Table) -> str:
    """Return a table in Markdown.

    Args:
        table (Table): Rows, heads and alignments are used.

    Returns:
        str: One line for the heads, one for the alignments, and one for each row.
    """
    heads = [str(column.header) for column in table.columns]
    marks = ['---:' if column.justify == 'right' else '---' for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [f'| {" | ".join(heads)} |', f'|{"|".join(marks)}|']
    lines += [f'| {" | ".join(map(str, row))} |' for row in rows]
    return '\n'.join(lines) + '\n'


def insert_table(page: str, name: str, table: Table) -> str:
    """Replace what stands between the comments of a table in a page.

    Args:
        page (str): Text of the page.
        name (str): Name of the table. The comments are ``<!-- name -->`` and
            ``<!-- end of name -->``.
        table (Table): The new table.

    Returns:
        str: Text of the page with the table.

    Raises:
        ValueError: If the page does not have the comments.
    """
    begin, end = f'<!-- {name} -->\n', f'<!-- end of {name} -->'
    if begin not in page or end not in page:
        raise ValueError(f'the page must contain the lines {begin.strip()} and {end}')
    before, rest = page.split(begin, 1)
    return f'{before}{begin}{markdown_table(table)}{end}{rest.split(end, 1)[1]}'
