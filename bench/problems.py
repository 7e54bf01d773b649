"""The data that is measured, each with answers known without solving it.

A reference that needs an eigensolver is no better than the things it judges. So Gaussian problems are manufactured
from their transport map: choose a covariance A and a symmetric positive definite T, and set B = T A T. By Brenier's
theorem T is the optimal map from N(0, A) to N(0, B), whatever their shapes, hence

    W2² = |Δmean|² + tr((I - T) A (I - T)),   ∂W2²/∂A = I - T,   ∂W2²/∂B = I - T⁻¹.

A and T do not commute. Both live on a fixed-point grid so coarse that T A T is exact in float64, so nobody is judged
on rounded input: the answers belong to exactly the numbers that everybody receives.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

# |A| < 2⁴ on a grid of 2⁻³³ is 37 bits; T < 4 on a grid of 2⁻⁵ has 7 bits and two entries a row, so T A T needs
# 37 + 2·7 + 2 = 53 bits, all that a float64 has.
COVARIANCE_GRID = 2.0**-33
MAP_GRID = 2.0**-5
POINT_GRID = 2.0**-20


@dataclass(frozen=True)
class Problem:
    """Inputs by the names of our arguments, scalar options, and the true answers.

    `answers` may hold `value` (the squared distance) and `grad_<argument>`. A number that stands for a whole array
    too large to check, such as a pairwise matrix, is compared at `entries` only.
    """

    inputs: Arrays
    answers: Arrays
    options: dict[str, Any] = field(default_factory=dict)
    entries: tuple[np.ndarray, ...] | None = None


def gaussian_pair(d: int, *, batch: tuple[int, ...] = (), seed: int = 0) -> Problem:
    """Two Gaussians with dense covariances of condition number about 1e4; `batch` such pairs."""
    rng = np.random.default_rng(seed)
    cov_x = _covariance(rng, (*batch, d))
    transport, inverse = _transport_map(rng, (*batch, d))
    mean_x, mean_y = (_on_grid(rng.normal(size=(*batch, d)), POINT_GRID) for _ in range(2))
    identity = np.eye(d)
    moved = (identity - transport) @ cov_x @ (identity - transport)  # exact: the same bits as T A T
    parts = np.concatenate([(mean_x - mean_y) ** 2, np.diagonal(moved, axis1=-2, axis2=-1)], axis=-1)
    return Problem(
        inputs={"mean_x": mean_x, "cov_x": cov_x, "mean_y": mean_y, "cov_y": transport @ cov_x @ transport},
        answers={
            "value": _exact_sum(parts),
            "grad_mean_x": 2 * (mean_x - mean_y),
            "grad_mean_y": 2 * (mean_y - mean_x),
            "grad_cov_x": identity - transport,
            "grad_cov_y": identity - inverse,
        },
    )


def gaussian_samples(n: int, d: int, *, seed: int = 0) -> Problem:
    """Two samples whose fitted Gaussians are each other's image under a known map.

    Centred y is centred x times T in another order, so the fitted covariances are T-related even where n < d makes
    them singular: W2² = |Δmean|² + Σ_i |(I - T)(x_i - mean)|² / (n - 1).
    """
    rng = np.random.default_rng(seed)
    spectrum = np.geomspace(1.0, 0.1, d)  # standard deviations: features of a network are far from isotropic
    x = _on_grid(rng.normal(size=(n, d)) * spectrum, POINT_GRID)
    transport, _ = _transport_map(rng, (d,))
    shift = _on_grid(0.1 * rng.normal(size=d), POINT_GRID)
    difference = x - (x @ transport + shift)  # exact, and so is y
    mean = difference.mean(axis=0, dtype=np.longdouble)
    value = (mean**2).sum() + ((difference - mean) ** 2).sum() / (n - 1)
    y = rng.permutation(x @ transport + shift)
    return Problem(inputs={"x": x, "y": y}, answers={"value": np.float64(value)})


def diagonal_families(k: int, d: int, *, seed: int = 0) -> Problem:
    """k diagonal Gaussians against k others; the truth in rational arithmetic at 200 of the k² pairs."""
    rng = np.random.default_rng(seed)
    inputs = {
        "mean_x": rng.normal(size=(k, d)),
        "scale_x": rng.uniform(0.1, 2.0, size=(k, d)),
        "mean_y": rng.normal(size=(k, d)),
        "scale_y": rng.uniform(0.1, 2.0, size=(k, d)),
    }
    entries = tuple(rng.integers(k, size=(2, 200)))
    differences = np.concatenate(
        [
            _exact_squares(inputs["mean_x"][entries[0]], inputs["mean_y"][entries[1]]),
            _exact_squares(inputs["scale_x"][entries[0]], inputs["scale_y"][entries[1]]),
        ],
        axis=-1,
    )
    return Problem(inputs, {"value": differences.sum(axis=-1).astype(float)}, entries=entries)


def _exact_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda s, t: (Fraction(s) - Fraction(t)) ** 2, otypes=[object])(x, y)


def _on_grid(x: np.ndarray, grid: float) -> np.ndarray:
    return np.rint(x / grid) * grid


def _exact_sum(parts: np.ndarray) -> np.ndarray:
    """Correctly rounded sums along the last axis."""
    flat = [math.fsum(row) for row in parts.reshape(-1, parts.shape[-1])]
    return np.array(flat).reshape(parts.shape[:-1])


def _covariance(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random rotation of a spectrum from 1e-3 to 10, (..., d, d), on the grid."""
    d = shape[-1]
    rotation = np.linalg.qr(rng.normal(size=(*shape, d)))[0]
    covariance = (rotation * np.geomspace(1e-3, 10.0, d)) @ np.swapaxes(rotation, -1, -2)
    covariance = _on_grid(covariance, COVARIANCE_GRID)
    return np.triu(covariance) + np.swapaxes(np.triu(covariance, 1), -1, -2)


def _transport_map(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric positive definite T (..., d, d) that mixes random pairs of coordinates, and its inverse."""
    d = shape[-1]
    half = d // 2
    order = rng.permutation(d)
    first, second, alone = order[:half], order[half : 2 * half], order[2 * half :]
    p, q, last = (_on_grid(rng.uniform(0.5, 2.0, size=(*shape[:-1], m)), MAP_GRID) for m in (half, half, d % 2))
    r = _on_grid(rng.uniform(-0.4, 0.4, size=p.shape), MAP_GRID)  # r² <= .17 < .25 <= p q
    transport, inverse = np.zeros((*shape, d)), np.zeros((*shape, d))
    determinant = p * q - r * r  # exact
    for matrix, entries in (
        (transport, (p, q, r, last)),
        (inverse, (q / determinant, p / determinant, -r / determinant, 1 / last)),
    ):
        matrix[..., first, first], matrix[..., second, second] = entries[0], entries[1]
        matrix[..., first, second] = matrix[..., second, first] = entries[2]
        matrix[..., alone, alone] = entries[3]
    return transport, inverse
