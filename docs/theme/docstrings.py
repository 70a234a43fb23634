"""Extension of Griffe: reStructuredText in docstrings as Markdown."""

import re

from griffe import AliasResolutionError, Extension, NameResolutionError

ROLE = re.compile(r':(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`')
LITERAL_BLOCK = re.compile(r'::$', re.MULTILINE)


class Markdown(Extension):
    """Makes links of roles such as ``:class:`SLaK```, and literal blocks of code after ``::``."""

    def on_object(self, *, obj, **_):
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = ROLE.sub(lambda match: link(obj, match[1]), obj.docstring.value)
            obj.docstring.value = LITERAL_BLOCK.sub(':', text)


def link(obj, name):
    """Return a link to the documentation of ``name`` if there is one, and the name otherwise."""
    try:
        path = obj.resolve(name)
    except (NameResolutionError, AliasResolutionError):
        path = name
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
