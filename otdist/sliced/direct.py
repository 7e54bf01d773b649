"""One pair of small clouds along given directions, as in a training step: there a call costs more than its sorts.

It is what `estimator` does, without a batch, weights, chunks and control variates, and with both clouds in one array.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from .._core.backend import Array
from . import products, projected

# Points of a cloud whose squared differences are summed in their own precision: BLAS does, some hundred terms a lane.
_MOST_POINTS = 1 << 12
# Numbers to sort, and multiplications, up to which other threads would not win what the general way costs more.
_MOST_NUMBERS, _MOST_PRODUCTS = 1 << 17, 1 << 22

Needs = tuple[bool, bool, bool]


def applies(x: Array, y: Array, a: Array, b: Array, theta: Array, p: float) -> bool:
    """Whether this is one pair of equal sizes without weights, in NumPy, and small enough to be done whole."""
    return type(x) is np.ndarray and p == 2 and not a.size and not b.size and is_small(x, y, theta)


def is_small(x: Array, y: Array, theta: Array) -> bool:
    if x.ndim != 2 or x.shape != y.shape or theta.ndim != 2:
        return False
    (n, d), numbers = x.shape, 2 * len(theta) * len(x)
    return 0 < numbers <= _MOST_NUMBERS and n <= _MOST_POINTS and numbers * d <= _MOST_PRODUCTS


def value_and_gradients(x: np.ndarray, y: np.ndarray, theta: np.ndarray, needs: Needs) -> tuple[Any, list[Array]]:
    """The mean over the rows of theta, and its gradients by x, y and theta where needed."""
    (n, d), size = x.shape, len(theta)
    centre = np.dot(_equal_weights(n, x.dtype), x)[:, None]  # one for both: it need not be exact, nor in the middle
    points = np.empty((2, d, n), x.dtype)  # coordinates in rows, which BLAS is quicker to multiply
    np.subtract(x.T, centre, points[0])
    np.subtract(y.T, centre, points[1])
    rows = products.project_rows(theta, points)
    values, orders = _sort(rows, (needs[0] or needs[2], needs[1] or needs[2]))
    gap = values[0] - values[1]
    costs = np.vecdot(gap, gap)
    value = np.add.reduce(costs, None, np.float64) / (n * size)
    if not any(needs):
        return value, [None] * 3
    for k in (0, 1):
        if orders[k] is not None:  # in place of the rows
            projected.to_points(gap, values[k], orders[k], rows[k])
    if not math.isfinite(value):
        rows[:, ~np.isfinite(costs)] = np.nan
    scale = 2 / (n * size)
    scaled = theta * x.dtype.type(scale)
    signed = (scaled, -scaled)
    grads = [products.backproject(rows[k, None], signed[k][None])[0] if needs[k] else None for k in (0, 1)]
    by_theta = (rows[0] @ points[0].T - rows[1] @ points[1].T) * scale if needs[2] else None
    return value, [*grads, by_theta]


@lru_cache(maxsize=8)
def _equal_weights(size: int, dtype: np.dtype) -> np.ndarray:
    found = np.full(size, 1 / size, dtype)
    found.flags.writeable = False
    return found


def _sort(rows: np.ndarray, ordered: tuple[bool, bool]) -> tuple[Any, Any]:
    """Both clouds' rows (2, l, n) in ascending order, and where they come from if wanted: all at once if alike."""
    if ordered == (True, True):
        return projected.sort(rows, True)
    if ordered == (False, False):
        rows.sort()
        return rows, (None, None)
    low, high = (projected.sort(z, need) for z, need in zip(rows, ordered, strict=True))
    return (low[0], high[0]), (low[1], high[1])
