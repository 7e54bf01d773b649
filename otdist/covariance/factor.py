"""A covariance by a factor of it."""

from __future__ import annotations

from typing import Any

from .._core import backend, checks
from .._core.backend import Array
from .base import Covariance, largest_number, parameter, refuse_overflow


class Factor(Covariance):
    """root rootᵀ: a Cholesky factor, a low-rank factor, or centred samples divided by √(n - 1).

    Parameters
    ----------
    root : (..., d, r)
        Any real matrix; without columns (r = 0) it stands for a point mass.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import covariance, gaussian
    >>> x, y = covariance.Factor(np.array([[3.0], [0.0]])), covariance.Factor(np.array([[0.0], [4.0]]))
    >>> float(gaussian.w2_squared(np.zeros(2), x, np.zeros(2), y))
    25.0
    """

    _fields = ("root",)
    root: Array

    def __init__(self, root: Any) -> None:
        self.root = parameter("root", root, "(..., d, r)", 2)
        checks.nonempty("root", self.root, -2, "coordinate")

    @property
    def d(self) -> int:
        return int(self.root.shape[-2])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.root.shape[:-2])

    @property
    def core_ndims(self) -> tuple[int, ...]:
        return (2,)

    @property
    def r(self) -> int:
        """The number of columns, a bound on the rank."""
        return int(self.root.shape[-1])

    @property
    def root_columns(self) -> int:
        return self.r

    def to_dense(self) -> Array:
        with backend.silent_overflow(self.root):
            dense = self.root @ self.root.mT
        refuse_overflow("root rootᵀ", dense)
        return dense

    def size(self) -> Array:
        return largest_number(self.root, 2)

    def divided(self, unit: Array) -> Covariance:
        return self.with_parameters([self.root / unit[..., None, None]])

    def trace(self) -> Array:
        return (self.root**2).sum((-2, -1))

    def trace_gradient(self) -> tuple[Array, ...]:
        return (2 * self.root,)

    def apply_root(self, v: Array) -> Array:
        return self.root @ v

    def apply_root_transposed(self, v: Array) -> Array:
        return self.root.mT @ v

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        return ((matrix + matrix.mT) @ self.root,)

    def gradient_low_rank(self, w: Array) -> tuple[Array, ...]:
        return (2 * w @ (w.mT @ self.root),)
