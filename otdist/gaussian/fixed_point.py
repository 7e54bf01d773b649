"""The covariance of the barycenter of Gaussians, as a fixed point.

``R = Σ wᵢ Sᵢ Qᵢ``, with covᵢ = Sᵢ Sᵢᵀ and Qᵢ the orthogonal matrix nearest to Sᵢᵀ R (Masarotto et al. 2019,
arXiv:1801.01990). No inverse is taken: members may be singular.
"""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array
from .factor import factor


def fixed_point(covs: Array, weights: Array, tol: float, max_iter: int) -> tuple[Array, Array, Array]:
    """Iterate R ← Σ wᵢ Sᵢ Qᵢ from the factor of the mean covariance; return R Rᵀ, steps and residuals."""
    xp, dtype, eps = backend.namespace(covs), covs.dtype, float(backend.epsilon(covs))
    covs, w = backend.astype(covs, xp.float64), backend.astype(weights, xp.float64)[..., None, None]
    roots = factor("covs", covs, eps).root
    current = factor("covs", (w * covs).sum(-3), eps).root
    n_iter, going = 0, True
    while going and n_iter < max_iter:
        u, _, vt = xp.linalg.svd(roots.mT @ current[..., None, :, :])
        new = (w * (roots @ (u @ vt))).sum(-3)
        size = ((new**2).sum((-2, -1)) + xp.finfo(xp.float64).tiny) ** 0.5
        residual = ((new - current) ** 2).sum((-2, -1)) ** 0.5 / size
        current, n_iter, going = new, n_iter + 1, bool((residual > tol).any())
    steps = xp.full_like(residual, n_iter, dtype=xp.int64)
    return backend.astype(current @ current.mT, dtype), steps, residual
