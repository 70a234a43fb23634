"""Triton's interpreter with NumPy 2.4, as a module and as a command that runs a script.

TRITON_INTERPRET=1 python interpreted.py SCRIPT [ARGUMENTS]
"""

import runpy
import sys


def patch_interpreter():
    """Let loops of kernels run: Triton 3.6 reads their bounds in a way that NumPy 2.4 refuses."""
    from triton.runtime import interpreter

    patch_lang_tensor = interpreter._patch_lang_tensor

    def patch_for_numpy(tensor, scope):
        patch_lang_tensor(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_for_numpy


if __name__ == '__main__':
    patch_interpreter()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name='__main__')
