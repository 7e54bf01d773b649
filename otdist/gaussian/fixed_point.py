"""The covariance of the barycenter of Gaussians, as a fixed point.

``R = Σ wᵢ Sᵢ Qᵢ``, with covᵢ = Sᵢ Sᵢᵀ and Qᵢ the orthogonal matrix nearest to Sᵢᵀ R (Masarotto et al. 2019,
arXiv:1801.01990). No inverse is taken: members may be singular.
"""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array
from .factor import factor

# Entries of QᵀQ - I, in units of d eps, up to which Q is what it should be: sixteen steps of products round.
_ORTHOGONAL = 64
# Coordinates up to which a device decomposes all matrices of a batch at once; larger ones it takes one after the other.
_BATCHED = 32


def fixed_point(covs: Array, weights: Array, tol: float, max_iter: int) -> tuple[Array, Array, Array]:
    """Iterate R ← Σ wᵢ Sᵢ Qᵢ from the factor of the mean covariance; return R Rᵀ, steps and residuals."""
    xp, dtype, eps = backend.namespace(covs), covs.dtype, float(backend.epsilon(covs))
    covs, w = backend.astype(covs, xp.float64), backend.astype(weights, xp.float64)[..., None, None]
    roots = factor("covs", covs, eps).root
    current = factor("covs", (w * covs).sum(-3), eps).root
    n_iter, going = 0, True
    by_svd = backend.on_cpu(covs) or covs.shape[-1] <= _BATCHED
    while going and n_iter < max_iter:
        cross = roots.mT @ current[..., None, :, :]
        q, defect = (_by_svd if by_svd else _by_products)(cross)
        new = (w * (roots @ q)).sum(-3)
        size = ((new**2).sum((-2, -1)) + xp.finfo(xp.float64).tiny) ** 0.5
        residual = ((new - current) ** 2).sum((-2, -1)) ** 0.5 / size
        if defect is None:
            going = bool((residual > tol).any())
        else:
            going, by_svd = (found != 0 for found in backend.numbers((residual > tol).any(), defect))
            if by_svd:  # some are too near to singular: this step once more, and all that follow
                going = True
                continue
        current, n_iter = new, n_iter + 1
    steps = xp.full_like(residual, n_iter, dtype=xp.int64)
    return backend.astype(current @ current.mT, dtype), steps, residual


def _by_svd(cross: Array) -> tuple[Array, None]:
    """The orthogonal matrices (..., d, d) that are nearest."""
    u, _, vt = backend.namespace(cross).linalg.svd(cross)
    return u @ vt, None


def _by_products(cross: Array) -> tuple[Array, Array]:
    """The same on a device, and whether any is not orthogonal, as where a matrix is too near to singular."""
    from . import polar

    flat, d = cross.reshape(-1, *cross.shape[-2:]), cross.shape[-1]
    size = polar.largest_bound(flat)[:, None, None]
    q = polar.polar_factor(flat / size.clip(min=backend.torch_module().finfo(flat.dtype).tiny), polar.LEAST)
    apart = q.mT @ q - backend.torch_module().eye(d, dtype=q.dtype, device=q.device)
    return q.reshape(cross.shape), ~(abs(apart) <= _ORTHOGONAL * d * backend.epsilon(q)).all()
