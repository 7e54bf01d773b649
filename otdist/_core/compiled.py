"""`njit` for the kernels: numba's, which also works where no folder can be written, and says when it compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from . import first_call

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
