"""Squared Bures distances of many small pairs: each is solved whole, in the cache, by one-sided Jacobi.

With X = R Rᵀ, Y = S Sᵀ (Cholesky) and K = SᵀR, rotations of K's columns make them orthogonal: K V = U Σ. Every singular
value comes with its own relative accuracy (Demmel & Veselić 1992), so that nothing has to be solved twice.

Columns lie in rows of memory, padded by zeros to whole vectors. One round of a tournament pairs all columns; its
rotations are independent of each other, and their angles, which are divisions and roots, are computed side by side.
"""

import numpy as np
from numba import njit

FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}  # everything of fastmath that keeps NaN and inf

# Dimensions up to which Jacobi beats LAPACK: a single pair, and many pairs on several threads.
LARGEST_SINGLE, LARGEST_BATCHED = 16, 32
SOLVED, UNSOLVED = 0, 1

_WIDTH = 8  # doubles that are worked on together: loops of a length known when compiling have no remainder
_SWEEPS = 40  # it takes 5 to 8; LAPACK's dgesvj allows 30
_EPS = 2.220446049250313e-16
_TINY = 2.2250738585072014e-308  # the smallest normal number
_CANCELLED = 1e-3  # the share of the traces below which their difference has lost three digits


@njit(cache=True, nogil=True, error_model="numpy")
def _tournament(d):
    """Rounds (d - 1 or d, d // 2, 2) in which every column meets every other once."""
    m = d + d % 2
    rounds = np.empty((m - 1, d // 2, 2), np.int64)
    for r in range(m - 1):
        k = 0
        for i in range(m // 2):
            a = m - 1 if i == 0 else (r + i) % (m - 1)
            b = r if i == 0 else (r - i) % (m - 1)
            if a < d and b < d:
                rounds[r, k, 0] = min(a, b)
                rounds[r, k, 1] = max(a, b)
                k += 1
    return rounds


@njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _dot(a, p, b, q):
    total = 0.0
    for k in range(0, a.shape[1], _WIDTH):
        for i in range(_WIDTH):
            total += a[p, k + i] * b[q, k + i]
    return total


@njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _rotate(a, p, q, cosine, sine):
    for k in range(0, a.shape[1], _WIDTH):
        for i in range(_WIDTH):
            left, right = a[p, k + i], a[q, k + i]
            a[p, k + i] = cosine * left - sine * right
            a[q, k + i] = sine * left + cosine * right


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _cholesky(cov, root):
    """root[j, i] = L[i, j], columns in rows; False where cov is singular but for rounding."""
    d = cov.shape[0]
    largest = 0.0
    for j in range(d):
        largest = max(largest, cov[j, j])
    root[:] = 0.0
    for j in range(d):
        for i in range(j, d):
            root[j, i] = cov[j, i]
        for k in range(j):
            factor = root[k, j]
            for i in range(j, d):
                root[j, i] -= factor * root[k, i]
        pivot = root[j, j]
        if not pivot > 10 * d * _EPS * largest:
            return False
        scale = 1.0 / np.sqrt(pivot)
        for i in range(j, d):
            root[j, i] *= scale
    return True


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _difference(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total += abs(x[i, j] - y[i, j])
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _orthogonalise(w, v, accumulate, tolerance, rounds, scratch):
    """Rotate the columns of w (its rows in memory) until they are orthogonal, and those of v along."""
    d = w.shape[0]
    half = rounds.shape[1]
    squares, inner, cosines, sines = scratch[0], scratch[1], scratch[2], scratch[3]
    left, right = scratch[4], scratch[5]
    for _ in range(_SWEEPS):
        for j in range(d):
            squares[j] = _dot(w, j, w, j)
        worst = 0.0
        for r in range(rounds.shape[0]):
            for k in range(half):
                p, q = rounds[r, k, 0], rounds[r, k, 1]
                inner[k] = _dot(w, p, w, q)
                left[k] = squares[p]
                right[k] = squares[q]
            for k in range(half):
                c, h = inner[k], right[k] - left[k]
                apart = np.sqrt(h * h + 4.0 * c * c)
                below = abs(h) + apart
                t = (2.0 if h >= 0.0 else -2.0) * c / max(below, _TINY)
                cosine = 1.0 / np.sqrt(1.0 + t * t)
                cosines[k] = cosine
                sines[k] = t * cosine
                left[k] -= t * c
                right[k] += t * c
            for k in range(half):
                p, q = rounds[r, k, 0], rounds[r, k, 1]
                c, a, b = inner[k], squares[p], squares[q]
                if c * c <= 1e-30 * a * b:
                    continue
                worst = max(worst, c * c / (a * b))
                _rotate(w, p, q, cosines[k], sines[k])
                if accumulate:
                    _rotate(v, p, q, cosines[k], sines[k])
                squares[p] = left[k]
                squares[q] = right[k]
        if worst <= tolerance * tolerance:
            break
    for j in range(d):
        squares[j] = _dot(w, j, w, j)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _lower_times(root, vectors, out):
    """out[j] = L vectors[j], with L's columns in the rows of root."""
    d = root.shape[0]
    for j in range(d):
        out[j, :] = 0.0
        for k in range(d):
            factor = vectors[j, k]
            first = k - k % _WIDTH
            for b in range(first, out.shape[1], _WIDTH):
                for i in range(_WIDTH):
                    out[j, b + i] += factor * root[k, b + i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _slope(half, product, grad):
    """grad = I - Σⱼ half[j] half[j]ᵀ."""
    d = half.shape[0]
    product[:] = 0.0
    for j in range(d):
        for i in range(d):
            factor = half[j, i]
            for b in range(0, half.shape[1], _WIDTH):
                for k in range(_WIDTH):
                    product[i, b + k] -= factor * half[j, b + k]
    for i in range(d):
        product[i, i] += 1.0
        for k in range(d):
            grad[i, k] = product[i, k]


@njit(cache=True, nogil=True, error_model="numpy")
def solve(x, y, start, stop, value, grad_x, grad_y, status):
    """Fill value[i], grad_x[i], grad_y[i] of the pairs start <= i < stop; what has no rows is not wanted.

    x, y: (n or 1, d, d); value, status: (n,); grad_x, grad_y: (n or 0, d, d). Where status[i] is UNSOLVED, a covariance
    was singular, indefinite or NaN, or the traces cancelled unexpectedly: the general way has to be taken.
    """
    d = x.shape[1]
    wide = (d + _WIDTH - 1) // _WIDTH * _WIDTH
    rounds = _tournament(d)
    scratch = np.zeros((6, wide))
    space = np.zeros((6, d, wide))
    root_x, root_y, w, v, half, other = space[0], space[1], space[2], space[3], space[4], space[5]
    with_gradient = grad_x.shape[0] + grad_y.shape[0] > 0
    # The value depends on the square of the angles that are left, gradients on the angles.
    tolerance = 1e-13 if with_gradient else 1e-8
    for n in range(start, stop):
        cov_x, cov_y = x[n % x.shape[0]], y[n % y.shape[0]]
        if not (_cholesky(cov_x, root_x) and _cholesky(cov_y, root_y)):
            status[n] = UNSOLVED
            continue
        status[n] = SOLVED
        traces = 0.0
        for j in range(d):
            traces += cov_x[j, j] + cov_y[j, j]
            for i in range(d):
                w[j, i] = _dot(root_y, i, root_x, j)
        # A tenth apart, the distance is some 1e-3 of the traces: rarely will the columns of V be missed.
        accumulate = with_gradient or _difference(cov_x, cov_y) < 0.1 * traces
        if accumulate:
            v[:] = 0.0
            for j in range(d):
                v[j, j] = 1.0
        _orthogonalise(w, v, accumulate, tolerance, rounds, scratch)
        sigma = scratch[0]
        total = 0.0
        for j in range(d):
            sigma[j] = np.sqrt(sigma[j])
            total += sigma[j]
        value[n] = traces - 2.0 * total
        if accumulate and value[n] < 0.5 * traces:
            value[n] = _residual(root_x, root_y, w, v, sigma, half, other)
        elif not value[n] >= _CANCELLED * traces:
            status[n] = UNSOLVED
        if with_gradient:
            for j in range(d):
                scale = 1.0 / np.sqrt(sigma[j])
                for i in range(wide):
                    w[j, i] *= scale / sigma[j]
                    v[j, i] *= scale
        if grad_x.shape[0] > 0:
            _lower_times(root_y, w, half)
            _slope(half, other, grad_x[n])
        if grad_y.shape[0] > 0:
            _lower_times(root_x, v, half)
            _slope(half, other, grad_y[n])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _residual(root_x, root_y, w, v, sigma, half, other):
    """‖R V - S U‖², exact where the traces cancel."""
    _lower_times(root_x, v, half)
    _lower_times(root_y, w, other)
    total = 0.0
    for j in range(half.shape[0]):
        scale = 1.0 / sigma[j]
        for i in range(half.shape[1]):
            difference = half[j, i] - scale * other[j, i]
            total += difference * difference
    return total
