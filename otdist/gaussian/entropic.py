"""Entropic transport between Gaussians in closed form, the part of the covariances.

``OT_ε = min over plans of E|x - y|² + ε KL(plan ‖ product)``, with ε = 2σ² and D = (4 X^½ Y X^½ + σ⁴ I)^½:

``OT_ε = tr X + tr Y - tr D + dσ²(1 - log 2σ²) + σ² log det(D + σ² I)``

Written with Δ = D - σ² = 4λ / (D + σ²), λ the eigenvalues of X^½ Y X^½, nothing cancels, however large ε is:
``tr X + tr Y - Σ Δ + σ² Σ log(1 + Δ / 2σ²)``. The gradient in X is I - 2 S (D + σ²)⁻¹ Sᵀ, with Y = S Sᵀ and D taken of
SᵀX S: smooth, also where X is singular.

Reference: Janati, Muzellec, Peyré & Cuturi (2020), "Entropic optimal transport between unbalanced Gaussian measures has
a closed form", arXiv:2006.02572, Theorem 1.
"""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from .bures import _factor


def _kernel(
    cov_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, ...], epsilon: float
) -> tuple[Array, tuple[Array | None, ...]]:
    """The cost (...) and its gradients (..., d, d); the contract is `Operator`'s."""
    xp, dtype, d = backend.namespace(cov_x), cov_x.dtype, cov_x.shape[-1]
    x, y = (backend.astype(backend.without_repeats(c, 2), xp.float64) for c in (cov_x, cov_y))
    eps = float(backend.epsilon(cov_x))
    r, s = _factor("cov_x", x, eps).root, _factor("cov_y", y, eps).root
    cross = s.mT @ r
    if any(needs_input_grad):
        u, sigma, vt = xp.linalg.svd(cross)
    else:
        sigma = backend.singular_values(cross)
    half = epsilon / 2
    gain = 4 * sigma**2 / (xp.sqrt(4 * sigma**2 + half**2) + half)
    traces = (r * r).sum((-2, -1)) + (s * s).sum((-2, -1))
    value = traces - (gain - half * xp.log1p(gain / epsilon)).sum(-1)
    shape, identity = cov_x.shape, xp.eye(d, dtype=x.dtype, device=x.device)
    grads: list[Array | None] = [None, None]
    if any(needs_input_grad):
        shrink = (2 / (gain + epsilon))[..., None, :]  # 2 / (D + σ²)
        for i, basis in enumerate((s @ u, r @ vt.mT)):
            if needs_input_grad[i]:
                grad = identity - (basis * shrink) @ basis.mT
                grads[i] = backend.astype(backend.broadcast_to(grad, shape), dtype)
    return backend.astype(backend.broadcast_to(value, shape[:-2]), dtype), tuple(grads)


entropic_bures = Operator("entropic_bures", _kernel, core_ndims=(2, 2), options="float epsilon")
