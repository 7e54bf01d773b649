"""`njit` for the kernels: numba's, which also works where no folder can be written, and says when it compiles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numba

from . import first_call


def _import_arraymath() -> None:
    """Import this part of numba, which every compiled function needs, without its question whether SciPy has a BLAS.

    It asks by importing scipy.linalg, a third of what loading our kernels from the cache takes. The answer is yes, for
    SciPy is installed with us; whoever compiles a product of matrices still makes numba import it.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    from numba.np import linalg

    ask = getattr(linalg, "ensure_blas", None)
    if ask is None:  # another numba: it imports what it likes
        return
    try:
        linalg.ensure_blas = lambda: None
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = ask


_import_arraymath()
first_call.listen()


def njit(**options: Any) -> Callable[[Any], Any]:
    """``numba.njit(**options)``; where numba finds no folder for its cache, without one."""

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(**options)(function)
        except RuntimeError as error:
            if not (options.get("cache") and "cannot cache" in str(error)):
                raise
            first_call.say_that_nothing_is_kept()
            return numba.njit(**{**options, "cache": False})(function)

    return compiled
