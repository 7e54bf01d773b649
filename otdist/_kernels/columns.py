"""Transport between two clouds along every direction of a bundle: sorted columns in, costs and slopes out.

With uniform weights the staircase of cumulative weights (see `line`) is the same along all directions, so one walk
serves all lanes: step k moves mass_k from the i_k-th smallest of x to the j_k-th smallest of y. Sums over steps run in
float64 every so often.
"""

import numpy as np
from numba import njit

from . import projections
from .lanes import BYTES, LANES, SPARE, fill, greater, load, store, untagged
from .line import staircase
from .network import INSIDE, OPTIONS, sort

# Steps whose costs are summed in the points' own precision.
_DEEP = 48


def walk(n, m, dtype):
    """The staircase between n and m points of equal weights: i, j and mass of each step."""
    if n == m:
        steps = np.arange(n, dtype=np.int32)
        return steps, steps, np.full(n, 1 / n, dtype)
    i, j, mass = np.empty(n + m, np.int32), np.empty(n + m, np.int32), np.empty(n + m)
    steps = staircase(np.arange(1, n + 1) / n, np.arange(1, m + 1) / m, i, j, mass)
    return i[:steps], j[:steps], mass[:steps].astype(dtype)


@njit(**OPTIONS)
def sorted_values(x, mean, rays, g, used, columns):
    """columns (., flat) = the points along bundles g and on, each lane of the `used` first ones in ascending order."""
    last, top = _fill_up(x, mean, rays, g, columns), fill(columns.dtype.type(np.inf))
    for b in range(used):
        sort(columns[b], last, top)


@njit(**OPTIONS)
def sorted_points(x, mean, rays, g, used, columns, numbers):
    """The same for doubles, with each point's number in `numbers`, of int64."""
    last, top = _fill_up(x, mean, rays, g, columns), fill(np.inf)
    for b in range(used):
        own = numbers[b]
        for k in range(last * LANES):
            own[k] = k // LANES
        sort((columns[b], own.view(np.float64)), last, (top, top))


@njit(**OPTIONS)
def _fill_up(x, mean, rays, g, columns):
    """Project, and put +∞ behind the last point; how many cells there are to sort."""
    projections.project(x, mean, rays, g, columns)
    n, top = len(x), fill(columns.dtype.type(np.inf))
    last = -(-n // 8) * 8
    for b in range(len(columns)):
        for i in range(n, last):
            store(columns[b], i, top)
    return last


@njit(**INSIDE)
def _values(columns, k, tags):
    return untagged(load(columns, k)) if tags else load(columns, k)


@njit(**OPTIONS)
def costs(x, y, tags, i_of, j_of, mass, out):
    """out[l] = Σ_k mass_k (x_ik - y_jk)² in each lane of sorted columns."""
    zero, lanes = fill(x.dtype.type(0)), BYTES // x.itemsize
    part, total = np.empty(lanes, x.dtype), np.zeros(lanes)
    for start in range(0, len(mass), _DEEP):
        s = zero
        for k in range(start, min(start + _DEEP, len(mass))):
            gap = _values(x, i_of[k], tags) - _values(y, j_of[k], tags)
            s = s + fill(mass[k]) * gap * gap
        store(part, 0, s)
        for l in range(lanes):  # noqa: E741
            total[l] += part[l]
    out[:] = total[: len(out)]


@njit(**OPTIONS)
def slopes(x, numbers, n, y, tags, i_of, j_of, mass, cost, out):
    """out = the derivatives of `costs` by the n points of x in their own order, for len(cost) lanes; 0 in others.

    `numbers` holds the number of each point of sorted x in its last bits: x itself, where there are `tags`.
    Along a direction whose cost is not finite, all slopes are NaN.
    """
    zero, tile, used = fill(0.0), np.empty(LANES), len(cost)
    total = zero
    for k in range(len(mass)):
        i = i_of[k] & SPARE  # which says that it is not negative
        total = total + fill(2.0 * mass[k]) * (_values(x, i, tags) - _values(y, j_of[k], tags))
        if k + 1 == len(mass) or i_of[k + 1] != i:
            store(tile, 0, total)
            total = zero
            for l in range(LANES):  # noqa: E741
                if l < used:
                    out[(numbers[i * LANES + l] & SPARE) * LANES + l] = tile[l]
                else:
                    out[i * LANES + l] = 0.0
    _share_ties(x, numbers, n, tags, used, out)
    for l in range(used):  # noqa: E741
        if not np.isfinite(cost[l]):
            for i in range(n):
                out[i * LANES + l] = np.nan


@njit(**OPTIONS)
def _share_ties(x, numbers, n, tags, used, out):
    """Points that tie along a direction get the mean of their slopes there."""
    everywhere = (1 << used) - 1
    here, tile = _values(x, 0, tags), np.empty(LANES)
    for k in range(n - 1):
        there = _values(x, k + 1, tags)
        larger = greater(there, here) & everywhere
        store(tile, 0, here)
        here = there
        if larger == everywhere:
            continue
        for l in range(used):  # noqa: E741
            if larger >> l & 1 == 0 and (k == 0 or _value(x, k - 1, l, tags) != tile[l]):
                stop, total = k, 0.0
                while stop < n and _value(x, stop, l, tags) == tile[l]:
                    total += out[(numbers[stop * LANES + l] & SPARE) * LANES + l]
                    stop += 1
                for tied in range(k, stop):
                    out[(numbers[tied * LANES + l] & SPARE) * LANES + l] = total / (stop - k)


@njit(**INSIDE)
def _value(columns, k, lane, tags):
    z = columns[k * LANES + lane]
    return np.float64(np.float32(z)) if tags else z  # rounding takes the tag off, too
