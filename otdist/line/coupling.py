"""The monotone coupling of sorted rows, its slopes and its potentials, by array operations of NumPy or PyTorch.

``W_p^p(a, b) = ∫₀¹ |F⁻¹(t) - G⁻¹(t)|^p dt``: the plan that sends quantile to quantile is optimal for every p >= 1. Its
steps are the intervals between consecutive values of the two distribution functions (cdf) merged.

The derivative by a point is the plan's share of p |x - y|^(p-1) sgn(x - y); by a weight it is the dual potential.
Santambrogio (2015), *Optimal Transport for Applied Mathematicians*, ch. 2 and 7.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array

_PART = 1 << 14  # numbers of a row in one array operation of `equal_cost`: they stay in the first caches


class Transport(NamedTuple):
    """What is known of each pair of rows; None where it was not asked for."""

    cost: Array  # (r,), float64
    x_slopes: Array | None  # (r, n)
    y_slopes: Array | None  # (r, m)
    a_potentials: Array | None  # (r, n), float64, up to a constant
    b_potentials: Array | None  # (r, m), float64, up to a constant


class Side(NamedTuple):
    """Rows of points in ascending order."""

    points: Array  # (r, n), float64
    order: Array  # (r, n), the place of each in the caller's order
    cdf: Array  # (1 or r, n), the weight up to each point; 1 from the last point with weight on


def power(gap: Array, p: float) -> Array:
    """|gap|^p."""
    return gap * gap if p == 2 else abs(gap) if p == 1 else abs(gap) ** p


def is_finite(cost: Array) -> bool:
    """Whether all costs (r,) are numbers; tensors, which may be on a device, are not looked at."""
    if backend.is_torch(cost):
        return False
    if len(cost) == 1:
        return math.isfinite(cost[0])
    return bool(np.isfinite(cost).all())


def power_slope(gap: Array, p: float) -> Array:
    """Its derivative; at a gap of 0 with p = 1 it is 0, the mean of both sides."""
    if p == 2:
        return 2 * gap
    sign = backend.namespace(gap).sign(gap)
    return sign if p == 1 else p * sign * abs(gap) ** (p - 1)


def equal_cost(x: Array, y: Array, p: float) -> Array:
    """Costs (r,) of sorted rows with as many points and equal weights: the k-th meets the k-th. Sums are in float64."""
    if backend.is_torch(x):
        return power(x.double() - y.double(), p).mean(1)
    total, n = np.zeros(len(x)), x.shape[1]
    for start in range(0, n, _PART):
        part = slice(start, start + _PART)
        total += power(np.subtract(x[:, part], y[:, part], dtype=np.float64), p).sum(1)
    return total / n


def couple(x: Side, y: Side, p: float, wanted: tuple[bool, ...]) -> Transport:
    """The coupling of sorted rows with weights. `wanted` says which derivatives are: by x, y, a, b."""
    xp = backend.namespace(x.points)
    rows = len(x.points)
    u, v = (xp.broadcast_to(side.cdf, (rows, side.cdf.shape[1])) for side in (x, y))
    merged = sorted_rows(xp.concatenate([u, v], 1))
    mass = increments(merged)
    i, j = first_at_least(u, merged), first_at_least(v, merged)
    gap = take(x.points, i) - take(y.points, j)
    cost = (mass * power(gap, p)).sum(1)
    if not is_finite(cost):  # no mass times an infinite square is nothing, and not NaN
        gap = xp.where(mass > 0, gap, xp.zeros_like(gap))
        cost = (mass * power(gap, p)).sum(1)
    slope = mass * power_slope(gap, p) if wanted[0] or wanted[1] else gap
    return Transport(
        cost,
        point_slopes(x, add_up(i, slope, x.points)) if wanted[0] else None,
        point_slopes(y, add_up(j, -slope, y.points)) if wanted[1] else None,
        scatter(x.order, potentials(x.points, y.points, u, v, p)) if wanted[2] else None,
        scatter(y.order, potentials(y.points, x.points, v, u, p)) if wanted[3] else None,
    )


def point_slopes(side: Side, slopes: Array) -> Array:
    """Slopes of sorted points, in the caller's order; those of points that tie are shared by weight.

    Where points tie, the cost has a (concave) kink: each may be matched with any of the group's partners. The group's
    mean is the element of least norm, and duplicated points get what one heavier point would.
    """
    xp, x = backend.namespace(slopes), side.points
    same = x[:, 1:] == x[:, :-1]
    if backend.on_cpu(x) and not bool(same.any()):
        return scatter(side.order, slopes)
    group = (~same).cumsum(1)
    group = xp.concatenate([xp.zeros_like(group[:, :1]) if group.shape[1] else group, group], 1)
    weight = xp.broadcast_to(increments(side.cdf), x.shape)
    group_slope, group_weight = (take(add_up(group, z, x), group) for z in (slopes, weight))
    total = xp.where(group_weight > 0, group_weight, xp.ones_like(group_weight))
    return scatter(side.order, group_slope * (weight / total))


def cdf_tolerance(n: int, m: int) -> float:
    """Values of the two distribution functions that are nearer than this are equal: sums are rounded n + m times."""
    return float(np.finfo(np.float64).eps) * (n + m)


def potentials(x: Array, y: Array, u: Array, v: Array, p: float) -> Array:
    """The potential of each sorted point of x (r, n), up to a constant: the derivative by its weight.

    From one point with weight to the next it grows by c(x', y) - c(x, y), y the quantile of the other row at the cdf u
    of x. Where u is also a value of v, y may be the quantile on either side, and the mean of both is taken. A point z
    without weight gets the c-transform min_y c(z, y) - g(y) over the points y with weight, which is what moving weight
    to it would cost; only the two quantiles at u can attain it. Where the rows are equal measures, points with weight
    get 0.
    """
    xp, n, m = backend.namespace(x), x.shape[1], y.shape[1]
    tolerance = cdf_tolerance(n, m)
    low, high = (take(y, z) for z in neighbours(u, v, tolerance))
    index = xp.broadcast_to(arange(n, x), x.shape)
    weighted = increments(u) > 0
    previous = running_max(xp.where(weighted, index, -xp.ones_like(index)))
    following = (
        n - 1 - xp.flip(running_max(xp.flip(xp.where(weighted, n - 1 - index, -xp.ones_like(index)), (1,))), (1,))
    )
    has_previous, has_following = previous >= 0, following < n
    x_previous, x_following = take(x, previous.clip(0)), take(x, following.clip(None, n - 1))

    # From the point with weight before to each point with weight, at the cdf between them.
    start, by_low, by_high = x_previous[:, :-1], low[:, :-1], high[:, :-1]
    step = 0.5 * (
        power(x[:, 1:] - by_low, p)
        - power(start - by_low, p)
        + power(x[:, 1:] - by_high, p)
        - power(start - by_high, p)
    )
    step = xp.where(weighted[:, 1:] & has_previous[:, :-1], step, xp.zeros_like(step))
    found = xp.concatenate([xp.zeros_like(x[:, :1]), step.cumsum(1)], 1)

    infinity = xp.full_like(x, np.inf)
    from_below = xp.where(has_previous, found + power(x - low, p) - power(x_previous - low, p), infinity)
    ahead = take(found, following.clip(None, n - 1))
    from_above = xp.where(has_following, ahead + power(x - high, p) - power(x_following - high, p), infinity)
    return xp.where(weighted, found, xp.minimum(from_below, from_above))


def neighbours(u: Array, v: Array, tolerance: float) -> tuple[Array, Array]:
    """Which points of the other row lie below and above each value of u: different ones where u is a value of v."""
    xp = backend.namespace(u)
    below = first_at_least(v, u - tolerance)
    above = first_at_least(v, u + tolerance, strictly=True)
    below, above = xp.where(u <= tolerance, above, below), xp.where(u >= 1 - tolerance, below, above)
    return below, above


def increments(cdf: Array) -> Array:
    """What each entry of a row adds to the one before, the first to 0."""
    xp = backend.namespace(cdf)
    return cdf - xp.concatenate([xp.zeros_like(cdf[:, :1]), cdf[:, :-1]], 1)


def cumulate(weights: Array, order: Array) -> Array:
    """The cdf of weights (1 or r, n) with sum 1 in sorted order, (r, n); of no weights, (0, 0), the uniform (1, n)."""
    xp, n = backend.namespace(order), order.shape[1]
    index = arange(n, order)
    if not len(weights):  # k / n, so that equal values of two uniform rows are equal numbers
        return (backend.astype(index + 1, xp.float64) / n)[None]
    ordered = take(xp.broadcast_to(weights, order.shape), order)
    last = xp.where(ordered > 0, index, xp.zeros_like(index)).max(1)
    last = last.values if backend.is_torch(order) else last
    total = ordered.cumsum(1).clip(None, 1)
    return xp.where(index >= last[:, None], xp.ones_like(total), total)  # 1 at the end, whatever rounding says


# Where the two libraries differ.


def arange(n: int, like: Array) -> Array:
    """0 .. n - 1."""
    if backend.is_torch(like):
        return backend.torch_module().arange(n, device=like.device)
    return np.arange(n)


def take(x: Array, index: Array) -> Array:
    """x[r, index[r, k]]."""
    if backend.is_torch(x):
        return x.gather(1, index)
    if len(x) == 1:
        return x[0][index[0]][None]
    return np.take_along_axis(x, index, 1)


def scatter(order: Array, x: Array) -> Array:
    """Undo a sort: out[r, order[r, k]] = x[r, k]."""
    if backend.is_torch(x):
        return backend.torch_module().empty_like(x).scatter_(1, order, x)
    out, (rows, n) = np.empty(x.shape, x.dtype), x.shape
    if rows == 1:
        out[0, order[0]] = x[0]
    else:
        out.ravel()[order + n * np.arange(rows)[:, None]] = x
    return out


def add_up(index: Array, x: Array, like: Array) -> Array:
    """out[r, i] = the sum of x[r, k] over all k with index[r, k] = i, in the shape of `like`."""
    if backend.is_torch(x):
        return x.new_zeros(like.shape).scatter_add_(1, index, x.contiguous())
    rows, n = like.shape
    flat = index if rows == 1 else index + n * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), x.ravel(), minlength=rows * n).reshape(rows, n)


def sorted_rows(x: Array) -> Array:
    """Each row in ascending order."""
    return backend.torch_module().sort(x, dim=1).values if backend.is_torch(x) else np.sort(x, axis=1)


def first_at_least(cdf: Array, values: Array, *, strictly: bool = False) -> Array:
    """In each row, the place of the first entry >= value (or > value); the last one where there is none."""
    last = cdf.shape[1] - 1
    if backend.is_torch(cdf):
        found = backend.torch_module().searchsorted(cdf.contiguous(), values.contiguous(), right=strictly)
        return found.clip(None, last)
    side = "right" if strictly else "left"
    if len(cdf) == 1:
        return np.minimum(cdf[0].searchsorted(values[0], side), last)[None]
    return np.minimum(np.stack([c.searchsorted(z, side) for c, z in zip(cdf, values, strict=True)]), last)


def running_max(x: Array) -> Array:
    """The largest entry of each row so far."""
    return x.cummax(1).values if backend.is_torch(x) else np.maximum.accumulate(x, axis=1)
