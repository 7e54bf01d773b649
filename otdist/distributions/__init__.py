"""``otdist.w2(p, q)`` between distribution objects of PyTorch or SciPy: where ``kl_divergence(q, p)`` stood.

A pair is compared by the structure that both show: two diagonal Gaussians cost O(d), as `otdist.diagonal`; a Cholesky
factor is used as one; distributions on the line are compared by their quantile functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .. import diagonal, gaussian
from .._core import backend
from .._core.annotations import Frozen
from .._core.backend import Array
from . import registry, scipy_reading, torch_reading, torch_univariate, univariate
from .descriptions import Description, Gaussian, Mixture, Product, as_mixture
from .registry import register_w2

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

__all__ = ["register_w2", "w2", "w2_squared"]


@overload
def w2_squared(p: Distribution, q: Distribution) -> Tensor: ...
@overload
def w2_squared(p: Frozen, q: Frozen) -> np.ndarray: ...
def w2_squared(p: Any, q: Any) -> Array:
    """Squared 2-Wasserstein distance of two distributions.

    - Gaussians (Normal, MultivariateNormal, LowRankMultivariateNormal): closed form, a Normal's coordinates one by one.
    - Mixtures of Gaussians (MixtureSameFamily), or one and a Gaussian: `otdist.gaussian.mixture_w2_squared`, MW2², an
      upper bound on W2², the minimum over Gaussian mixtures.
    - Two Laplace, Uniform, Gumbel, Exponential, HalfNormal or LogNormal: closed form.
    - Any other two on the line (the above, Weibull, Pareto, Kumaraswamy, Gamma, Chi2, Beta, StudentT): quadrature of
      the quantile functions in float64, to 1e-10 of the distributions' second moments.

    Independent adds over the dimensions that it joins. A TransformedDistribution by affine transforms, composed,
    inverted or negative, is what it makes of its base. Subclasses are what they are derived from. Of SciPy: frozen
    ``norm`` and ``multivariate_normal``, and every continuous distribution on the line with a finite variance, by
    quadrature: as exactly as SciPy knows the quantiles, of f and pearson3 for example to levels of 1e-15 from above,
    and to 1e-6 where a density has kinks, as triang's. Levels end at 1e-300, beyond which a tail that is hardly
    integrable has something left: of a StudentT's second moment 10^(600/df - 300), 3 % at df = 2.01. More distributions
    can be added by `register_w2`.

    Parameters
    ----------
    p, q
        Both of ``torch.distributions``, or both frozen of ``scipy.stats``. Scales are standard deviations there too: a
        network that gives log-variances means ``Normal(mean, (0.5 * log_variance).exp())``.

    Returns
    -------
    (...)
        With the broadcast batch shape of the pair, as ``kl_divergence`` returns it: one value for each element of a
        Normal, one for each vector of the rest. Floating dtypes promote as PyTorch promotes them, under autocast too.
        Differentiable in the parameters that the distributions were made from; in the shape parameters of Gamma, Beta
        and StudentT once only, by central differences, to 1e-8 of the gradient, or of the second moment over the shape.

    Raises
    ------
    NotImplementedError
        For any other pair, naming both types and what would work.
    ValueError
        If the shapes of the two do not fit, or a variance is infinite.

    Examples
    --------
    >>> import otdist
    >>> from scipy.stats import norm
    >>> float(otdist.w2_squared(norm(0, 1), norm(3, 5)))
    25.0
    """
    found = _normals(p, q)
    if found is None:
        return _general(p, q, squared=True)
    shift, stretch, joined = found
    each = backend.namespace(shift).addcmul(shift * shift, stretch, stretch)
    return each.sum(tuple(range(-joined, 0))) if joined else each


@overload
def w2(p: Distribution, q: Distribution) -> Tensor: ...
@overload
def w2(p: Frozen, q: Frozen) -> np.ndarray: ...
def w2(p: Any, q: Any) -> Array:
    """2-Wasserstein distance of two distributions, the root of `w2_squared`; its gradient is 0 where it is 0.

    Examples
    --------
    >>> import otdist
    >>> from scipy.stats import norm
    >>> float(otdist.w2(norm(0, 1), norm(3, 5)))
    5.0
    """
    found = _normals(p, q)
    if found is None:
        return _general(p, q, squared=False)
    (*differences, joined), torch = found, backend.torch_module()
    flat = (x.flatten(-joined) if joined else x[..., None] for x in differences)
    return backend.norm(torch.cat(tuple(flat), -1))


def _normals(p: Any, q: Any) -> tuple[Array, Array, int] | None:
    """The commonest pair, without ceremony: torch has checked the parameters, and promotes them.

    The differences of means and scales, and how many of the last dimensions are joined.
    """
    torch, joined = backend.torch_module(), 0
    if torch is None or not registry.empty():
        return None
    if type(p) is torch.distributions.Independent and type(q) is torch.distributions.Independent:
        joined = p.reinterpreted_batch_ndims
        if joined != q.reinterpreted_batch_ndims:
            return None
        p, q = p.base_dist, q.base_dist
    if type(p) is not torch.distributions.Normal or type(q) is not torch.distributions.Normal:
        return None
    if joined and p.loc.shape[-joined:] != q.loc.shape[-joined:]:
        return None
    shift, stretch = p.loc - q.loc, p.scale - q.scale
    return (shift, stretch, joined) if shift.dtype.itemsize >= 4 else None


def _general(p: Any, q: Any, *, squared: bool) -> Array:
    value = _by_registered_formula(p, q)
    if value is not None:
        return value if squared else backend.root(value) if hasattr(value, "dtype") else value**0.5
    x, y = _read(p), _read(q)
    if x is None or y is None or _library(p) != _library(q):
        raise NotImplementedError(_refusal(p, q))
    if _library(p) != "torch":
        return _compared(p, q, x, y, squared)
    torch = backend.torch_module()
    one, two = torch_reading.parameter(p), torch_reading.parameter(q)
    dtype, device = _promoted(torch, one, two), one.device.type  # type: ignore[union-attr]
    x, y = x.astype(dtype), y.astype(dtype)
    with torch.autocast(device_type=device, enabled=False):
        return backend.astype(_compared(p, q, x, y, squared), dtype)


def _promoted(torch: Any, one: Array, two: Array) -> Any:
    """``torch.result_type``, in a way that a compiler can follow: a number without dimensions does not decide."""
    if bool(one.ndim) != bool(two.ndim):
        return one.dtype if one.ndim else two.dtype
    return one.dtype if one.dtype == two.dtype else torch.promote_types(one.dtype, two.dtype)


def _by_registered_formula(p: Any, q: Any) -> Array | None:
    formula = registry.find(p, q)
    if formula is not None:
        return formula(p, q)
    joined = getattr(p, "reinterpreted_batch_ndims", None)
    if joined is None or joined != getattr(q, "reinterpreted_batch_ndims", None):
        return None
    value = _by_registered_formula(p.base_dist, q.base_dist)
    return value.sum(tuple(range(-joined, 0))) if value is not None and joined else value


def _compared(p: Any, q: Any, x: Description, y: Description, squared: bool) -> Array:
    """The distance of two descriptions of one library and dtype."""
    if isinstance(x, Gaussian) and isinstance(y, Gaussian):
        if (x.event, x.joined) != (y.event, y.joined):
            raise NotImplementedError(_refusal(p, q))
        return _gaussians(x, y, squared)
    if isinstance(x, Product) or isinstance(y, Product):
        one, two = _as_product(x), _as_product(y)
        if one is None or two is None or one.joined != two.joined:
            raise NotImplementedError(_refusal(p, q))
        value = univariate.w2_squared(one.base, two.base)
        value = value.sum(tuple(range(-one.joined, 0))) if one.joined else value
    else:
        if x.event != y.event or x.joined or y.joined:
            raise NotImplementedError(_refusal(p, q))
        value = _mixtures(as_mixture(x), as_mixture(y))
    return value if squared else backend.root(value.clip(0, None))


def _as_product(x: Description) -> Product | None:
    """Independent numbers by their quantile functions, where a description shows that they are independent."""
    if isinstance(x, Product):
        return x
    if isinstance(x, Mixture) or x.scale is None:
        return None
    reading = torch_univariate if backend.is_torch(x.mean) else scipy_reading
    return Product(reading.normal(x.mean, x.scale), x.event + x.joined)


def _gaussians(x: Gaussian, y: Gaussian, squared: bool) -> Array:
    if squared or x.joined:
        of_diagonal, of_gaussian = diagonal.w2_squared, gaussian.w2_squared
    else:
        of_diagonal, of_gaussian = diagonal.w2, gaussian.w2
    if x.scale is None or y.scale is None:
        value = of_gaussian(x.mean, x.covariance, y.mean, y.covariance)
    elif x.event == 0:  # every number is a distribution of its own
        value = of_diagonal(*(a[..., None] for a in (x.mean, x.scale, y.mean, y.scale)))
    else:
        value = of_diagonal(x.mean, x.scale, y.mean, y.scale)
    value = value.sum(tuple(range(-x.joined, 0))) if x.joined else value
    return value if squared or not x.joined else backend.root(value)


def _mixtures(x: Mixture, y: Mixture) -> Array:
    return gaussian.mixture_w2_squared(x.weights, x.mean, x.cov, y.weights, y.mean, y.cov)


def _read(x: Any) -> Description | None:
    torch = backend.torch_module()
    if torch is not None and isinstance(x, torch.distributions.Distribution):
        return torch_reading.read(x)
    return scipy_reading.read(x) if _library(x) == "scipy" else None


def _library(x: Any) -> str:
    torch = backend.torch_module()
    if torch is not None and isinstance(x, torch.distributions.Distribution):
        return "torch"
    return next((name for kind in type(x).__mro__ if (name := kind.__module__.partition(".")[0]) == "scipy"), "")


def _refusal(p: Any, q: Any) -> str:
    supported = {"torch": torch_reading.SUPPORTED, "scipy": scipy_reading.SUPPORTED}
    libraries = [name for name in supported if name in (_library(p), _library(q))] or list(supported)
    listed = ". ".join(f"Of {name}: {supported[name]}" for name in libraries)
    own = registry.registered()
    return (
        f"w2 between {_name(p)} and {_name(q)} is not available. Both must be of one library and have one event shape. "
        f"{listed}. Registered by otdist.register_w2: {own or 'nothing'}; it adds a formula for a pair of types"
    )


def _name(x: Any) -> str:
    inner = f"({_name(x.base_dist)}, {x.reinterpreted_batch_ndims})" if hasattr(x, "reinterpreted_batch_ndims") else ""
    kind = getattr(getattr(x, "dist", None), "name", "")
    return f"{type(x).__module__}.{type(x).__qualname__}{inner}" + (f" of {kind}" if kind else "")


def __dir__() -> list[str]:
    return __all__
