"""Ascent on the sphere for the direction along which two clouds are farthest apart.

Along θ the distance is f(θ) = θᵀMθ, M the second moment of the differences under the plan that is optimal for θ, so its
gradient is 2Mθ, on the sphere 2(Mθ - fθ). A step of 1/(2f) along that is one power iteration with M; steps grow where
they succeed and shrink where they do not. All starting points move together, as rows of one matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks, random
from .._core.backend import Array
from . import sphere
from .estimator import Cloud, _along, _asarray, _centred

_SHORTEST = 1e-10  # a step, relative to the power iteration's, below which rounding decides


def ascend(
    x: Array, y: Array, a: Array, b: Array, starts: int, max_iter: int, tol: float, seed: int
) -> tuple[Array, Any, Any]:
    """The best directions (..., d), the steps taken and whether they converged, for clouds with one batch shape."""
    batch, rng = x.shape[:-2], random.generator(seed)
    x, y, a, b = (z.detach() if backend.is_torch(z) else z for z in (x, y, a, b))
    if not batch:
        return _ascend(x, y, a, b, starts, max_iter, tol, rng)
    found = x.new_empty((*batch, x.shape[-1])) if backend.is_torch(x) else np.empty((*batch, x.shape[-1]), x.dtype)
    n_iter, converged = np.zeros(batch, int), np.zeros(batch, bool)
    for k in np.ndindex(*batch):
        found[k], n_iter[k], converged[k] = _ascend(x[k], y[k], a[k], b[k], starts, max_iter, tol, rng)
    return found, n_iter, converged


def warn(failed: int, total: int, max_iter: int) -> None:
    """Say once that the search stopped early."""
    checks.warn(
        f"max_w2_squared: the best start of {failed} of {total} problems had not converged after {max_iter} steps"
    )


def _ascend(
    x: Array, y: Array, a: Array, b: Array, starts: int, max_iter: int, tol: float, rng: np.random.Generator
) -> tuple[Array, int, bool]:
    xp = backend.namespace(x)
    clouds = _centred(x, a), _centred(y, b)
    theta = _starts(clouds, starts, rng)
    value, gradient = _climb(clouds, theta)
    step, settled = xp.ones_like(value), value < 0
    n_iter = 0
    while n_iter < max_iter and not bool(settled.all()):
        n_iter += 1
        scale = xp.where(value > 0, 2 * value, xp.ones_like(value))
        slope = (gradient * gradient).sum(1) / scale  # what a unit step would gain, to first order
        trial = theta + (step / scale)[:, None] * gradient
        trial = trial / xp.sqrt((trial * trial).sum(1))[:, None]
        new_value, new_gradient = _climb(clouds, trial)
        # Armijo's rule with the usual 1e-4; a settled start stays.
        better = (new_value >= value + 1e-4 * step * slope) & ~settled
        theta = xp.where(better[:, None], trial, theta)
        gradient = xp.where(better[:, None], new_gradient, gradient)
        value = xp.where(better, new_value, value)
        step = xp.where(better, 2 * step, step / 4)
        flat = xp.sqrt((gradient * gradient).sum(1)) <= tol * 2 * value
        short = step * xp.sqrt(slope / scale) <= tol * max(tol, _SHORTEST) ** 0.5
        settled = settled | flat | (short & ~better)
    best = int(value.argmax())
    return backend.astype(theta[best], x.dtype), n_iter, bool(settled[best])


def _climb(clouds: tuple[Cloud, Cloud], theta: Array) -> tuple[Array, Array]:
    """The distance along each row of theta (k, d), and its gradient on the sphere."""
    xp = backend.namespace(theta)
    value, grads = _along(clouds, theta, xp.ones_like(theta[:, 0]), (False, False, False, False, True))
    shift = clouds[0].mean - clouds[1].mean
    along = theta @ shift
    slope = grads[4] + 2 * along[:, None] * shift
    return value + along**2, slope - (slope * theta).sum(1)[:, None] * theta


def _starts(clouds: tuple[Cloud, Cloud], n: int, rng: np.random.Generator) -> Array:
    """The difference of the means, where the covariances differ most, and random directions: (n, d)."""
    xp, d = backend.namespace(clouds[0].points), clouds[0].points.shape[1]
    theta = _asarray(sphere.draw(n, d, "orthogonal", rng), clouds[0].points, xp.float64)
    shift = clouds[0].mean - clouds[1].mean
    length = xp.sqrt(shift @ shift)
    if n > 1 and length > 0:
        theta[0] = shift / length
    if n > 3 and d <= 512:  # an eigendecomposition of larger matrices would cost more than the ascent
        vectors = xp.linalg.eigh(clouds[0].covariance() - clouds[1].covariance())[1]
        theta[1], theta[2] = vectors[:, 0], vectors[:, -1]
    return theta
