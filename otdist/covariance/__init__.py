"""Covariances with structure. Any of them stands where a (..., d, d) array stands, and mixes with any other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array

__all__ = ["Circulant", "Covariance", "Diagonal", "Factor", "Isotropic", "Kronecker"]


class Covariance(ABC):
    """A positive semidefinite matrix (..., d, d), by fewer numbers than d²."""

    _fields: tuple[str, ...] = ()

    @property
    @abstractmethod
    def d(self) -> int:
        """The number of coordinates."""

    @property
    @abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix that this stands for, (..., d, d)."""
        return (*self.batch_shape, self.d, self.d)

    @property
    def ndim(self) -> int:
        """The number of dimensions of the matrix that this stands for."""
        return len(self.shape)

    @abstractmethod
    def to_dense(self) -> Array:
        """The matrix itself, (..., d, d)."""

    @abstractmethod
    def trace(self) -> Array:
        """The trace, (...)."""

    @abstractmethod
    def half(self, v: Array) -> Array:
        """Sᵀ v for a factor S of this covariance, S Sᵀ; v is (..., d, r)."""

    def slope(self, grad: np.ndarray) -> np.ndarray:
        """The gradient in the parameter, from the gradient (..., d, d) in the matrix."""
        raise NotImplementedError(f"{type(self).__name__} has more than one parameter: see pull_back")

    def pull_back(self, grad: np.ndarray) -> Any:
        """`slope`, summed over the batch that shares this covariance."""
        (part,) = self.parts("").values()
        return backend.sum_to(np.asarray(self.slope(grad)), np.shape(part))

    def parts(self, name: str) -> dict[str, Array]:
        """The arrays that this consists of, by names for messages."""
        return {f"{name}.{field}": getattr(self, field) for field in self._fields}

    def with_parts(self, parts: Sequence[Array]) -> Covariance:
        """The same structure over other arrays."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, **dict(zip(self._fields, parts, strict=True)))
        return new

    def expand(self, axis: int) -> Covariance:
        """The same with a new batch axis of length 1, counted from the end of the batch shape."""
        return self.with_parts([_insert(p, axis, len(self.batch_shape)) for p in self.parts("").values()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape})"


class Dense(Covariance):
    """A matrix without structure; arrays are wrapped in it."""

    _fields = ("matrix",)

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix

    @property
    def d(self) -> int:
        return int(self.matrix.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.matrix.shape[:-2])

    def to_dense(self) -> Array:
        return self.matrix

    def trace(self) -> Array:
        return backend.namespace(self.matrix).diagonal(self.matrix, 0, -2, -1).sum(-1)

    def half(self, v: Array) -> Array:
        raise NotImplementedError("a dense covariance is factored by the operators that take one")

    def parts(self, name: str) -> dict[str, Array]:
        return {name: self.matrix}

    def slope(self, grad: np.ndarray) -> np.ndarray:
        return grad


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

    def __init__(self, variance: Any) -> None:
        self.variance = _parameter("variance", variance, "(..., d)", 1)
        checks.nonnegative("variance", self.variance)

    @property
    def d(self) -> int:
        return int(self.variance.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.variance.shape[:-1])

    def to_dense(self) -> Array:
        xp = backend.namespace(self.variance)
        return self.variance[..., None] * xp.eye(self.d, dtype=self.variance.dtype, device=self.variance.device)

    def trace(self) -> Array:
        return self.variance.sum(-1)

    def half(self, v: Array) -> Array:
        return backend.root(self.variance)[..., None] * v

    def slope(self, grad: np.ndarray) -> np.ndarray:
        return np.diagonal(grad, 0, -2, -1)


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

    def __init__(self, variance: Any, d: int) -> None:
        self.variance = _parameter("variance", variance, "(...)", 0)
        checks.nonnegative("variance", self.variance)
        self._d = checks.positive_integer("d", d)

    @property
    def d(self) -> int:
        return self._d

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.variance.shape)

    def to_dense(self) -> Array:
        xp = backend.namespace(self.variance)
        return self.variance[..., None, None] * xp.eye(self.d, dtype=self.variance.dtype, device=self.variance.device)

    def trace(self) -> Array:
        return self.d * self.variance

    def half(self, v: Array) -> Array:
        return backend.root(self.variance)[..., None, None] * v

    def slope(self, grad: np.ndarray) -> np.ndarray:
        return np.trace(grad, 0, -2, -1)


class Factor(Covariance):
    """root rootᵀ: a Cholesky factor, a low-rank factor, or centred samples divided by √(n - 1).

    Parameters
    ----------
    root : (..., d, r)
        Any real matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import covariance, gaussian
    >>> x, y = covariance.Factor(np.array([[3.0], [0.0]])), covariance.Factor(np.array([[0.0], [4.0]]))
    >>> float(gaussian.w2_squared(np.zeros(2), x, np.zeros(2), y))
    25.0
    """

    _fields = ("root",)

    def __init__(self, root: Any) -> None:
        self.root = _parameter("root", root, "(..., d, r)", 2)

    @property
    def d(self) -> int:
        return int(self.root.shape[-2])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.root.shape[:-2])

    @property
    def r(self) -> int:
        """The number of columns, a bound on the rank."""
        return int(self.root.shape[-1])

    def to_dense(self) -> Array:
        return self.root @ self.root.mT

    def trace(self) -> Array:
        return (self.root**2).sum((-2, -1))

    def half(self, v: Array) -> Array:
        return self.root.mT @ v

    def slope(self, grad: np.ndarray) -> np.ndarray:
        return (grad + grad.mT) @ self.root


class Circulant(Covariance):
    """A stationary field on a periodic grid, in one dimension or more.

    Such a covariance is diagonal in the Fourier basis: row i holds c[(i - j) mod n], and the eigenvalues are the
    real Fourier transform of c.

    Parameters
    ----------
    spectrum : (..., n // 2 + 1) or (..., n₁, ..., n_k // 2 + 1)
        The eigenvalues on the grid of ``numpy.fft.rfftn``: real and at least 0.
    shape : int or tuple of ints, optional
        The grid, (n₁, ..., n_k); coordinates are its points in row-major order. Needed for two dimensions or more and
        for an odd n; by default one dimension with n = 2 (length of the spectrum - 1).

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import covariance
    >>> covariance.Circulant(np.fft.rfft([2.0, 1.0, 0.0, 1.0]).real).to_dense()
    array([[2., 1., 0., 1.],
           [1., 2., 1., 0.],
           [0., 1., 2., 1.],
           [1., 0., 1., 2.]])
    """

    _fields = ("spectrum",)

    def __init__(self, spectrum: Any, shape: int | Sequence[int] | None = None) -> None:
        self.spectrum = _parameter("spectrum", spectrum, "(..., n // 2 + 1)", 1)
        checks.nonnegative("spectrum", self.spectrum)
        if shape is None:
            shape = max(1, 2 * (self.spectrum.shape[-1] - 1))
        grid = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        self.grid = tuple(checks.positive_integer("shape", n) for n in grid)
        half_grid = (*self.grid[:-1], self.grid[-1] // 2 + 1)
        if tuple(self.spectrum.shape[-len(grid) :]) != half_grid:
            raise ValueError(
                f"spectrum must have shape (..., {', '.join(map(str, half_grid))}) on a grid {self.grid}; "
                f"got {tuple(self.spectrum.shape)}"
            )
        self._check_mirror()

    def _check_mirror(self) -> None:
        """On the planes that are their own mirror images, a real covariance has a symmetric spectrum."""
        if len(self.grid) == 1 or not backend.inspectable(self.spectrum):
            return
        v, axes = backend.as_numpy(self.spectrum), tuple(range(-len(self.grid), -1))
        planes = v[..., [0, -1] if self.grid[-1] % 2 == 0 else [0]]
        mirror = np.roll(np.flip(planes, axes), 1, axes)
        if (np.abs(planes - mirror) > 1e-5 * np.abs(v).max(initial=0)).any():
            raise ValueError(
                "spectrum must be symmetric, spectrum[-k] = spectrum[k], in the first and last planes of its last "
                f"axis; it differs from its mirror image by up to {np.abs(planes - mirror).max():g}"
            )

    @property
    def d(self) -> int:
        return prod(self.grid)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.spectrum.shape[: -len(self.grid)])

    @property
    def eigenvalues(self) -> Array:
        """The distinct eigenvalues, (..., m); `multiplicity` says how often each counts."""
        return self.spectrum.reshape(*self.batch_shape, -1)

    @property
    def multiplicity(self) -> np.ndarray:
        """How often each of the `eigenvalues` counts: twice, except in planes that are their own mirror images."""
        last = np.full(self.grid[-1] // 2 + 1, 2.0)
        last[0] = 1.0
        if self.grid[-1] % 2 == 0:
            last[-1] = 1.0
        return np.broadcast_to(last, (*self.grid[:-1], len(last))).ravel()

    def to_dense(self) -> Array:
        row = backend.irfftn(self.spectrum, self.grid).reshape(*self.batch_shape, self.d)
        points = np.indices(self.grid).reshape(len(self.grid), -1)
        lag = (points[:, :, None] - points[:, None, :]) % np.array(self.grid)[:, None, None]
        return row[..., backend.index(np.ravel_multi_index(tuple(lag), self.grid), row)]

    def trace(self) -> Array:
        return (self.eigenvalues * backend.like(self.multiplicity, self.spectrum)).sum(-1)

    def half(self, v: Array) -> Array:
        batch, r = v.shape[:-2], v.shape[-1]
        field = v.mT.reshape(*batch, r, *self.grid)
        gain = backend.root(self.spectrum).reshape(*self.batch_shape, 1, *self.spectrum.shape[-len(self.grid) :])
        out = backend.irfftn(gain * backend.rfftn(field, self.grid), self.grid)
        return out.reshape(*out.shape[: -len(self.grid)], self.d).mT

    def slope(self, grad: np.ndarray) -> np.ndarray:
        # ∂/∂λ_k = (multiplicity of k) · Re v_k* G v_k, the mean over shifts of G transformed
        points = np.indices(self.grid).reshape(len(self.grid), -1)
        lag = (points[:, :, None] - points[:, None, :]) % np.array(self.grid)[:, None, None]
        flat = np.ravel_multi_index(tuple(lag), self.grid)
        sums = np.zeros((*grad.shape[:-2], self.d))
        for shift in range(self.d):
            sums[..., shift] = grad[..., flat == shift].sum(-1)
        spectrum = backend.rfftn(sums.reshape(*grad.shape[:-2], *self.grid), self.grid).real / self.d
        return spectrum * self.multiplicity.reshape(spectrum.shape[-len(self.grid) :])


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

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = (
            c if isinstance(c, Covariance) else Dense(_parameter(name, c, "(..., d, d)", 2))
            for name, c in (("left", left), ("right", right))
        )
        checks.arrays(**self.parts("Kronecker"))
        checks.batch({"left": self.left.batch_shape, "right": self.right.batch_shape})

    @property
    def d(self) -> int:
        return self.left.d * self.right.d

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.left.batch_shape, self.right.batch_shape)

    def parts(self, name: str) -> dict[str, Array]:
        return {**self.left.parts(f"{name}.left"), **self.right.parts(f"{name}.right")}

    def with_parts(self, parts: Sequence[Array]) -> Covariance:
        cut = len(self.left.parts(""))
        new = object.__new__(Kronecker)
        new.left, new.right = self.left.with_parts(parts[:cut]), self.right.with_parts(parts[cut:])
        return new

    def expand(self, axis: int) -> Covariance:
        new = object.__new__(Kronecker)
        new.left, new.right = self.left.expand(axis), self.right.expand(axis)
        return new

    def to_dense(self) -> Array:
        left, right = self.left.to_dense(), self.right.to_dense()
        product = left[..., :, None, :, None] * right[..., None, :, None, :]
        return product.reshape(*product.shape[:-4], self.d, self.d)

    def trace(self) -> Array:
        return self.left.trace() * self.right.trace()

    def half(self, v: Array) -> Array:
        p, q, r = self.left.d, self.right.d, v.shape[-1]
        z = self.left.half(v.reshape(*v.shape[:-2], p, q * r))
        rows = z.shape[-2]
        z = z.reshape(*z.shape[:-2], rows, q, r)
        batch = np.broadcast_shapes(z.shape[:-3], self.batch_shape)
        z = backend.broadcast_to(z, (*batch, rows, q, r))
        z = backend.moveaxis(z, -3, -2).reshape(*batch, q, rows * r)
        z = self.right.half(z)
        cols = z.shape[-2]
        return backend.moveaxis(z.reshape(*z.shape[:-2], cols, rows, r), -2, -3).reshape(*batch, rows * cols, r)

    def pull_back(self, grad: np.ndarray) -> Any:
        p, q = self.left.d, self.right.d
        g = grad.reshape(*grad.shape[:-2], p, q, p, q)
        left = np.einsum("...iajb,...ab->...ij", g, self.right.to_dense())
        right = np.einsum("...iajb,...ij->...ab", g, self.left.to_dense())
        return self.left.pull_back(left), self.right.pull_back(right)


def as_covariance(cov: Any) -> Covariance:
    """A covariance argument as an object; anything without structure is wrapped, and checked later."""
    return cov if isinstance(cov, Covariance) else Dense(cov)


def validate_covariance(name: str, cov: Covariance) -> Covariance:
    """What is checked at the door of a function; a dense matrix comes back exactly symmetric."""
    if isinstance(cov, Dense):
        return Dense(checks.covariance(name, cov.matrix))
    if isinstance(cov, Kronecker):
        new = object.__new__(Kronecker)
        new.left, new.right = (
            validate_covariance(f"{name}.left", cov.left),
            validate_covariance(f"{name}.right", cov.right),
        )
        return new
    return cov


def _parameter(name: str, value: Any, words: str, ndim: int) -> Array:
    (x,), cast_back = checks.arrays(**{name: value})
    checks.shape(name, x, words, ndim)
    checks.finite(name, x)
    return cast_back(x)


def _insert(part: Array, axis: int, batch: int) -> Array:
    """Insert a batch axis of length 1 at ``axis``, counted from the end of the batch."""
    position = batch + 1 + axis
    return part if position < 0 else part.reshape(*part.shape[:position], 1, *part.shape[position:])
