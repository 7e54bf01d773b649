"""The compiled loops of `jacobi`: eight pairs at a time, one in each lane.

All matrices lie in one workspace of vectors, columns in rows of memory; functions are told where a matrix begins.
"""

from functools import partial

from .._core.compiled import compiled
from .._core.simd import ALL, LANES, choose, fill, greater, load, maximum, minimum, sqrt, store
from .jacobi import SOLVED, UNSOLVED

_SWEEPS = 40  # it takes 5 to 8; LAPACK's dgesvj allows 30
_TINY = 2.2250738585072014e-308  # the smallest normal number
_LEAST, _MOST = 1e-70, 1e70  # traces whose fourth powers are normal numbers
_CANCELLED = 1e-3  # the share of the traces below which their difference has lost three digits

# Sums in the order in which they are written: an answer may not depend on what LLVM makes of its neighbours.
_compiled = partial(compiled, fast=False)
_inlined = partial(compiled, fast=False, inlined=True)


@_compiled
def _gather(d, x, start, stop, work, out):
    """Put the matrices from start to stop into the lanes, and identities into lanes that are left."""
    size = d * d
    for k in range(size):
        store(work, out + k, fill(1.0 if k % (d + 1) == 0 else 0.0))
    for lane in range(stop - start):
        first = (start + lane) * size if len(x) > size else 0
        for k in range(size):
            work[(out + k) * LANES + lane] = x[first + k]


@_inlined
def _dot(d, work, p, q):
    total = fill(0.0)
    for k in range(d):
        total = total + load(work, p + k) * load(work, q + k)
    return total


@_inlined
def _rotate(d, work, p, q, cosine, sine):
    for k in range(d):
        left, right = load(work, p + k), load(work, q + k)
        store(work, p + k, cosine * left - sine * right)
        store(work, q + k, sine * left + cosine * right)


@_compiled
def _cholesky(d, work, cov, root, z, rounding):
    """root[j, i] = L[i, j], columns in rows; the trace, and the lanes where cov is of full rank and moderate size.

    No eigenvalue may be as small as `rounding` times the trace: |L⁻¹|² is at least 1/λ for each of them.
    """
    trace, zero, one, good, inverse = fill(0.0), fill(0.0), fill(1.0), ALL, fill(0.0)
    for j in range(d):
        trace = trace + load(work, cov + j * d + j)
        for i in range(d):
            store(work, root + j * d + i, load(work, cov + j * d + i) if i >= j else zero)
        for k in range(j):
            factor = load(work, root + k * d + j)
            for i in range(j, d):
                own = load(work, root + j * d + i) - factor * load(work, root + k * d + i)
                store(work, root + j * d + i, own)
        pivot = load(work, root + j * d + j)
        positive = greater(pivot, zero)
        scale = choose(positive, one / sqrt(pivot), zero)
        for i in range(j, d):
            store(work, root + j * d + i, scale * load(work, root + j * d + i))
        good &= positive
    for j in range(d):  # column j of L⁻¹
        for i in range(j, d):
            total = fill(1.0 if i == j else 0.0)
            for k in range(j, i):
                total = total - load(work, root + k * d + i) * load(work, z + k)
            total = total / load(work, root + i * d + i)
            store(work, z + i, total)
            inverse = inverse + total * total
    good &= greater(one, fill(rounding) * trace * inverse)
    return trace, good & greater(trace, fill(_LEAST)) & greater(fill(_MOST), trace)


@_inlined
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


@_compiled
def _orthogonalise(d, work, w, squares, with_vectors, rounds):
    """Rotate the columns of w (its rows in memory) until they are orthogonal.

    Return the lanes where this did not end. The value depends on the square of the angles that are left, gradients on
    the angles.
    """
    negligible, enough = fill(1e-30 if with_vectors else 1e-18), fill(1e-26 if with_vectors else 1e-16)
    active = ALL
    for sweep in range(_SWEEPS + 1):
        for j in range(d):
            store(work, squares + j, _dot(d, work, w + j * d, w + j * d))
        if active == 0 or sweep == _SWEEPS:
            break
        coarse = 0
        for k in range(0, len(rounds), 2):
            p, q = rounds[k], rounds[k + 1]
            left, right = load(work, squares + p), load(work, squares + q)
            inner = _dot(d, work, w + p * d, w + q * d)
            square, scale = inner * inner, left * right
            lanes = active & greater(square, negligible * scale)
            if lanes == 0:
                continue
            coarse |= greater(square, enough * scale)
            t, cosine, sine = _angle(inner, left, right, lanes)
            store(work, squares + p, left - t * inner)
            store(work, squares + q, right + t * inner)
            _rotate(d, work, w + p * d, w + q * d, cosine, sine)
        active &= coarse
    return active


@_compiled
def _halve(d, work, root, vectors):
    """Replace each row of vectors by L times it, with L's columns in the rows of root."""
    for j in range(vectors, vectors + d * d, d):
        for i in range(d - 1, -1, -1):
            total = fill(0.0)
            for k in range(i + 1):
                total = total + load(work, root + k * d + i) * load(work, j + k)
            store(work, j + i, total)


@_compiled
def _solve_transposed(d, work, root, vectors, inverse):
    """Replace each row of vectors by L⁻ᵀ times it, L's columns in the rows of root; inverse: room for d vectors."""
    for i in range(d):
        store(work, inverse + i, fill(1.0) / load(work, root + i * d + i))
    for j in range(vectors, vectors + d * d, d):
        for i in range(d - 1, -1, -1):
            total = load(work, j + i)
            for k in range(i + 1, d):
                total = total - load(work, root + i * d + k) * load(work, j + k)
            store(work, j + i, load(work, inverse + i) * total)


@_compiled
def _slope(d, work, half, start, stop, grad):
    """grad[start:stop] = I - Σⱼ half[j] half[j]ᵀ, from the lanes of half."""
    out = 6 * d * d
    for i in range(d):
        for k in range(i + 1):
            total = fill(1.0 if i == k else 0.0)
            for j in range(d):
                total = total - load(work, half + j * d + i) * load(work, half + j * d + k)
            store(work, out, total)
            for lane in range(stop - start):
                first = (start + lane) * d * d
                grad[first + i * d + k] = grad[first + k * d + i] = work[out * LANES + lane]


@_compiled
def _halves(d, work, root, w, v, sigma, inverse):
    """S U Σ^-½ in w and R V Σ^-½ in v; ‖R V - S U‖², exact where the traces cancel.

    V has not been accumulated: SᵀR V = U Σ, so that R V = S⁻ᵀ U Σ, one triangular solution. Its error grows with the
    condition of S, that of S itself with its square.
    """
    distance, one = fill(0.0), fill(1.0)
    for j in range(d):
        right = one / sqrt(load(work, sigma + j))
        left = right / load(work, sigma + j)
        for i in range(j * d, j * d + d):
            store(work, v + i, right * load(work, w + i))
            store(work, w + i, left * load(work, w + i))
    _halve(d, work, root, w)
    _solve_transposed(d, work, root, v, inverse)
    for j in range(d):
        total = fill(0.0)
        for i in range(j * d, j * d + d):
            difference = load(work, v + i) - load(work, w + i)
            total = total + difference * difference
        distance = distance + load(work, sigma + j) * total
    return distance


@_compiled
def solve(pairs, rounds, work, rounding, d, start, stop, with_vectors):
    """`bures_squared` on flat arrays."""
    size = d * d
    w, v, root_x, root_y, cov, sigma = 0 * size, size, 2 * size, 3 * size, 4 * size, 5 * size
    for n in range(start, stop, LANES):
        end = minimum(n + LANES, stop)
        _gather(d, pairs.x, n, end, work, cov)
        trace_x, good_x = _cholesky(d, work, cov, root_x, sigma, rounding)
        _gather(d, pairs.y, n, end, work, cov)
        trace_y, good_y = _cholesky(d, work, cov, root_y, sigma, rounding)
        traces = trace_x + trace_y
        for j in range(d):  # K = SᵀR, both factors lower triangular
            for i in range(d):
                total = fill(0.0)
                for k in range(maximum(i, j), d):
                    total = total + load(work, root_y + i * d + k) * load(work, root_x + j * d + k)
                store(work, w + j * d + i, total)
        solved = good_x & good_y & ~_orthogonalise(d, work, w, sigma, with_vectors, rounds)
        total = fill(0.0)
        for j in range(d):
            own = sqrt(load(work, sigma + j))
            store(work, sigma + j, own)
            total = total + own
        distance = traces - fill(2.0) * total
        if with_vectors:
            residual = _halves(d, work, root_y, w, v, sigma, cov)
            distance = choose(greater(fill(0.5) * traces, distance), residual, distance)
        else:
            solved &= greater(distance, fill(_CANCELLED) * traces)
        store(work, cov, distance)
        for lane in range(end - n):
            pairs.value[n + lane] = work[cov * LANES + lane]
            pairs.status[n + lane] = SOLVED if solved >> lane & 1 else UNSOLVED
        if len(pairs.grad_x):
            _slope(d, work, w, n, end, pairs.grad_x)
        if len(pairs.grad_y):
            _slope(d, work, v, n, end, pairs.grad_y)
