"""Exact transport between point clouds by POT's network simplex, with the derivatives that its duals give.

``W2² = min_P Σ P_ij |x_i - y_j|²`` over plans with marginals a and b. The derivative by x_i is
``2 Σ_j P_ij (x_i - y_j)``, by a the dual potential f (Peyré & Cuturi 2019, arXiv:1803.00567, ch. 3 and 9.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.imports import imported
from .._core.operator import Operator

# Measured on POT 0.9.7: the cost, the plan, and the arcs of the network.
_BYTES_PER_PAIR = 48


class Solution(NamedTuple):
    """An optimal plan as its nonzero entries, and optimal potentials."""

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    f: np.ndarray  # (n,)
    g: np.ndarray  # (m,)


def solve(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solution:
    """Clouds x (n, d), y (m, d) and weights (n,), (m,) with sum 1, all float64."""
    cdist = imported("scipy.spatial.distance").cdist
    n, m = len(x), len(y)
    checks.memory(
        _BYTES_PER_PAIR * n * m,
        f"exact transport between {n} and {m} points",
        "sinkhorn.bracket encloses the same distance in memory proportional to the number of points",
    )
    cost = cdist(x, y, "sqeuclidean")
    if not np.isfinite(cost).all():  # only where values could not be checked at the door
        nowhere = np.zeros(1, int)
        return Solution(nowhere, nowhere, np.full(1, np.nan), np.full(n, np.nan), np.full(m, np.nan))
    return solve_costs(cost, a, b)


def solve_costs(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solution:
    """Costs (n, m) and weights (n,), (m,) with sum 1, all float64 and finite."""
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    plan, g = _simplex(
        cost if cost.shape == (len(rows), len(columns)) else cost[np.ix_(rows, columns)], a[rows], b[columns]
    )
    i, j = np.nonzero(plan)
    # Potentials of points without mass, by the c-transform; those of the others are its fixed points.
    f = (cost[:, columns] - g).min(1)
    g = (cost - f[:, None]).min(0)
    if not cost[rows[i], columns[j]].any():  # equal measures: of all optimal potentials, the least
        f, g = np.zeros(len(a)), np.zeros(len(b))
    return Solution(rows[i], columns[j], plan[i, j], f, g)


def _simplex(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plan and the potential of the columns; every weight is positive."""
    ot = imported("ot")  # slow to import, so only here

    # Degenerate problems take many pivots: no limit that a user could meet, the method always ends.
    plan, log = ot.emd(a, b, cost, numItermax=2**40, log=True)
    if log["warning"] is not None:
        checks.warn(f"exact transport: {log['warning']}")
    return plan, log["v"]


def _kernel(x: Array, y: Array, a: Array, b: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, Any]:
    """W2² (...) of clouds x (..., n, d), y (..., m, d); weights (..., n), (..., m), or (..., 0): uniform."""
    clouds, weights, batch = (_on_host(x), _on_host(y)), (_on_host(a), _on_host(b)), x.shape[:-2]
    value: Any = np.empty(batch)
    grads: list[Any] = [
        np.zeros(z.shape) if need else None for z, need in zip((*clouds, *weights), needs_input_grad, strict=True)
    ]
    for k in np.ndindex(*batch):
        found = _problem(clouds, weights, k)
        gap = clouds[0][k][found.rows] - clouds[1][k][found.columns]
        value[k] = found.mass @ (gap * gap).sum(1)
        sides: tuple[tuple[int, np.ndarray, float], ...] = ((0, found.rows, 2.0), (1, found.columns, -2.0))
        for side, index, sign in sides:
            grad = grads[side]
            if grad is not None:
                np.add.at(grad[k], index, sign * found.mass[:, None] * gap)
        for side, potential in ((2, found.f), (3, found.g)):
            grad = grads[side]
            if grad is not None and grad.shape[-1]:
                grad[k] = potential
    return backend.like(value, x), tuple(None if g is None else backend.like(g, x) for g in grads)


def plans(x: Array, y: Array, a: Array, b: Array) -> Array:
    """Optimal plans (..., n, m), for arrays with one batch shape."""
    clouds, weights, batch = (_on_host(x), _on_host(y)), (_on_host(a), _on_host(b)), x.shape[:-2]
    out = np.zeros((*batch, x.shape[-2], y.shape[-2]))
    for k in np.ndindex(*batch):
        found = _problem(clouds, weights, k)
        out[k][found.rows, found.columns] = found.mass
    return backend.like(out, x)


def _problem(clouds: tuple[np.ndarray, ...], weights: tuple[np.ndarray, ...], k: tuple[int, ...]) -> Solution:
    """Solve one problem of a batch; weights are uniform if there are none, and sum to 1 in float64."""
    a, b = (
        w[k] / w[k].sum() if w.shape[-1] else np.full(len(z[k]), 1 / len(z[k]))
        for z, w in zip(clouds, weights, strict=True)
    )
    return solve(clouds[0][k], clouds[1][k], a, b)


def _on_host(z: Array) -> np.ndarray:
    """As NumPy's float64: the simplex is an algorithm for one core."""
    return np.asarray(z.detach().cpu() if backend.is_torch(z) else z, dtype=np.float64)


exact_squared = Operator("exact_squared", _kernel, core_ndims=(2, 2, 1, 1))
