"""The squared Bures distance of one pair of matrices by LAPACK, in as few and as fast calls as there are.

Only SciPy's LAPACK is called. NumPy comes with a second copy of OpenBLAS, whose idle threads would go on spinning on
the cores for which the first one's threads wait.

All matrices are Fortran-ordered: whole-matrix transposes and operations on mixed orders cost as much as products, and
more where d is a power of two.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

Matrix = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
# dsygst takes half the flops of two triangular products, but OpenBLAS runs it well at large sizes only.
_REDUCE_FROM = 1024
# Singular values of K below this share of the largest are found anew from what is left of K: as roots of KᵀK's
# eigenvalues they are good to eps / share² = 2e-6, and the value to the square of that.
_RESOLVED = 1e-5


class Gram(NamedTuple):
    """X = root rootᵀ and matrix = rootᵀ Y root, of which only the lower triangle is there."""

    root: Matrix
    matrix: Matrix


class Procrustes(NamedTuple):
    """R V - S U, the residual of the best rotation Q = U Vᵀ of S onto R, in the basis V."""

    residual: Matrix
    root_x: Matrix
    root_y: Matrix
    u: Matrix
    v: Matrix


def gram(x: Matrix, y: Matrix) -> Gram | None:
    """Factor X and form RᵀYR; None if X is not positive definite. x and y (d, d) are symmetric."""
    root, info = lapack.dpotrf(x.T, lower=1)
    if info:
        return None
    if len(x) >= _REDUCE_FROM:
        return Gram(root, lapack.dsygst(y.T, root, itype=2, lower=1)[0])
    product = blas.dtrmm(1.0, root, y.T, lower=1, trans_a=1)
    return Gram(root, blas.dtrmm(1.0, root, product, lower=1, side=1, overwrite_b=1))


def eigenvalues(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues, ascending, of a symmetric matrix given by its lower triangle; no vectors."""
    values, none, _, _, info = lapack.dsyevr(matrix, compute_v=0, lower=1, lwork=66 * len(matrix))
    if info:
        raise np.linalg.LinAlgError("the eigenvalues did not converge")
    return values, none


def eigenvectors(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix given by its lower triangle."""
    values, vectors, info = lapack.dsyevd(matrix, lower=1)
    if info:
        raise np.linalg.LinAlgError("the eigenvectors did not converge")
    return values, vectors


def slopes(root: Matrix, sigma: Matrix, vectors: Matrix, needs_input_grad: tuple[bool, ...]) -> list[Matrix | None]:
    """I - R⁻ᵀVΣVᵀR⁻¹ and I - R V Σ⁻¹ Vᵀ Rᵀ, where KᵀK = V Σ² Vᵀ."""
    grads: list[Matrix | None] = [None, None]
    if needs_input_grad[0]:
        grads[0] = _identity_minus(blas.dtrsm(1.0, root, vectors * np.sqrt(sigma), lower=1, trans_a=1, overwrite_b=1))
    if needs_input_grad[1]:
        grads[1] = _identity_minus(blas.dtrmm(1.0, root, vectors / np.sqrt(sigma), lower=1, overwrite_b=1))
    return grads


def procrustes(root_x: Matrix, y: Matrix, spectrum: tuple[Matrix, Matrix], exactly: bool) -> Procrustes | None:
    """Solve min |R - S Q|² for Y = S Sᵀ, given the `eigenvectors` of RᵀYR; None if Y is not positive definite.

    Near the minimum the square grows with the square of Q's error: Q need not be exact for an exact value. Gradients
    need it `exactly`.
    """
    root_y, info = lapack.dpotrf(y.T, lower=1)
    if info:
        return None
    k = blas.dtrmm(1.0, root_y, root_x, lower=1, trans_a=1)
    u, v = polar(k, spectrum, exactly)
    residual = blas.dtrmm(1.0, root_x, v, lower=1)
    residual -= blas.dtrmm(1.0, root_y, u, lower=1)
    return Procrustes(residual, root_x, root_y, u, v)


def procrustes_slopes(solution: Procrustes, needs_input_grad: tuple[bool, ...]) -> list[Matrix | None]:
    """I - T = (R - SQ) R⁻¹ and I - T⁻¹ = -(R - SQ) Qᵀ S⁻¹: differences of what is nearly equal are taken first."""
    residual, root_x, root_y, u, v = solution
    grads: list[Matrix | None] = [None, None]
    if needs_input_grad[0]:
        grads[0] = _symmetric(_over(blas.dgemm(1.0, residual, v, trans_b=1), root_x))
    if needs_input_grad[1]:
        grads[1] = _symmetric(_over(blas.dgemm(-1.0, residual, u, trans_b=1), root_y))
    return grads


def invertible(solution: Procrustes) -> bool:
    """Whether both factors can be divided by; at a covariance that is singular but for rounding, gradients can't."""
    for root in (solution.root_x, solution.root_y):
        pivots = np.diagonal(root) ** 2
        if not pivots.min() > 10 * len(root) * _EPS * pivots.max():
            return False
    return True


def polar(k: Matrix, spectrum: tuple[Matrix, Matrix], exactly: bool, noise: float = 0.0) -> tuple[Matrix, Matrix]:
    """Orthogonal U, V (d, d) that maximise tr(UᵀKV); U Vᵀ is the orthogonal polar factor of K.

    V are the eigenvectors of KᵀK, whose `spectrum` is given, and U comes from K V = U T, T upper triangular. T is
    diagonal but for the error of V: eps · largest² / (σᵢ(σᵢ + σⱼ)) in row i < j. Where that is too much, among the
    smallest σ, the block of T that is left over is solved by itself: its largest σ is what counts there. Below `noise`
    any rotation will do.
    """
    squares, vectors = spectrum
    v = np.asfortranarray(vectors[:, ::-1])
    sigma = np.sqrt(np.clip(squares[::-1], 0, None))
    image = blas.dgemm(1.0, k, v)
    resolved = int(np.count_nonzero(sigma > _RESOLVED * sigma[0]))
    noise = max(noise, _EPS * sigma[0])
    if resolved < len(k) or not (found := _orthonormal_resolved(image)):
        found = _orthonormal(image)
    u, t = found
    if exactly and resolved > 1:
        u = _turn(u, t, resolved)
    if resolved < len(k) and resolved and sigma[0] > noise:
        rest = np.asfortranarray(t[resolved:, resolved:])
        left, right = polar(rest, eigenvectors(blas.dsyrk(1.0, rest, trans=1, lower=1)), exactly, noise)
        u[:, resolved:] = blas.dgemm(1.0, u[:, resolved:], left)
        v[:, resolved:] = blas.dgemm(1.0, v[:, resolved:], right)
    return u, v


def _orthonormal_resolved(image: Matrix) -> tuple[Matrix, Matrix] | None:
    """The QR factors of a matrix whose columns are orthogonal but for rounding: by Cholesky, in matrix products."""
    lengths = np.sqrt(np.einsum("ij,ij->j", image, image))
    u = image / lengths
    t, info = lapack.dpotrf(blas.dsyrk(1.0, u, trans=1), overwrite_a=1)
    if info:
        return None
    u = blas.dtrsm(1.0, t, u, side=1, overwrite_b=1)
    t *= lengths
    return u, t


def _orthonormal(image: Matrix) -> tuple[Matrix, Matrix]:
    """The QR factors of any square matrix, those on T's diagonal nonnegative."""
    d = len(image)
    packed, tau, _, _ = lapack.dgeqrf(image, lwork=64 * d)
    t = packed.copy(order="F")
    _clear_below(t)
    u = lapack.dorgqr(packed, tau, lwork=64 * d, overwrite_a=1)[0]
    sign = np.where(np.diagonal(t) < 0, -1.0, 1.0)
    u *= sign
    t *= sign[:, None]
    return u, t


def _turn(u: Matrix, t: Matrix, resolved: int) -> Matrix:
    """U turned by the small rotation Δ that makes UᵀKV symmetric: Δᵢⱼ = (Tᵢⱼ - Tⱼᵢ)/(σᵢ + σⱼ), to second order."""
    sigma = np.diagonal(t).copy()
    upper = np.add(sigma[:, None], sigma, order="F")
    np.divide(t, upper, out=upper, where=upper > 0)
    upper[resolved:] = 0.0
    np.fill_diagonal(upper, 0.0)
    first = _times_antisymmetric(u, upper)
    if max(upper.max(), -upper.min()) > _EPS**0.5:
        second = _times_antisymmetric(first, upper)
        second *= 0.5
        first += second
    first += u
    return first


def _times_antisymmetric(u: Matrix, upper: Matrix) -> Matrix:
    """U (N - Nᵀ), N upper triangular."""
    out = blas.dtrmm(1.0, upper, u, side=1)
    out -= blas.dtrmm(1.0, upper, u, side=1, trans_a=1)
    return out


def _clear_below(t: Matrix) -> None:
    for j in range(len(t)):
        t[j + 1 :, j] = 0.0


def _over(a: Matrix, lower: Matrix) -> Matrix:
    """A L⁻¹."""
    return blas.dtrsm(1.0, lower, a, side=1, lower=1, overwrite_b=1)


def _symmetric(a: Matrix) -> Matrix:
    """The mean of A and Aᵀ, in place."""
    for rows, columns in _tiles(len(a)):
        mean = (a[rows, columns] + a[columns, rows].T) / 2
        a[rows, columns] = mean
        a[columns, rows] = mean.T
    return a


def _identity_minus(half: Matrix) -> Matrix:
    """I - H Hᵀ."""
    out = blas.dsyrk(-1.0, half, lower=1)
    out[np.diag_indices(len(out))] += 1.0
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
