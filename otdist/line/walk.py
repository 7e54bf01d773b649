"""The monotone coupling of many or long sorted rows, by compiled loops: what `coupling` does by array operations.

Two pointers walk through both distribution functions (cdf). They advance by arithmetic on the comparison, not by a jump
on it: the order of the values is random, and mispredicted jumps would cost more than all the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.kernels import Kernel
from .._core.kinds import FLOAT, FLOATS, INT
from .coupling import Side, Transport, cdf_tolerance, point_slopes, scatter

_LOOPS, _SIDES = "otdist.line.walk_loops", (FLOATS,) * 4
_cumulate = Kernel(f"{_LOOPS}.cumulate", FLOATS, "int32[:]", INT, FLOATS)
_walk = Kernel(f"{_LOOPS}.walk", _SIDES, INT, INT, FLOAT, (INT, INT, INT), FLOATS, FLOATS, FLOATS)
_potentials = Kernel(f"{_LOOPS}.potentials_of_rows", *_SIDES, INT, INT, FLOAT, FLOAT, FLOATS)


def couple_rows(x: Side, y: Side, p: float, wanted: tuple[bool, ...], each: Any) -> Transport:
    """The coupling of sorted rows with weights. `each` calls a function for every entry of a sequence of tasks."""
    rows, n, m = len(x.points), x.points.shape[1], y.points.shape[1]
    cost = np.zeros(rows)
    nowhere = np.zeros(0)
    slopes = [np.zeros(z.points.shape) if need else nowhere for z, need in zip((x, y), wanted[:2], strict=True)]
    sides = tuple(z.reshape(-1) for z in (x.points, y.points, x.cdf, y.cdf))
    if rows == 1 and not wanted[0] and not wanted[1]:
        cost[0] = _cost_of_halves(sides, p, each)
    else:
        stretch, into = (0, 0, n + m - 1), [z.reshape(-1) for z in slopes]
        _walk(*sides, n, m, p, *stretch, cost, *into)
    found: list[Any] = [None, None, None, None]
    tolerance = cdf_tolerance(n, m)

    def finish(k: int) -> None:
        one, other = (x, y) if k % 2 == 0 else (y, x)
        if k < 2:
            found[k] = point_slopes(one, slopes[k])
        else:
            potentials = np.zeros(one.points.shape)
            given = [z.reshape(-1) for z in (one.points, other.points, one.cdf, other.cdf)]
            sizes = one.points.shape[1], other.points.shape[1]
            _potentials(*given, *sizes, p, tolerance, potentials.reshape(-1))
            found[k] = scatter(one.order, potentials)

    each(finish, [k for k in range(4) if wanted[k]])
    return Transport(cost, *found)


def _cost_of_halves(sides: Any, p: float, each: Any) -> float:
    """The cost of one row: the coupling is walked from both its start and its middle."""
    _, _, u, v = sides
    i = len(u) // 2
    j = int(np.searchsorted(v, u[i - 1])) if i else 0  # what is left of u's step; at equal values u goes first
    total = len(u) + len(v) - 1
    halves, parts = ((0, 0, i + j), (i, j, total - i - j)), [np.zeros(1), np.zeros(1)]
    nowhere = np.zeros(0)
    each(lambda k: _walk(*sides, len(u), len(v), p, *halves[k], parts[k], nowhere, nowhere), (0, 1))
    return float(parts[0][0] + parts[1][0])


def cumulate_rows(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The cdf (r, n) of weights (1 or r, n) with sum 1 in sorted order."""
    cdf = np.empty(order.shape)
    _cumulate(weights.reshape(-1), order.reshape(-1), order.shape[1], cdf.reshape(-1))
    return cdf
