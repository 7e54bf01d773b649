"""Matrix products between a cloud and directions, on the cloud's device; on a CPU in pieces, see the kernel."""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array


def project(theta: Array, x: Array) -> Array:
    """θ xᵀ, (L, n), of directions (L, d) and points (n, d)."""
    if backend.is_torch(x):
        return theta @ x.T

    from . import blas

    return blas.project(theta, x)


def backproject(slopes: Array, theta: Array) -> Array:
    """slopesᵀ θ, (n, d), of slopes (L, n) and directions (L, d)."""
    if backend.is_torch(slopes):
        return slopes.T @ theta

    from . import blas

    return blas.backproject(slopes, theta)


def add_turned(x: Array, matrix: Array, out: Array) -> None:
    """out += x matrix, of x, out (n, d) and a matrix (d, d)."""
    if backend.is_torch(x):
        out += x @ matrix
        return

    from . import blas

    blas.add_turned(x, matrix, out)


def gram(x: Array, y: Array) -> Array:
    """xᵀ y, (d, d) in float64, of x, y (n, d)."""
    if backend.is_torch(x):
        return (x.T @ y).double()

    from . import blas

    return blas.gram(x, y)
