"""What every covariance answers, structured or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.scale import OutOfRange

Structure = tuple[Any, ...]


class Covariance(ABC):
    """A positive semidefinite matrix (..., d, d), by fewer numbers than d².

    A new structure names its parameters and says what the matrix is and how a gradient in the matrix becomes one in the
    parameters; everything else has a dense default, to be overridden where the structure allows less work. Which
    pairs of structures are compared without forming a matrix is said by the table in ``otdist.gaussian.pairs``.
    """

    # The attributes that hold the parameters, and those that say how to read them (a grid, a dimension): plain numbers.
    _fields: tuple[str, ...] = ()
    _static: tuple[str, ...] = ()

    @property
    @abstractmethod
    def d(self) -> int:
        """The number of coordinates."""

    @property
    @abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions."""

    @abstractmethod
    def to_dense(self) -> Array:
        """The matrix itself, (..., d, d)."""

    @abstractmethod
    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        """The gradient in each parameter, from the gradient (..., d, d) in the matrix."""

    @property
    @abstractmethod
    def core_ndims(self) -> tuple[int, ...]:
        """How many trailing dimensions of each parameter are not batch."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix that this stands for, (..., d, d)."""
        return (*self.batch_shape, self.d, self.d)

    @property
    def ndim(self) -> int:
        """The number of dimensions of the matrix that this stands for."""
        return len(self.batch_shape) + 2

    # With a dense default.

    def trace(self) -> Array:
        """The trace, (...)."""
        matrix = self.to_dense()
        return backend.namespace(matrix).diagonal(matrix, 0, -2, -1).sum(-1)

    def trace_gradient(self) -> tuple[Array, ...]:
        """The gradient of the trace in each parameter."""
        matrix = self.to_dense()
        return self.gradient(backend.namespace(matrix).eye(self.d, dtype=matrix.dtype, device=matrix.device))

    @property
    def root_columns(self) -> int:
        """The number of columns of the root S, cov = S Sᵀ."""
        return self.d

    def apply_root(self, v: Array) -> Array:
        """S v for v (..., `root_columns`, r)."""
        return symmetric_root(self.to_dense()) @ v

    def apply_root_transposed(self, v: Array) -> Array:
        """Sᵀ v for v (..., d, r)."""
        return symmetric_root(self.to_dense()) @ v

    def gradient_low_rank(self, w: Array) -> tuple[Array, ...]:
        """`gradient` of w wᵀ, for w (..., d, r)."""
        return self.gradient(w @ w.mT)

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        """The subgradient of least norm, from the one-sided derivatives at the border of the domain."""
        return grads

    def size(self) -> Array:
        """The root of the largest parameter (...): a number near the largest standard deviation."""
        (values,), (core,) = self.parameters("").values(), self.core_ndims
        return backend.root(largest_number(values, core))

    def divided(self, unit: Array) -> Covariance:
        """The covariance of the coordinates divided by ``unit`` (...)."""
        (values,), (core,) = self.parameters("").values(), self.core_ndims
        wide = unit[(..., *(None,) * core)]
        return self.with_parameters([values / wide / wide])

    # The same for all structures.

    def parameters(self, name: str) -> dict[str, Array]:
        """The arrays that this consists of, by names for messages."""
        return {f"{name}.{field}": getattr(self, field) for field in self._fields}

    @property
    def structure(self) -> Structure:
        """Everything but the parameters, hashable: `from_structure` makes the object again."""
        return (type(self), *(getattr(self, field) for field in self._static))

    @classmethod
    def _over(cls, static: tuple[Any, ...], parameters: Sequence[Array]) -> Covariance:
        new = object.__new__(cls)
        for field, value in zip(cls._static + cls._fields, (*static, *parameters), strict=True):
            setattr(new, field, value)
        return new

    def with_parameters(self, parameters: Sequence[Array]) -> Covariance:
        """The same structure over other arrays, unchecked."""
        return from_structure(self.structure, parameters)

    def per_argument(self, grads: Sequence[Any]) -> Any:
        """The gradients as `w2_squared_and_grad` returns them: one array, or nested pairs for a product."""
        return grads[0] if len(grads) == 1 else tuple(grads)

    def expand(self, axis: int) -> Covariance:
        """The same with a new batch axis of length 1, counted from the end of the batch shape."""
        batch = len(self.batch_shape)
        return self.with_parameters([_insert(p, axis, batch) for p in self.parameters("").values()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape})"


def from_structure(structure: Structure, parameters: Sequence[Array]) -> Covariance:
    """The covariance with this `Covariance.structure` and these parameters, unchecked."""
    kind, *static = structure
    covariance: Covariance = kind._over(tuple(static), parameters)
    return covariance


def unchecked(kind: type[Covariance], *parameters: Array, **static: Any) -> Covariance:
    """A covariance over arrays that need no checks."""
    return kind._over(tuple(static.values()), parameters)


def parameter(name: str, value: Any, words: str, ndim: int, *, nonnegative: bool = False) -> Array:
    """A constructor's argument as an array of its own dtype, checked; values of half precision are read in float32."""
    (x,), cast_back = checks.arrays(**{name: value})
    checks.shape(name, x, words, ndim)
    checks.finite(name, x)
    if nonnegative:
        try:
            checks.nonnegative(name, x)
        except ValueError as error:
            raise ValueError(f"{error}; a log-variance becomes a variance by exp") from None
    return cast_back(x)


def refuse_overflow(name: str, x: Array) -> None:
    """Refuse what was finite and is not any more, where values can be seen."""
    if backend.inspectable(x) and not np.isfinite(backend.as_numpy(x)).all():
        raise OutOfRange(f"{name} is beyond the range of {backend.dtype_name(x)}; divide the covariances by some c²")


def largest_number(values: Array, core: int) -> Array:
    """The largest absolute value along the last axes (..., core)."""
    if not core:
        return abs(values)
    axes = tuple(range(-core, 0))
    return abs(values).sum(axes) if 0 in values.shape else backend.namespace(values).amax(abs(values), axes)


def at_least_float32(x: Array) -> Array:
    """Half precision as float32: few operations know it."""
    return backend.astype(x, backend.namespace(x).float32) if x.dtype.itemsize < 4 else x


def symmetric_root(matrix: Array) -> Array:
    """The symmetric square root of positive semidefinite matrices (..., d, d)."""
    xp = backend.namespace(matrix)
    eigenvalues, vectors = xp.linalg.eigh(matrix)
    return (vectors * eigenvalues.clip(0, None)[..., None, :] ** 0.5) @ vectors.mT


def at_border(value: Array, slope: Array) -> Array:
    """The subgradient of least norm of a convex function of a number >= 0: at 0 nothing above the one-sided slope."""
    return backend.namespace(slope).where(value > 0, slope, slope.clip(None, 0))


def _insert(part: Array, axis: int, batch: int) -> Array:
    """Insert a batch axis of length 1 at ``axis``, counted from the end of the batch."""
    position = batch + 1 + axis
    return part if position < 0 else part.reshape(*part.shape[:position], 1, *part.shape[position:])
