"""Control variates for a mean over directions: weights for the directions, and their derivative.

For centred clouds with covariances A and B, the distance along θ depends mostly on a = θᵀAθ and b = θᵀBθ: for Gaussians
it is (√a - √b)². The means of a, b and of their products over the sphere are known exactly,

``E θᵀAθ = tr A / d``, ``E (θᵀAθ)(θᵀBθ) = (tr A tr B + 2 tr AB) / (d (d + 2))``,

so what a fitted quadratic in (a, b) explains need not be averaged at all. Least squares with the variates' deviations
from their means as columns is linear in the values, hence a weighted mean; its weights depend on a and b alone, and
are known before a single sort.

References: Owen (2013), *Monte Carlo theory, methods and examples*, ch. 8.9; Nguyen & Ho (2023), "Control variate
sliced Wasserstein estimators", arXiv:2305.00402; Leluc et al. (2024), arXiv:2402.01493.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array
from . import products

# A ridge on the standardised columns, relative to the number of directions: it silences what only rounding moves.
_RIDGE = 1e-6
# The covariances whose products are looked at.
_PAIRS = ((0, 0), (1, 1), (0, 1))


class ControlVariates(NamedTuple):
    """Weights of the directions with sum 1, and what their derivative needs; b problems."""

    weights: Array  # (b, L)
    directions: Array  # (1, L, d)
    inverses: list[Array]  # 1 / tr A, 1 / tr B; (b,)
    covariances: list[Array]  # A / tr A, B / tr B; (b, d, d)
    forms: list[Array]  # θᵀAθ / tr A, θᵀBθ / tr B; (b, L)
    products: list[Array]  # tr AA, tr BB and tr AB, of those; (b,)
    columns: Array  # (b, L, 6)
    inverse: Array  # (b, 6, 6)
    deviations: tuple[Array, Array]  # (b, L): the sum and the difference of a/E a - 1 and b/E b - 1
    scales: tuple[Array, Array]  # (b,)

    def jackknife_influence(self, values: Array, size: int) -> Array:
        """How much the weighted mean of values (b, L) changes when a block of `size` directions is left out: (b, g).

        That is w_gᵀ (1 - H_gg)⁻¹ r_g, r the residuals and H the hat matrix: the jackknife, in closed form.
        """
        xp, (batch, n, k) = backend.namespace(values), self.columns.shape
        residual = values - (self.columns @ self._coefficients(values))[..., 0]
        padding = -n % size  # an incomplete last block, of directions that weigh nothing
        columns, residual, weights = (
            xp.concatenate([z, xp.zeros_like(z[:, :padding])], 1) for z in (self.columns, residual, self.weights)
        )
        columns = columns.reshape(batch, -1, size, k)
        kept = -(columns @ self.inverse[:, None] @ columns.mT)
        diagonal(kept)[...] += 1 + _RIDGE
        exact = _solve(kept, residual.reshape(batch, -1, size, 1))[..., 0]
        return (weights.reshape(batch, -1, size) * exact).sum(-1)

    def slopes(self, values: Array) -> tuple[Array, Array]:
        """The derivative of Σ weights · values by A and B, the values (b, L) held fixed: (b, d, d) each, symmetric."""
        xp, (s, t), (u, v) = backend.namespace(values), self.deviations, self.scales
        coefficients = self._coefficients(values)
        residual = values[..., None] - self.columns @ coefficients
        by_column = residual * self.inverse[:, :1] - self.weights[..., None] * coefficients.mT
        units = xp.stack([xp.ones_like(u), u, v, u * u, u * v, v * v], -1)
        by_column = by_column / units[:, None]
        by_s, by_t, by_ss, by_st, by_tt = (by_column[..., k] for k in range(1, 6))
        along_s = by_s + 2 * s * by_ss + t * by_st
        along_t = by_t + s * by_st + 2 * t * by_tt
        mean_ss, mean_st, mean_tt = (-by_column[..., k].sum(-1) for k in range(3, 6))
        product = 2 * (mean_ss - mean_tt)
        return (
            self._by_covariance(0, along_s + along_t, mean_ss + mean_st + mean_tt, product),
            self._by_covariance(1, along_s - along_t, mean_ss - mean_st + mean_tt, product),
        )

    def _coefficients(self, values: Array) -> Array:
        return self.inverse @ (self.columns.mT @ values[..., None])

    def _by_covariance(self, side: int, by_deviation: Array, by_square: Array, by_product: Array) -> Array:
        """Chain from a/E a - 1, E a² and E ab (of those deviations) to one covariance."""
        a, b, theta = self.covariances[side], self.covariances[1 - side], self.directions
        d = a.shape[-1]
        by_square, by_product = 4 * d / (d + 2) * by_square, 2 * d / (d + 2) * by_product
        slope = products.gram(theta * (d * by_deviation)[..., None], theta)
        slope = slope + by_square[:, None, None] * a + by_product[:, None, None] * b
        onto = (by_deviation * self.forms[side]).sum(-1) * d
        diagonal(slope)[...] -= (onto + by_square * self.products[side] + by_product * self.products[2])[:, None]
        # A cloud that is one point has nothing to turn, and no deviation to speak of: its slopes are 0.
        return slope * self.inverses[side][:, None, None]


def fit(directions: Array, cov_x: Array, cov_y: Array, floor: float) -> ControlVariates:
    """Control variates for unit directions (1, L, d) and covariances (b, d, d), all float64.

    `floor` is the relative deviation of θᵀAθ below which it is taken for rounding: of the order of √eps.
    """
    xp, (_, n, d) = backend.namespace(directions), directions.shape
    # Divided by their traces at once: the squares of small ones would be 0.
    inverses = [_inverse(diagonal(c).sum(-1)) for c in (cov_x, cov_y)]
    covariances = [c * t[:, None, None] for c, t in zip((cov_x, cov_y), inverses, strict=True)]
    forms = [(products.project(directions, c) * directions).sum(-1) for c in covariances]  # c is symmetric
    seen = [t > 0 for t in inverses]
    alpha, beta = ((d * f - 1) * known[:, None] for f, known in zip(forms, seen, strict=True))
    traced = [(covariances[p] * covariances[q]).sum((-2, -1)) for p, q in _PAIRS]
    square_x, square_y, product = (
        # The mean over the sphere of (θᵀPθ/E - 1)(θᵀQθ/E - 1), E their own means.
        (2 * (d * traced[k] - 1) / (d + 2)) * (seen[p] & seen[q])
        for k, (p, q) in enumerate(_PAIRS)
    )
    s, t = alpha + beta, alpha - beta
    means = square_x + 2 * product + square_y, square_x - square_y, square_x - 2 * product + square_y
    # Scales only bring the columns to order 1 for the ridge: the fit does not depend on them.
    s_scale, t_scale = (xp.sqrt(m.clip(min=floor**2)) for m in (means[0], means[2]))
    u, v = s / s_scale[:, None], t / t_scale[:, None]
    exact = (means[0] / s_scale**2, means[1] / (s_scale * t_scale), means[2] / t_scale**2)
    uu, uv, vv = (z - mean[:, None] for z, mean in zip((u * u, u * v, v * v), exact, strict=True))
    columns = xp.stack([xp.ones_like(u), u, v, uu, uv, vv], -1)
    normal = columns.mT @ columns
    diagonal(normal)[..., 1:] += _RIDGE * n
    # PyTorch's `inv` would wait for a GPU to say that the matrix is regular, which the ridge sees to.
    inverse = xp.linalg.inv_ex(normal).inverse if backend.is_torch(normal) else np.linalg.inv(normal)
    weights = (columns @ inverse[:, :, :1])[..., 0]
    return ControlVariates(
        weights, directions, inverses, covariances, forms, traced, columns, inverse, (s, t), (s_scale, t_scale)
    )


def diagonal(matrices: Array) -> Any:
    """The diagonals of a stack of matrices, as a view that can be written to."""
    return matrices.diagonal(dim1=-2, dim2=-1) if backend.is_torch(matrices) else np.einsum("...ii->...i", matrices)


def _solve(matrices: Array, b: Array) -> Array:
    """PyTorch's without waiting for a GPU to say that the matrices are regular, which the ridge sees to."""
    if backend.is_torch(matrices):
        return backend.torch_module().linalg.solve_ex(matrices, b).result
    return np.linalg.solve(matrices, b)


def _inverse(x: Array) -> Array:
    """1 / x where x is above 0 (and that is a number), else 0."""
    xp = backend.namespace(x)
    positive = x > 1e-300
    return xp.where(positive, 1 / xp.where(positive, x, xp.ones_like(x)), xp.zeros_like(x))
