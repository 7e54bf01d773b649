"""What a first call costs, said once: kernels are compiled at their first use and kept in numba's cache."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Any

LOGGER = logging.getLogger("otdist")


@cache
def listen() -> None:
    """Be told by numba when it compiles one of our functions (not when it loads one); for modules that import numba."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            function = event.data["dispatcher"].py_func
            if function.__module__.startswith("otdist.") and not say_that_nothing_is_kept.cache_info().currsize:
                _say(os.environ.get("NUMBA_CACHE_DIR") or "numba's cache")

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Listener())


@cache
def _say(folder: str) -> None:
    LOGGER.warning(
        "otdist compiles kernels for a first call, which takes some seconds; later processes load them from %s "
        "(otdist.warm_up() compiles all of them at once)",
        folder,
    )


@cache
def say_that_nothing_is_kept() -> None:
    """Numba found no folder for its cache."""
    LOGGER.warning(
        "otdist compiles its kernels in every process, which takes some seconds: no folder for them can be written; "
        "set NUMBA_CACHE_DIR to one that can"
    )
