"""Distributions on the line, by their quantile functions: ``W2² = ∫ (F⁻¹(u) - G⁻¹(u))² du`` over (0, 1).

Two of one family of location and scale have a closed form, (difference of means)² + (difference of deviations)², and so
have two log-normals; the rest is quadrature, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from .quadrature import NODES

Quantile = Callable[[Array, Array], Array]  # of the level and its complement
SYMMETRIC = ("normal", "laplace", "uniform")


class Univariate(NamedTuple):
    """A distribution on the line, or a batch of them."""

    quantile: Quantile
    reference: Array  # an array of the parameters' type, device, dtype and shape
    family: str = ""  # of location and scale, where it is one, with
    mean: Any = None
    std: Any = None
    log_mean: Any = None  # of a log-normal
    log_std: Any = None

    def affine(self, loc: Any, scale: Any) -> Univariate:
        """The distribution of loc + scale x."""

        def quantile(u: Array, v: Array) -> Array:
            xp = backend.namespace(u)
            positive = xp.as_tensor(scale, device=u.device) > 0 if backend.is_torch(u) else np.asarray(scale) > 0
            return loc + scale * xp.where(positive, self.quantile(u, v), self.quantile(v, u))

        family = self.family if self.family in SYMMETRIC else ""
        std = abs(scale) * self.std if family else None
        reference = self.reference * scale + loc
        return Univariate(quantile, reference, family, loc + scale * self.mean if family else None, std)


def w2_squared(p: Univariate, q: Univariate) -> Array:
    """The squared distance, in the broadcast batch shape."""
    if p.family and p.family == q.family:
        return (p.mean - q.mean) ** 2 + (p.std - q.std) ** 2
    if p.log_std is not None and q.log_std is not None:
        return _log_normal(p, q)
    shape = np.broadcast_shapes(p.reference.shape, q.reference.shape)
    u, v, weight = (_beside(x, p.reference, len(shape)) for x in NODES)
    return (weight * (p.quantile(u, v) - q.quantile(u, v)) ** 2).sum(0)


def _log_normal(p: Univariate, q: Univariate) -> Array:
    """(e^a - e^b)² + 2 (e^(a + b) - e^c), with a = μ + σ² and c = μ + μ' + (σ + σ')²/2: a + b - c = (σ - σ')²/2."""
    xp = backend.namespace(p.reference)
    a, b = p.log_mean + p.log_std**2, q.log_mean + q.log_std**2
    c = p.log_mean + q.log_mean + (p.log_std + q.log_std) ** 2 / 2
    return (xp.exp(b) * xp.expm1(a - b)) ** 2 + 2 * xp.exp(c) * xp.expm1((p.log_std - q.log_std) ** 2 / 2)


def _beside(x: np.ndarray, reference: Array, batch: int) -> Array:
    """Nodes (n, 1, ..., 1) in float64, of the reference's library and device."""
    x = x.reshape(-1, *(1,) * batch)
    if not backend.is_torch(reference):
        return x
    torch = backend.torch_module()
    return torch.as_tensor(x, dtype=torch.float64, device=reference.device)


def location_scale(family: str, loc: Array, scale: Array, standard: Quantile, mean: float, std: float) -> Univariate:
    """loc + scale z, with the quantile function, mean and standard deviation of z."""

    def quantile(u: Array, v: Array) -> Array:
        return loc + scale * standard(u, v)

    return Univariate(quantile, loc + scale, family, loc + scale * mean, scale * std)


def by_shape(loc: Any, scale: Any, special: Operator, *shapes: Array) -> Univariate:
    """loc + scale z, with a quantile function of z that has parameters of its own."""

    def quantile(u: Array, v: Array) -> Array:
        return loc + scale * special(*shapes, u, v)

    return Univariate(quantile, loc + scale * shapes[0])


# Quantile functions that only SciPy has; their derivatives in the shape by central differences, to some ten digits.


def _special_quantile(name: str, function: Callable[..., np.ndarray], n_shapes: int) -> Operator:
    def kernel(*arrays: Array, needs_input_grad: tuple[bool, ...]) -> tuple[Array, tuple[Array | None, ...]]:
        numbers = [np.asarray(x.cpu() if backend.is_torch(x) else x, np.float64) for x in arrays]
        shapes, levels = numbers[:n_shapes], numbers[n_shapes:]
        value = function(*shapes, *levels)
        # Nobody differentiates in the levels, which are nodes; torch.func asks for everything.
        grads: list[Array | None] = [np.zeros(value.shape) if need else None for need in needs_input_grad]
        for i in range(n_shapes):
            if needs_input_grad[i]:
                step = shapes[i] * np.finfo(float).eps ** (1 / 3)
                more, less = ([*shapes[:i], shapes[i] + sign * step, *shapes[i + 1 :]] for sign in (1, -1))
                grads[i] = (function(*more, *levels) - function(*less, *levels)) / (2 * step)
        return _back(value, arrays[0]), tuple(None if g is None else _back(g, arrays[0]) for g in grads)

    return Operator(name, kernel, core_ndims=(0,) * (n_shapes + 2))


def _back(x: np.ndarray, reference: Array) -> Array:
    return backend.like(x, reference) if backend.is_torch(reference) else np.asarray(x)


def _gamma(a: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    from scipy import special

    return np.where(u < v, special.gammaincinv(a, u), special.gammainccinv(a, v))


def _beta(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.where(u < v, _beta_from_below(a, b, u), 1 - _beta_from_below(b, a, v))


def _beta_from_below(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The beta distribution's quantiles, close to 0 by the first two terms of their series: there SciPy's may be NaN.

    ``x = w + (b - 1) / (a + 1) w² + O(b w)³`` with ``w = (a B(a, b) p)^(1/a)``, DLMF 8.17.7 inverted.
    """
    from scipy import special

    with np.errstate(all="ignore"):  # the part of each that is not chosen
        w = np.exp((np.log(p) + np.log(a) + special.betaln(a, b)) / a)
        series = w * (1 + (b - 1) / (a + 1) * w)
        return np.where((1 + b) * w < np.finfo(float).eps ** 0.5, series, special.betaincinv(a, b, p))


def _student(df: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    from scipy import special

    p = np.minimum(u, v)
    # Far out stdtrit overflows: there the tail is that of a beta distribution.
    x = special.betaincinv(df / 2, 0.5, 2 * np.minimum(p, 1e-3))
    size = np.where(p < 1e-3, np.sqrt(df * (1 / x - 1)), -special.stdtrit(df, np.maximum(p, 1e-3)))
    return np.where(u < v, -size, size)


gamma_quantile = _special_quantile("gamma_quantile", _gamma, 1)
beta_quantile = _special_quantile("beta_quantile", _beta, 2)
student_quantile = _special_quantile("student_quantile", _student, 1)
