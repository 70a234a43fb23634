"""Hooks of MkDocs: files outside of ``docs/``, and notebooks, as parts of the website.

Links in the documentation are those of the repository. ``README.md`` is the start page. A file
outside of ``docs/`` is added to the website if a page links to it: Markdown as a page, any other
file as it is.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
HOME = 'README.md'
#: The target of a link or an image in Markdown.
LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#)([^)#\s]+)')
CODE = re.compile(r'^```.*?^```|`[^`\n]+`', re.MULTILINE | re.DOTALL)


def on_files(files, config):
    """Add the start page, notebooks and the files outside of ``docs/`` that pages link to."""
    pending = [HOME, *(f'docs/{file.src_uri}' for file in files.documentation_pages())]
    pending += [f'docs/{file.src_uri}' for file in files if file.src_uri.endswith('.ipynb')]
    while pending:
        page = pending.pop()
        text = read(ROOT / page)
        if page.endswith('.ipynb'):
            _replace(files, config, page_uri(page), text)
        if page_uri(page) == page:
            _replace(files, config, page, text)
        for path in linked_files(page, text):
            uri = page_uri(path)
            if uri != path or uri in files.src_uris:
                continue
            if not (ROOT / path).is_file():
                raise PluginError(f'{page} links to {path}, which is not a file of the repository')
            if uri.endswith('.md'):
                pending.append(path)
            else:
                _replace(files, config, uri, (ROOT / path).read_bytes())
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite the links of a page from places in the repository to places in the website."""
    outside = (ROOT / page.file.src_uri).is_file()
    source = page.file.src_uri if outside else f'docs/{page.file.src_uri}'
    folder = posixpath.dirname(page.file.src_uri) or '.'

    def rewrite(match):
        path = resolve(source, match[1])
        uri = page_uri(path)
        if uri == page.file.src_uri:
            # A notebook links to its own file.
            uri = path.removeprefix('docs/')
        return posixpath.relpath(uri, folder)

    return outside_code(markdown, lambda text: LINK.sub(rewrite, text))


def read(path):
    """Return the text of a page; that of a notebook as Markdown."""
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.ipynb':
        return text
    cells = [(cell['cell_type'], ''.join(cell['source'])) for cell in json.loads(text)['cells']]
    return '\n\n'.join(
        f'```python\n{text}\n```' if kind == 'code' else text for kind, text in cells
    )


def linked_files(page, text):
    """Return the paths in the repository that a page links to."""
    targets = LINK.findall(CODE.sub('', text))
    return [resolve(page, target) for target in targets]


def resolve(page, target):
    """Return the path in the repository of a link in ``page``."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def page_uri(path):
    """Return the place in the website's sources of a path in the repository."""
    uri = path.removeprefix('docs/')
    return uri.removesuffix('.ipynb') + '.md' if uri.endswith('.ipynb') else uri


def outside_code(markdown, change):
    """Apply ``change`` to all parts of ``markdown`` that are not code."""
    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return ''.join([*parts, change(markdown[end:])])


def _replace(files, config, uri, content):
    if uri in files.src_uris:
        files.remove(files.src_uris[uri])
    files.append(File.generated(config, uri, content=content))
