"""Squares of very large and very small numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.scale import OutOfRange


def squared_distance(shift: Array, bures: Array, dtype: Any) -> Array:
    """|shift|² + bures for vectors (..., d), summed in float64; refused if it is beyond the dtype's range."""
    xp = backend.namespace(shift)
    wide = backend.astype(shift, xp.float64)
    if xp is not np:
        cast = backend.astype((wide * wide).sum(-1) + bures, dtype)
    elif (
        wide.ndim == 1 and not np.ndim(bures) and dtype == np.float64 and (one := np.vdot(wide, wide) + bures) < np.inf
    ):
        return one  # the short cut of a single pair
    else:
        with np.errstate(over="ignore"):
            cast = backend.astype((wide * wide).sum(-1) + bures, dtype)
    refuse_infinite(cast, dtype)
    return cast


def refuse_overflow(bures: Array) -> None:
    """Refuse what has overflowed on the way from finite covariances."""
    if backend.inspectable(bures) and not np.isfinite(backend.as_numpy(bures)).all():
        raise _out_of_range(bures.dtype)


def refuse_infinite(squared: Array, dtype: Any) -> None:
    """Refuse a squared distance, or a bound of it, that is infinite; NaN may come from behind a transform."""
    if backend.inspectable(squared) and backend.namespace(squared).isinf(squared).any():
        raise _out_of_range(dtype)


def _out_of_range(dtype: Any) -> OutOfRange:
    name = str(dtype).removeprefix("torch.")
    return OutOfRange(
        f"the squared distance is beyond the range of {name}; divide means by some c and covariances by c²"
    )


def underflows(squared: Array) -> bool:
    """Whether digits of a squared distance may be lost to underflow; zero is taken for what it is."""
    if not backend.inspectable(squared):
        return False
    limits = backend.namespace(squared).finfo(squared.dtype)
    return bool((squared < limits.tiny / limits.eps).any())


def power_of_two(x: Array) -> Array:
    """The power of two at or below x > 0, and 1 where x is 0: exact to divide by, and a constant to derivatives."""
    x = x.detach() if backend.is_torch(x) else x
    xp = backend.namespace(x)
    return xp.exp2(xp.floor(xp.log2(xp.where((x > 0) & xp.isfinite(x), x, xp.ones_like(x)))))
