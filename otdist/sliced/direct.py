"""One pair of small clouds along given directions, as in a training step: there a call costs more than its sorts.

It is what `estimator` does, without a batch, weights, chunks and control variates, and with both clouds in one array.
"""

from __future__ import annotations

import math

import numpy as np

from .._core.backend import Array
from . import products, projected


def applies(x: Array, y: Array, a: Array, b: Array, theta: Array, p: float) -> bool:
    """Whether this is one pair of equal sizes without weights, in NumPy, and small enough to be done whole."""
    if type(x) is not np.ndarray or x.ndim != 2 or x.shape != y.shape or theta.ndim != 2 or p != 2:
        return False
    (n, d), rows = x.shape, len(theta)
    return not a.size and not b.size and rows > 0 and projected.is_small(2 * rows * n) and products.is_small(rows, n, d)


def solve(x: np.ndarray, y: np.ndarray, theta: np.ndarray, needs: tuple[bool, ...]) -> tuple[np.ndarray, list[Array]]:
    """The mean over the rows of theta, and its gradients by x, y and theta where needed."""
    n, size = len(x), len(theta)
    points = np.concatenate((x, y)).reshape(2, n, -1)
    means = np.add.reduce(points, 1, np.float64) / n
    points -= means.astype(x.dtype)[:, None]
    shift = means[0] - means[1]
    along = theta @ shift
    rows = (theta @ points.mT).reshape(2 * size, n)
    values, order = projected.sort(rows, any(needs))
    gap = values[:size] - values[size:]
    squares = gap * gap
    value = (np.add.reduce(squares, None, np.float64) / n + along @ along) / size
    grads: list[Array] = [None, None, None]
    if order is None:
        return value, grads
    slopes = projected.to_points(np.concatenate((gap, gap)), values, order, rows).reshape(2, size, n)
    if not math.isfinite(value):
        slopes[:, ~np.isfinite(squares.sum(1, dtype=np.float64))] = np.nan
    scale = 2 / (n * size)
    if needs[0] or needs[1]:
        pull = (along @ theta * scale).astype(x.dtype)
        scaled = theta * x.dtype.type(scale)
        for k, signed, moved in ((0, scaled, pull), (1, -scaled, -pull)):
            if needs[k]:
                grads[k] = slopes[k].T @ signed
                grads[k] += moved
    if needs[2]:
        grads[2] = (slopes[0] @ points[0] - slopes[1] @ points[1]) * scale + (2 / size) * along[:, None] * shift
    return value, grads
