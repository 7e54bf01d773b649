"""Gaussians with any covariance.

``W2²(N(m, X), N(n, Y)) = |m - n|² + tr X + tr Y - 2 tr (X^½ Y X^½)^½``

This is also the Fréchet distance (FID, with features in place of points), and it bounds W2² from below for any two
distributions with these means and covariances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import _arrays, _checks
from ._arrays import Array
from ._autograd.bures import bures_squared


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
        Covariances: symmetric, positive semidefinite up to rounding.

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
    (mean_x, cov_x, mean_y, cov_y), restore = _given(mean_x, cov_x, mean_y, cov_y)
    return restore(((mean_x - mean_y) ** 2).sum(-1) + bures_squared(cov_x, cov_y))


def w2(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> Array:
    """2-Wasserstein distance between Gaussians, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> float(gaussian.w2(np.zeros(1), np.eye(1), np.array([3.0]), 25 * np.eye(1)))
    5.0
    """
    (mean_x, cov_x, mean_y, cov_y), restore = _given(mean_x, cov_x, mean_y, cov_y)
    return restore(_arrays.root(((mean_x - mean_y) ** 2).sum(-1) + bures_squared(cov_x, cov_y)))


def w2_squared_and_grad(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> tuple[Array, Gradients]:
    """`w2_squared` with its gradients, for NumPy; each gradient has its argument's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> value, grads = gaussian.w2_squared_and_grad(np.zeros(2), np.eye(2), np.zeros(2), 4 * np.eye(2))
    >>> grads.cov_x.round(12) + 0.0
    array([[-1., 0.],
           [ 0., -1.]])
    """
    (mean_x, cov_x, mean_y, cov_y), restore = _given(mean_x, cov_x, mean_y, cov_y)
    _checks.numpy_only("gaussian.w2_squared_and_grad", mean_x)
    difference = mean_x - mean_y
    batch = np.broadcast_shapes(difference.shape[:-1], cov_x.shape[:-2], cov_y.shape[:-2])
    wide = (_arrays.broadcast_to(c, (*batch, *c.shape[-2:])) for c in (cov_x, cov_y))
    bures, slopes = bures_squared.value_and_grad(*wide)
    shift = _arrays.broadcast_to(2 * difference, (*batch, difference.shape[-1]))
    grads = zip((shift, slopes[0], -shift, slopes[1]), (mean_x, cov_x, mean_y, cov_y), strict=True)
    # Where pairs share an argument, its gradient is the sum over them.
    return restore((difference**2).sum(-1) + bures), Gradients(*(restore(_arrays.sum_to(g, x.shape)) for g, x in grads))


def _given(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> tuple[list[Array], Any]:
    """The arguments of one call, checked; covariances exactly symmetric."""
    named = {"mean_x": mean_x, "cov_x": cov_x, "mean_y": mean_y, "cov_y": cov_y}
    arrays, restore = _checks.arrays(**named)
    given = dict(zip(named, arrays, strict=True))
    for suffix in "xy":
        mean, cov = f"mean_{suffix}", f"cov_{suffix}"
        _checks.shape(mean, given[mean], "(..., d)", 1)
        _checks.square(cov, given[cov])
        _checks.nonempty(mean, given[mean], -1, "coordinate")
        _checks.same_size("the number of coordinates", mean, given[mean].shape[-1], cov, given[cov].shape[-1])
        _checks.finite(mean, given[mean])
        _checks.finite(cov, given[cov])
        given[cov] = _checks.symmetric(cov, given[cov])
    _checks.same_size(
        "the number of coordinates", "mean_x", given["mean_x"].shape[-1], "mean_y", given["mean_y"].shape[-1]
    )
    cores = {"mean_x": 1, "cov_x": 2, "mean_y": 1, "cov_y": 2}
    _checks.batch({k: x.shape[: x.ndim - cores[k]] for k, x in given.items()})
    return list(given.values()), restore
