"""What two distributions are compared by: means and covariances, mixtures of them, or quantile functions."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core import backend
from .._core.backend import Array
from ..covariance import Covariance, Diagonal, Factor
from ..covariance.base import unchecked
from .univariate import Univariate


class Gaussian(NamedTuple):
    """Gaussians with a batch shape: numbers (event 0) or vectors (event 1), one by one or in products."""

    event: int
    mean: Array
    scale: Array | None = None  # standard deviations, where coordinates are independent
    cov: Any = None
    joined: int = 0  # how many of the last batch dimensions count the members of one product

    @property
    def covariance(self) -> Any:
        return self.cov if self.scale is None else unchecked(Diagonal, self.scale**2)

    def join(self, n: int) -> Gaussian:
        """The product over the last n batch dimensions: of numbers, the last becomes the coordinates."""
        if n and self.event == 0:
            return self._replace(event=1, joined=n - 1)
        return self._replace(joined=self.joined + n)

    def affine(self, loc: Any, scale: Any) -> Gaussian:
        """The distribution of loc + scale x."""
        mean = loc + scale * self.mean
        if self.scale is not None:
            return self._replace(mean=mean, scale=abs(scale) * self.scale)
        return self._replace(mean=mean, cov=_stretched(self.cov, scale))

    def astype(self, dtype: Any) -> Gaussian:
        cast = (None if x is None else backend.astype(x, dtype) for x in (self.mean, self.scale))
        mean, scale = cast
        return self._replace(mean=mean, scale=scale, cov=_cast(self.cov, dtype))


class Mixture(NamedTuple):
    """Mixtures of Gaussians: weights (..., k), means (..., k, d), covariances (..., k, d, d)."""

    event: int
    weights: Array
    mean: Array
    cov: Any
    joined: int = 0

    def join(self, n: int) -> Mixture | None:
        """A product of mixtures is a larger mixture: not compared."""
        return None if n else self

    def affine(self, loc: Any, scale: Any) -> Mixture:
        loc, scale = (self._per_component(x) for x in (loc, scale))
        return self._replace(mean=loc + scale * self.mean, cov=_stretched(self.cov, scale))

    def _per_component(self, x: Any) -> Any:
        """A shift or scale with the axes of components, and of coordinates if these are numbers."""
        if not backend.is_torch(x):
            return x
        return x[..., None, None] if self.event == 0 else x[..., None, :] if x.ndim else x

    def astype(self, dtype: Any) -> Mixture:
        weights, mean = (backend.astype(x, dtype) for x in (self.weights, self.mean))
        return self._replace(weights=weights, mean=mean, cov=_cast(self.cov, dtype))


class Product(NamedTuple):
    """Independent numbers with any distribution, the last ``joined`` batch dimensions being the coordinates."""

    base: Univariate
    joined: int = 0

    def join(self, n: int) -> Product:
        return self._replace(joined=self.joined + n)

    def affine(self, loc: Any, scale: Any) -> Product:
        return self._replace(base=self.base.affine(loc, scale))

    def astype(self, dtype: Any) -> Product:
        return self  # quantiles are always float64


Description = Gaussian | Mixture | Product


def as_mixture(x: Gaussian | Mixture) -> Mixture:
    """A Gaussian as a mixture with one component."""
    if isinstance(x, Mixture):
        return x
    mean, scale = (None if z is None else z[..., None] if x.event == 0 else z for z in (x.mean, x.scale))
    cov = x.cov if scale is None else unchecked(Diagonal, scale**2)
    cov = cov.expand(-1) if isinstance(cov, Covariance) else cov[..., None, :, :]
    ones = backend.namespace(x.mean).ones_like(mean[..., :1])  # type: ignore[index]
    return Mixture(x.event, ones, mean[..., None, :], cov)  # type: ignore[index]


def _stretched(cov: Any, scale: Any) -> Any:
    """D cov D with D = diag(scale), or scale times the identity."""
    rows = scale[..., :, None] if backend.is_torch(scale) and scale.ndim else scale
    if isinstance(cov, Factor):
        return unchecked(Factor, rows * cov.root)
    if isinstance(cov, Diagonal):
        return unchecked(Diagonal, scale**2 * cov.variance)
    columns = scale[..., None, :] if backend.is_torch(scale) and scale.ndim else scale
    return rows * cov * columns


def _cast(cov: Any, dtype: Any) -> Any:
    if isinstance(cov, Covariance):
        return cov.with_parameters([backend.astype(x, dtype) for x in cov.parameters("").values()])
    return None if cov is None else backend.astype(cov, dtype)
