"""Kronecker products of covariances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .base import Covariance, Structure, from_structure, parameter
from .dense import Dense


class Kronecker(Covariance):
    """left ⊗ right: a matrix-variate Gaussian, with coordinates in row-major order of (left, right).

    Parameters
    ----------
    left : (..., p, p)
        An array or any structured covariance.
    right : (..., q, q)
        The same; d = p q.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import covariance
    >>> covariance.Kronecker(np.diag([1.0, 2.0]), np.eye(2)).to_dense().diagonal()
    array([1., 1., 2., 2.])
    """

    left: Covariance
    right: Covariance

    def __init__(self, left: Any, right: Any) -> None:
        if not isinstance(left, Covariance) and not isinstance(right, Covariance):
            (left, right), cast_back = checks.arrays(left=left, right=right)
            left, right = cast_back(left), cast_back(right)
        self.left, self.right = _part("left", left), _part("right", right)
        checks.arrays(**self.parameters("Kronecker"))
        checks.batch({"left": self.left.batch_shape, "right": self.right.batch_shape})

    @classmethod
    def of(cls, left: Covariance, right: Covariance) -> Kronecker:
        """The product of two covariances that need no checks."""
        new = object.__new__(cls)
        new.left, new.right = left, right
        return new

    @property
    def d(self) -> int:
        return self.left.d * self.right.d

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.left.batch_shape, self.right.batch_shape)

    @property
    def core_ndims(self) -> tuple[int, ...]:
        return self.left.core_ndims + self.right.core_ndims

    @property
    def structure(self) -> Structure:
        return (type(self), self.left.structure, self.right.structure)

    @classmethod
    def _over(cls, static: tuple[Any, ...], parameters: Sequence[Array]) -> Covariance:
        left, right = static
        cut = len(parameters) - _count(right)
        return cls.of(from_structure(left, parameters[:cut]), from_structure(right, parameters[cut:]))

    def parameters(self, name: str) -> dict[str, Array]:
        return {**self.left.parameters(f"{name}.left"), **self.right.parameters(f"{name}.right")}

    def per_argument(self, grads: Sequence[Any]) -> Any:
        left, right = self._split(grads)
        return self.left.per_argument(left), self.right.per_argument(right)

    def expand(self, axis: int) -> Covariance:
        return self.of(self.left.expand(axis), self.right.expand(axis))

    def to_dense(self) -> Array:
        left, right = self.left.to_dense(), self.right.to_dense()
        product = left[..., :, None, :, None] * right[..., None, :, None, :]
        return product.reshape(*product.shape[:-4], self.d, self.d)

    def size(self) -> Array:
        return self.left.size() * self.right.size()

    def divided(self, unit: Array) -> Covariance:
        return self.of(self.left.divided(unit), self.right)

    def trace(self) -> Array:
        return self.left.trace() * self.right.trace()

    def trace_gradient(self) -> tuple[Array, ...]:
        left = scaled(self.right.trace(), self.left.trace_gradient(), self.left.core_ndims)
        return left + scaled(self.left.trace(), self.right.trace_gradient(), self.right.core_ndims)

    @property
    def root_columns(self) -> int:
        return self.left.root_columns * self.right.root_columns

    def apply_root(self, v: Array) -> Array:
        v = v.reshape(*v.shape[:-2], self.left.root_columns, self.right.root_columns, v.shape[-1])
        out = _along_first(self.left.apply_root, _along_second(self.right.apply_root, v))
        return out.reshape(*out.shape[:-3], self.d, out.shape[-1])

    def apply_root_transposed(self, v: Array) -> Array:
        out = _along_first(self.left.apply_root_transposed, self._right_root_transposed(self._unflattened(v)))
        return out.reshape(*out.shape[:-3], self.root_columns, out.shape[-1])

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        p, q = self.left.d, self.right.d
        g = matrix.reshape(*matrix.shape[:-2], p, q, p, q)
        xp = backend.namespace(matrix)
        left = xp.einsum("...iajb,...ab->...ij", g, self.right.to_dense())
        right = xp.einsum("...iajb,...ij->...ab", g, self.left.to_dense())
        return self.left.gradient(left) + self.right.gradient(right)

    def gradient_low_rank(self, w: Array) -> tuple[Array, ...]:
        """With w as (p, q, r) and right = S Sᵀ, the gradient in left is z zᵀ with z = Sᵀ w along the second axis."""
        w = self._unflattened(w)
        left = self._right_root_transposed(w)
        right = backend.moveaxis(_along_first(self.left.apply_root_transposed, w), -3, -2)
        return self.left.gradient_low_rank(_merged(left)) + self.right.gradient_low_rank(_merged(right))

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        left, right = self._split(grads)
        return self.left.least_norm(left) + self.right.least_norm(right)

    def _right_root_transposed(self, v: Array) -> Array:
        return _along_second(self.right.apply_root_transposed, v)

    def _unflattened(self, v: Array) -> Array:
        return v.reshape(*v.shape[:-2], self.left.d, self.right.d, v.shape[-1])

    def _split(self, grads: Sequence[Any]) -> tuple[Any, Any]:
        cut = len(self.left.core_ndims)
        return grads[:cut], grads[cut:]


def _part(name: str, value: Any) -> Covariance:
    if isinstance(value, Covariance):
        return value
    matrix = parameter(name, value, "(..., d, d)", 2)
    checks.square(name, matrix)
    checks.nonempty(name, matrix, -1, "coordinate")
    return Dense(matrix)


def scaled(weight: Array, grads: Sequence[Array], core_ndims: Sequence[int]) -> tuple[Array, ...]:
    """Gradients (..., parameter) times one number (...) each."""
    return tuple(weight[(..., *(None,) * core)] * g for g, core in zip(grads, core_ndims, strict=True))


def _count(structure: Structure) -> int:
    """The number of parameters of a structure."""
    kind = structure[0]
    return _count(structure[1]) + _count(structure[2]) if issubclass(kind, Kronecker) else len(kind._fields)


def _along_first(function: Callable[[Array], Array], v: Array) -> Array:
    """Apply a matrix to the first of the axes (p, q, r)."""
    out = function(_merged(v))
    return out.reshape(*out.shape[:-1], *v.shape[-2:])


def _along_second(function: Callable[[Array], Array], v: Array) -> Array:
    """Apply a matrix to the second of the axes (p, q, r)."""
    return backend.moveaxis(_along_first(function, backend.moveaxis(v, -3, -2)), -3, -2)


def _merged(v: Array) -> Array:
    """(..., p, q, r) as (..., p, q r)."""
    return v.reshape(*v.shape[:-2], v.shape[-2] * v.shape[-1])
