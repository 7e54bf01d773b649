"""What a first call costs, said once: kernels are compiled at their first use and kept in a cache."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

LOGGER = logging.getLogger("otdist")


def say(folder: Path | None) -> None:
    """That kernels are compiled, to be kept in this folder, or for this process alone."""
    if folder is None:
        _say(
            "otdist compiles its kernels in every process, which takes some seconds: no folder for them can be "
            "written; set NUMBA_CACHE_DIR to one that can"
        )
    else:
        _say(
            "otdist compiles kernels for a first call, which takes some seconds; later processes load them from "
            f"{folder} (otdist.warm_up() compiles all of them at once)"
        )


@cache
def _say(message: str) -> None:
    LOGGER.warning(message)
