"""``otdist.w2(p, q)`` between distribution objects of PyTorch or SciPy: where ``kl_divergence(q, p)`` stood.

A pair is compared by the structure that both show: two diagonal Gaussians cost O(d), as `otdist.diagonal`; a Cholesky
factor is used as one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import covariance, diagonal, gaussian
from ._core import backend
from ._core.backend import Array

__all__ = ["w2", "w2_squared"]


class _Gaussian(NamedTuple):
    """Gaussians with a batch shape: numbers (event 0) or vectors (event 1), one by one or in products."""

    event: int
    mean: Array
    scale: Array | None = None  # standard deviations, where coordinates are independent
    cov: Any = None
    factors: int = 0  # how many of the last batch dimensions count the factors of one product


def w2_squared(p: Any, q: Any) -> Array:
    """Squared 2-Wasserstein distance of two distributions.

    Parameters
    ----------
    p, q
        Both of ``torch.distributions``: Normal, Independent, MultivariateNormal, LowRankMultivariateNormal; or both
        frozen of ``scipy.stats``: norm, multivariate_normal.

    Returns
    -------
    (...)
        With the broadcast batch shape of the pair, as ``kl_divergence`` returns it: one value for each element of a
        Normal, one for each vector of the rest. Differentiable in the distributions' parameters.

    Raises
    ------
    NotImplementedError
        For any other pair, naming both types.
    ValueError
        If the shapes of the two do not fit.

    Examples
    --------
    >>> import otdist
    >>> from scipy.stats import norm
    >>> float(otdist.w2_squared(norm(0, 1), norm(3, 5)))
    25.0
    """
    return _between(*_comparable(p, q), diagonal.w2_squared, gaussian.w2_squared)


def w2(p: Any, q: Any) -> Array:
    """2-Wasserstein distance of two distributions, the root of `w2_squared`; its gradient is 0 where it is 0.

    Examples
    --------
    >>> import otdist
    >>> from scipy.stats import norm
    >>> float(otdist.w2(norm(0, 1), norm(3, 5)))
    5.0
    """
    x, y = _comparable(p, q)
    if x.factors:
        return backend.root(_between(x, y, diagonal.w2_squared, gaussian.w2_squared))
    return _between(x, y, diagonal.w2, gaussian.w2)


def _between(x: _Gaussian, y: _Gaussian, of_diagonal: Any, of_gaussian: Any) -> Array:
    if x.scale is None or y.scale is None:
        value = of_gaussian(x.mean, _covariance(x), y.mean, _covariance(y))
    elif x.event == 0:  # every number is a distribution of its own
        value = of_diagonal(*(a[..., None] for a in (x.mean, x.scale, y.mean, y.scale)))
    else:
        value = of_diagonal(x.mean, x.scale, y.mean, y.scale)
    return value.sum(tuple(range(-x.factors, 0))) if x.factors else value


def _covariance(x: _Gaussian) -> Any:
    return x.cov if x.scale is None else covariance.Diagonal(x.scale**2)


def _comparable(p: Any, q: Any) -> tuple[_Gaussian, _Gaussian]:
    x, y = _read(p), _read(q)
    if x is None or y is None or (x.event, x.factors) != (y.event, y.factors) or _library(p) != _library(q):
        raise NotImplementedError(f"w2 between {_name(p)} and {_name(q)} is not available")
    return x, y


def _library(x: Any) -> str:
    return type(x).__module__.partition(".")[0]


def _name(x: Any) -> str:
    inner = f"({_name(x.base_dist)}, {x.reinterpreted_batch_ndims})" if hasattr(x, "reinterpreted_batch_ndims") else ""
    kind = getattr(getattr(x, "dist", None), "name", "")
    return f"{type(x).__module__}.{type(x).__qualname__}{inner}" + (f" of {kind}" if kind else "")


def _read(x: Any) -> _Gaussian | None:
    """A distribution as means and covariances, or None if it is not one that we know."""
    torch = backend.torch_module()
    if torch is not None and isinstance(x, torch.distributions.Distribution):
        return _read_torch(torch.distributions, x)
    return _read_scipy(x) if _library(x) == "scipy" else None


def _read_torch(library: Any, x: Any) -> _Gaussian | None:
    if type(x) is library.Normal:
        return _Gaussian(0, x.loc, scale=x.scale)
    if type(x) is library.Independent:
        base, joined = _read(x.base_dist), x.reinterpreted_batch_ndims
        if base is None or joined == 0:
            return base
        if base.event == 0:  # the last dimension becomes the coordinates, those before it count factors
            return base._replace(event=1, factors=joined - 1)
        return base._replace(factors=base.factors + joined)
    if type(x) is library.MultivariateNormal:
        # The parameter that was given is the leaf; a covariance goes in as it is, anything else by its factor.
        given = x.__dict__.get("covariance_matrix")
        return _Gaussian(1, x.loc, cov=covariance.Factor(x.scale_tril) if given is None else given)
    if type(x) is library.LowRankMultivariateNormal:
        return _Gaussian(1, x.loc, cov=x.covariance_matrix)
    return None


def _read_scipy(x: Any) -> _Gaussian | None:
    import numpy as np

    if getattr(getattr(x, "dist", None), "name", "") == "norm":
        return _Gaussian(0, np.asarray(x.mean()), scale=np.asarray(x.std()))
    if type(x).__name__ == "multivariate_normal_frozen":
        return _Gaussian(1, np.asarray(x.mean), cov=np.asarray(x.cov))
    return None
