"""Independent coordinates, with a variance each."""

from __future__ import annotations

from typing import Any

from .._core import backend, checks
from .._core.backend import Array
from .base import Covariance, at_border, parameter


class Diagonal(Covariance):
    """Independent coordinates.

    Parameters
    ----------
    variance : (..., d)
        Variances (not standard deviations), at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import covariance, gaussian
    >>> x, y = covariance.Diagonal(np.array([1.0, 4.0])), covariance.Diagonal(np.array([4.0, 1.0]))
    >>> float(gaussian.w2_squared(np.zeros(2), x, np.zeros(2), y))
    2.0
    """

    _fields = ("variance",)
    variance: Array

    def __init__(self, variance: Any) -> None:
        self.variance = parameter("variance", variance, "(..., d)", 1, nonnegative=True)
        checks.nonempty("variance", self.variance, -1, "coordinate")

    @property
    def d(self) -> int:
        return int(self.variance.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.variance.shape[:-1])

    @property
    def core_ndims(self) -> tuple[int, ...]:
        return (1,)

    def to_dense(self) -> Array:
        xp = backend.namespace(self.variance)
        return self.variance[..., None] * xp.eye(self.d, dtype=self.variance.dtype, device=self.variance.device)

    def trace(self) -> Array:
        return self.variance.sum(-1)

    def trace_gradient(self) -> tuple[Array, ...]:
        return (backend.namespace(self.variance).ones_like(self.variance),)

    def apply_root(self, v: Array) -> Array:
        return backend.root(self.variance)[..., None] * v

    apply_root_transposed = apply_root

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        return (backend.namespace(matrix).diagonal(matrix, 0, -2, -1),)

    def gradient_low_rank(self, w: Array) -> tuple[Array, ...]:
        return ((w * w).sum(-1),)

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        return (at_border(self.variance, grads[0]),)
