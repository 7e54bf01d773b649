"""SciPy's frozen distributions, described."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.backend import Array
from .descriptions import Description, Gaussian, Product
from .univariate import Univariate, location_scale

SUPPORTED = "norm, multivariate_normal, and every continuous distribution on the line with a finite variance"

# Farther out, some of SciPy's quantile functions are wrong or infinite (those of t are, at 1e-200).
_LOWEST = 1e-150
# Below, the complement of a level is 1, and quantiles that SciPy takes at the complement are infinite.
_ROUNDED = 1e-15


def read(x: Any) -> Description | None:
    """A frozen distribution as what it is compared by, or None if it is not one that we know."""
    if getattr(getattr(x, "dist", None), "name", "") == "norm":
        return Gaussian(0, np.asarray(x.mean()), scale=np.asarray(x.std()))
    if type(x).__name__ == "multivariate_normal_frozen":
        return Gaussian(1, np.asarray(x.mean), cov=np.asarray(x.cov))
    if any(kind.__name__ == "rv_continuous_frozen" for kind in type(x).__mro__):
        return Product(_univariate(x))
    return None


def _univariate(x: Any) -> Univariate:
    mean, variance = np.asarray(x.mean()), np.asarray(x.var())
    if not np.isfinite(mean + variance).all():
        raise ValueError(f"{x.dist.name} has no finite variance with these parameters, and so no finite W2")

    def quantile(u: Array, v: Array) -> Array:
        with np.errstate(all="ignore"):  # the half of each that is not chosen
            found = np.where(u < v, x.ppf(np.maximum(u, _LOWEST)), x.isf(np.maximum(v, _LOWEST)))
        missing = ~np.isfinite(found) & (np.minimum(u, v) < _ROUNDED)
        if not missing.any():
            return found
        # A tail that SciPy does not know starts where it does.
        ends = (np.where(missing, sign * np.inf, found) for sign in (1, -1))
        return np.where(missing, np.where(u < v, next(ends).min(0), next(ends).max(0)), found)

    return Univariate(quantile, mean)


def normal(mean: Array, scale: Array) -> Univariate:
    """N(mean, scale²) by its quantile function."""
    return location_scale("normal", mean, scale, _normal_level, 0.0, 1.0)


def _normal_level(u: Array, v: Array) -> Array:
    from scipy.special import ndtri

    tail = ndtri(np.minimum(u, v))
    return np.where(u < v, tail, -tail)
