"""Exact transport between point clouds with the cost |x - y|^p, and its derivatives.

``W_p^p = min_P Σ P_ij |x_i - y_j|^p`` over plans with marginals a and b. The derivative by x_i is
``p Σ_j P_ij |x_i - y_j|^(p-2) (x_i - y_j)``, by a_i the potential f_i (Peyré & Cuturi 2019, arXiv:1803.00567, ch. 3 and
9.1). The simplex is an algorithm for one core: tensors on a device are brought to the host and back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.operator import Operator
from .._core.scale import power_of_two, times_power
from .simplex import Solution, potentials, solve_costs, weight_slopes

# Measured 41 at n = 1000 to 3000 with POT 0.9.7: costs, plan and arcs of the network; 8 more where weights are 0.
_BYTES_PER_PAIR = 48
# Numbers of the cost that are worked on at a time: 512 KiB, in a core's second-level cache.
_TILE = 1 << 16


class Problem(NamedTuple):
    """One pair of clouds and their weights, on the host in float64."""

    x: np.ndarray  # (n, d), divided by the scale
    y: np.ndarray  # (m, d), divided by the scale
    a: np.ndarray  # (n,), with sum 1
    b: np.ndarray  # (m,)
    scale: float  # a power of two, so that no |x - y|^p overflows or underflows


class SparsePlan(NamedTuple):
    """A plan's nonzero entries, at most n + m - 1: mass[k] goes from point rows[k] of x to point columns[k] of y."""

    rows: Array  # (k,), integers, ascending
    columns: Array  # (k,), integers
    mass: Array  # (k,)


class ExactTransport(NamedTuple):
    """The answer of `exact.solve`."""

    cost: Array  # Σ P_ij |x_i - y_j|^p, that is W_p^p
    plan: SparsePlan
    f: Array  # (n,), the potential of x: f_i + g_j <= |x_i - y_j|^p, and <f, a> + <g, b> is the cost
    g: Array  # (m,), the potential of y


def problems(x: Array, y: Array, a: Array, b: Array) -> Any:
    """Each index of the batch with its problem; arrays have one batch shape, and weights (..., 0) are uniform."""
    clouds, weights = (_on_host(x), _on_host(y)), (_on_host(a), _on_host(b))
    for k in np.ndindex(*x.shape[:-2]):
        a_k, b_k = (
            w[k] / w[k].sum() if w.shape[-1] else np.full(len(z[k]), 1 / len(z[k]))
            for z, w in zip(clouds, weights, strict=True)
        )
        scale = float(power_of_two(max(np.abs(z[k]).max() for z in clouds)))
        yield k, Problem(clouds[0][k] / scale, clouds[1][k] / scale, a_k, b_k, scale)


def optimal_plan(problem: Problem, p: float) -> Solution | None:
    """An optimal plan; None where a point is not finite, which is refused at the door where values can be seen."""
    n, m = len(problem.x), len(problem.y)
    checks.memory(
        _BYTES_PER_PAIR * n * m,
        f"exact transport between {n} and {m} points",
        "sinkhorn.bracket encloses the same distance in memory proportional to the number of points",
    )
    cost = costs(problem.x, problem.y, p)
    return solve_costs(cost, problem.a, problem.b) if np.isfinite(cost).all() else None


def costs(x: np.ndarray, y: np.ndarray, p: float) -> np.ndarray:
    """|x_i - y_j|^p, (n, m), from differences: no digits are lost to a common offset."""
    cost = np.zeros((len(x), len(y)))
    step = max(1, _TILE // len(y))
    columns = np.ascontiguousarray(y.T)
    for start in range(0, len(x), step):
        tile = cost[start : start + step]
        for k in range(x.shape[1]):
            gap = x[start : start + step, k, None] - columns[k]
            gap *= gap
            tile += gap
    return cost if p == 2 else np.sqrt(cost, out=cost) if p == 1 else np.power(cost, p / 2, out=cost)


def value_and_slopes(problem: Problem, found: Solution, p: float) -> tuple[float, np.ndarray]:
    """The plan's cost, and the derivative p |x - y|^(p-2) (x - y) of each of its entries' by x, both scaled."""
    gap = problem.x[found.rows] - problem.y[found.columns]
    square = (gap * gap).sum(1)
    if p == 2:
        return found.mass @ square, 2 * gap
    factor = np.where(square > 0, square, 1.0) ** (p / 2 - 1)
    return found.mass @ square ** (p / 2), p * factor[:, None] * gap


def _kernel(
    x: Array, y: Array, a: Array, b: Array, *, needs_input_grad: tuple[bool, ...], p: float, root: bool
) -> tuple[Array, Any]:
    """W_p^p (...), or W_p, of clouds x (..., n, d), y (..., m, d); weights (..., n), (..., m), or (..., 0): uniform."""
    value: Any = np.empty(tuple(x.shape[:-2]))
    grads: list[Any] = [
        np.zeros(tuple(z.shape)) if need else None for z, need in zip((x, y, a, b), needs_input_grad, strict=True)
    ]
    for k, problem in problems(x, y, a, b):
        value[k] = _solve_into([None if g is None else g[k] for g in grads], problem, p, root)
    with np.errstate(over="ignore"):  # a square beyond the dtype is infinite
        return backend.like(value, x), tuple(None if g is None else backend.like(g, x) for g in grads)


def _solve_into(grads: list[Any], problem: Problem, p: float, root: bool) -> float:
    """The value of one problem; fills its gradients by x, y, a, b, those that are not None."""
    found = optimal_plan(problem, p)
    if found is None:
        for grad in grads:
            if grad is not None:
                grad[...] = np.nan
        return np.nan
    cost, slope = value_and_slopes(problem, found, p)
    for grad, index, sign in ((grads[0], found.rows, 1.0), (grads[1], found.columns, -1.0)):
        if grad is not None:
            np.add.at(grad, index, sign * found.mass[:, None] * slope)
            grad[...] = _slope(grad, cost, problem.scale, p, root, by_points=True)
    if any(grad is not None and len(grad) for grad in grads[2:]):
        sides = zip(grads[2:], weight_slopes(found), (problem.a, problem.b), strict=True)
        for grad, potential, weights in sides:
            if grad is not None and len(grad):
                # With mean 0: what is beyond the range keeps its sign.
                grad[...] = _slope(potential - potential @ weights, cost, problem.scale, p, root, by_points=False)
    return _value(cost, problem.scale, p, root)


def _value(cost: Any, scale: float, p: float, root: bool) -> float:
    """W_p^p of the points as given, or W_p, from the cost of the scaled ones."""
    return float(times_power(np.float64(cost) ** (1 / p), scale, 1) if root else times_power(cost, scale, p))


def _slope(by_cost: np.ndarray, cost: float, scale: float, p: float, root: bool, *, by_points: bool) -> np.ndarray:
    """The derivative of `_value` by points or weights, from that of the scaled cost by scaled points or by weights."""
    if not root:
        return times_power(by_cost, scale, p - 1 if by_points else p)
    if cost == 0:
        return np.zeros_like(by_cost)
    return times_power(by_cost * (cost ** (1 / p - 1) / p), scale, 0 if by_points else 1)


def solution(arrays: tuple[Array, ...], p: float) -> ExactTransport:
    """Plan and potentials of one pair of clouds, in the library and dtype of the arrays."""
    ((_, problem),) = problems(*arrays)
    found, x = optimal_plan(problem, p), arrays[0]
    if found is None:
        raise ValueError("the points must be finite; got NaN or infinity on the device")
    cost, _ = value_and_slopes(problem, found, p)
    rows, columns = (backend.index(z, x) for z in (found.rows, found.columns))
    plan = SparsePlan(rows, columns, backend.like(found.mass, x))
    with np.errstate(over="ignore"):  # a square beyond the dtype is infinite
        value, f, g = (backend.like(times_power(z, problem.scale, p), x) for z in (cost, *potentials(found)))
    return ExactTransport(value, plan, f, g)


def plans(arrays: tuple[Array, ...], p: float) -> Array:
    """Optimal plans (..., n, m), for arrays with one batch shape."""
    x, y, a, b = arrays
    out = np.zeros((*x.shape[:-2], x.shape[-2], y.shape[-2]))
    for k, problem in problems(x, y, a, b):
        found = optimal_plan(problem, p)
        if found is None:
            out[k] = np.nan
        else:
            out[k][found.rows, found.columns] = found.mass
    return backend.like(out, x)


def _on_host(z: Array) -> np.ndarray:
    return np.asarray(z.detach().cpu() if backend.is_torch(z) else z, dtype=np.float64)


exact_cost = Operator("exact_cost", _kernel, core_ndims=(2, 2, 1, 1), options="float p, bool root")
