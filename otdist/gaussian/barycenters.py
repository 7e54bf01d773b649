"""The barycenter of Gaussians."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers
from .._core.backend import Array
from ..covariance import Covariance, as_covariance, validate_covariance
from .fixed_point import fixed_point
from .lazy import load_torch_operators


class Barycenter(NamedTuple):
    """The result of `barycenter`."""

    mean: Array
    cov: Array
    n_iter: Any  # int; under torch.func and torch.compile a tensor, as `converged`
    residual: Array
    converged: Any  # bool


def barycenter(
    means: A | Numbers,
    covs: A | Numbers | Covariance,
    weights: A | Numbers | None = None,
    *,
    tol: float = 1e-10,
    max_iter: int = 1000,
) -> Barycenter:
    """The Gaussian with the least weighted sum of W2² to given Gaussians.

    Its mean is the weighted mean. Its covariance is R Rᵀ at the fixed point ``R = Σ wᵢ Sᵢ Qᵢ``, where covᵢ = Sᵢ Sᵢᵀ
    and Qᵢ is the orthogonal matrix nearest to Sᵢᵀ R: each step averages the members after turning them towards the
    current R, and lowers the objective. No inverse is taken: members may be singular.

    Parameters
    ----------
    means : (..., k, d)
        Means of the members.
    covs : (..., k, d, d)
        Their covariances, an array or structured.
    weights : (..., k), optional
        Nonnegative, with sum 1; None is uniform.
    tol : float
        The relative step |R' - R| / |R| at which to stop.
    max_iter : int
        Steps after which to give up, with a `ConvergenceWarning`.

    Returns
    -------
    Barycenter(mean, cov, n_iter, residual, converged)
        (..., d), (..., d, d), the number of steps, the last relative step (...), and whether it is at most tol. With
        PyTorch the mean is differentiable and the covariance is not: covs that require a gradient are refused. Inside
        ``torch.func`` and ``torch.compile``, n_iter and converged are tensors (...), and nothing warns.

    References
    ----------
    Agueh & Carlier (2011); Álvarez-Esteban et al. (2016), arXiv:1511.05355; Masarotto et al. (2019), arXiv:1801.01990.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> result = gaussian.barycenter(np.zeros((2, 1)), np.array([[[1.0]], [[9.0]]]))
    >>> result.cov.round(12), result.converged
    (array([[4.]]), True)
    """
    cov = as_covariance(covs)
    optional = {} if weights is None else {"weights": weights}
    (m, *rest), cast_back = checks.arrays(means=means, **cov.parameters("covs"), **optional)
    cov = validate_covariance("covs", cov.with_parameters(rest[: len(rest) - len(optional)]))
    checks.shape("means", m, "(..., k, d)", 2)
    checks.nonempty("means", m, -2, "member")
    checks.same_size("the number of coordinates", "means", m.shape[-1], "covs", cov.d)
    checks.finite("means", m)
    checks.positive_number("tol", tol)
    checks.positive_integer("max_iter", max_iter)
    checks.batch({"means": m.shape[:-1], "covs": cov.batch_shape})
    matrices: Array = cov.to_dense()
    transformed = backend.is_torch(m) and backend.in_transform()
    if backend.needs_gradient(matrices) and (not transformed or backend.torch_module().compiler.is_compiling()):
        raise NotImplementedError("the covariance of a barycenter is not differentiable; pass covs.detach()")
    xp, k = backend.namespace(m), m.shape[-2]
    w = checks.weights("weights", rest[-1], k) if optional else xp.full_like(m[..., 0], 1.0 / k)
    mean = (w[..., None] * m).sum(-2)
    batch: tuple[int, ...] = np.broadcast_shapes(w.shape, matrices.shape[:-2])
    matrices, w = backend.broadcast_to(matrices, (*batch, *matrices.shape[-2:])), backend.broadcast_to(w, batch)
    if transformed:
        load_torch_operators()
        from . import torch_operators

        found, steps, residual = torch_operators.barycenter_covariance(matrices, w, tol, max_iter)
        return Barycenter(cast_back(mean), cast_back(found), steps, cast_back(residual), residual <= tol)
    # Only the mean carries a gradient; through the iteration, that by weights would be NaN at equal members.
    found, steps, residual = fixed_point(matrices, w.detach() if backend.is_torch(w) else w, tol, max_iter)
    n_iter, converged = int(steps.max()) if math.prod(steps.shape) else 0, bool((residual <= tol).all())
    if not converged:
        checks.warn(
            f"barycenter stopped after {n_iter} steps; its residual is {float(residual.max()):.1e}, tol is {tol:g}"
        )
    return Barycenter(cast_back(mean), cast_back(found), n_iter, cast_back(residual), converged)
