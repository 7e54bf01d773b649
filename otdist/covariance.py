"""Covariances with structure. Any of them stands where a (..., d, d) array stands, and mixes with any other.

Two rules carry all pairs. Covariances that commute because of their structure (diagonal with isotropic, circulant with
circulant, Kronecker with Kronecker) are compared by their spectra, Σ(√a - √b)². The rest are compared by factors
X = R Rᵀ and Y = S Sᵀ, |R|² + |S|² - 2‖SᵀR‖_*. Nothing dense is formed where the structure avoids it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from . import _arrays, _checks
from ._arrays import Array
from ._autograd.bures import bures_squared as _bures_of_dense
from ._autograd.procrustes import bures_squared_from_root_and_cov, bures_squared_from_roots, nuclear_norm


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
        return _arrays.sum_to(np.asarray(self.slope(grad)), np.shape(part))

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
        return _arrays.namespace(self.matrix).diagonal(self.matrix, 0, -2, -1).sum(-1)

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
        _checks.nonnegative("variance", self.variance)

    @property
    def d(self) -> int:
        return int(self.variance.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.variance.shape[:-1])

    def to_dense(self) -> Array:
        xp = _arrays.namespace(self.variance)
        return self.variance[..., None] * xp.eye(self.d, dtype=self.variance.dtype, device=self.variance.device)

    def trace(self) -> Array:
        return self.variance.sum(-1)

    def half(self, v: Array) -> Array:
        return _arrays.root(self.variance)[..., None] * v

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
        _checks.nonnegative("variance", self.variance)
        self._d = _checks.positive_integer("d", d)

    @property
    def d(self) -> int:
        return self._d

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.variance.shape)

    def to_dense(self) -> Array:
        xp = _arrays.namespace(self.variance)
        return self.variance[..., None, None] * xp.eye(self.d, dtype=self.variance.dtype, device=self.variance.device)

    def trace(self) -> Array:
        return self.d * self.variance

    def half(self, v: Array) -> Array:
        return _arrays.root(self.variance)[..., None, None] * v

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
        _checks.nonnegative("spectrum", self.spectrum)
        if shape is None:
            shape = max(1, 2 * (self.spectrum.shape[-1] - 1))
        grid = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        self.grid = tuple(_checks.positive_integer("shape", n) for n in grid)
        half_grid = (*self.grid[:-1], self.grid[-1] // 2 + 1)
        if tuple(self.spectrum.shape[-len(grid) :]) != half_grid:
            raise ValueError(
                f"spectrum must have shape (..., {', '.join(map(str, half_grid))}) on a grid {self.grid}; "
                f"got {tuple(self.spectrum.shape)}"
            )
        self._check_mirror()

    def _check_mirror(self) -> None:
        """On the planes that are their own mirror images, a real covariance has a symmetric spectrum."""
        if len(self.grid) == 1 or not _arrays.inspectable(self.spectrum):
            return
        v, axes = _arrays.as_numpy(self.spectrum), tuple(range(-len(self.grid), -1))
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
        row = _arrays.irfftn(self.spectrum, self.grid).reshape(*self.batch_shape, self.d)
        points = np.indices(self.grid).reshape(len(self.grid), -1)
        lag = (points[:, :, None] - points[:, None, :]) % np.array(self.grid)[:, None, None]
        return row[..., _arrays.index(np.ravel_multi_index(tuple(lag), self.grid), row)]

    def trace(self) -> Array:
        return (self.eigenvalues * _arrays.like(self.multiplicity, self.spectrum)).sum(-1)

    def half(self, v: Array) -> Array:
        batch, r = v.shape[:-2], v.shape[-1]
        field = v.mT.reshape(*batch, r, *self.grid)
        gain = _arrays.root(self.spectrum).reshape(*self.batch_shape, 1, *self.spectrum.shape[-len(self.grid) :])
        out = _arrays.irfftn(gain * _arrays.rfftn(field, self.grid), self.grid)
        return out.reshape(*out.shape[: -len(self.grid)], self.d).mT

    def slope(self, grad: np.ndarray) -> np.ndarray:
        # ∂/∂λ_k = (multiplicity of k) · Re v_k* G v_k, the mean over shifts of G transformed
        points = np.indices(self.grid).reshape(len(self.grid), -1)
        lag = (points[:, :, None] - points[:, None, :]) % np.array(self.grid)[:, None, None]
        flat = np.ravel_multi_index(tuple(lag), self.grid)
        sums = np.zeros((*grad.shape[:-2], self.d))
        for shift in range(self.d):
            sums[..., shift] = grad[..., flat == shift].sum(-1)
        spectrum = _arrays.rfftn(sums.reshape(*grad.shape[:-2], *self.grid), self.grid).real / self.d
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
        _checks.arrays(**self.parts("Kronecker"))
        _checks.batch({"left": self.left.batch_shape, "right": self.right.batch_shape})

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
        z = _arrays.broadcast_to(z, (*batch, rows, q, r))
        z = _arrays.moveaxis(z, -3, -2).reshape(*batch, q, rows * r)
        z = self.right.half(z)
        cols = z.shape[-2]
        return _arrays.moveaxis(z.reshape(*z.shape[:-2], cols, rows, r), -2, -3).reshape(*batch, rows * cols, r)

    def pull_back(self, grad: np.ndarray) -> Any:
        p, q = self.left.d, self.right.d
        g = grad.reshape(*grad.shape[:-2], p, q, p, q)
        left = np.einsum("...iajb,...ab->...ij", g, self.right.to_dense())
        right = np.einsum("...iajb,...ij->...ab", g, self.left.to_dense())
        return self.left.pull_back(left), self.right.pull_back(right)


def bures_squared(x: Covariance, y: Covariance) -> Array:
    """tr x + tr y - 2 tr (x^½ y x^½)^½ by the cheapest way that the two structures allow."""
    if isinstance(x, Dense) and isinstance(y, Dense):
        return _bures_of_dense(x.matrix, y.matrix)
    for first, second in ((x, y), (y, x)):
        if isinstance(first, Isotropic) and isinstance(second, Kronecker):
            one = _arrays.namespace(first.variance).ones_like(first.variance)
            split = object.__new__(Kronecker)
            split.left = Isotropic(first.variance, second.left.d)
            split.right = Isotropic(one, second.right.d)
            return _kronecker(split, second)
    if isinstance(x, Kronecker) and isinstance(y, Kronecker) and (x.left.d, x.right.d) == (y.left.d, y.right.d):
        return _kronecker(x, y)
    spectra = _common_spectra(x, y)
    if spectra is not None:
        a, b, multiplicity = spectra
        return ((_arrays.root(a) - _arrays.root(b)) ** 2 * multiplicity).sum(-1)
    x, y = _prefer_dense(x), _prefer_dense(y)
    if isinstance(x, Factor) and isinstance(y, Factor):
        return bures_squared_from_roots(x.root, y.root)
    for first, second in ((x, y), (y, x)):
        if isinstance(first, Factor):
            if first.r < first.d and _has_half(second):
                return first.trace() + second.trace() - 2 * nuclear_norm(second.half(first.root))
            return bures_squared_from_root_and_cov(first.root, second.to_dense())
    return _bures_of_dense(x.to_dense(), y.to_dense())


def bures_squared_and_grad(x: Covariance, y: Covariance, batch: tuple[int, ...]) -> tuple[Array, tuple[Any, Any]]:
    """`bures_squared`, broadcast to ``batch``, with its gradient in the parameters of both; NumPy only."""
    spectra = _common_spectra(x, y)
    if spectra is not None:
        return np.broadcast_to(bures_squared(x, y), batch), _slopes_of_spectra(x, y, spectra, batch)
    narrow = [isinstance(c, Factor) and c.r <= c.d for c in (x, y)]
    wide = [_spread(c.root if is_factor else c.to_dense(), batch) for c, is_factor in zip((x, y), narrow, strict=True)]  # type: ignore[attr-defined]
    if all(narrow):
        value, slopes = bures_squared_from_roots.value_and_grad(*wide)
    elif any(narrow):
        order = 1 if narrow[0] else -1
        value, slopes = bures_squared_from_root_and_cov.value_and_grad(*wide[::order])
        slopes = slopes[::order]
    else:
        value, slopes = _bures_of_dense.value_and_grad(*wide)
    grads = (
        _arrays.sum_to(g, c.root.shape) if is_factor else c.pull_back(g)  # type: ignore[attr-defined]
        for g, c, is_factor in zip(slopes, (x, y), narrow, strict=True)
    )
    return value, (next(grads), next(grads))


def _spread(matrix: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(matrix, (*batch, *matrix.shape[-2:]))


def _slopes_of_spectra(
    x: Covariance, y: Covariance, spectra: tuple[Array, Array, Array], batch: tuple[int, ...]
) -> tuple[Array, Array]:
    """∂/∂a Σ m (√a - √b)² = m (1 - √(b/a)), and 0 where a is 0; brought back to the parameters."""
    a, b, multiplicity = spectra
    roots = np.sqrt(a), np.sqrt(b)
    out = []
    for c, own, other in ((x, roots[0], roots[1]), (y, roots[1], roots[0])):
        slope = np.where(own > 0, 1 - other / np.where(own > 0, own, 1), 0) * multiplicity
        slope = np.broadcast_to(slope, (*batch, np.broadcast_shapes(a.shape, b.shape)[-1]))
        if isinstance(c, Isotropic):
            slope = slope.sum(-1)
        elif isinstance(c, Circulant):
            slope = slope.reshape(*batch, *c.spectrum.shape[-len(c.grid) :])
        (part,) = c.parts("").values()
        out.append(_arrays.sum_to(slope, np.shape(part)))
    return out[0], out[1]


def _kronecker(x: Kronecker, y: Kronecker) -> Array:
    """The fidelity factorises; written so that nearly equal covariances lose no more digits than their difference."""
    left, right = bures_squared(x.left, y.left), bures_squared(x.right, y.right)
    a, b, c, d = x.left.trace(), y.left.trace(), x.right.trace(), y.right.trace()
    return ((a - b) * (c - d) + (a + b) * right + (c + d) * left - left * right) / 2


def _common_spectra(x: Covariance, y: Covariance) -> tuple[Array, Array, Array] | None:
    """The eigenvalues of two covariances in a basis that their structures share, and how often each counts."""
    grids = {c.grid for c in (x, y) if isinstance(c, Circulant)}
    kinds = {type(c) for c in (x, y)}
    if kinds == {Isotropic}:
        a, b = x.variance[..., None], y.variance[..., None]  # type: ignore[attr-defined]
        return a, b, _arrays.like(float(x.d), a)
    if kinds <= {Isotropic, Diagonal}:
        a, b = (c.variance[..., None] if isinstance(c, Isotropic) else c.variance for c in (x, y))  # type: ignore[attr-defined]
        return a, b, _arrays.like(1.0, a)
    if kinds <= {Isotropic, Circulant} and len(grids) == 1:
        a, b = (c.variance[..., None] if isinstance(c, Isotropic) else c.eigenvalues for c in (x, y))  # type: ignore[attr-defined]
        multiplicity = next(c.multiplicity for c in (x, y) if isinstance(c, Circulant))
        return a, b, _arrays.like(multiplicity, a)
    return None


def _prefer_dense(c: Covariance) -> Covariance:
    """A factor with more columns than rows is better multiplied out."""
    return Dense(c.to_dense()) if isinstance(c, Factor) and c.r > c.d else c


def _has_half(c: Covariance) -> bool:
    """Whether a factor of ``c`` can be applied without forming it."""
    return _has_half(c.left) and _has_half(c.right) if isinstance(c, Kronecker) else not isinstance(c, Dense)


def given(cov: Any) -> Covariance:
    """A covariance argument as an object; anything without structure is wrapped, and checked later."""
    return cov if isinstance(cov, Covariance) else Dense(cov)


def check(name: str, cov: Covariance) -> Covariance:
    """What is checked at the door of a function; a dense matrix comes back exactly symmetric."""
    if isinstance(cov, Dense):
        return Dense(_checks.covariance(name, cov.matrix))
    if isinstance(cov, Kronecker):
        new = object.__new__(Kronecker)
        new.left, new.right = check(f"{name}.left", cov.left), check(f"{name}.right", cov.right)
        return new
    return cov


def _parameter(name: str, value: Any, words: str, ndim: int) -> Array:
    (x,), restore = _checks.arrays(**{name: value})
    _checks.shape(name, x, words, ndim)
    _checks.finite(name, x)
    return restore(x)


def _insert(part: Array, axis: int, batch: int) -> Array:
    """Insert a batch axis of length 1 at ``axis``, counted from the end of the batch."""
    position = batch + 1 + axis
    return part if position < 0 else part.reshape(*part.shape[:position], 1, *part.shape[position:])
