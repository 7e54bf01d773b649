"""Mixtures of Gaussians, transported component by component."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from ..covariance import Covariance
from ..exact.assignment import assignment
from .arguments import validate_gaussians
from .bures import transport_matrix
from .factor import factor
from .families import pairwise


def mixture_w2_squared(weights_x: Any, means_x: Any, covs_x: Any, weights_y: Any, means_y: Any, covs_y: Any) -> Array:
    """MW2²: the squared 2-Wasserstein distance of Gaussian mixtures, with plans restricted to Gaussian mixtures.

    ``MW2² = min over plans P of Σ P_kl W2²(N(m_k, X_k), N(n_l, Y_l))``, a linear programme over the components, solved
    exactly by POT's network simplex. An upper bound on W2² between the mixtures.

    Parameters
    ----------
    weights_x, weights_y : (..., k) and (..., l)
        Nonnegative, with sum 1; None is uniform.
    means_x, means_y : (..., k, d) and (..., l, d)
        Means of the components.
    covs_x, covs_y : (..., k, d, d) and (..., l, d, d)
        Their covariances, arrays or structured.

    Returns
    -------
    (...)
        Differentiable in everything; the gradient in the weights is the dual potentials, defined up to a constant.

    References
    ----------
    Delon & Desolneux (2020), "A Wasserstein-type distance in the space of Gaussian mixture models", arXiv:1907.05254.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> x = [0.5, 0.5], np.array([[0.0], [10.0]]), np.ones((2, 1, 1))
    >>> y = [0.5, 0.5], np.array([[1.0], [12.0]]), np.ones((2, 1, 1))
    >>> float(gaussian.mixture_w2_squared(*x, *y))
    2.5
    """
    found, cast_back = _validate(weights_x, means_x, covs_x, weights_y, means_y, covs_y)
    return cast_back(assignment(*_costs(found)))


def mixture_plan(weights_x: Any, means_x: Any, covs_x: Any, weights_y: Any, means_y: Any, covs_y: Any) -> Array:
    """The optimal plan between the components of two mixtures, (..., k, l): what `mixture_w2_squared` minimises over.

    Entry (k, l) is the mass that goes from component k to component l; a component's mass goes there by the map between
    the two Gaussians. Parameters and errors are those of `mixture_w2_squared`; the plan carries no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> x = [0.5, 0.5], np.array([[0.0], [10.0]]), np.ones((2, 1, 1))
    >>> y = [0.25, 0.75], np.array([[12.0], [1.0]]), np.ones((2, 1, 1))
    >>> gaussian.mixture_plan(*x, *y)
    array([[0.  , 0.5 ],
           [0.25, 0.25]])
    """
    if backend.in_transform():
        raise RuntimeError("gaussian.mixture_plan needs values, which torch.func and torch.compile hide")
    found, cast_back = _validate(weights_x, means_x, covs_x, weights_y, means_y, covs_y)
    return cast_back(_plan(found))


class MixtureMap(NamedTuple):
    """z ↦ Σₖ p(k | z) (matricesₖ z + offsetsₖ), with p(k | z) the probability that z comes from component k."""

    weights: Array
    means: Array
    covs: Array
    matrices: Array
    offsets: Array

    def __call__(self, points: Any) -> Array:
        """Move points (..., n, d); dtypes promote as their library promotes them."""
        (points, *own), cast_back = checks.arrays(points=points, **self._asdict())
        checks.shape("points", points, "(..., n, d)", 2)
        weights, means, covs, matrices, offsets = own
        checks.same_size("the number of coordinates", "points", points.shape[-1], "the map", means.shape[-1])
        xp = backend.namespace(means)
        columns = (points[..., None, :, :] - means[..., :, None, :]).mT  # (..., k, d, n)
        squares = (columns * xp.linalg.solve(covs, columns)).sum(-2)
        present = weights > 0
        log_weights = xp.log(xp.where(present, weights, 1.0)) - xp.linalg.slogdet(covs)[1] / 2
        scores = xp.where(present[..., None], log_weights[..., None] - squares / 2, -xp.inf)
        shares = xp.exp(scores - xp.amax(scores, -2, keepdims=True))
        shares = shares / shares.sum(-2)[..., None, :]
        images = points[..., None, :, :] @ matrices.mT + offsets[..., :, None, :]
        return cast_back((shares[..., None] * images).sum(-3))


def mixture_map(weights_x: Any, means_x: Any, covs_x: Any, weights_y: Any, means_y: Any, covs_y: Any) -> MixtureMap:
    """A map from one mixture towards another: the mean of where the optimal plan sends a point.

    ``T(z) = Σ_kl p(k | z) P_kl / a_k T_kl(z)``, with P the `mixture_plan`, a the weights of the first mixture, and T_kl
    the `transport_map` between two components. A component's mass may be split, and components overlap: what arrives is
    near the second mixture, and equal to it where neither happens.

    Parameters and errors are those of `mixture_w2_squared`; covs_x must be positive definite. No gradient is carried.

    Returns
    -------
    MixtureMap(weights, means, covs, matrices, offsets)
        Called with points (..., n, d), it moves them.

    References
    ----------
    Delon & Desolneux (2020), arXiv:1907.05254, section 6.3.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> x = [0.5, 0.5], np.array([[0.0], [100.0]]), np.ones((2, 1, 1))
    >>> y = [0.5, 0.5], np.array([[1.0], [120.0]]), 4 * np.ones((2, 1, 1))
    >>> gaussian.mixture_map(*x, *y)(np.array([[0.0], [1.0], [101.0]]))
    array([[  1.],
           [  3.],
           [122.]])
    """
    if backend.in_transform():
        raise RuntimeError("gaussian.mixture_map needs values, which torch.func and torch.compile hide")
    found, cast_back = _validate(weights_x, means_x, covs_x, weights_y, means_y, covs_y)
    covs, plan = found.x.to_dense(), _plan(found)
    xp, total = backend.namespace(plan), plan.sum(-1)[..., None]
    if factor("covs_x", backend.astype(covs, xp.float64), float(backend.epsilon(covs))).null is not None:
        raise ValueError("covs_x must be positive definite: a map needs to know which component a point comes from")
    shares = xp.where(total > 0, plan / xp.where(total > 0, total, 1.0), 0.0)[..., None]
    matrices = transport_matrix(covs[..., :, None, :, :], found.y.to_dense()[..., None, :, :, :])
    offsets = found.mean_y[..., None, :, :] - (matrices @ found.mean_x[..., :, None, :, None])[..., 0]
    parts = found.weights_x, found.mean_x, covs, (shares[..., None] * matrices).sum(-3), (shares * offsets).sum(-2)
    return MixtureMap(*(cast_back(z.detach() if backend.is_torch(z) else z) for z in parts))


class _Mixtures(NamedTuple):
    weights_x: Array
    mean_x: Array
    x: Covariance
    weights_y: Array
    mean_y: Array
    y: Covariance


def _validate(
    weights_x: Any, means_x: Any, covs_x: Any, weights_y: Any, means_y: Any, covs_y: Any
) -> tuple[_Mixtures, Any]:
    mean_x, x, mean_y, y, cast_back = validate_gaussians(means_x, covs_x, means_y, covs_y, core=1)
    weights = []
    for name, w, mean, cov in (("weights_x", weights_x, mean_x, x), ("weights_y", weights_y, mean_y, y)):
        n = max(mean.shape[-2], cov.batch_shape[-1] if cov.batch_shape else 1)
        if w is None:
            weights.append(backend.like(np.full(n, 1.0 / n), mean))
        else:
            w = checks.beside(name, w, mean, "means_x")
            weights.append(checks.weights(name, w, n))
    return _Mixtures(weights[0], mean_x, x, weights[1], mean_y, y), cast_back


def _costs(found: _Mixtures) -> tuple[Array, Array, Array]:
    return pairwise(found.mean_x, found.x, found.mean_y, found.y), found.weights_x, found.weights_y


def _plan(found: _Mixtures) -> Array:
    arrays = assignment.broadcast(_costs(found))
    arrays = tuple(z.detach() if backend.is_torch(z) else z for z in arrays)
    return assignment.kernel(*arrays, needs_input_grad=(True, False, False))[1][0]
