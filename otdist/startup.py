"""Compile every kernel once, so that later processes load them: for container images and notebook servers."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import time
from collections.abc import Callable, Iterator

from ._core.first_call import LOGGER

__all__ = ["warm_up"]


def warm_up() -> float:
    """Compile every kernel and fill numba's cache; returns the processor seconds that it took.

    Later processes load what this left in the cache (``NUMBA_CACHE_DIR``, or beside the package, or in the user's own
    cache folder). Where PyTorch is installed it is not imported: the kernels are the same.

    Examples
    --------
    >>> import otdist
    >>> seconds = otdist.warm_up()
    """
    start = time.process_time()
    for name, call in _calls():
        begin = time.process_time()
        call()
        LOGGER.info("warm_up: %s, %.1f s", name, time.process_time() - begin)
    return time.process_time() - start


def _calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """What the distances list in their modules ``warm_up``: name and call."""
    for module in pkgutil.iter_modules([os.path.dirname(__file__)]):
        if module.ispkg and module.name != "_core":
            found = f"{__package__}.{module.name}.warm_up"
            if importlib.util.find_spec(found) is not None:
                yield from ((f"{module.name}, {name}", call) for name, call in importlib.import_module(found).calls())


def __dir__() -> list[str]:
    return __all__
