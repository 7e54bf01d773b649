"""The eigenvalues of the Bures distance by SciPy's LAPACK, for large matrices: half the products are of triangles.

Only SciPy's LAPACK is called here. NumPy comes with a second copy of OpenBLAS, whose idle threads would go on spinning
on the cores for which the first one's threads wait.

All matrices are Fortran-ordered: whole-matrix transposes and operations on mixed orders cost as much as products, and
more where d is a power of two.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

Matrix = NDArray[np.float64]

# dsygst takes half the flops of two triangular products, but OpenBLAS runs it well at large sizes only.
_REDUCE_FROM = 1024


def spectrum(x: Matrix, y: Matrix, with_vectors: bool) -> tuple[Matrix, Matrix, Matrix | None] | None:
    """R, and the ascending eigenvalues of RᵀYR with eigenvectors if asked for; None if X is not positive definite.

    x and y (d, d) are symmetric.
    """
    root, info = lapack.dpotrf(x.T, lower=1)
    if info:
        return None
    if len(x) >= _REDUCE_FROM:
        gram = lapack.dsygst(y.T, root, itype=2, lower=1)[0]
    else:
        product = blas.dtrmm(1.0, root, y.T, lower=1, trans_a=1)
        gram = blas.dtrmm(1.0, root, product, lower=1, side=1, overwrite_b=1)
    if with_vectors:
        squares, vectors, info = lapack.dsyevd(gram, lower=1, overwrite_a=1)
    else:
        squares, _, _, _, info = lapack.dsyevr(gram, compute_v=0, lower=1, lwork=66 * len(gram), overwrite_a=1)
        vectors = None
    return None if info else (root, squares, vectors)


def slopes(
    root: Matrix, squares: Matrix, vectors: Matrix, needs: tuple[bool, bool]
) -> tuple[Matrix | None, Matrix | None]:
    """I - R⁻ᵀVΣVᵀR⁻¹ and I - R V Σ⁻¹ Vᵀ Rᵀ."""
    grad_x = grad_y = None
    weight = squares**0.25
    if needs[0]:
        grad_x = _identity_minus(blas.dtrsm(1.0, root, vectors * weight, lower=1, trans_a=1, overwrite_b=1))
    if needs[1]:
        grad_y = _identity_minus(blas.dtrmm(1.0, root, vectors / weight, lower=1, overwrite_b=1))
    return grad_x, grad_y


def refined_slopes(
    x: Matrix, y: Matrix, spectrum: tuple[Matrix, Matrix, Matrix], needs: tuple[bool, bool]
) -> tuple[Matrix | None, Matrix | None]:
    """`slopes` after a Newton step: T + dT with dT X T + T X dT = Z = Y - T X T, and T⁻¹ - T⁻¹ dT T⁻¹.

    With T = A Aᵀ, B = A⁻ᵀ and X = B Σ Bᵀ, they are A (I + S) Aᵀ and B (I - S) Bᵀ with S = (Bᵀ Z B) / (σᵢ + σⱼ).
    B is A⁻ᵀ up to eps times the root of the condition.
    """
    root, squares, vectors = spectrum
    weight, sigma = squares**0.25, np.sqrt(squares)
    half = blas.dtrsm(1.0, root, vectors * weight, lower=1, trans_a=1, overwrite_b=1)
    back = blas.dtrmm(1.0, root, vectors / weight, lower=1, overwrite_b=1)
    slope = _identity_minus(half)
    transport = -slope
    transport[np.diag_indices(len(slope))] += 1.0
    moved = blas.dgemm(1.0, x.T, transport)
    residual = blas.dgemm(-1.0, transport, moved, beta=1.0, c=y.T)
    (z, size_z), (b, size_b), (a, size_a) = _single(residual), _single(back), _single(half)
    solved = blas.sgemm(1.0, b, blas.sgemm(1.0, z, b), trans_a=1) * (size_z * size_b**2)
    solved /= np.add.outer(sigma, sigma).T
    s, size_s = _single(solved)
    grad_x = _corrected(slope, a, s, -size_s * size_a**2) if needs[0] else None
    grad_y = _corrected(_identity_minus(back), b, s, size_s * size_b**2) if needs[1] else None
    return grad_x, grad_y


def _corrected(slope: Matrix, half: NDArray[np.float32], s: NDArray[np.float32], factor: float) -> Matrix:
    """slope + factor H S Hᵀ."""
    step = blas.ssyr2k(0.5, half, blas.sgemm(1.0, half, s), lower=1)
    slope += step * np.float64(factor)
    return _mirrored(slope)


def _single(matrix: Matrix) -> tuple[NDArray[np.float32], float]:
    """A matrix over its largest entry in float32, and that entry: seven digits are plenty for a correction."""
    size = float(np.abs(matrix).max()) or 1.0
    return (matrix / size).astype(np.float32), size


def _identity_minus(half: Matrix) -> Matrix:
    """I - H Hᵀ."""
    out = blas.dsyrk(-1.0, half, lower=1)
    out[np.diag_indices(len(out))] += 1.0
    return _mirrored(out)


def _mirrored(out: Matrix) -> Matrix:
    """What is on and below the diagonal, in place, above it too."""
    for rows, columns in _tiles(len(out)):
        if rows == columns:
            corner = np.tril(out[rows, rows])
            out[rows, rows] = corner + np.tril(corner, -1).T
        else:
            out[columns, rows] = out[rows, columns].T
    return out


def _tiles(d: int) -> Iterator[tuple[slice, slice]]:
    """Blocks on and below the diagonal: a block and its mirror image stay in the cache."""
    tile = 64
    for j in range(0, d, tile):
        for i in range(j, d, tile):
            yield slice(i, min(i + tile, d)), slice(j, min(j + tile, d))
