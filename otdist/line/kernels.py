"""Optimal transport between the sorted points of many pairs of rows.

In one dimension the plan that matches quantile with quantile is optimal for every convex cost |x - y|^p. With equal
sizes and uniform weights it pairs the k-th point with the k-th; otherwise it is the staircase that two pointers walk
through the merged cumulative weights. Everything here takes sorted rows; sums run in float64.

Where points tie, the cost has a (concave) kink: each tied point may be matched with any of its group's partners. The
slope given is the group's mean, the element of least norm; duplicated points thus get what one heavier point would.
"""

import numpy as np

from .._core.compiled import njit
from .sort import FAST


@njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _cost(d, p):
    if p == 2.0:
        return d * d
    if p == 1.0:
        return abs(d)
    return abs(d) ** p


@njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _slope(d, p):
    if p == 2.0:
        return 2.0 * d
    if d == 0.0:
        return 0.0 * d
    if p == 1.0:
        return np.sign(d)
    return p * np.sign(d) * abs(d) ** (p - 1.0)


@njit(cache=True, nogil=True, fastmath=FAST)
def equal_costs(x, y, p, cost):
    """`cost[r]` = mean over k of |x[r, k] - y[r, k]|^p, for sorted rows x, y (r, n)."""
    n = x.shape[1]
    for r in range(x.shape[0]):
        total = 0.0
        if p == 2.0:
            for k in range(n):
                d = np.float64(x[r, k]) - np.float64(y[r, k])
                total += d * d
        else:
            for k in range(n):
                total += _cost(np.float64(x[r, k]) - np.float64(y[r, k]), p)
        cost[r] = total / n


@njit(cache=True, nogil=True, fastmath=FAST)
def equal_slopes(x, order, y, p, slopes):
    """`slopes[r, order[r, k]]` = derivative of `equal_costs` by the k-th point of x."""
    n = x.shape[1]
    share = 1.0 / n
    for r in range(x.shape[0]):
        k = 0
        while k < n:
            point = x[r, k]
            if k + 1 == n or x[r, k + 1] != point:
                slopes[r, order[r, k]] = share * _slope(np.float64(point) - np.float64(y[r, k]), p)
                k += 1
                continue
            stop = k
            total = 0.0
            while stop < n and x[r, stop] == point:
                total += _slope(np.float64(point) - np.float64(y[r, stop]), p)
                stop += 1
            total *= share / (stop - k)
            for tied in range(k, stop):
                slopes[r, order[r, tied]] = total
            k = stop


@njit(cache=True, nogil=True)
def cumulate(weights, order, levels):
    """`levels[k]` = the weight of the k + 1 first points in order; the last is 1 whatever rounding says."""
    n = weights.shape[0]
    total = 0.0
    for k in range(n):
        total += weights[order[k]]
        levels[k] = min(total, 1.0)
    levels[n - 1] = 1.0


@njit(cache=True, nogil=True)
def staircase(u, v, i_of, j_of, mass):
    """The plan between two cumulative weights u (n,), v (m,): mass[k] goes from i_of[k] to j_of[k]. Returns its length.

    Equal levels advance both pointers. The pointers advance by arithmetic on the comparison, not by a jump on it: the
    order of the levels is random, and mispredicted jumps would cost more than all the rest.
    """
    last_i, last_j = u.shape[0] - 1, v.shape[0] - 1
    i, j, k, done = 0, 0, 0, 0.0
    while True:
        level_u, level_v = u[i], v[j]
        level = min(level_u, level_v)
        i_of[k] = i
        j_of[k] = j
        mass[k] = level - done
        done = level
        k += 1
        if i == last_i and j == last_j:
            return k
        i += int(level_u <= level_v) & int(i < last_i)
        j += int(level_v <= level_u) & int(j < last_j)


@njit(cache=True, nogil=True, fastmath=FAST)
def _staircase_cost(x, y, i_of, j_of, mass, steps, p):
    total = 0.0
    if p == 2.0:
        for k in range(steps):
            d = np.float64(x[i_of[k]]) - np.float64(y[j_of[k]])
            total += mass[k] * d * d
    else:
        for k in range(steps):
            total += mass[k] * _cost(np.float64(x[i_of[k]]) - np.float64(y[j_of[k]]), p)
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def walk_cost(x, y, u, v, p, i, j, steps):
    """The same without keeping the staircase, for levels that are met once: `steps` of it from the corner (i, j)."""
    last_i, last_j = u.shape[0] - 1, v.shape[0] - 1
    total, done = 0.0, 0.0
    if i > 0:
        done = u[i - 1]
    for _ in range(steps):
        level_u, level_v = u[i], v[j]
        first = level_u <= level_v
        level = level_u if first else level_v
        total += (level - done) * _cost(np.float64(x[i]) - np.float64(y[j]), p)
        done = level
        i = min(i + int(first), last_i)
        j = min(j + int(not first), last_j)
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def _staircase_slopes(x, y, i_of, j_of, mass, steps, levels, order, p, scratch, slopes):
    n = x.shape[0]
    scratch[:n] = 0.0
    for k in range(steps):
        scratch[i_of[k]] += mass[k] * _slope(np.float64(x[i_of[k]]) - np.float64(y[j_of[k]]), p)
    k = 0
    while k < n:
        point = x[k]
        if k + 1 == n or x[k + 1] != point:
            slopes[order[k]] = scratch[k]
            k += 1
            continue
        stop = k
        total = 0.0
        while stop < n and x[stop] == point:
            total += scratch[stop]
            stop += 1
        before = levels[k - 1] if k > 0 else 0.0
        weight = levels[stop - 1] - before
        for tied in range(k, stop):
            own = levels[tied] - before
            before = levels[tied]
            slopes[order[tied]] = total * own / weight if weight > 0.0 else 0.0
        k = stop


@njit(cache=True, nogil=True, fastmath=FAST)
def _potentials(x, y, u, v, order, p, potentials):
    """The dual potential of each point of x, 0 at the smallest: it telescopes along the staircase.

    Going from x_i to x_{i+1} the potential grows by c(x_{i+1}, y) - c(x_i, y), y the quantile of the other row at the
    level u_i. Where that level is also one of v, y may be the quantile on either side, and the mean of both is taken:
    it is 0 where the two rows are equal.
    """
    n, m = x.shape[0], y.shape[0]
    total = 0.0
    potentials[order[0]] = 0.0
    left = 0
    for i in range(n - 1):
        while left < m - 1 and v[left] < u[i]:
            left += 1
        right = left
        while right < m - 1 and v[right] == u[i]:
            right += 1
        here, there = np.float64(x[i]), np.float64(x[i + 1])
        low, high = np.float64(y[left]), np.float64(y[right])
        total += 0.5 * (_cost(there - low, p) - _cost(here - low, p) + _cost(there - high, p) - _cost(here - high, p))
        potentials[order[i + 1]] = total


@njit(cache=True, nogil=True)
def levels_of_row(weights, row, order, levels):
    """Cumulative weights of one row; with no weights at all (shape (0, n)) the uniform ones, exact at every step."""
    n = levels.shape[0]
    if weights.shape[0] == 0:
        for k in range(n):
            levels[k] = (k + 1.0) / n
    else:
        cumulate(weights[row % weights.shape[0]], order[row], levels)


@njit(cache=True, nogil=True)
def merged_rows(x, y, x_order, y_order, a, b, p, work, cost, x_slopes, y_slopes, a_potentials, b_potentials):
    """Costs of sorted rows x (r, n), y (r, m) with weights, and what else has a nonempty place to go to.

    a (1 or r, n), b (1 or r, m) sum to 1, in the original order of the points; (0, n) means uniform. `x_order` is
    needed with weights or slopes. Slopes and potentials (r, n), (r, m) come in the original order; those that are not
    wanted have no rows. `work` is scratch, see `workspace`.
    """
    u, v, scratch, mass, i_of, j_of = work
    steps, weighted = 0, a.shape[0] > 0 or b.shape[0] > 0
    kept = not weighted or x_slopes.shape[0] > 0 or y_slopes.shape[0] > 0
    for r in range(x.shape[0]):
        if r == 0 or weighted:
            levels_of_row(a, r, x_order, u)
            levels_of_row(b, r, y_order, v)
            if kept:
                steps = staircase(u, v, i_of, j_of, mass)
        if kept:
            cost[r] = _staircase_cost(x[r], y[r], i_of, j_of, mass, steps, p)
        else:
            cost[r] = walk_cost(x[r], y[r], u, v, p, 0, 0, u.shape[0] + v.shape[0] - 1)
        if x_slopes.shape[0] > 0:
            _staircase_slopes(x[r], y[r], i_of, j_of, mass, steps, u, x_order[r], p, scratch, x_slopes[r])
        if y_slopes.shape[0] > 0:
            _staircase_slopes(y[r], x[r], j_of, i_of, mass, steps, v, y_order[r], p, scratch, y_slopes[r])
        if a_potentials.shape[0] > 0:
            _potentials(x[r], y[r], u, v, x_order[r], p, a_potentials[r])
        if b_potentials.shape[0] > 0:
            _potentials(y[r], x[r], v, u, y_order[r], p, b_potentials[r])


def workspace(n, m):
    """Scratch for `merged_rows`. NumPy asks for huge pages, numba does not, and page faults would cost the most."""
    floats, integers = (n, m, max(n, m), n + m), (n + m, n + m)
    return (*(np.empty(k) for k in floats), *(np.empty(k, np.int32) for k in integers))
