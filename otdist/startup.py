"""Compile every kernel once, so that later processes load them: for container images and notebook servers."""

from __future__ import annotations

import time

import numpy as np

from ._core.first_call import LOGGER
from ._core.kernels import Kernel

__all__ = ["warm_up"]


def warm_up() -> float:
    """Compile every kernel for float32 and float64 and fill the cache; returns the processor seconds that it took.

    Later processes load what this left in the cache (``NUMBA_CACHE_DIR``, or beside the package, or in the user's own
    cache folder). Where PyTorch is installed it is not imported: the kernels are the same.

    Examples
    --------
    >>> import otdist
    >>> seconds = otdist.warm_up()
    """
    from . import gaussian, line, sinkhorn  # noqa: F401  (whoever has kernels)

    start = time.process_time()
    for kernel in Kernel.all:
        for dtype in kernel.dtypes:
            begin = time.process_time()
            _ = kernel[dtype]
            LOGGER.info("warm_up: %s, %s, %.1f s", kernel.name, np.dtype(dtype), time.process_time() - begin)
    return time.process_time() - start


def __dir__() -> list[str]:
    return __all__
