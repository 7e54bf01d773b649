"""Certified bounds on the exact W2² from any potentials, and a bracket of it by lowering ε."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from . import kernels, numpy_engine
from .normalization import normalization
from .numpy_engine import Limits, Potentials
from .numpy_passes import on_threads

# Each ε of a bracket is the one before, divided by this.
BRACKET_FACTOR = 4.0


def bounds(
    flat: tuple[np.ndarray, ...], g: np.ndarray, epsilon: float, others: tuple[np.ndarray, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (k,) on the exact W2² of a flat batch x, y, a, b, from any potentials g (k, m).

    Lower: g and its c-transform are feasible for the dual, whatever g is; so are all ``others``. Upper: the entropic
    plan of g, rounded onto the marginals (Altschuler, Weed and Rigollet 2017, arXiv:1705.09634, algorithm 2), is
    feasible for the primal. Both are moved outwards by a bound on their rounding.
    """
    x, y = flat[:2]
    lower, upper = np.empty(len(x)), np.empty(len(x))
    # Sums of d terms, and of n by strips of 256, none above 4 in the units inside.
    slack = 256 * np.finfo(float).eps * (x.shape[2] + math.log2(x.shape[1] + y.shape[1]))
    for k, of in enumerate(numpy_engine.at_potentials(flat, np.zeros(flat[2].shape), g, epsilon)):
        low = max(dual_value(of, h[k] / of.unit / of.unit) for h in (g, *others))
        lower[k] = max(low - slack, 0.0) * of.unit**2
        upper[k] = max(rounded_cost(of) + slack, 0.0) * of.unit**2
    return lower, upper


def dual_value(of: Potentials, g: np.ndarray) -> float:
    """Σ a g^c + Σ b g^cc, where g^c_i = min_j (C_ij - g_j) over the points that have weight; g in units inside."""
    problem = of.passes
    (a,), (b,) = problem.a, problem.b
    f = c_transform(problem.x, problem.y, b, g)
    return float(a @ f + b @ c_transform(problem.y, problem.x, a, f))


def c_transform(x: np.ndarray, y: np.ndarray, b: np.ndarray, g: np.ndarray) -> np.ndarray:
    """min_j (|x_i - y_j|² - g_j) over the y_j that have weight b_j: (n,)."""
    from .numpy_passes import NumpyPasses

    problem = NumpyPasses(x, y, np.ones(len(x)), b, 1.0, (1.0, 1.0))
    (n, m), d = problem.shape, x.shape[1]
    G, out = np.full(problem.full[1], -np.inf), np.empty(n)
    G[:m] = np.where(b > 0, g, -np.inf)

    def task(rows: slice) -> None:
        groups = problem.groups[rows.start * d : rows.stop * d]
        kernels.c_transform(groups, problem.panels, d, 1.0, G, out[rows], np.empty(6))

    on_threads(task, problem.tasks(), n * m)
    return -out


def rounded_cost(of: Potentials) -> float:
    """Cost of the plan of h, rounded onto the marginals, in units inside."""
    problem = of.passes
    x, y, (a,), (b,) = problem.x, problem.y, problem.a, problem.b
    F, (c,) = problem.sweep(of.h)  # the rows are exact after it
    share = np.minimum(1.0, b / np.where(c > 0, c, 1.0))
    kept, _ = problem.products(F, share[:, None] * np.column_stack((y, np.ones(len(y)))), np.empty((len(x), 0)))
    missing = np.maximum(a - kept[:, -1], 0.0)
    inner, over = (x * kept[:, :-1]).sum(), np.maximum(b - np.minimum(b, c), 0.0)
    if missing.sum() > 0:
        inner += (missing @ x) @ (over @ y) / missing.sum()
    return float(a @ (x**2).sum(1) + b @ (y**2).sum(1) - 2 * inner)


def _tools(x: Array) -> tuple[Any, Any, Any]:
    """For arrays of this kind: the mean cost of one problem, how to solve, and `bounds`."""
    if isinstance(x, np.ndarray):
        return _mean_cost, numpy_engine.solve, bounds
    from . import torch_engine, torch_plans

    return torch_plans.mean_cost, torch_engine.solve, torch_plans.bounds


def _mean_cost(flat: tuple[np.ndarray, ...]) -> float:
    (start,) = numpy_engine.at_potentials(flat, np.zeros(flat[2].shape), np.zeros(flat[3].shape), 1.0)
    return start.passes.mean_cost * start.unit**2


def bracket(flat: tuple[Array, ...], rel_tol: float) -> tuple[float, float, float, int, bool]:
    """Bounds of one problem (a batch of one), ε, passes and whether they are within rel_tol of each other."""
    inside, (mean_cost, solve, bounds_of) = normalization(*flat[:2]), _tools(flat[0])
    (unit,) = backend.numbers(inside.unit[0])
    x, y = ((z - inside.center[:, None]) / unit for z in flat[:2])
    flat = (x, y, *flat[2:])
    mean = mean_cost(flat)
    if mean == 0.0:
        return 0.0, 0.0, 0.0, 0, True
    # Below rounding of the costs, an upper bound can't be told from 0, and ε can't be resolved.
    zero, smallest = 1e-12 * mean, 1e-10 * mean
    epsilon, lower, upper, passes = mean / 20, 0.0, math.inf, 0
    g: Array | None = None
    while True:
        limits = Limits(epsilon, min(1e-3, rel_tol / 20), 2000, (1.0, 1.0))
        (found,) = solve(x, y, flat[2], flat[3], limits, single=False, init=g)
        former, g = g, found.g
        # Potentials differ from their limit by a multiple of ε to first order: extrapolate it away.
        others = () if former is None else (g + (g - former) / (BRACKET_FACTOR - 1),)
        low, high, taken = backend.numbers(*(z[0] for z in bounds_of(flat, g, epsilon, others)), found.n_iter[0])
        lower, upper, passes = max(lower, low), min(upper, high), passes + int(taken)
        done = upper - lower <= rel_tol * upper or upper <= zero
        if done or epsilon < smallest:
            return lower * unit * unit, upper * unit * unit, epsilon * unit * unit, passes, done
        epsilon /= BRACKET_FACTOR


def transport_cost(of: Potentials) -> float:
    """Σ P_ij |x_i - y_j|², from P's products with the points; in the caller's units."""
    problem = of.passes
    x, y = problem.x, problem.y
    Py, xP = problem.products(of.F, np.column_stack((y, np.ones(len(y)))), np.ones((len(x), 1)))
    squares = Py[:, -1] @ (x**2).sum(1) + xP[0] @ (y**2).sum(1)
    return max(float(squares - 2 * (x * Py[:, :-1]).sum()), 0.0) * of.unit**2
