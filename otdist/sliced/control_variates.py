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

from .._core import backend
from .._core.backend import Array
from . import products

# A ridge on the standardised controls, relative to the number of directions: it silences what only rounding moves.
_RIDGE = 1e-6


class Controls(NamedTuple):
    """Weights of the directions with sum 1, and what their derivative needs. Scalars are Python's: they cost less."""

    weights: Array  # (L,)
    directions: Array  # (L, d)
    covariances: Array  # (2, d, d)
    forms: Array  # θᵀAθ and θᵀBθ, (2, L)
    traces: list[float]  # tr A, tr B
    products: list[list[float]]  # tr AA, tr AB; tr BA, tr BB
    columns: Array  # (L, 6)
    inverse: Array  # (6, 6)
    deviations: Array  # (2, L): s and t, the sum and the difference of a/E a - 1 and b/E b - 1
    scales: tuple[float, float]

    def left_out(self, values: Array, size: int) -> Array:
        """How much the weighted mean of values (L,) changes when a block of `size` directions is left out, each block.

        That is w_gᵀ (1 - H_gg)⁻¹ r_g, r the residuals and H the hat matrix: the jackknife, in closed form.
        """
        xp, (n, k) = backend.namespace(values), self.columns.shape
        residual = values - self.columns @ (self.inverse @ (self.columns.T @ values))
        padding = -n % size  # an incomplete last block, of directions that weigh nothing
        columns, residual, weights = (
            xp.concatenate([z, xp.zeros_like(z[:padding])]) for z in (self.columns, residual, self.weights)
        )
        columns = columns.reshape(-1, size, k)
        if padding:
            columns[-1, -padding:] = 0
        leverage = columns @ self.inverse @ columns.mT
        kept = xp.eye(size, dtype=values.dtype, **_device(values)) * (1 + _RIDGE) - leverage
        exact = xp.linalg.solve(kept, residual.reshape(-1, size, 1))[..., 0]
        return (weights.reshape(-1, size) * exact).sum(-1)

    def slopes(self, values: Array) -> tuple[Array, Array]:
        """The derivative of Σ weights · values by A and B, the values (L,) held fixed: (d, d) each, symmetric."""
        s, t = self.deviations
        coefficients = self.inverse @ (self.columns.T @ values)
        residual = values - self.columns @ coefficients
        by_column = residual[:, None] * self.inverse[0] - self.weights[:, None] * coefficients
        by_s, by_t, by_ss, by_st, by_tt = (by_column / self._units(by_column)).T[1:]
        along_s = by_s + 2 * s * by_ss + t * by_st
        along_t = by_t + s * by_st + 2 * t * by_tt
        by_mean = [-float(z.sum()) for z in (by_ss, by_st, by_tt)]
        product = 2 * (by_mean[0] - by_mean[2])
        return (
            self._by_covariance(0, along_s + along_t, sum(by_mean), product),
            self._by_covariance(1, along_s - along_t, by_mean[0] - by_mean[1] + by_mean[2], product),
        )

    def _units(self, like: Array) -> Array:
        s, t = self.scales
        units = [1.0, s, t, s * s, s * t, t * t]
        return like.new_tensor(units) if backend.is_torch(like) else units

    def _by_covariance(self, side: int, by_deviation: Array, by_square: float, by_product: float) -> Array:
        """Chain from a/E a - 1, E a² and E ab (of those deviations) to one covariance."""
        a, b, theta = self.covariances[side], self.covariances[1 - side], self.directions
        d, trace, other = len(a), self.traces[side], self.traces[1 - side]
        if trace <= 0:  # a cloud that is one point: nothing to turn, and no deviation to speak of
            return a * 0
        square, product = self.products[side][side], self.products[0][1]
        common = 2 * d / (d + 2)
        slope = (
            products.gram(theta * (by_deviation * (d / trace))[:, None], theta)
            + (2 * common * by_square / trace**2) * a
        )
        onto = -float(by_deviation @ self.forms[side]) * d / trace**2 - 2 * common * by_square * square / trace**3
        if other > 0:
            slope += (common * by_product / (trace * other)) * b
            onto -= common * by_product * product / (trace**2 * other)
        diagonal = slope.diagonal() if backend.is_torch(slope) else slope.reshape(-1)[:: d + 1]
        diagonal += onto
        return slope


def fit(directions: Array, cov_x: Array, cov_y: Array, floor: float) -> Controls:
    """Controls for unit directions (L, d) and covariances (d, d), all float64.

    `floor` is the relative deviation of θᵀAθ below which it is taken for rounding: of the order of √eps.
    """
    xp, (n, d) = backend.namespace(directions), directions.shape
    covariances = xp.stack([cov_x, cov_y])
    forms = xp.stack([(products.project(directions, c) * directions).sum(-1) for c in covariances])
    flat = covariances.reshape(2, -1)
    traces, traced = flat[:, :: d + 1].sum(-1).tolist(), (flat @ flat.T).tolist()
    alpha, beta = (f * (d / t) - 1 if t > 0 else f * 0 for f, t in zip(forms, traces, strict=True))
    square_x, square_y, product = (
        # The mean over the sphere of (θᵀPθ/E - 1)(θᵀQθ/E - 1), E their own means.
        2 * (d * traced[p][q] / (traces[p] * traces[q]) - 1) / (d + 2) if traces[p] > 0 < traces[q] else 0.0
        for p, q in ((0, 0), (1, 1), (0, 1))
    )
    s, t = alpha + beta, alpha - beta
    means = square_x + 2 * product + square_y, square_x - square_y, square_x - 2 * product + square_y
    # Scales only bring the columns to order 1 for the ridge: the fit does not depend on them.
    s_scale, t_scale = (max(m, floor**2) ** 0.5 for m in (means[0], means[2]))
    u, v = s / s_scale, t / t_scale
    exact = means[0] / s_scale**2, means[1] / (s_scale * t_scale), means[2] / t_scale**2
    columns = xp.stack([xp.ones_like(u), u, v, u * u - exact[0], u * v - exact[1], v * v - exact[2]], 1)
    normal = columns.T @ columns
    diagonal = normal.diagonal() if backend.is_torch(normal) else normal.reshape(-1)[::7]
    diagonal[1:] += _RIDGE * n
    inverse = xp.linalg.inv(normal)
    weights = columns @ inverse[0]
    return Controls(
        weights,
        directions,
        covariances,
        forms,
        traces,
        traced,
        columns,
        inverse,
        xp.stack([s, t]),
        (s_scale, t_scale),
    )


def _device(x: Array) -> dict[str, object]:
    return {"device": x.device} if backend.is_torch(x) else {}
