"""One pair of small clouds along given directions, as in a training step: there a call costs more than its sorts.

It is what `estimator` does, without a batch, weights, chunks and control variates, and with both clouds in one array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core.backend import Array
from . import products, projected

# Points of a cloud whose squared differences are summed in their own precision: BLAS does, some hundred terms a lane.
_MOST_POINTS = 1 << 12

Needs = tuple[bool, bool, bool]


def applies(x: Array, y: Array, a: Array, b: Array, theta: Array, p: float) -> bool:
    """Whether this is one pair of equal sizes without weights, in NumPy, and small enough to be done whole."""
    return type(x) is np.ndarray and p == 2 and not a.size and not b.size and is_small(x, y, theta)


def is_small(x: Array, y: Array, theta: Array) -> bool:
    if x.ndim != 2 or x.shape != y.shape or theta.ndim != 2:
        return False
    (n, d), rows = x.shape, len(theta)
    return 0 < n <= _MOST_POINTS and rows > 0 and projected.is_small(2 * rows * n) and products.is_small(rows, n, d)


def value_and_gradients(x: np.ndarray, y: np.ndarray, theta: np.ndarray, needs: Needs) -> tuple[Any, list[Array]]:
    """The mean over the rows of theta, and its gradients by x, y and theta where needed."""
    n, size = len(x), len(theta)
    points = np.concatenate((x, y))
    points -= np.full(2 * n, 1 / (2 * n), x.dtype) @ points  # one centre for both, by BLAS: it need not be exact
    points = points.reshape(2, n, -1)
    rows = theta @ points.mT
    values, orders = _sort(rows, (needs[0] or needs[2], needs[1] or needs[2]))
    gap = values[0] - values[1]
    costs = np.vecdot(gap, gap)
    value = np.add.reduce(costs, None, np.float64) / (n * size)
    if orders[0] is None and orders[1] is None:
        return value, [None] * 3
    slopes = _to_points(gap, values, orders, rows)
    if not math.isfinite(value):
        slopes = [s if s is None else np.where(np.isfinite(costs)[:, None], s, np.nan) for s in slopes]
    scale = 2 / (n * size)
    scaled = theta * x.dtype.type(scale)
    grads = [slopes[k].T @ signed if needs[k] else None for k, signed in ((0, scaled), (1, -scaled))]
    by_theta = (slopes[0] @ points[0] - slopes[1] @ points[1]) * scale if needs[2] else None
    return value, [*grads, by_theta]


def _sort(rows: np.ndarray, ordered: tuple[bool, bool]) -> tuple[Any, Any]:
    """Both clouds' rows (2, l, n) in ascending order, and where they come from if wanted; of both at once if alike."""
    if ordered[0] == ordered[1]:
        values, order = projected.sort(rows.reshape(-1, rows.shape[2]), ordered[0])
        return values.reshape(rows.shape), (order, order)
    (low, low_order), (high, high_order) = (projected.sort(z, need) for z, need in zip(rows, ordered, strict=True))
    return (low, high), (low_order, high_order)


def _to_points(gap: np.ndarray, values: Any, orders: Any, rows: np.ndarray) -> Any:
    """The gaps (l, n) in the order of the points of each cloud that has an order, in place of its rows."""
    if orders[0] is orders[1]:
        flat = values.reshape(-1, rows.shape[2])
        return projected.to_points(np.concatenate((gap, gap)), flat, orders[0], rows.reshape(flat.shape)).reshape(
            rows.shape
        )
    return [
        None if order is None else projected.to_points(gap, own, order, row)
        for own, order, row in zip(values, orders, rows, strict=True)
    ]
