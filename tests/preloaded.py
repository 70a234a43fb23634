"""What a process has imported before it runs a command line in a test.

Importing the toolboxes takes longer than most of the trainings in the tests. So does what MMEngine
repeats: it reads all metafiles of a toolbox for each of its configs, and formats a config each time
it writes it down.
"""

import functools
import gc
import importlib.util
from pathlib import Path

import mmengine.config.config
import mmengine.config.utils

import mmslak.cli.run  # noqa: F401


def _format_once(function):
    known = {}

    @functools.wraps(function)
    def cached(code, style_config, **options):
        key = (code, str(style_config), str(options))
        if key not in known:
            known[key] = function(code, style_config=style_config, **options)
        return known[key]

    return cached


mmengine.config.config.FormatCode = _format_once(mmengine.config.config.FormatCode)
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
for toolbox in ('mmseg', 'mmdet', 'mmpretrain'):
    spec = importlib.util.find_spec(toolbox)
    if spec is None:
        continue
    importlib.import_module(f'{toolbox}.apis')
    index = Path(spec.origin).parent / '.mim' / 'model-index.yml'
    for metafile in mmengine.config.utils.load(str(index))['Import']:
        mmengine.config.utils.load(str(index.parent / metafile))

# The garbage collector need not look at all this again in every process.
gc.freeze()
