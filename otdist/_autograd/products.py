"""Matrix products between a cloud and directions, on the cloud's device; on a CPU in pieces, see the kernel."""

from __future__ import annotations

from .. import _arrays
from .._arrays import Array


def project(theta: Array, x: Array) -> Array:
    """θ xᵀ, (L, n), of directions (L, d) and points (n, d)."""
    if _arrays.is_torch(x):
        return theta @ x.T
    from .._kernels import product

    return product.project(theta, x)


def backproject(slopes: Array, theta: Array) -> Array:
    """slopesᵀ θ, (n, d), of slopes (L, n) and directions (L, d)."""
    if _arrays.is_torch(slopes):
        return slopes.T @ theta
    from .._kernels import product

    return product.backproject(slopes, theta)


def add_turned(x: Array, matrix: Array, out: Array) -> None:
    """out += x matrix, of x, out (n, d) and a matrix (d, d)."""
    if _arrays.is_torch(x):
        out += x @ matrix
        return
    from .._kernels import product

    product.add_turned(x, matrix, out)


def gram(x: Array, y: Array) -> Array:
    """xᵀ y, (d, d) in float64, of x, y (n, d)."""
    if _arrays.is_torch(x):
        return (x.T @ y).double()
    from .._kernels import product

    return product.gram(x, y)
