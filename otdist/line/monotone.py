"""Transport between rows of numbers: the cost of the monotone plan, its slopes and its dual potentials.

``W_p^p(a, b) = ∫₀¹ |F⁻¹(t) - G⁻¹(t)|^p dt``, F and G the cumulative weights: a sum along the staircase of both.

The derivative by a point is the plan's share of p |x - y|^(p-1) sgn(x - y); by a weight it is the dual potential,
which telescopes along the same staircase. Santambrogio (2015), *Optimal Transport for Applied Mathematicians*, ch. 2
and 7.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator

# Numbers in a task: two rows of float32 keys, values and positions then stay in a core's second-level cache (1 MiB).
_BLOCK = 1 << 15


class Transport(NamedTuple):
    """What `transport` knows of each pair of rows; None where it was not asked for."""

    cost: Array  # (r,), float64
    x_slopes: Array | None  # (r, n)
    y_slopes: Array | None  # (r, m)
    a_potentials: Array | None  # (r, n), float64, up to a constant
    b_potentials: Array | None  # (r, m), float64, up to a constant


def transport(x: Array, y: Array, a: Array, b: Array, *, p: float, needs_input_grad: tuple[bool, ...]) -> Transport:
    """Solve every pair of rows x (r, n), y (r, m).

    Weights a (1 or r, n), b (1 or r, m) are float64 with sum 1; those of shape (0, .) are uniform. `needs` says which
    derivatives are wanted: by x, y, a, b. The rows of x and y are overwritten.
    """
    if backend.is_torch(x):
        return _by_torch(x, y, a, b, p, needs_input_grad)
    return _by_kernels(x, y, a, b, p, needs_input_grad)


def _by_kernels(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, p: float, needs_input_grad: Any
) -> Transport:
    from .._core import threads

    r, n, m = x.shape[0], x.shape[1], y.shape[1]
    # A side is sorted with its permutation where something has to be brought back to the original order.
    ordered = (
        needs_input_grad[0] or needs_input_grad[2] or len(a) > 0,
        needs_input_grad[1] or needs_input_grad[3] or len(b) > 0,
    )
    out = Transport(
        np.empty(r),
        x if needs_input_grad[0] else None,
        y if needs_input_grad[1] else None,
        np.zeros((r, n)) if needs_input_grad[2] else None,
        np.zeros((r, m)) if needs_input_grad[3] else None,
    )
    step = max(1, min(r, _BLOCK // max(n, m)))
    if r * (n + m) <= 2 * _BLOCK:
        step = max(1, r)
    rows = [slice(k, min(k + step, r)) for k in range(0, r, step)]

    def solve(block: slice) -> None:
        sides = _sorted(x[block], ordered[0]), _sorted(y[block], ordered[1])
        _merge(sides, a, b, p, needs_input_grad, out, block)

    if len(rows) == 1 and n + m > 2 * _BLOCK:  # few long rows: the two sides are sorted at the same time
        sides: list[Any] = [None, None]
        both = ((0, x, ordered[0]), (1, y, ordered[1]))
        threads.map(lambda s: sides.__setitem__(s[0], _sorted(s[1], s[2])), both)
        if r == 1 and not any(needs_input_grad) and (len(a) or len(b)):
            out.cost[0] = _long_cost(sides, a, b, p)
        else:
            _merge(tuple(sides), a, b, p, needs_input_grad, out, rows[0])
    else:
        threads.map(solve, rows)
    return out


def _sorted(rows: np.ndarray, ordered: bool) -> tuple[np.ndarray, np.ndarray]:
    """The rows in ascending order, with their permutations if wanted."""
    from .sort import sort_rows

    if not ordered:
        rows.sort(axis=1)
        return rows, np.empty((0, 0), np.int32)
    keys, order = np.empty(rows.shape, np.uint64), np.empty(rows.shape, np.int32)
    # Keys are read before a value is written in their place; fresh memory would cost more than the unpacking.
    values = keys.view(np.float64) if rows.dtype == np.float64 else np.empty_like(rows)
    sort_rows(rows, keys, values, order)
    return values, order


def _merge(
    sides: Any, a: np.ndarray, b: np.ndarray, p: float, needs_input_grad: Any, out: Transport, block: slice
) -> None:
    """Fill one block of `out` from sorted rows."""
    from . import kernels

    (x, x_order), (y, y_order) = sides
    if not len(a) and not len(b) and x.shape[1] == y.shape[1]:
        kernels.equal_costs(x, y, p, out.cost[block])
        if out.x_slopes is not None:
            kernels.equal_slopes(x, x_order, y, p, out.x_slopes[block])
        if out.y_slopes is not None:
            kernels.equal_slopes(y, y_order, x, p, out.y_slopes[block])
        return
    a, b = (w if len(w) <= 1 else w[block] for w in (a, b))
    nothing = np.empty((0, 0), x.dtype), np.empty((0, 0), x.dtype), np.empty((0, 0)), np.empty((0, 0))
    places = (z if s is None else s[block] for s, z in zip(out[1:], nothing, strict=True))
    work = kernels.workspace(x.shape[1], y.shape[1])
    kernels.merged_rows(x, y, x_order, y_order, a, b, p, work, out.cost[block], *places)


def _long_cost(sides: Any, a: np.ndarray, b: np.ndarray, p: float) -> float:
    """The cost of one long sorted row with weights: the staircase is walked from both its start and its middle."""
    from .._core import threads
    from . import kernels

    (x, x_order), (y, y_order) = sides
    u, v = np.empty(x.shape[1]), np.empty(y.shape[1])
    threads.map(lambda s: kernels.levels_of_row(s[0], 0, s[1], s[2]), ((a, x_order, u), (b, y_order, v)))
    i = len(u) // 2
    j = int(np.searchsorted(v, u[i - 1])) if i else 0  # what is left of u's level; at equal levels u goes first
    total = len(u) + len(v) - 1
    parts: list[float] = []
    halves = ((0, 0, i + j), (i, j, total - i - j))
    threads.map(lambda half: parts.append(kernels.walk_cost(x[0], y[0], u, v, p, *half)), halves)
    return sum(sorted(parts))  # whichever ended first, the same number


# The same on a GPU, where loops are torch operators: the staircase by binary search in the merged levels.


def _by_torch(x: Array, y: Array, a: Array, b: Array, p: float, needs_input_grad: Any) -> Transport:
    torch = backend.torch_module()
    (x, x_order), (y, y_order) = (torch.sort(z, dim=1, stable=True) for z in (x, y))
    exact_x, exact_y = x.double(), y.double()
    u, v = _levels(a, x_order), _levels(b, y_order)
    merged = torch.sort(torch.cat([u, v], 1), dim=1).values
    mass = torch.diff(merged, dim=1, prepend=torch.zeros_like(merged[:, :1]))
    middle = merged - mass / 2
    i = torch.searchsorted(u, middle).clamp(max=x.shape[1] - 1)
    j = torch.searchsorted(v, middle).clamp(max=y.shape[1] - 1)
    gap = exact_x.gather(1, i) - exact_y.gather(1, j)
    slope = mass * p * gap.sign() * gap.abs() ** (p - 1)
    return Transport(
        (mass * gap.abs() ** p).sum(1),
        _tied_mean(x, slope, i, u, x_order) if needs_input_grad[0] else None,
        _tied_mean(y, -slope, j, v, y_order) if needs_input_grad[1] else None,
        _potentials(exact_x, exact_y, u, v, x_order, p) if needs_input_grad[2] else None,
        _potentials(exact_y, exact_x, v, u, y_order, p) if needs_input_grad[3] else None,
    )


def _levels(weights: Array, order: Array) -> Array:
    """Cumulative weights in sorted order, (r, n); the last is 1 whatever rounding says."""
    torch, n = backend.torch_module(), order.shape[1]
    if len(weights):
        levels = weights.expand(order.shape).gather(1, order).cumsum(1).clamp(max=1)
        levels[:, -1] = 1
        return levels
    # k / n, so that equal levels of two uniform rows are equal numbers
    uniform = torch.arange(1, n + 1, dtype=torch.float64, device=order.device) / n
    return uniform.expand(order.shape).contiguous()


def _tied_mean(x: Array, slope: Array, i: Array, levels: Array, order: Array) -> Array:
    """Sum the staircase's slopes on each point, share them by weight among tied points, undo the sort."""
    torch = backend.torch_module()
    zeros = torch.zeros_like(levels)
    total = zeros.scatter_add(1, i, slope)
    group = torch.cat([torch.zeros_like(order[:, :1]), (x[:, 1:] != x[:, :-1]).long().cumsum(1)], 1)
    weight = torch.diff(levels, dim=1, prepend=zeros[:, :1])
    group_total = zeros.scatter_add(1, group, total).gather(1, group)
    group_weight = zeros.scatter_add(1, group, weight).gather(1, group)
    shared = torch.where(group_weight > 0, group_total * weight / group_weight, zeros)
    return torch.zeros_like(x).scatter(1, order, shared.to(x.dtype))


def _potentials(x: Array, y: Array, u: Array, v: Array, order: Array, p: float) -> Array:
    """Dual potentials: from x_i to x_{i+1} they grow by c(x_{i+1}, y) - c(x_i, y), y the quantile at the level u_i."""
    torch, last, crossed = backend.torch_module(), y.shape[1] - 1, u[:, :-1].contiguous()
    grown = torch.zeros_like(u)
    for right in (False, True):  # where the level is one of v too, the mean of the quantiles on both sides
        partner = y.gather(1, torch.searchsorted(v, crossed, right=right).clamp(max=last))
        grown[:, 1:] += 0.5 * ((x[:, 1:] - partner).abs() ** p - (x[:, :-1] - partner).abs() ** p)
    return torch.zeros_like(u).scatter(1, order, grown.cumsum(1))


# The distance between batches of rows, as an operator.


def _kernel(
    x: Array, y: Array, a: Array, b: Array, *, needs_input_grad: tuple[bool, ...], p: float
) -> tuple[Array, Any]:
    """∫ |F⁻¹ - G⁻¹|^p (...) for points x (..., n), y (..., m); weights a (..., n), b (..., m) or (..., 0): uniform."""
    batch, dtype, xp = x.shape[:-1], x.dtype, backend.namespace(x)
    wanted = (
        needs_input_grad[0],
        needs_input_grad[1],
        needs_input_grad[2] and a.shape[-1] > 0,
        needs_input_grad[3] and b.shape[-1] > 0,
    )
    rows = [xp.asarray(z).reshape(-1, z.shape[-1]) for z in (x, y)]
    own_x, own_y = (z.clone() if backend.is_torch(z) else np.array(z, order="C") for z in rows)
    found = transport(own_x, own_y, levels_of(a), levels_of(b), p=p, needs_input_grad=wanted)
    grads = (
        (xp.zeros_like(z) if g is None else cast(g, z.shape, dtype)) if need else None
        for z, g, need in zip((x, y, a, b), found[1:], needs_input_grad, strict=True)
    )
    return cast(found.cost, batch, dtype), tuple(grads)


def levels_of(weights: Array) -> Array:
    """Weights (..., n) as rows of float64 (1 or r, n); those that a whole batch shares are one row; none are (0, 0)."""
    xp = backend.namespace(weights)
    if weights.shape[-1] == 0:
        return xp.zeros((0, 0), dtype=xp.float64)
    shared = backend.without_repeats(weights, 1)
    rows = (shared if shared.shape[:-1].count(1) == shared.ndim - 1 else weights).reshape(-1, weights.shape[-1])
    rows = backend.astype(rows, xp.float64)
    return rows if backend.is_torch(rows) else np.ascontiguousarray(rows)


def cast(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """To the shape and dtype that the caller's arrays have."""
    return backend.astype(x, dtype).reshape(shape)


line_cost = Operator("line_cost", _kernel, core_ndims=(1, 1, 1, 1), options="float p")
