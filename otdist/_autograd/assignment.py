"""The linear programme of transport between weighted points, given their costs.

``min over P >= 0 with P 1 = a and Pᵀ 1 = b of Σ P_kl C_kl``

The gradient in the costs is an optimal plan P, in the weights it is the dual potentials.
"""

from __future__ import annotations

import numpy as np

from .. import _arrays
from .._arrays import Array
from . import Operator


def _kernel(cost: Array, a: Array, b: Array, *, needs: tuple[bool, ...]) -> tuple[Array, tuple[Array | None, ...]]:
    """Value (...), plan (..., k, l) and potentials (..., k), (..., l); a small problem, solved on the CPU."""
    c, p, q = (np.asarray(z.cpu() if _arrays.is_torch(z) else z, dtype=np.float64) for z in (cost, a, b))
    plan, f, g = np.empty(c.shape), np.empty(p.shape), np.empty(q.shape)
    if c.size:
        from ot.lp import emd  # POT takes seconds to import: only who solves a programme pays

        for k in np.ndindex(c.shape[:-2]):
            plan[k], log = emd(p[k], q[k] * (p[k].sum() / q[k].sum()), np.ascontiguousarray(c[k]), log=True)
            # The potentials are free up to a constant: with Σ a f = 0 a change of all weights together moves nothing.
            shift = p[k] @ log["u"]
            f[k], g[k] = log["u"] - shift, log["v"] + shift
    value = (plan * c).sum((-2, -1))
    out = [value, *(z if need else None for z, need in zip((plan, f, g), needs, strict=True))]
    value, *grads = (None if z is None else _arrays.like(z, cost) for z in out)
    return value, tuple(grads)


assignment = Operator("assignment", _kernel, core=(2, 1, 1))
