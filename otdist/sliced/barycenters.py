"""The free-support barycenter of clouds in the sliced distance: the points that minimise ``Σ_k w_k SW2²(X, Y_k)``.

For fixed directions Θ and a fixed matching along each, the sum is a quadratic in X with the Hessian (2/n) ΘᵀΘ/L, so its
minimum is one Newton step away. Matching anew and stepping again never raises the sum: an alternating minimisation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Value, and gradient by the points X, of the distance to one cloud.
Distance = Callable[[np.ndarray], tuple[float, np.ndarray]]


def start(clouds: list[np.ndarray], weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian sample (n, d) with the mean mean and the mean covariance of the clouds."""
    mean = sum(w * y.mean(0) for w, y in zip(weights, clouds, strict=True))
    covariance = sum(w * np.cov(y.T, bias=True).reshape(y.shape[1], -1) for w, y in zip(weights, clouds, strict=True))
    values, vectors = np.linalg.eigh(np.asarray(covariance))
    return mean + rng.standard_normal((n, len(values))) @ (vectors * np.sqrt(np.maximum(values, 0))).T


def minimise(
    x: np.ndarray, distances: list[Distance], weights: np.ndarray, theta: np.ndarray, max_iter: int, tol: float
) -> tuple[np.ndarray, int, bool]:
    """Points, steps taken, and whether the last one was shorter than tol, relative to the spread of the points."""
    inverse = np.linalg.pinv(theta.T @ theta / len(theta)) * (len(x) / 2)
    for n_iter in range(1, max_iter + 1):
        gradient = sum(w * distance(x)[1] for w, distance in zip(weights, distances, strict=True))
        move = gradient @ inverse
        x = x - move
        spread = np.sqrt(((x - x.mean(0)) ** 2).mean()) + np.abs(x).max() * np.finfo(x.dtype).eps
        if np.sqrt((move**2).mean()) <= tol * spread:
            return x, n_iter, True
    return x, max_iter, False
