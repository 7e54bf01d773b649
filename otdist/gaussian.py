"""Gaussians with any covariance.

``W2²(N(m, X), N(n, Y)) = |m - n|² + tr X + tr Y - 2 tr (X^½ Y X^½)^½``

This is also the Fréchet distance (FID, with features in place of points), and it bounds W2² from below for any two
distributions with these means and covariances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import _arrays, _checks, covariance
from ._arrays import Array
from .covariance import bures_squared


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument."""

    mean_x: Array
    cov_x: Array
    mean_y: Array
    cov_y: Array


def w2_squared(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> Array:
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
        definite. At a singular covariance the gradient is the subgradient of least norm.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a value is NaN or infinite, or a covariance is asymmetric or indefinite.

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
    mean_x, x, mean_y, y, restore = _given(mean_x, cov_x, mean_y, cov_y)
    return restore(((mean_x - mean_y) ** 2).sum(-1) + bures_squared(x, y))


def w2(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> Array:
    """2-Wasserstein distance between Gaussians, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> float(gaussian.w2(np.zeros(1), np.eye(1), np.array([3.0]), 25 * np.eye(1)))
    5.0
    """
    mean_x, x, mean_y, y, restore = _given(mean_x, cov_x, mean_y, cov_y)
    squared = ((mean_x - mean_y) ** 2).sum(-1) + bures_squared(x, y)
    return restore(_arrays.root(squared.clip(0, None)))


def w2_squared_and_grad(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> tuple[Array, Gradients]:
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
    mean_x, x, mean_y, y, restore = _given(mean_x, cov_x, mean_y, cov_y)
    _checks.numpy_only("gaussian.w2_squared_and_grad", mean_x)
    difference = mean_x - mean_y
    batch = np.broadcast_shapes(difference.shape[:-1], x.batch_shape, y.batch_shape)
    bures, (slope_x, slope_y) = covariance.bures_squared_and_grad(x, y, batch)
    shift = np.broadcast_to(2 * difference, (*batch, difference.shape[-1]))
    # Where pairs share an argument, its gradient is the sum over them.
    grad_x, grad_y = (restore(_arrays.sum_to(g, m.shape)) for g, m in ((shift, mean_x), (-shift, mean_y)))
    grads = Gradients(grad_x, _restored(slope_x, restore), grad_y, _restored(slope_y, restore))
    return restore((difference**2).sum(-1) + bures), grads


def _restored(grad: Any, restore: Any) -> Any:
    """Cast a covariance's gradient back; that of a Kronecker product is a pair."""
    return tuple(_restored(g, restore) for g in grad) if isinstance(grad, tuple) else restore(grad)


def _given(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any, *, core: int = 0) -> tuple[Any, Any, Any, Any, Any]:
    """The arguments of one call, checked and of one type; covariances as objects, dense ones exactly symmetric.

    ``core`` counts the axes between batch and coordinates that do not broadcast: the members of a family.
    """
    covs = {"cov_x": covariance.given(cov_x), "cov_y": covariance.given(cov_y)}
    parts = {name: list(c.parts(name)) for name, c in covs.items()}
    named = {"mean_x": mean_x, "mean_y": mean_y, **covs["cov_x"].parts("cov_x"), **covs["cov_y"].parts("cov_y")}
    arrays, restore = _checks.arrays(**named)
    found = dict(zip(named, arrays, strict=True))
    means = {name: found[name] for name in ("mean_x", "mean_y")}
    for (mean_name, mean), (name, c) in zip(means.items(), covs.items(), strict=True):
        covs[name] = c = covariance.check(name, c.with_parts([found[part] for part in parts[name]]))
        _checks.shape(mean_name, mean, "(..., k, d)" if core else "(..., d)", 1 + core)
        _checks.nonempty(mean_name, mean, -1, "coordinate")
        _checks.same_size("the number of coordinates", mean_name, mean.shape[-1], name, c.d)
        _checks.finite(mean_name, mean)
    (mean_x, mean_y), (x, y) = means.values(), covs.values()
    _checks.same_size("the number of coordinates", "mean_x", mean_x.shape[-1], "mean_y", mean_y.shape[-1])
    if not core:
        shapes = {name: m.shape[:-1] for name, m in means.items()}
        _checks.batch({**shapes, "cov_x": x.batch_shape, "cov_y": y.batch_shape})
    return mean_x, x, mean_y, y, restore
