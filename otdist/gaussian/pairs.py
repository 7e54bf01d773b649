"""The squared Bures distance of every pair of covariance structures, by the cheapest way that the two allow.

Two rules carry all pairs. Covariances that commute because of their structure (diagonal with isotropic, circulant with
circulant, Kronecker with Kronecker) are compared by their spectra, Σ(√a - √b)². The rest are compared by factors
X = R Rᵀ and Y = S Sᵀ, |R|² + |S|² - 2‖SᵀR‖_*. Nothing dense is formed where the structure avoids it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from ..covariance import Circulant, Covariance, Dense, Diagonal, Factor, Isotropic, Kronecker
from .bures import bures_squared as _bures_of_dense
from .procrustes import bures_squared_from_root_and_cov, bures_squared_from_roots, nuclear_norm


def bures_squared(x: Covariance, y: Covariance) -> Array:
    """tr x + tr y - 2 tr (x^½ y x^½)^½ by the cheapest way that the two structures allow."""
    if isinstance(x, Dense) and isinstance(y, Dense):
        return _bures_of_dense(x.matrix, y.matrix)
    for first, second in ((x, y), (y, x)):
        if isinstance(first, Isotropic) and isinstance(second, Kronecker):
            one = backend.namespace(first.variance).ones_like(first.variance)
            split = object.__new__(Kronecker)
            split.left = Isotropic(first.variance, second.left.d)
            split.right = Isotropic(one, second.right.d)
            return _kronecker(split, second)
    if isinstance(x, Kronecker) and isinstance(y, Kronecker) and (x.left.d, x.right.d) == (y.left.d, y.right.d):
        return _kronecker(x, y)
    spectra = _common_spectra(x, y)
    if spectra is not None:
        a, b, multiplicity = spectra
        return ((backend.root(a) - backend.root(b)) ** 2 * multiplicity).sum(-1)
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
        backend.sum_to(g, c.root.shape) if is_factor else c.pull_back(g)  # type: ignore[attr-defined]
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
        out.append(backend.sum_to(slope, np.shape(part)))
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
        return a, b, backend.like(float(x.d), a)
    if kinds <= {Isotropic, Diagonal}:
        a, b = (c.variance[..., None] if isinstance(c, Isotropic) else c.variance for c in (x, y))  # type: ignore[attr-defined]
        return a, b, backend.like(1.0, a)
    if kinds <= {Isotropic, Circulant} and len(grids) == 1:
        a, b = (c.variance[..., None] if isinstance(c, Isotropic) else c.eigenvalues for c in (x, y))  # type: ignore[attr-defined]
        multiplicity = next(c.multiplicity for c in (x, y) if isinstance(c, Circulant))
        return a, b, backend.like(multiplicity, a)
    return None


def _prefer_dense(c: Covariance) -> Covariance:
    """A factor with more columns than rows is better multiplied out."""
    return Dense(c.to_dense()) if isinstance(c, Factor) and c.r > c.d else c


def _has_half(c: Covariance) -> bool:
    """Whether a factor of ``c`` can be applied without forming it."""
    return _has_half(c.left) and _has_half(c.right) if isinstance(c, Kronecker) else not isinstance(c, Dense)
