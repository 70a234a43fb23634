"""The pages of the documentation: messages, links, the navigation and the notebook."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, TIMEOUT

#: Stands for a name or a number in a message.
VALUE = '…'
CODE = re.compile(r'`([^`\n]+)`')
PAGES = [ROOT / 'README.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def text_of(node):
    """Return the text of a string in Python code, with ``VALUE`` for each value."""
    if isinstance(node, ast.JoinedStr):
        return ''.join(map(text_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return VALUE
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Mod):
            return re.sub(r'%(\.\d)?[sdrf]', VALUE, text_of(node.left))
        return text_of(node.left) + text_of(node.right)
    return node.value if isinstance(getattr(node, 'value', None), str) else VALUE


@pytest.fixture(scope='module')
def strings():
    """Return all strings in the source."""
    kinds = ast.JoinedStr, ast.BinOp, ast.Constant
    files = [path for folder in ('mmslak', 'tools') for path in (ROOT / folder).rglob('*.py')]
    trees = [ast.parse(path.read_text(encoding='utf-8')) for path in files]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, kinds))
    return {text_of(node) for node in nodes}


def quoted_messages():
    """Return the messages in the first column of the tables of the page on troubleshooting."""
    text = (ROOT / 'docs/troubleshooting.md').read_text(encoding='utf-8')
    rows = [line.split(' | ')[0] for line in text.splitlines() if line.startswith('| `')]
    return [message for row in rows for message in CODE.findall(row)]


@pytest.mark.parametrize('message', quoted_messages())
def test_message_occurs_in_the_source(message, strings):
    assert any(message in text for text in strings)


def test_no_message_is_quoted_twice():
    messages = quoted_messages()
    assert len(messages) > 30 and len(set(messages)) == len(messages)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_files_of_the_repository(page):
    text = re.sub(r'^```.*?^```|`[^`\n]+`', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
    for target in re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', text):
        assert (page.parent / target).exists(), f'{page.name} links to {target}'


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, which names a Python function."""


Loader.add_multi_constructor('tag:yaml.org,2002:python/', lambda *_: None)


def leaves(node):
    """Return the pages in a part of the navigation."""
    if isinstance(node, str):
        return [node]
    return [
        page
        for item in (node.values() if isinstance(node, dict) else node)
        for page in leaves(item)
    ]


def test_navigation_has_every_page_of_the_documentation():
    navigation = leaves(yaml.load((ROOT / 'mkdocs.yml').read_text(encoding='utf-8'), Loader)['nav'])
    docs = ROOT / 'docs'
    pages = {path.relative_to(docs) for path in docs.rglob('*') if path.suffix in ('.md', '.ipynb')}
    assert len(set(navigation)) == len(navigation)
    inside = {Path(page) for page in navigation if not (ROOT / page).is_file()}
    assert inside == {page.with_suffix('.md') for page in pages}


def notebook():
    return json.loads((ROOT / 'docs/get_started.ipynb').read_text(encoding='utf-8'))


def test_notebook_is_stored_without_outputs():
    code = [cell for cell in notebook()['cells'] if cell['cell_type'] == 'code']
    assert code and all(not cell['outputs'] and cell['execution_count'] is None for cell in code)


@pytest.mark.slow
def test_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    pytest.importorskip('ipykernel', reason='ipykernel is not installed')
    nbclient = pytest.importorskip('nbclient', reason='nbclient is not installed')
    nbformat = pytest.importorskip('nbformat')
    content = nbformat.read(ROOT / 'docs/get_started.ipynb', as_version=4)
    # Jupyter and IPython keep files in the home directory otherwise.
    for variable in ('IPYTHONDIR', 'JUPYTER_RUNTIME_DIR'):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    folder = tmp_path / 'empty'
    folder.mkdir()
    resources = {'metadata': {'path': str(folder)}}
    # An error in a cell is raised.
    nbclient.NotebookClient(content, timeout=TIMEOUT, resources=resources).execute()
    outputs = [output for cell in content.cells for output in cell.get('outputs', [])]
    printed = ''.join(output['text'] for output in outputs if output.output_type == 'stream')
    assert float(re.search(r'mIoU: (\d+\.\d+)', printed)[1]) > 10
    # The active share of all maskable weights of the recipe.
    assert ' 60.0%  all' in printed
    shown = [output for output in outputs if 'image/png' in output.get('data', {})]
    assert len(shown) == 2
    assert {path.name for path in folder.iterdir()} == {'get_started'}
