"""Entropic transport between Gaussians in closed form.

``OT_ε = min over plans of E|x - y|² + ε KL(plan ‖ product)``, with ε = 2σ² and D = (4 X^½ Y X^½ + σ⁴ I)^½:

``OT_ε = tr X + tr Y - tr D + dσ²(1 - log 2σ²) + σ² log det(D + σ² I)``

Written with Δ = D - σ² = 4λ / (D + σ²), λ the eigenvalues of X^½ Y X^½, nothing cancels, however large ε is:
``tr X + tr Y - Σ Δ + σ² Σ log(1 + Δ / 2σ²)``. The gradient in X is I - 2 S (D + σ²)⁻¹ Sᵀ, with Y = S Sᵀ and D taken of
SᵀX S: smooth, also where X is singular.

Reference: Janati, Muzellec, Peyré & Cuturi (2020), "Entropic optimal transport between unbalanced Gaussian measures has
a closed form", arXiv:2006.02572, Theorem 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers
from .._core.backend import Array
from .._core.jax_operator import takes_jax
from .._core.operator import Operator
from ..covariance import Covariance
from .arguments import validate_gaussians
from .factor import factor
from .size import squared_distance


@takes_jax("_entropic_cost_and_grad", mean_x=1, cov_x=2, mean_y=1, cov_y=2)
def entropic_cost(
    mean_x: A | Numbers,
    cov_x: A | Numbers | Covariance,
    mean_y: A | Numbers,
    cov_y: A | Numbers | Covariance,
    *,
    epsilon: float,
) -> A:
    """Entropic transport cost between Gaussians, in closed form.

    ``OT_ε = min over plans of E|x - y|² + ε KL(plan ‖ product of the marginals)``

    Parameters
    ----------
    mean_x, cov_x, mean_y, cov_y
        As in `w2_squared`.
    epsilon : float
        Above 0, in units of squared distance.

    Returns
    -------
    (...)
        Differentiable once in all four arguments, at singular covariances too. It tends to W2² as ε falls to 0.

    References
    ----------
    Janati, Muzellec, Peyré & Cuturi (2020), arXiv:2006.02572.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> args = np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1)
    >>> round(float(gaussian.entropic_cost(*args, epsilon=1e-6)), 4)
    10.0
    """
    epsilon = checks.positive_number("epsilon", epsilon)
    m, x, n, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    spread = entropic_bures(x.to_dense(), y.to_dense(), epsilon=epsilon)
    return cast_back(squared_distance(m - n, spread, m.dtype))


@takes_jax("_sinkhorn_divergence_and_grad", mean_x=1, cov_x=2, mean_y=1, cov_y=2)
def sinkhorn_divergence(
    mean_x: A | Numbers,
    cov_x: A | Numbers | Covariance,
    mean_y: A | Numbers,
    cov_y: A | Numbers | Covariance,
    *,
    epsilon: float,
) -> A:
    """Debiased entropic cost between Gaussians: ``S_ε(x, y) = OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y)``.

    Zero exactly for equal Gaussians; between W2² (small ε) and the squared distance of the means (large ε).
    Parameters as in `entropic_cost`.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> args = np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1)
    >>> round(float(gaussian.sinkhorn_divergence(*args, epsilon=1e6)), 4)
    9.0
    """
    epsilon = checks.positive_number("epsilon", epsilon)
    m, x, n, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    a, b = x.to_dense(), y.to_dense()
    between = entropic_bures(a, b, epsilon=epsilon)
    within = entropic_bures(a, a, epsilon=epsilon) + entropic_bures(b, b, epsilon=epsilon)
    return cast_back(squared_distance(m - n, between - within / 2, m.dtype))


class _Gradients(NamedTuple):
    mean_x: np.ndarray
    cov_x: np.ndarray
    mean_y: np.ndarray
    cov_y: np.ndarray


def _entropic_cost_and_grad(
    mean_x: np.ndarray, cov_x: np.ndarray, mean_y: np.ndarray, cov_y: np.ndarray, *, epsilon: float
) -> tuple[np.ndarray, _Gradients]:
    """`entropic_cost` with its gradients, for JAX: arrays of one batch shape."""
    value = entropic_cost(mean_x, cov_x, mean_y, cov_y, epsilon=epsilon)
    shift = 2 * (mean_x - mean_y)
    by_x, by_y = entropic_bures.gradients(cov_x, cov_y, epsilon=epsilon)
    return value, _Gradients(shift, by_x, -shift, by_y)


def _sinkhorn_divergence_and_grad(
    mean_x: np.ndarray, cov_x: np.ndarray, mean_y: np.ndarray, cov_y: np.ndarray, *, epsilon: float
) -> tuple[np.ndarray, _Gradients]:
    """`sinkhorn_divergence` with its gradients, for JAX: arrays of one batch shape."""
    value = sinkhorn_divergence(mean_x, cov_x, mean_y, cov_y, epsilon=epsilon)
    _, (shift, by_x, _, by_y) = _entropic_cost_and_grad(mean_x, cov_x, mean_y, cov_y, epsilon=epsilon)
    within = (sum(entropic_bures.gradients(c, c, epsilon=epsilon)) / 2 for c in (cov_x, cov_y))
    return value, _Gradients(shift, by_x - next(within), -shift, by_y - next(within))


def _kernel(
    cov_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, ...], epsilon: float
) -> tuple[Array, tuple[Array | None, ...]]:
    """The cost (...) and its gradients (..., d, d); the contract is `Operator`'s."""
    xp, dtype, d = backend.namespace(cov_x), cov_x.dtype, cov_x.shape[-1]
    x, y = (backend.astype(backend.without_repeats(c, 2), xp.float64) for c in (cov_x, cov_y))
    eps = float(backend.epsilon(cov_x))
    r, s = factor("cov_x", x, eps).root, factor("cov_y", y, eps).root
    cross = s.mT @ r
    if any(needs_input_grad):
        u, sigma, vt = xp.linalg.svd(cross)
    else:
        sigma = backend.singular_values(cross)
    half = epsilon / 2
    twice = 2 * sigma
    gain = twice * (twice / (xp.hypot(twice, xp.full_like(twice, half)) + half))
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
