"""A covariance without structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from .._core import backend
from .._core.backend import Array
from .base import Covariance


class Dense(Covariance):
    """A matrix without structure; arrays are wrapped in it.

    `precision` is the spacing at 1 of the numbers that the matrix came in, where it has been promoted since, else 0.
    """

    _fields = ("matrix",)
    matrix: Array
    precision = 0.0

    def __init__(self, matrix: Array, precision: float = 0.0) -> None:
        self.matrix, self.precision = matrix, precision

    @property
    def d(self) -> int:
        return int(self.matrix.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.matrix.shape[:-2])

    @property
    def core_ndims(self) -> tuple[int, ...]:
        return (2,)

    def to_dense(self) -> Array:
        return self.matrix

    def parameters(self, name: str) -> dict[str, Array]:
        return {name: self.matrix}

    def with_parameters(self, parameters: Sequence[Array]) -> Dense:
        return Dense(parameters[0], self.precision)

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        return (matrix,)

    @cached_property
    def _eigen(self) -> tuple[Array, Array]:
        """Eigenvalues and vectors; those that are rounding have eigenvalue 0."""
        xp = backend.namespace(self.matrix)
        eigenvalues, vectors = xp.linalg.eigh(self.matrix)
        tolerance = self.d * backend.epsilon(eigenvalues) * eigenvalues[..., -1:]
        return xp.where(eigenvalues > tolerance, eigenvalues, xp.zeros_like(eigenvalues)), vectors

    def apply_root(self, v: Array) -> Array:
        eigenvalues, vectors = self._eigen
        return (vectors * eigenvalues[..., None, :] ** 0.5) @ v

    def apply_root_transposed(self, v: Array) -> Array:
        eigenvalues, vectors = self._eigen
        return (vectors * eigenvalues[..., None, :] ** 0.5).mT @ v

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        """On the null space the subgradients are everything below the one-sided slope: its negative part is least."""
        (eigenvalues, vectors), (grad,) = self._eigen, grads
        if not bool((eigenvalues == 0).any()):
            return grads
        xp = backend.namespace(grad)
        null = vectors * backend.astype(eigenvalues == 0, vectors.dtype)[..., None, :]
        slopes, directions = xp.linalg.eigh(null.mT @ grad @ null)
        rising = null @ (directions * slopes.clip(0, None)[..., None, :] ** 0.5)
        return (grad - rising @ rising.mT,)
