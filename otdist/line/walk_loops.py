"""The compiled loops of `walk`: one row after the other, all arrays flat."""

import numpy as np

from .._core.compiled import compiled
from .._core.simd import maximum, minimum


@compiled(fast=False)
def cumulate(weights, order, n, cdf):
    """`cdf[r, k]` = the weight of the k + 1 first points in order; 1 from the last one with weight on.

    weights (1 or r, n), order and cdf (r, n).
    """
    for start in range(0, len(cdf), n):
        row, total, last = start % len(weights), 0.0, 0
        for k in range(n):
            w = weights[row + order[start + k]]
            total += w
            last = k if w > 0.0 else last
            cdf[start + k] = minimum(1.0, total)
        for k in range(last, n):
            cdf[start + k] = 1.0


@compiled(inlined=True)
def _power(gap, p):
    return gap * gap if p == 2.0 else abs(gap) if p == 1.0 else abs(gap) ** p


@compiled(inlined=True)
def _slope(gap, p):
    if p == 2.0:
        return 2.0 * gap
    sign = 1.0 if gap > 0.0 else -1.0 if gap < 0.0 else 0.0
    return sign if p == 1.0 else p * sign * abs(gap) ** (p - 1.0)


@compiled
def walk(sides, n, m, p, stretch, cost, x_slopes, y_slopes):
    """`cost[r]` = the cost of sorted rows x (r, n), y (r, m) with cdfs u, v (1 or r, .); slopes where they have rows.

    stretch: the corner (i, j) of the coupling at which the walk starts, and how many steps it takes.
    """
    (x, y, u, v), (start_i, start_j, steps) = sides, stretch
    by_x, by_y = len(x_slopes) > 0, len(y_slopes) > 0
    for r in range(len(cost)):
        i, j, total, done = start_i, start_j, 0.0, 0.0
        rx, ry, ru, rv = r * n, r * m, r * n % len(u), r * m % len(v)
        if i > 0:
            done = u[ru + i - 1]
        for _ in range(steps):
            cdf_x, cdf_y = u[ru + i], v[rv + j]
            first = cdf_x <= cdf_y
            cdf = cdf_x if first else cdf_y
            mass = cdf - done
            # No mass times an infinite square is nothing, and not NaN.
            gap = x[rx + i] - y[ry + j] if mass > 0.0 else 0.0
            total += mass * _power(gap, p)
            if by_x:
                x_slopes[rx + i] += mass * _slope(gap, p)
            if by_y:
                y_slopes[ry + j] -= mass * _slope(gap, p)
            done = cdf
            i = minimum(i + np.int64(first), n - 1)
            j = minimum(j + 1 - np.int64(first), m - 1)
        cost[r] = total


@compiled
def potentials_of_rows(x, y, u, v, n, m, p, tolerance, out):
    """`coupling.potentials` of each row: pointers to the points with weight before and after each point of x."""
    for r in range(len(out) // n):
        rx, ry, ru, rv = r * n, r * m, r * n % len(u), r * m % len(v)
        low, high, previous, value, k = 0, 0, -1, 0.0, 0
        while k < n:
            # The points k .. stop - 1 have no weight, stop has; the cdf is the same at all of them.
            cdf = u[ru + k - 1] if k > 0 else 0.0
            stop = k
            while stop < n and u[ru + stop] <= cdf:
                stop += 1
            while low < m - 1 and v[rv + low] < cdf - tolerance:
                low += 1
            high = maximum(high, low)
            while high < m - 1 and v[rv + high] <= cdf + tolerance:
                high += 1
            below, above = low, high
            if cdf <= tolerance:
                below = high
            elif cdf >= 1.0 - tolerance:
                above = low
            before, ahead, here = 0.0, 0.0, value
            if previous >= 0:
                before = x[rx + previous]
                if stop < n:
                    by_low = _power(x[rx + stop] - y[ry + below], p) - _power(before - y[ry + below], p)
                    by_high = _power(x[rx + stop] - y[ry + above], p) - _power(before - y[ry + above], p)
                    value += 0.5 * (by_low + by_high)
            if stop < n:
                ahead = x[rx + stop]
            for z in range(k, stop):
                best = np.inf
                if previous >= 0:
                    best = here + _power(x[rx + z] - y[ry + below], p) - _power(before - y[ry + below], p)
                if stop < n:
                    other = value + _power(x[rx + z] - y[ry + above], p) - _power(ahead - y[ry + above], p)
                    best = minimum(other, best)
                out[rx + z] = best
            if stop < n:
                out[rx + stop] = value
            previous, k = stop, stop + 1
