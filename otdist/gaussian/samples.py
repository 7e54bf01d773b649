"""The Fréchet distance of samples: that of the Gaussians with their moments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import covariance
from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import validate_points
from .._core.jax_operator import takes_jax
from .._core.scale import power_of_two
from ..covariance import Covariance, Dense
from ..covariance.base import unchecked
from .pairs import bures_squared, bures_squared_and_grad
from .size import refuse_infinite, squared_distance


class SampleGradients(NamedTuple):
    """The gradient of `w2_squared_from_samples` with respect to each argument."""

    x: Array
    y: Array


@takes_jax("w2_squared_from_samples_and_grad", x=2, y=2)
def w2_squared_from_samples(x: Any, y: Any) -> Array:
    """The Fréchet distance of two samples: `w2_squared` of the Gaussians with their means and covariances.

    With features of images in place of points this is the Fréchet inception distance, FID. Covariances are divided by
    n - 1. With fewer points than coordinates no d x d matrix is formed: the centred samples are factors.

    Parameters
    ----------
    x, y : (..., n, d) and (..., m, d)
        Points, at least 2 of each.

    Returns
    -------
    (...)
        Differentiable. The estimate is biased upwards for small samples, by about (d + 5) / 2 · tr cov / n
        where cov is isotropic and n = m.

    References
    ----------
    Heusel et al. (2017), arXiv:1706.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((500, 2048))
    >>> round(float(gaussian.w2_squared_from_samples(x, x + 1.0)), 6)
    2048.0
    """
    x, y, cast_back = _clouds(x, y)
    fits, unit = _fits(x, y)
    (mean_x, cov_x), (mean_y, cov_y) = fits
    squared = squared_distance(mean_x - mean_y, bures_squared(cov_x, cov_y), x.dtype)
    return cast_back(_in_units(squared, unit))


def w2_squared_from_samples_and_grad(x: Any, y: Any) -> tuple[Array, SampleGradients]:
    """`w2_squared_from_samples` with its gradients, for NumPy; each gradient has its argument's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> value, grads = gaussian.w2_squared_from_samples_and_grad(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    >>> value, grads.x.round(12).ravel()
    (np.float64(9.0), array([-3., -3.]))
    """
    x, y, cast_back = _clouds(x, y)
    checks.numpy_only("gaussian.w2_squared_from_samples_and_grad", x)
    fits, unit = _fits(x, y)
    x, y = x / unit, y / unit
    (mean_x, cov_x), (mean_y, cov_y) = fits
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    bures, slopes = bures_squared_and_grad(cov_x, cov_y, batch)
    shift = np.broadcast_to(2 * (mean_x - mean_y), (*batch, x.shape[-1]))
    grads = []
    for cloud, cov, slope, towards in ((x, cov_x, slopes[0], shift), (y, cov_y, slopes[1], -shift)):
        n = cloud.shape[-2]
        if isinstance(cov, covariance.Factor):
            spread = slope.mT / (n - 1) ** 0.5
        else:
            spread = (cloud - cloud.mean(-2, keepdims=True)) @ (slope + slope.mT) / (n - 1)
        spread = spread - spread.mean(-2, keepdims=True)
        mean_part = backend.sum_to(towards, (*cloud.shape[:-2], cloud.shape[-1]))[..., None, :] / n
        grads.append(cast_back((spread + mean_part) * unit))
    squared = squared_distance(mean_x - mean_y, bures, x.dtype)
    return cast_back(_in_units(squared, unit)), SampleGradients(*grads)


def _clouds(x: Any, y: Any) -> tuple[Array, Array, Any]:
    (x, y), cast_back = checks.arrays(x=x, y=y)
    for name, cloud in (("x", x), ("y", y)):
        validate_points(name, cloud)
        if cloud.shape[-2] < 2:
            raise ValueError(f"{name} must have at least 2 points; got {cloud.shape[-2]}")
    checks.same_size("the number of coordinates", "x", x.shape[-1], "y", y.shape[-1])
    checks.batch({"x": x.shape[:-2], "y": y.shape[:-2]})
    xp = backend.namespace(x)
    return backend.astype(x, xp.float64), backend.astype(y, xp.float64), cast_back


def _fits(x: Array, y: Array) -> tuple[Any, float]:
    """Mean and covariance of both clouds divided by a number, and that number: 1, unless squares overflow."""
    with backend.silent_overflow(x):
        fits = _sample_gaussian(x), _sample_gaussian(y)
        if not backend.inspectable(x) or all(
            np.isfinite(backend.as_numpy(z)).all() for mean, cov in fits for z in (mean, cov.trace())
        ):
            return fits, 1.0
    unit = float(power_of_two(max(np.abs(backend.as_numpy(z)).max(initial=0) for z in (x, y))))
    return (_sample_gaussian(x / unit), _sample_gaussian(y / unit)), unit


def _in_units(squared: Array, unit: float) -> Array:
    """The squared distance of the clouds themselves; refused if it is beyond the range."""
    if unit == 1.0:
        return squared
    with backend.silent_overflow(squared):
        value = squared * unit * unit
    refuse_infinite(value, value.dtype)
    return value


def _sample_gaussian(x: Array) -> tuple[Array, Covariance]:
    """Mean and covariance of points; with at most d of them, the covariance as a factor."""
    n, d = x.shape[-2:]
    mean = x.mean(-2)
    centred = x - mean[..., None, :]
    if n <= d:
        return mean, unchecked(covariance.Factor, centred.mT / (n - 1) ** 0.5)
    return mean, Dense(centred.mT @ centred / (n - 1))
