"""Transport between two clouds along every direction of a bundle: sorted columns in, costs and slopes out.

With uniform weights the staircase of cumulative weights (see `line`) is the same along all directions, so one walk
serves all lanes: step k moves mass_k from the i_k-th smallest of x to the j_k-th smallest of y. Sums over steps run in
float64 every so often.
"""

import numpy as np

from .._core.compiled import njit
from .._core.simd import BYTES, LANES, SPARE, fill, greater, load, store, untagged
from ..line.kernels import staircase
from . import projections
from .bitonic_sort import INSIDE, OPTIONS, sort

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
def slopes(x, x_numbers, n, y, y_numbers, m, tags, i_of, j_of, mass, out, x_out, y_out):
    """`costs`, and their derivatives by the n points of x and the m of y, in the points' own order; 0 in lanes unused.

    `numbers` hold the number of each sorted point in their last bits: x and y themselves, where there are `tags`.
    Derivatives into arrays of no length are left out; along a direction whose cost is not finite they are NaN.
    """
    zero, below, tile, used = fill(0.0), fill(-np.inf), np.empty(LANES), len(out)
    total, for_x, for_y, x_before, y_before = zero, zero, zero, below, below
    x_rising = y_rising = everywhere = (1 << used) - 1
    x_out[:], y_out[:] = 0.0, 0.0  # unused lanes; and all that is written out of order is in the cache then
    for start in range(0, len(mass), _DEEP):
        part = zero
        for k in range(start, min(start + _DEEP, len(mass))):
            i, j = i_of[k] & SPARE, j_of[k] & SPARE  # which says that they are not negative
            own, other = _values(x, i, tags), _values(y, j, tags)
            gap = own - other
            moved = fill(mass[k]) * gap
            part, for_x, for_y = part + moved * gap, for_x + moved, for_y - moved
            if k + 1 == len(mass) or i_of[k + 1] != i:
                if len(x_out):
                    x_rising &= greater(own, x_before)
                    _scatter(for_x + for_x, x_numbers, i, tile, used, x_out)
                for_x, x_before = zero, own
            if k + 1 == len(mass) or j_of[k + 1] != j:
                if len(y_out):
                    y_rising &= greater(other, y_before)
                    _scatter(for_y + for_y, y_numbers, j, tile, used, y_out)
                for_y, y_before = zero, other
        total = total + part
    store(tile, 0, total)
    out[:] = tile[:used]
    if len(x_out) and x_rising != everywhere:
        _share_ties(x, x_numbers, n, tags, used, x_out)
    if len(y_out) and y_rising != everywhere:
        _share_ties(y, y_numbers, m, tags, used, y_out)
    for l in range(used):  # noqa: E741
        if not np.isfinite(out[l]):
            x_out[l::LANES] = np.nan
            y_out[l::LANES] = np.nan


@njit(**INSIDE)
def _scatter(values, numbers, i, tile, used, out):
    """The values of sorted cell i to where its points are."""
    store(tile, 0, values)
    for l in range(used):  # noqa: E741
        out[(numbers[i * LANES + l] & SPARE) * LANES + l] = tile[l]


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
