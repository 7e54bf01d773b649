"""Covariances of stationary fields on periodic grids: diagonal in the Fourier basis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .base import Covariance, at_border, at_least_float32, parameter


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
    _static = ("grid",)
    spectrum: Array

    def __init__(self, spectrum: Any, shape: int | Sequence[int] | None = None) -> None:
        self.spectrum = parameter("spectrum", spectrum, "(..., n // 2 + 1)", 1, nonnegative=True)
        if shape is None:
            shape = max(1, 2 * (self.spectrum.shape[-1] - 1))
        grid = tuple(shape) if isinstance(shape, Sequence | np.ndarray) else (shape,)
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
        v, axes = backend.as_numpy(at_least_float32(self.spectrum)), tuple(range(-len(self.grid), -1))
        planes = v[..., [0, -1] if self.grid[-1] % 2 == 0 else [0]]
        mirror = np.roll(np.flip(planes, axes), 1, axes)
        tolerance = max(1e-5, 4 * float(backend.epsilon(self.spectrum)))
        if (np.abs(planes - mirror) > tolerance * np.abs(v).max(initial=0)).any():
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
    def core_ndims(self) -> tuple[int, ...]:
        return (len(self.grid),)

    @property
    def multiplicity(self) -> Array:
        """How often each eigenvalue counts, (n_k // 2 + 1,): once in planes that mirror themselves, else twice."""
        xp, n = backend.namespace(self.spectrum), self.grid[-1]
        k = xp.arange(n // 2 + 1, device=self.spectrum.device)
        once = (k == 0) | (2 * k == n)
        return backend.astype(xp.where(once, 1.0, 2.0), self.spectrum.dtype)

    def to_dense(self) -> Array:
        spectrum = at_least_float32(self.spectrum)
        row = backend.irfftn(spectrum, self.grid).reshape(*self.batch_shape, self.d)
        return backend.astype(row[..., _lags(self.grid, row)], self.spectrum.dtype)

    def trace(self) -> Array:
        return (self.spectrum * self.multiplicity).sum(self._axes)

    def trace_gradient(self) -> tuple[Array, ...]:
        return (backend.broadcast_to(self.multiplicity, self.spectrum.shape),)

    def apply_root(self, v: Array) -> Array:
        """The symmetric root multiplies the field's transform."""
        batch, r = v.shape[:-2], v.shape[-1]
        field = v.mT.reshape(*batch, r, *self.grid)
        gain = backend.root(self.spectrum).reshape(*self.batch_shape, 1, *self.spectrum.shape[-len(self.grid) :])
        out = backend.irfftn(gain * backend.rfftn(field, self.grid), self.grid)
        return out.reshape(*out.shape[: -len(self.grid)], self.d).mT

    apply_root_transposed = apply_root

    def gradient(self, matrix: Array) -> tuple[Array, ...]:
        """∂/∂λ_k = (multiplicity of k) · Re v_k* G v_k, the transform of the sums of G along its shifted diagonals."""
        # Row i and lag s meet in column i - s: the table of lags is its own inverse.
        columns = _lags(self.grid, matrix)
        rows = backend.namespace(matrix).arange(self.d, device=matrix.device)[:, None]
        sums = matrix[..., rows, columns].sum(-2)
        transform = backend.rfftn(sums.reshape(*matrix.shape[:-2], *self.grid), self.grid).real
        return (transform * self.multiplicity / self.d,)

    def gradient_low_rank(self, w: Array) -> tuple[Array, ...]:
        z = backend.rfftn(w.mT.reshape(*w.shape[:-2], w.shape[-1], *self.grid), self.grid)
        power = (z.real**2 + z.imag**2).sum(-1 - len(self.grid))
        return (power * self.multiplicity / self.d,)

    def least_norm(self, grads: tuple[Array, ...]) -> tuple[Array, ...]:
        return (at_border(self.spectrum, grads[0]),)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.grid), 0))


def _lags(grid: tuple[int, ...], reference: Array) -> Array:
    """The position of point i - j (mod the grid) for each pair of points: (d, d), in the library of ``reference``."""
    xp, k = backend.namespace(reference), len(grid)
    flat = xp.zeros((1,) * (2 * k), dtype=xp.int64, device=reference.device)
    for axis, n in enumerate(grid):
        points = xp.arange(n, device=reference.device)
        own = (1,) * axis, (1,) * (k - axis - 1)
        rows, columns = (*own[0], n, *own[1], *(1,) * k), (*(1,) * k, *own[0], n, *own[1])
        flat = flat * n + (points.reshape(rows) - points.reshape(columns)) % n
    return flat.reshape(prod(grid), prod(grid))
