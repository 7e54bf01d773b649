"""PyTorch's distributions on the line, as quantile functions."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

from .._core import backend
from .._core.backend import Array
from .univariate import (
    Univariate,
    beta_quantile,
    by_shape,
    gamma_quantile,
    location_scale,
    student_quantile,
)

_EULER = 0.57721566490153286


def _t() -> Any:
    return backend.torch_module()


def normal_level(u: Array, v: Array) -> Array:
    """The standard normal's quantile function, from the nearer tail."""
    tail = _t().special.ndtri(_t().minimum(u, v))
    return _t().where(u < v, tail, -tail)


def _laplace_level(u: Array, v: Array) -> Array:
    return _t().log((2 * u).clip(max=1)) - _t().log((2 * v).clip(max=1))


def _gumbel_level(u: Array, v: Array) -> Array:
    return -_t().log(_t().where(u < v, -_t().log(u), -_t().log1p(-v)))


def _exponential_level(u: Array, v: Array) -> Array:
    return _t().where(u < v, -_t().log1p(-u), -_t().log(v))


def _half_normal_level(u: Array, v: Array) -> Array:
    return _t().where(u < v, sqrt(2) * _t().erfinv(u.clip(max=0.5)), -_t().special.ndtri(v / 2))


def _wide(*parameters: Array) -> list[Array]:
    return [x.to(_t().float64) for x in parameters]


def normal(mean: Array, scale: Array) -> Univariate:
    """N(mean, scale²) by its quantile function."""
    mean, scale = _wide(mean, scale)
    return location_scale("normal", mean, scale, normal_level, 0.0, 1.0)


def _laplace(x: Any) -> Univariate:
    loc, scale = _wide(x.loc, x.scale)
    return location_scale("laplace", loc, scale, _laplace_level, 0.0, sqrt(2))


def _uniform(x: Any) -> Univariate:
    low, high = _wide(x.low, x.high)
    return location_scale("uniform", low, high - low, lambda u, v: u, 0.5, 1 / sqrt(12))


def _gumbel(x: Any) -> Univariate:
    loc, scale = _wide(x.loc, x.scale)
    return location_scale("gumbel", loc, scale, _gumbel_level, _EULER, pi / sqrt(6))


def _exponential(x: Any) -> Univariate:
    (rate,) = _wide(x.rate)
    return location_scale("exponential", 0 * rate, 1 / rate, _exponential_level, 1.0, 1.0)


def _half_normal(x: Any) -> Univariate:
    (scale,) = _wide(x.scale)
    return location_scale("half normal", 0 * scale, scale, _half_normal_level, sqrt(2 / pi), sqrt(1 - 2 / pi))


def _log_normal(x: Any) -> Univariate:
    loc, scale = _wide(x.loc, x.scale)
    return Univariate(lambda u, v: _t().exp(loc + scale * normal_level(u, v)), loc + scale, log_mean=loc, log_std=scale)


def _weibull(x: Any) -> Univariate:
    scale, k = _wide(x.scale, x.concentration)
    return Univariate(lambda u, v: scale * _exponential_level(u, v) ** (1 / k), scale + k)


def _pareto(x: Any) -> Univariate:
    scale, alpha = _wide(x.scale, x.alpha)
    _finite_variance("Pareto", "alpha", alpha)
    return Univariate(lambda u, v: scale * _t().exp(_exponential_level(u, v) / alpha), scale + alpha)


def _kumaraswamy(x: Any) -> Univariate:
    a, b = _wide(x.concentration1, x.concentration0)
    return Univariate(lambda u, v: (-_t().expm1(-_exponential_level(u, v) / b)) ** (1 / a), a + b)


def _gamma(x: Any) -> Univariate:
    a, rate = _wide(x.concentration, x.rate)
    return by_shape(0.0, 1 / rate, gamma_quantile, a)


def _beta(x: Any) -> Univariate:
    a, b = _wide(*_t().broadcast_tensors(x.concentration1, x.concentration0))
    return by_shape(0.0, 1.0, beta_quantile, a, b)


def _student(x: Any) -> Univariate:
    df, loc, scale = _wide(x.df, x.loc, x.scale)
    _finite_variance("StudentT", "df", df)
    return by_shape(loc, scale, student_quantile, df)


def _finite_variance(kind: str, name: str, shape: Array) -> None:
    if backend.inspectable(shape) and not bool((shape > 2).all()):
        raise ValueError(f"{kind} has a finite variance, and so a W2, only for {name} > 2; got {float(shape.min()):g}")


# The first of these that a distribution is an instance of; a Chi2 is a Gamma.
FAMILIES: dict[str, Callable[[Any], Univariate]] = {
    "Normal": lambda x: normal(x.loc, x.scale),
    "LogNormal": _log_normal,
    "Laplace": _laplace,
    "Uniform": _uniform,
    "Gumbel": _gumbel,
    "Exponential": _exponential,
    "HalfNormal": _half_normal,
    "Weibull": _weibull,
    "Pareto": _pareto,
    "Kumaraswamy": _kumaraswamy,
    "Gamma": _gamma,
    "Beta": _beta,
    "StudentT": _student,
}


def read(x: Any) -> Univariate | None:
    """A distribution of PyTorch on the line, or None."""
    for name, reader in FAMILIES.items():
        if isinstance(x, getattr(_t().distributions, name)):
            return reader(x)
    return None
