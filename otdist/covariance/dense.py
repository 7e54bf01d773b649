"""A covariance without structure."""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array
from .base import Covariance


class Dense(Covariance):
    """A matrix without structure; arrays are wrapped in it."""

    _fields = ("matrix",)
    matrix: Array

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix

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

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        return (matrix,)

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        """On the null space the subgradients are everything below the one-sided slope: its negative part is least."""
        (grad,), xp = grads, backend.namespace(self.matrix)
        eigenvalues, vectors = xp.linalg.eigh(self.matrix)
        tolerance = self.d * backend.epsilon(eigenvalues) * eigenvalues[..., -1:]
        null = vectors * backend.astype(eigenvalues <= tolerance, vectors.dtype)[..., None, :]
        slopes, directions = xp.linalg.eigh(null.mT @ grad @ null)
        rising = null @ (directions * slopes.clip(0, None)[..., None, :] ** 0.5)
        return (grad - rising @ rising.mT,)
