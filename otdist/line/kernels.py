"""The monotone coupling of many or long sorted rows, by compiled loops: what `coupling` does by array operations.

Two pointers walk through both distribution functions (cdf). They advance by arithmetic on the comparison, not by a jump
on it: the order of the values is random, and mispredicted jumps would cost more than all the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.compiled import njit
from .coupling import Side, Transport, cdf_tolerance, point_slopes, scatter

FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}  # everything of fastmath that keeps NaN and inf


def couple_rows(x: Side, y: Side, p: float, wanted: tuple[bool, ...], each: Any) -> Transport:
    """The coupling of sorted rows with weights. `each` calls a function for every entry of a sequence of tasks."""
    rows, n, m = len(x.points), x.points.shape[1], y.points.shape[1]
    cost = np.zeros(rows)
    nowhere = np.zeros((0, 0))
    slopes = [np.zeros(z.points.shape) if need else nowhere for z, need in zip((x, y), wanted[:2], strict=True)]
    sides = (x.points, y.points, x.cdf, y.cdf)
    if rows == 1 and not wanted[0] and not wanted[1]:
        cost[0] = _cost_of_halves(sides, p, each)
    else:
        walk(sides, p, (0, 0, n + m - 1), cost, *slopes)
    found: list[Any] = [None, None, None, None]
    tolerance = cdf_tolerance(n, m)

    def finish(k: int) -> None:
        one, other = (x, y) if k % 2 == 0 else (y, x)
        if k < 2:
            found[k] = point_slopes(one, slopes[k])
        else:
            potentials = np.zeros(one.points.shape)
            potentials_of_rows(one.points, other.points, one.cdf, other.cdf, p, tolerance, potentials)
            found[k] = scatter(one.order, potentials)

    each(finish, [k for k in range(4) if wanted[k]])
    return Transport(cost, *found)


def _cost_of_halves(sides: Any, p: float, each: Any) -> float:
    """The cost of one row: the coupling is walked from both its start and its middle."""
    u, v = sides[2][0], sides[3][0]
    i = len(u) // 2
    j = int(np.searchsorted(v, u[i - 1])) if i else 0  # what is left of u's step; at equal values u goes first
    total = len(u) + len(v) - 1
    halves, parts = ((0, 0, i + j), (i, j, total - i - j)), [np.zeros(1), np.zeros(1)]
    nowhere = np.zeros((0, 0))
    each(lambda k: walk(sides, p, halves[k], parts[k], nowhere, nowhere), (0, 1))
    return float(parts[0][0] + parts[1][0])


def cumulate_rows(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The cdf (r, n) of weights (1 or r, n) with sum 1 in sorted order."""
    cdf = np.empty(order.shape)
    cumulate(weights, order, cdf)
    return cdf


@njit(cache=True, nogil=True)
def cumulate(weights, order, cdf):
    """`cdf[r, k]` = the weight of the k + 1 first points in order; 1 from the last one with weight on."""
    n = order.shape[1]
    for r in range(order.shape[0]):
        row, total, last = r % weights.shape[0], 0.0, 0
        for k in range(n):
            w = weights[row, order[r, k]]
            total += w
            last = k if w > 0.0 else last
            cdf[r, k] = min(total, 1.0)
        for k in range(last, n):
            cdf[r, k] = 1.0


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def walk(sides, p, stretch, cost, x_slopes, y_slopes):
    """`cost[r]` = the cost of sorted rows x (r, n), y (r, m) with cdfs u, v (1 or r, .); slopes where they have rows.

    stretch: the corner (i, j) of the coupling at which the walk starts, and how many steps it takes.
    """
    (x, y, u, v), (start_i, start_j, steps) = sides, stretch
    last_i, last_j = x.shape[1] - 1, y.shape[1] - 1
    by_x, by_y = x_slopes.shape[0] > 0, y_slopes.shape[0] > 0
    for r in range(x.shape[0]):
        i, j, total, done = start_i, start_j, 0.0, 0.0
        ru, rv = r % u.shape[0], r % v.shape[0]
        if i > 0:
            done = u[ru, i - 1]
        for _ in range(steps):
            cdf_x, cdf_y = u[ru, i], v[rv, j]
            first = cdf_x <= cdf_y
            cdf = cdf_x if first else cdf_y
            mass = cdf - done
            gap = x[r, i] - y[r, j] if mass > 0.0 else 0.0  # no mass times an infinite square is nothing, and not NaN
            if p == 2.0:
                total += mass * gap * gap
            elif p == 1.0:
                total += mass * abs(gap)
            else:
                total += mass * abs(gap) ** p
            if by_x or by_y:
                slope = 2.0 * gap
                if p == 1.0:
                    slope = np.sign(gap)
                elif p != 2.0:
                    slope = p * np.sign(gap) * abs(gap) ** (p - 1.0)
                if by_x:
                    x_slopes[r, i] += mass * slope
                if by_y:
                    y_slopes[r, j] -= mass * slope
            done = cdf
            i = min(i + int(first), last_i)
            j = min(j + int(not first), last_j)
        cost[r] = total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _power(gap, p):
    return gap * gap if p == 2.0 else abs(gap) if p == 1.0 else abs(gap) ** p


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def potentials_of_rows(x, y, u, v, p, tolerance, out):
    """`coupling.potentials` of each row: pointers to the points with weight before and after each point of x."""
    n, m = x.shape[1], y.shape[1]
    for r in range(x.shape[0]):
        ru, rv = r % u.shape[0], r % v.shape[0]
        low, high, previous, value, k = 0, 0, -1, 0.0, 0
        while k < n:
            # The points k .. stop - 1 have no weight, stop has; the cdf is the same at all of them.
            cdf = u[ru, k - 1] if k > 0 else 0.0
            stop = k
            while stop < n and u[ru, stop] <= cdf:
                stop += 1
            while low < m - 1 and v[rv, low] < cdf - tolerance:
                low += 1
            high = max(high, low)
            while high < m - 1 and v[rv, high] <= cdf + tolerance:
                high += 1
            below, above = low, high
            if cdf <= tolerance:
                below = high
            elif cdf >= 1.0 - tolerance:
                above = low
            before, ahead, here = 0.0, 0.0, value
            if previous >= 0:
                before = x[r, previous]
                if stop < n:
                    by_low = _power(x[r, stop] - y[r, below], p) - _power(before - y[r, below], p)
                    by_high = _power(x[r, stop] - y[r, above], p) - _power(before - y[r, above], p)
                    value += 0.5 * (by_low + by_high)
            if stop < n:
                ahead = x[r, stop]
            for z in range(k, stop):
                best = np.inf
                if previous >= 0:
                    best = here + _power(x[r, z] - y[r, below], p) - _power(before - y[r, below], p)
                if stop < n:
                    best = min(best, value + _power(x[r, z] - y[r, above], p) - _power(ahead - y[r, above], p))
                out[r, z] = best
            if stop < n:
                out[r, stop] = value
            previous, k = stop, stop + 1
