"""The network simplex: the linear programme of transport between weighted points, given their costs.

``min over P >= 0 with P 1 = a and Pᵀ 1 = b of Σ P_kl C_kl``

The derivative by a_k is the potential f_k (Peyré & Cuturi 2019, arXiv:1803.00567, ch. 3 and 9.1). POT's compiled solver
does the work (Bonneel et al. 2011).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._core import checks
from .pot import network_simplex

# Degenerate problems take many pivots: no limit that a user could meet, the method always ends.
_NO_LIMIT = 2**40


class Solution(NamedTuple):
    """An optimal plan as its nonzero entries, in the order of rows, and an optimal potential of the columns."""

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    cost: np.ndarray  # (n, m), as given
    weighted: tuple[np.ndarray, np.ndarray]  # the rows and the columns with weight
    g: np.ndarray  # of the columns with weight


def solve_costs(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solution:
    """Costs (n, m) and weights (n,), (m,) with sum 1, all float64 and finite."""
    weighted = rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    full = cost.shape == (len(rows), len(columns))
    plan, g, warning = network_simplex(
        a[rows], b[columns], np.ascontiguousarray(cost if full else cost[np.ix_(rows, columns)]), _NO_LIMIT
    )
    if warning is not None:
        checks.warn(f"exact transport: {warning}")
    i, j = np.nonzero(plan)
    if not cost[rows[i], columns[j]].any():  # equal measures: of all optimal potentials, the least
        g = np.zeros(len(columns))
    return Solution(rows[i], columns[j], plan[i, j], cost, weighted, g)


def weight_slopes(found: Solution) -> tuple[np.ndarray, np.ndarray]:
    """The derivatives by a (n,) and by b (m,), each up to a constant.

    A point without weight gets the c-transform over the other side's points with weight: what moving weight to it would
    cost.
    """
    cost, (rows, columns) = found.cost, found.weighted
    f = (cost[:, columns] - found.g).min(1)
    return f, (cost[rows] - f[rows, None]).min(0)


def potentials(found: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Optimal potentials f (n,), g (m,) with f_k + g_l <= C_kl everywhere, also between points without weight.

    f is as large as it can be, and g its c-transform.
    """
    f, _ = weight_slopes(found)
    return f, (found.cost - f[:, None]).min(0)
