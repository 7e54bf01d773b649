"""One variance for every direction."""

from __future__ import annotations

from .._core import backend, checks
from .._core.annotations import AnyArray
from .._core.backend import Array
from .base import Covariance, at_border, parameter


class Isotropic(Covariance):
    """One variance for every coordinate and direction.

    Parameters
    ----------
    variance : (...)
        At least 0.
    d : int
        The number of coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import covariance, gaussian
    >>> one, four = covariance.Isotropic(1.0, 3), covariance.Isotropic(4.0, 3)
    >>> float(gaussian.w2_squared(np.zeros(3), one, np.zeros(3), four))
    3.0
    """

    _fields = ("variance",)
    _static = ("_d",)
    variance: Array

    def __init__(self, variance: AnyArray, d: int) -> None:
        self.variance = parameter("variance", variance, "(...)", 0, nonnegative=True)
        self._d = checks.positive_integer("d", d)

    @property
    def d(self) -> int:
        return self._d

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.variance.shape)

    @property
    def core_ndims(self) -> tuple[int, ...]:
        return (0,)

    def to_dense(self) -> Array:
        xp = backend.namespace(self.variance)
        return self.variance[..., None, None] * xp.eye(self.d, dtype=self.variance.dtype, device=self.variance.device)

    def trace(self) -> Array:
        return self.d * self.variance

    def trace_gradient(self) -> tuple[Array, ...]:
        return (self.d * backend.namespace(self.variance).ones_like(self.variance),)

    def apply_root(self, v: Array) -> Array:
        return backend.root(self.variance)[..., None, None] * v

    apply_root_transposed = apply_root

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        return (backend.namespace(matrix).diagonal(matrix, 0, -2, -1).sum(-1),)

    def gradient_low_rank(self, w: Array) -> tuple[Array, ...]:
        return ((w * w).sum((-2, -1)),)

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        return (at_border(self.variance, grads[0]),)
