"""Gaussians with any covariance.

``W2²(N(m, X), N(n, Y)) = |m - n|² + tr X + tr Y - 2 tr (X^½ Y X^½)^½``

This is also the Fréchet distance (FID, with features in place of points), and it bounds W2² from below for any two
distributions with these means and covariances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers, NumPy
from .._core.backend import Array
from .._core.jax_operator import takes_jax
from ..covariance import Covariance, Dense
from .arguments import validate_gaussians
from .barycenters import Barycenter, barycenter
from .bures import gaussian_squared
from .entropic import entropic_cost, sinkhorn_divergence
from .families import pairwise_w2_squared
from .mixtures import MixtureMap, mixture_map, mixture_plan, mixture_w2_squared
from .moments import Moments, fit
from .pairs import bures_squared, bures_squared_and_grad
from .samples import SampleGradients, w2_squared_from_samples, w2_squared_from_samples_and_grad
from .size import OutOfRange, power_of_two, returned, squared_distance, underflows
from .transport import AffineMap, geodesic, transport_map

__all__ = [
    "AffineMap",
    "Barycenter",
    "Gradients",
    "MixtureMap",
    "Moments",
    "SampleGradients",
    "barycenter",
    "entropic_cost",
    "fit",
    "geodesic",
    "mixture_map",
    "mixture_plan",
    "mixture_w2_squared",
    "pairwise_w2_squared",
    "sinkhorn_divergence",
    "transport_map",
    "w2",
    "w2_squared",
    "w2_squared_and_grad",
    "w2_squared_from_samples",
    "w2_squared_from_samples_and_grad",
]


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument."""

    mean_x: np.ndarray
    cov_x: Any  # an array, or a pair of them for a Kronecker product
    mean_y: np.ndarray
    cov_y: Any


@takes_jax("w2_squared_and_grad", mean_x=1, cov_x=2, mean_y=1, cov_y=2)
def w2_squared(
    mean_x: A | Numbers, cov_x: A | Numbers | Covariance, mean_y: A | Numbers, cov_y: A | Numbers | Covariance
) -> A:
    """Squared 2-Wasserstein distance between Gaussians.

    ``W2² = |mean_x - mean_y|² + tr cov_x + tr cov_y - 2 tr (cov_x^½ cov_y cov_x^½)^½``

    Never negative, and never NaN for valid input: singular, equal and nearly equal covariances included.

    Parameters
    ----------
    mean_x, mean_y : (..., d)
        Means. Leading dimensions are a batch; all four arguments broadcast.
    cov_x, cov_y : (..., d, d)
        Covariances: symmetric, positive semidefinite up to rounding; or any of `otdist.covariance`, mixed freely.

    Returns
    -------
    (...)
        In squared units of the mean. Differentiable in every argument; twice where both covariances are positive
        definite. Exactly 0, with gradients exactly 0, where the covariances are equal bit by bit.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a value is NaN or infinite, a covariance is asymmetric or indefinite, or the result is
        beyond the range of the dtype.

    Notes
    -----
    An eigenvalue of at most 10 eps tr cov counts as 0, with eps the precision of the covariances (that of float32,
    where one of them comes in it and the other does not). At a covariance that is singular in this sense the distance
    has finite slopes in some directions, and falls like a square root in those along which mass appears where the other
    Gaussian has some. The gradient is the matrix of least norm that is below every finite slope. If the other
    covariance is regular, or singular in the same directions, it is bounded by 1 + √(tr cov_y / λ), λ the least
    positive eigenvalue of cov_x (and the same with x and y exchanged).

    References
    ----------
    Dowson & Landau (1982), "The Fréchet distance between multivariate normal distributions"; Bhatia, Jain & Lim
    (2019), arXiv:1712.01504.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> float(gaussian.w2_squared(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), 4 * np.eye(2)))
    27.0
    """
    *arguments, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    return returned(_w2_squared(*arguments), cast_back)


@takes_jax("w2_squared_and_grad", root=True, mean_x=1, cov_x=2, mean_y=1, cov_y=2)
def w2(mean_x: A | Numbers, cov_x: A | Numbers | Covariance, mean_y: A | Numbers, cov_y: A | Numbers | Covariance) -> A:
    """2-Wasserstein distance between Gaussians, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> float(gaussian.w2(np.zeros(1), np.eye(1), np.array([3.0]), 25 * np.eye(1)))
    5.0
    """
    *arguments, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    try:
        squared = _w2_squared(*arguments)
    except OutOfRange:
        squared = None
    if squared is None or underflows(squared):
        return cast_back(_w2_in_units(*arguments))
    return cast_back(backend.root(squared.clip(0, None)))


def _w2_in_units(mean_x: Array, x: Covariance, mean_y: Array, y: Covariance) -> Array:
    """W2 where its square is beyond the range of the dtype, or close to it: in units of its own size."""
    xp, shift = backend.namespace(mean_x), mean_x - mean_y
    unit = power_of_two(xp.maximum(xp.amax(abs(shift), -1), xp.maximum(x.size(), y.size())))
    squared = _w2_squared(shift / unit[..., None], x.divided(unit), xp.zeros_like(shift), y.divided(unit))
    return unit * backend.root(squared.clip(0, None))


def _w2_squared(mean_x: Array, x: Covariance, mean_y: Array, y: Covariance) -> Array:
    if isinstance(x, Dense) and isinstance(y, Dense):
        return gaussian_squared(mean_x, x.matrix, mean_y, y.matrix, precision=max(x.precision, y.precision))
    return squared_distance(mean_x - mean_y, bures_squared(x, y), mean_x.dtype)


def w2_squared_and_grad(
    mean_x: NumPy, cov_x: NumPy | Covariance, mean_y: NumPy, cov_y: NumPy | Covariance
) -> tuple[np.ndarray, Gradients]:
    """`w2_squared` with its gradients, for NumPy; each gradient has its argument's shape.

    The gradient of a structured covariance is that of its parameters: an array like `Diagonal.variance`,
    `Isotropic.variance`, `Factor.root` or `Circulant.spectrum`, and a pair for `Kronecker`.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> value, grads = gaussian.w2_squared_and_grad(np.zeros(2), np.eye(2), np.zeros(2), 4 * np.eye(2))
    >>> grads.cov_x.round(12) + 0.0
    array([[-1., 0.],
           [ 0., -1.]])
    """
    m, x, n, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    checks.numpy_only("gaussian.w2_squared_and_grad", m, "mean_x")
    difference = m - n
    batch = np.broadcast_shapes(difference.shape[:-1], x.batch_shape, y.batch_shape)
    bures, (slope_x, slope_y) = bures_squared_and_grad(x, y, batch)
    shift = np.broadcast_to(2 * difference, (*batch, difference.shape[-1]))
    # Where pairs share an argument, its gradient is the sum over them.
    grad_x, grad_y = (cast_back(backend.sum_to(g, z.shape)) for g, z in ((shift, m), (-shift, n)))
    grads = Gradients(grad_x, _restored(slope_x, cast_back), grad_y, _restored(slope_y, cast_back))
    return returned(squared_distance(difference, bures, m.dtype), cast_back), grads


def _restored(grad: Any, cast_back: Any) -> Any:
    """Cast a covariance's gradient back; that of a Kronecker product is a pair."""
    return tuple(_restored(g, cast_back) for g in grad) if isinstance(grad, tuple) else cast_back(grad)


def __dir__() -> list[str]:
    return __all__
