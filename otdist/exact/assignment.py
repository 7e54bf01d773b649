"""Exact transport for given costs, as a function of the costs and the weights.

The derivative by the costs is an optimal plan, by the weights it is the potentials.
"""

from __future__ import annotations

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from .simplex import solve_costs, weight_slopes


def _kernel(
    cost: Array, a: Array, b: Array, *, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, tuple[Array | None, ...]]:
    """Value (...), plan (..., k, l) and potentials (..., k), (..., l); a small problem, solved on the CPU."""
    c, p, q = (np.asarray(z.cpu() if backend.is_torch(z) else z, dtype=np.float64) for z in (cost, a, b))
    plan, f, g = np.zeros(c.shape), np.empty(p.shape), np.empty(q.shape)
    for k in np.ndindex(c.shape[:-2]):
        if not np.isfinite(c[k]).all():  # only where values could not be checked at the door
            plan[k] = f[k] = g[k] = np.nan
            continue
        # The simplex takes reduced costs below some 1e-16 for 0, whatever the size of the costs: divide by it.
        unit = np.exp2(np.frexp(np.abs(c[k]).max())[1] - 1.0)
        found = solve_costs(np.ascontiguousarray(c[k] / unit), p[k] / p[k].sum(), q[k] / q[k].sum())
        plan[k][found.rows, found.columns] = found.mass
        f[k], g[k] = (unit * z for z in weight_slopes(found))
    value = (plan * c).sum((-2, -1))
    grads = (backend.like(z, cost) if need else None for z, need in zip((plan, f, g), needs_input_grad, strict=True))
    return backend.like(value, cost), tuple(grads)


assignment = Operator("assignment", _kernel, core_ndims=(2, 1, 1))
