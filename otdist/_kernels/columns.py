"""Transport between two clouds along every direction of a bundle: sorted columns in, costs and slopes out.

With uniform weights the staircase of cumulative weights (see `line`) is the same along all directions, so one walk
serves all lanes: step k moves mass_k from the i_k-th smallest of x to the j_k-th smallest of y. Sums over steps run in
float64 every so often.
"""

import numpy as np
from numba import njit

from . import projections
from .lanes import BYTES, fill, greater, load, store
from .line import staircase
from .network import OPTIONS, sort

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
def sorted_values(x, mean, rays, g, columns):
    """columns (bundles, flat) = the points along bundles g and on, in ascending order in each lane."""
    last, top = _fill_up(x, mean, rays, g, columns), fill(columns.dtype.type(np.inf))
    for b in range(len(columns)):
        sort(columns[b], last, top)


@njit(**OPTIONS)
def sorted_points(x, mean, rays, g, columns, order):
    """The same, with each point's number in `order` (integers as wide as the columns' floats)."""
    last, top = _fill_up(x, mean, rays, g, columns), fill(columns.dtype.type(np.inf))
    lanes = BYTES // columns.itemsize
    for b in range(len(columns)):
        numbers = order[b]
        for k in range(last):
            for l in range(lanes):  # noqa: E741
                numbers[k * lanes + l] = k
        sort((columns[b], numbers.view(columns.dtype)), last, (top, top))


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


@njit(**OPTIONS)
def costs(x, y, i_of, j_of, mass, out):
    """out[l] = Σ_k mass_k (x_ik - y_jk)² in each lane of sorted columns."""
    zero, lanes = fill(x.dtype.type(0)), BYTES // x.itemsize
    part, total = np.empty(lanes, x.dtype), np.zeros(lanes)
    for start in range(0, len(mass), _DEEP):
        s = zero
        for k in range(start, min(start + _DEEP, len(mass))):
            gap = load(x, i_of[k]) - load(y, j_of[k])
            s = s + fill(mass[k]) * gap * gap
        store(part, 0, s)
        for l in range(lanes):  # noqa: E741
            total[l] += part[l]
    out[:] = total[: len(out)]


@njit(**OPTIONS)
def slopes(x, order, n, y, i_of, j_of, mass, cost, ranked, out):
    """out = the derivatives of `costs` by the points of x (columns in the points' own order), for len(cost) lanes;
    0 in those that are left.

    `ranked` is scratch of the columns' size. Along a direction whose cost is not finite, all slopes are NaN.
    """
    dtype, lanes = x.dtype.type, BYTES // x.itemsize
    zero, two = fill(dtype(0)), fill(dtype(2))
    if len(mass) > n:
        for k in range(n):
            store(ranked, k, zero)
        for k in range(len(mass)):
            i = i_of[k]
            gap = load(x, i) - load(y, j_of[k])
            store(ranked, i, load(ranked, i) + two * fill(mass[k]) * gap)
    else:
        for k in range(n):
            store(ranked, k, two * fill(mass[k]) * (load(x, k) - load(y, j_of[k])))
    _share_ties(x, n, len(cost), ranked)
    used = len(cost)
    for k in range(n):
        for l in range(used):  # noqa: E741
            out[order[k * lanes + l] * lanes + l] = ranked[k * lanes + l]
        for l in range(used, lanes):  # noqa: E741
            out[k * lanes + l] = 0.0
    for l in range(len(cost)):  # noqa: E741
        if not np.isfinite(cost[l]):
            for i in range(n):
                out[i * lanes + l] = np.nan


@njit(**OPTIONS)
def _share_ties(x, n, used, ranked):
    """Points that tie along a direction get the mean of their slopes there."""
    lanes = BYTES // x.itemsize
    everywhere = (1 << used) - 1
    for k in range(n - 1):
        if greater(load(x, k + 1), load(x, k)) & everywhere == everywhere:
            continue
        for l in range(used):  # noqa: E741
            value = x[k * lanes + l]
            if x[(k + 1) * lanes + l] != value or (k > 0 and x[(k - 1) * lanes + l] == value):
                continue
            stop, total = k, 0.0
            while stop < n and x[stop * lanes + l] == value:
                total += ranked[stop * lanes + l]
                stop += 1
            for tied in range(k, stop):
                ranked[tied * lanes + l] = total / (stop - k)
