"""Control variates for a mean over directions: weights for the directions, and their derivative.

For centred clouds with covariances A and B, the distance along θ depends mostly on a = θᵀAθ and b = θᵀBθ: for Gaussians
it is (√a - √b)². The means of a, b and of their products over the sphere are known exactly,

``E θᵀAθ = tr A / d``, ``E (θᵀAθ)(θᵀBθ) = (tr A tr B + 2 tr AB) / (d (d + 2))``,

so what a fitted quadratic in (a, b) explains need not be averaged at all. Least squares with the controls' deviations
from their means as columns is linear in the values, hence a weighted mean; its weights depend on a and b alone, and
are known before a single sort.

References: Owen (2013), *Monte Carlo theory, methods and examples*, ch. 8.9; Nguyen & Ho (2023), "Control variate
sliced Wasserstein estimators", arXiv:2305.00402; Leluc et al. (2024), arXiv:2402.01493.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import _arrays
from .._arrays import Array

# A ridge on the standardised controls, relative to the number of directions: it silences what only rounding moves.
_RIDGE = 1e-6


class Controls(NamedTuple):
    """Weights of the directions with sum 1, and what their derivative needs."""

    weights: Array  # (L,)
    directions: Array  # (L, d)
    covariances: tuple[Array, Array]  # (d, d) each
    forms: tuple[Array, Array]  # θᵀAθ and θᵀBθ, (L,)
    columns: Array  # (L, 6)
    inverse: Array  # (6, 6)
    deviations: tuple[Array, Array]  # s and t: the sum and difference of a/E a - 1 and b/E b - 1
    scales: tuple[Array, Array]

    def residuals(self, values: Array) -> Array:
        """What the controls do not explain of values (L,), each divided by one minus its leverage (jackknife)."""
        coefficients = self.inverse @ (self.columns.T @ values)
        leverage = ((self.columns @ self.inverse) * self.columns).sum(-1)
        return (values - self.columns @ coefficients) / (1 - leverage).clip(0.05)

    def slopes(self, values: Array) -> tuple[Array, Array]:
        """The derivative of Σ weights · values by A and B, the values (L,) held fixed: (d, d) each, symmetric."""
        (s, t), (s_scale, t_scale) = self.deviations, self.scales
        coefficients = self.inverse @ (self.columns.T @ values)
        residual = values - self.columns @ coefficients
        by_column = residual[:, None] * self.inverse[0] - self.weights[:, None] * coefficients
        by_column = by_column[:, 1:] / _stack(s_scale, t_scale, s_scale**2, s_scale * t_scale, t_scale**2)
        by_s = by_column[:, 0] + 2 * s * by_column[:, 2] + t * by_column[:, 3]
        by_t = by_column[:, 1] + s * by_column[:, 3] + 2 * t * by_column[:, 4]
        by_mean = -by_column[:, 2:].sum(0)  # of s², st and t²
        return (
            self._by_covariance(0, by_s + by_t, by_mean.sum(), 2 * (by_mean[0] - by_mean[2])),
            self._by_covariance(1, by_s - by_t, by_mean[0] - by_mean[1] + by_mean[2], 2 * (by_mean[0] - by_mean[2])),
        )

    def _by_covariance(self, side: int, by_deviation: Array, by_square: Array, by_product: Array) -> Array:
        """Chain from a/E a - 1, E a² and E ab (of those deviations) to one covariance."""
        a, b = self.covariances[side], self.covariances[1 - side]
        d, theta = len(a), self.directions
        trace, other = _positive(a.trace()), _positive(b.trace())
        outer = (theta.T * by_deviation) @ theta * (d / trace)
        common = 2 * d / (d + 2)
        along = 2 * common * by_square * a / trace**2 + common * by_product * b / (trace * other)
        onto = -(by_deviation * self.forms[side]).sum() * d / trace**2
        onto = onto - 2 * common * by_square * (a * a).sum() / trace**3
        onto = onto - common * by_product * (a * b).sum() / (trace**2 * other)
        identity = _arrays.namespace(a).eye(d, dtype=a.dtype, **_device(a))
        return outer + along + onto * identity


def fit(directions: Array, cov_x: Array, cov_y: Array, floor: float) -> Controls:
    """Controls for unit directions (L, d) and covariances (d, d), all float64.

    `floor` is the relative deviation of θᵀAθ below which it is taken for rounding: of the order of √eps.
    """
    xp, (n, d) = _arrays.namespace(directions), directions.shape
    covariances = (cov_x, cov_y)
    forms = tuple(((directions @ c) * directions).sum(1) for c in covariances)
    alpha, beta = ((d * f - c.trace()) / _positive(c.trace()) for f, c in zip(forms, covariances, strict=True))
    square_x, square_y, product = (_mean_product(p, q) for p, q in ((cov_x, cov_x), (cov_y, cov_y), (cov_x, cov_y)))
    s, t = alpha + beta, alpha - beta
    means = square_x + 2 * product + square_y, square_x - square_y, square_x - 2 * product + square_y
    # Scales only bring the columns to order 1 for the ridge: the fit does not depend on them.
    s_scale, t_scale = (xp.sqrt(m.clip(floor**2)) for m in (means[0], means[2]))
    u, v = s / s_scale, t / t_scale
    exact = means[0] / s_scale**2, means[1] / (s_scale * t_scale), means[2] / t_scale**2
    columns = xp.stack([xp.ones_like(u), u, v, u * u - exact[0], u * v - exact[1], v * v - exact[2]], 1)
    ridge = xp.eye(6, dtype=columns.dtype, **_device(columns)) * (_RIDGE * n)
    ridge[0, 0] = 0
    inverse = xp.linalg.inv(columns.T @ columns + ridge)
    weights = columns @ inverse[0]
    return Controls(weights, directions, covariances, forms, columns, inverse, (s, t), (s_scale, t_scale))


def _mean_product(p: Array, q: Array) -> Array:
    """The mean over the sphere of (θᵀPθ/E - 1)(θᵀQθ/E - 1), E their own means; 0 where one of them is 0."""
    d, traces = len(p), p.trace() * q.trace()
    xp = _arrays.namespace(p)
    return xp.where(traces > 0, 2 * (d * (p * q).sum() / _positive(traces) - 1) / (d + 2), xp.zeros_like(traces))


def _positive(trace: Array) -> Array:
    """A trace to divide by: 1 for a cloud that is a single point."""
    xp = _arrays.namespace(trace)
    return xp.where(trace > 0, trace, xp.ones_like(trace))


def _stack(*scalars: Array) -> Array:
    return _arrays.namespace(scalars[0]).stack(scalars)


def _device(x: Array) -> dict[str, object]:
    return {"device": x.device} if _arrays.is_torch(x) else {}
