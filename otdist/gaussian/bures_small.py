"""Squared Bures distances of many small pairs: eight at a time in the cache, by one-sided Jacobi.

With X = R Rᵀ, Y = S Sᵀ (Cholesky) and K = SᵀR, rotations of K's columns make them orthogonal: K V = U Σ. Every singular
value comes with its own relative accuracy (Demmel & Veselić 1992), so that nothing has to be solved twice.

Every step is taken by eight problems at once, one in each lane of a vector, without a branch: what a lane does not want
is chosen away, and a lane that has converged rests. So an answer does not depend on its neighbours. Matrices are flat
arrays of vectors, columns in rows of memory. One round of a tournament pairs all columns; its rotations are independent
of each other, so that the divisions and roots of one pass behind the products of another.
"""

import numpy as np

from .._core.compiled import njit
from .._core.simd import ALL, LANES, choose, fill, greater, load, space, sqrt, store

# Dimensions up to which Jacobi beats LAPACK, and those up to which it also beats `bures_single`: a single pair, which
# leaves most lanes idle, and a pair in every lane.
LARGEST_SINGLE, LARGEST_BATCHED = 16, 40
FIRST_SINGLE, FIRST_BATCHED = 5, 14
SOLVED, UNSOLVED = 0, 1

_SWEEPS = 40  # it takes 5 to 8; LAPACK's dgesvj allows 30
_EPS = 2.220446049250313e-16
_TINY = 2.2250738585072014e-308  # the smallest normal number
_LEAST, _MOST = 1e-70, 1e70  # variances whose fourth powers are normal numbers
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


@njit(cache=True, nogil=True)
def _gather(x, start, stop, out):
    """Put the matrices x[start:stop] into the lanes of out, and identities into lanes that are left."""
    n, d = x.shape[0], x.shape[1]
    for lane in range(LANES):
        if start + lane < stop:
            own = x[(start + lane) % n]
            for i in range(d):
                for j in range(d):
                    out[(i * d + j) * LANES + lane] = own[i, j]
        else:
            for i in range(d):
                for j in range(d):
                    out[(i * d + j) * LANES + lane] = 1.0 if i == j else 0.0


@njit(cache=True, nogil=True)
def _dot(d, a, p, b, q):
    total = fill(0.0)
    for k in range(d):
        total = total + load(a, p * d + k) * load(b, q * d + k)
    return total


@njit(cache=True, nogil=True)
def _rotate(d, a, p, q, cosine, sine):
    for k in range(d):
        left, right = load(a, p * d + k), load(a, q * d + k)
        store(a, p * d + k, cosine * left - sine * right)
        store(a, q * d + k, sine * left + cosine * right)


@njit(cache=True, nogil=True)
def _trace(d, cov):
    total = fill(0.0)
    for j in range(d):
        total = total + load(cov, j * d + j)
    return total


@njit(cache=True, nogil=True)
def _cholesky(d, cov, root):
    """root[j, i] = L[i, j], columns in rows; return the lanes where cov is not singular but for rounding."""
    largest, zero, good = fill(0.0), fill(0.0), ALL
    for j in range(d):
        own = load(cov, j * d + j)
        largest = choose(greater(own, largest), own, largest)
    threshold = fill(10 * d * _EPS) * largest
    good &= greater(largest, fill(_LEAST)) & greater(fill(_MOST), largest)
    for j in range(d):
        for i in range(d):
            store(root, j * d + i, load(cov, j * d + i) if i >= j else zero)
        for k in range(j):
            factor = load(root, k * d + j)
            for i in range(j, d):
                store(root, j * d + i, load(root, j * d + i) - factor * load(root, k * d + i))
        pivot = load(root, j * d + j)
        positive = greater(pivot, threshold)
        scale = choose(positive, fill(1.0) / sqrt(pivot), zero)
        for i in range(j, d):
            store(root, j * d + i, scale * load(root, j * d + i))
        good &= positive
    return good


@njit(cache=True, nogil=True)
def _product(d, root_x, root_y, w):
    """K = SᵀR, column by column; both factors are triangular."""
    for j in range(d):
        for i in range(d):
            total = fill(0.0)
            for k in range(max(i, j), d):
                total = total + load(root_y, i * d + k) * load(root_x, j * d + k)
            store(w, j * d + i, total)


@njit(cache=True, nogil=True)
def _near(d, x, y, traces):
    """The lanes where Σ|X - Y| is below a tenth of the traces."""
    total = fill(0.0)
    for i in range(d * d):
        difference = load(x, i) - load(y, i)
        total = total + choose(greater(difference, fill(0.0)), difference, fill(0.0) - difference)
    return greater(fill(0.1) * traces, total)


@njit(cache=True, nogil=True)
def _angle(inner, left, right, lanes):
    """Tangent, cosine and sine of the smaller rotation that makes two columns orthogonal; none outside of the lanes."""
    zero, one, two = fill(0.0), fill(1.0), fill(2.0)
    h = right - left
    positive, twice = greater(h, zero), two * inner
    below = choose(positive, h, zero - h) + sqrt(h * h + twice * twice)
    t = choose(positive, twice, zero - twice) / choose(greater(below, fill(_TINY)), below, fill(_TINY))
    t = choose(lanes, t, zero)
    cosine = one / sqrt(one + t * t)
    return t, cosine, t * cosine


@njit(cache=True, nogil=True)
def _orthogonalise(d, w, v, accumulate, tolerance, rounds, squares):
    """Rotate the columns of w (its rows in memory) until they are orthogonal, and those of v along.

    Return the lanes where this did not end.
    """
    negligible, enough = fill(1e-30), fill(tolerance * tolerance)
    active = ALL
    for _ in range(_SWEEPS):
        for j in range(d):
            store(squares, j, _dot(d, w, j, w, j))
        coarse = 0
        for r in range(rounds.shape[0]):
            for k in range(rounds.shape[1]):
                p, q = rounds[r, k, 0], rounds[r, k, 1]
                inner, left, right = _dot(d, w, p, w, q), load(squares, p), load(squares, q)
                square, scale = inner * inner, left * right
                lanes = active & greater(square, negligible * scale)
                if lanes == 0:
                    continue
                coarse |= greater(square, enough * scale)
                t, cosine, sine = _angle(inner, left, right, lanes)
                store(squares, p, left - t * inner)
                store(squares, q, right + t * inner)
                _rotate(d, w, p, q, cosine, sine)
                if accumulate:
                    _rotate(d, v, p, q, cosine, sine)
        active &= coarse
        if active == 0:
            break
    for j in range(d):
        store(squares, j, _dot(d, w, j, w, j))
    return active


@njit(cache=True, nogil=True)
def _halve(d, root, vectors):
    """Replace each row of vectors by L times it, with L's columns in the rows of root."""
    for j in range(d):
        for i in range(d - 1, -1, -1):
            total = fill(0.0)
            for k in range(i + 1):
                total = total + load(root, k * d + i) * load(vectors, j * d + k)
            store(vectors, j * d + i, total)


@njit(cache=True, nogil=True)
def _slope(d, half, start, stop, product, grad):
    """grad[start:stop] = I - Σⱼ half[j] half[j]ᵀ, from the lanes of half."""
    for i in range(d):
        for k in range(i + 1):
            total = fill(1.0 if i == k else 0.0)
            for j in range(d):
                total = total - load(half, j * d + i) * load(half, j * d + k)
            store(product, i * d + k, total)
            store(product, k * d + i, total)
    for lane in range(stop - start):
        own = grad[start + lane]
        for i in range(d):
            for k in range(d):
                own[i, k] = product[(i * d + k) * LANES + lane]


@njit(cache=True, nogil=True)
def _residual(d, half_x, half_y, sigma):
    """‖R V - S U‖², exact where the traces cancel; half_x = S U Σ^-½ and half_y = R V Σ^-½."""
    total = fill(0.0)
    for j in range(d):
        own = fill(0.0)
        for i in range(d):
            difference = load(half_y, j * d + i) - load(half_x, j * d + i)
            own = own + difference * difference
        total = total + load(sigma, j) * own
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def solve(x, y, start, stop, value, grad_x, grad_y, status):
    """Fill value[i], grad_x[i], grad_y[i] of the pairs start <= i < stop; what has no rows is not wanted.

    x, y: (n or 1, d, d); value, status: (n,); grad_x, grad_y: (n or 0, d, d). Where status[i] is UNSOLVED, a covariance
    was singular, indefinite or NaN, or the traces cancelled unexpectedly: the general way has to be taken.
    """
    d = x.shape[1]
    rounds, size = _tournament(d), d * d
    cov_x, cov_y, root_x, root_y = space(size), space(size), space(size), space(size)
    w, v, sigma, answer = space(size), space(size), space(d), space(1)
    with_gradient = grad_x.shape[0] + grad_y.shape[0] > 0
    # The value depends on the square of the angles that are left, gradients on the angles.
    tolerance = 1e-13 if with_gradient else 1e-8
    for n in range(start, stop, LANES):
        end = min(n + LANES, stop)
        _gather(x, n, end, cov_x)
        _gather(y, n, end, cov_y)
        solved = _cholesky(d, cov_x, root_x) & _cholesky(d, cov_y, root_y)
        traces = _trace(d, cov_x) + _trace(d, cov_y)
        # A tenth apart, the distance is some 1e-3 of the traces: rarely will the columns of V be missed.
        taken = (1 << (end - n)) - 1
        near = ALL if with_gradient else taken & _near(d, cov_x, cov_y, traces)
        if near:
            for i in range(size):
                store(v, i, fill(1.0 if i % (d + 1) == 0 else 0.0))
        _product(d, root_x, root_y, w)
        solved &= ~_orthogonalise(d, w, v, near != 0, tolerance, rounds, sigma)
        total = fill(0.0)
        for j in range(d):
            own = sqrt(load(sigma, j))
            store(sigma, j, own)
            total = total + own
        distance = traces - fill(2.0) * total
        cancelled = ALL & ~greater(distance, fill(_CANCELLED) * traces)
        if near:
            for j in range(d):
                right = fill(1.0) / sqrt(load(sigma, j))
                left = right / load(sigma, j)
                for i in range(d):
                    store(w, j * d + i, left * load(w, j * d + i))
                    store(v, j * d + i, right * load(v, j * d + i))
            _halve(d, root_y, w)
            _halve(d, root_x, v)
            close = near & greater(fill(0.5) * traces, distance)
            distance = choose(close, _residual(d, w, v, sigma), distance)
            cancelled &= ~close
        store(answer, 0, distance)
        solved &= ~cancelled
        for lane in range(end - n):
            value[n + lane] = answer[lane]
            status[n + lane] = SOLVED if solved >> lane & 1 else UNSOLVED
        if grad_x.shape[0] > 0:
            _slope(d, w, n, end, cov_x, grad_x)
        if grad_y.shape[0] > 0:
            _slope(d, v, n, end, cov_y, grad_y)
