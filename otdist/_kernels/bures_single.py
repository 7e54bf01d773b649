"""Squared Bures distances of pairs of matrices that fit into the cache, one after another; values only.

With X = FᵀF, Y = GᵀG (Cholesky) and K = G Fᵀ, ``B² = tr X + tr Y - 2 ‖K‖_*``. Reflections bring K to a bidiagonal B
with the same singular values (Golub & Kahan 1965). Their sum is a trace, for which no single one of them is needed:
``√λ = 2/π ∫ λ / (λ + t²) dt``, where quadrature by an elliptic substitution converges geometrically (Hale, Higham &
Trefethen 2008, "Computing A^α, log(A), and related matrix functions by contour integrals", section 4.2). All its terms
are positive, and so are those of the recurrences for ``tr BᵀB (BᵀB + t²)⁻¹``: no digit is lost that B had.

Matrices are flat arrays of vectors (`lanes`), rows in memory, padded with zeros.
"""

import math

import numpy as np
from numba import njit

from .lanes import ALL, LANES, choose, fill, load, space, spread, store, total

# Dimensions up to which this beats LAPACK, whose blocks count for more than vectors once a matrix leaves the cache.
LARGEST = 256
SOLVED, UNSOLVED = 0, 1

_EPS = 2.220446049250313e-16
_LEAST, _MOST = 1e-70, 1e70  # variances whose fourth powers are normal numbers
_MOST_NODES = 24  # vectors of eight; 20 are needed for singular values over a range of 1e18
_CANCELLED = 1e-3  # the share of the traces below which their difference has lost three digits


@njit(cache=True, nogil=True)
def _padded(d, cov, out):
    """Copy a matrix; what is left of the last block of rows gets an identity."""
    width = LANES * -(-d // LANES)
    for i in range(d):
        for j in range(d):
            out[i * width + j] = cov[i, j]
    for i in range(d, width):
        out[i * width + i] = 1.0


@njit(cache=True, nogil=True)
def _rows(a, first, step):
    """Eight vectors."""
    return (
        load(a, first),
        load(a, first + step),
        load(a, first + 2 * step),
        load(a, first + 3 * step),
        load(a, first + 4 * step),
        load(a, first + 5 * step),
        load(a, first + 6 * step),
        load(a, first + 7 * step),
    )


@njit(cache=True, nogil=True)
def _put(a, first, step, rows):
    store(a, first, rows[0])
    store(a, first + step, rows[1])
    store(a, first + 2 * step, rows[2])
    store(a, first + 3 * step, rows[3])
    store(a, first + 4 * step, rows[4])
    store(a, first + 5 * step, rows[5])
    store(a, first + 6 * step, rows[6])
    store(a, first + 7 * step, rows[7])


@njit(cache=True, nogil=True)
def _minus(rows, a, first, step, vector):
    """Subtract a multiple of one vector from each of eight."""
    return (
        rows[0] - spread(a, first) * vector,
        rows[1] - spread(a, first + step) * vector,
        rows[2] - spread(a, first + 2 * step) * vector,
        rows[3] - spread(a, first + 3 * step) * vector,
        rows[4] - spread(a, first + 4 * step) * vector,
        rows[5] - spread(a, first + 5 * step) * vector,
        rows[6] - spread(a, first + 6 * step) * vector,
        rows[7] - spread(a, first + 7 * step) * vector,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _cholesky(d, a):
    """Replace a by its upper triangular factor F, a = FᵀF; whether it is not singular but for rounding."""
    p = -(-d // LANES)
    width, largest = LANES * p, 0.0
    for i in range(d):
        largest = max(largest, a[i * width + i])
    if not _LEAST < largest < _MOST:
        return False
    threshold = 10 * d * _EPS * largest
    for b in range(p):
        top = LANES * b
        for v in range(b, p):
            rows = _rows(a, top * p + v, p)
            for k in range(top):
                rows = _minus(rows, a, k * width + top, 1, load(a, k * p + v))
            _put(a, top * p + v, p, rows)
        for r in range(LANES):
            i = top + r
            pivot = a[i * width + i]
            if i < d and not pivot > threshold:
                return False
            scale = fill(1.0 / math.sqrt(pivot))
            for v in range(b, p):
                own = scale * load(a, i * p + v)
                if v == b:
                    own = choose(ALL & -(1 << r), own, fill(0.0))
                store(a, i * p + v, own)
            for s in range(i + 1, top + LANES):
                factor = spread(a, i * width + s)
                for v in range(b, p):
                    store(a, s * p + v, load(a, s * p + v) - factor * load(a, i * p + v))
    return True


@njit(cache=True, nogil=True)
def _transposed(d, f, out):
    width = LANES * -(-d // LANES)
    for i in range(d):
        for j in range(i, d):
            out[j * width + i] = f[i * width + j]


@njit(cache=True, nogil=True)
def _product(d, g, r, k):
    """K = -G R of upper triangular G and lower triangular R."""
    p = -(-d // LANES)
    width, zero = LANES * p, fill(0.0)
    for b in range(p):
        for v in range(p):
            rows = (zero, zero, zero, zero, zero, zero, zero, zero)
            for i in range(LANES * max(b, v), width):
                rows = _minus(rows, g, LANES * b * width + i, width, load(r, i * p + v))
            _put(k, LANES * b * p + v, p, rows)


@njit(cache=True, nogil=True)
def _dot(first, p, x, y):
    out = fill(0.0)
    for v in range(first, p):
        out = out + load(x, v) * load(y, v)
    return total(out)


@njit(cache=True, nogil=True)
def _reflect(x, k, square):
    """Turn x, nonzero from k on, with its squared norm, into the Householder vector that sends it to α eₖ.

    Return α and what 2/|x|² is then.
    """
    norm = math.sqrt(square)
    if norm == 0.0:
        return 0.0, 0.0
    head = x[k]
    alpha = -norm if head > 0 else norm
    x[k] = head - alpha
    return alpha, 1.0 / (square + norm * abs(head))


@njit(cache=True, nogil=True)
def _times_rows(p, first, start, stop, u, a, scale, z_part, v_old, w):
    """w = scale (uᵀA - z_part v_old), of the rows from start to stop of A."""
    factor, along = fill(scale), fill(z_part)
    for v in range(first, p):
        s0, s1, s2, s3 = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
        for i in range(start, stop, 4):
            s0 = s0 + spread(u, i) * load(a, i * p + v)
            s1 = s1 + spread(u, i + 1) * load(a, (i + 1) * p + v)
            s2 = s2 + spread(u, i + 2) * load(a, (i + 2) * p + v)
            s3 = s3 + spread(u, i + 3) * load(a, (i + 3) * p + v)
        store(w, v, factor * ((s0 + s1) + (s2 + s3) - along * load(v_old, v)))


@njit(cache=True, nogil=True)
def _update(p, first, start, stop, a, u, w, z, v_old, v_new, scale):
    """A -= z v_oldᵀ + u wᵀ, then z = scale A v_new; rows from start to stop, four at a time."""
    for i in range(start, stop, 4):
        z0, z1, z2, z3 = spread(z, i), spread(z, i + 1), spread(z, i + 2), spread(z, i + 3)
        u0, u1, u2, u3 = spread(u, i), spread(u, i + 1), spread(u, i + 2), spread(u, i + 3)
        s0, s1, s2, s3 = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
        for v in range(first, p):
            old, left, new = load(v_old, v), load(w, v), load(v_new, v)
            a0 = load(a, i * p + v) - z0 * old - u0 * left
            a1 = load(a, (i + 1) * p + v) - z1 * old - u1 * left
            a2 = load(a, (i + 2) * p + v) - z2 * old - u2 * left
            a3 = load(a, (i + 3) * p + v) - z3 * old - u3 * left
            store(a, i * p + v, a0)
            store(a, (i + 1) * p + v, a1)
            store(a, (i + 2) * p + v, a2)
            store(a, (i + 3) * p + v, a3)
            s0, s1, s2, s3 = s0 + a0 * new, s1 + a1 * new, s2 + a2 * new, s3 + a3 * new
        z[i], z[i + 1] = scale * total(s0), scale * total(s1)
        z[i + 2], z[i + 3] = scale * total(s2), scale * total(s3)


@njit(cache=True, nogil=True)
def _bidiagonalise(d, a, squares, above):
    """The squares of the diagonal and of the superdiagonal of B = UᵀAV; a has three rows more than the last."""
    p = -(-d // LANES)
    u, z, w, v_old, v_new = space(p + 1), space(p + 1), space(p), space(p), space(p)
    width = LANES * p
    for k in range(d):
        first = k // LANES
        along = v_old[k]
        for i in range(k):
            u[i] = 0.0
        for i in range(k, d):
            u[i] = a[i * width + k] - z[i] * along
        for i in range(LANES * first, k):
            u[i] = z[i] = 0.0
        squares[k] = _dot(first, p, u, u)
        _, scale = _reflect(u, k, squares[k])
        if k == d - 1:
            break
        _times_rows(p, (k + 1) // LANES, k, d, u, a, scale, _dot(first, p, u, z), v_old, w)
        first = (k + 1) // LANES
        zk, uk = fill(z[k]), fill(u[k])
        for v in range(first, p):
            store(v_new, v, load(a, k * p + v) - zk * load(v_old, v) - uk * load(w, v))
        for i in range(LANES * first, k + 1):
            v_new[i] = 0.0
        above[k] = _dot(first, p, v_new, v_new)
        _, scale = _reflect(v_new, k + 1, above[k])
        _update(p, first, k + 1, d, a, u, w, z, v_old, v_new, scale)
        v_old, v_new = v_new, v_old


@njit(cache=True, nogil=True, error_model="numpy")
def _mean(a, b):
    """The arithmetic-geometric mean."""
    while abs(a - b) > 1e-15 * a:
        a, b = (a + b) / 2, math.sqrt(a * b)
    return a


@njit(cache=True, nogil=True, error_model="numpy")
def _nodes(low, high, squares, weights):
    """Choose them so that Σ weights λ / (λ + squares) is √λ for low² <= λ <= high²; return their number of vectors."""
    k = low / high
    period, other = math.pi / 2 / _mean(1.0, math.sqrt(1.0 - k * k)), math.pi / 2 / _mean(1.0, k)  # K(k), K(k')
    # The error falls like exp(-2πn K(k)/K(k')): theorem 4.1, and 36 = -log eps.
    n = LANES * math.ceil(36.0 * other / (2 * math.pi * period) / LANES)
    q = math.exp(-math.pi * other / period)
    step = math.pi / 2 / period * other / n
    for j in range(n // 2):
        # tan am(u | k') = sc is -i sn(iu | k), by the theta series of the small modulus
        z = (j + 0.5) * step
        grow = math.exp(z)
        sinh, triple = (grow - 1 / grow) / 2, (grow**3 - grow**-3) / 2
        double, fourth = (grow**2 + grow**-2) / 2, (grow**4 + grow**-4) / 2
        fifth = (grow**5 - grow**-5) / 2
        up = sinh - q**2 * triple + q**6 * fifth
        down = 1 - 2 * q * double + 2 * q**4 * fourth
        tangent = up / down * (1 + 2 * q + 2 * q**4) / (1 + q**2 + q**6)
        for t, i in ((tangent, j), (1.0 / (k * tangent), n - 1 - j)):
            squares[i] = (low * t) ** 2
            weights[i] = 2 * other * low / (math.pi * n) * math.sqrt((1 + (k * t) ** 2) * (1 + t * t))
    return n // LANES


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_of_singular_values(d, squares, above, shifts, weights):
    """‖B‖_* of a bidiagonal matrix: Σ weights tr BᵀB (BᵀB + shifts)⁻¹."""
    frobenius, inverse, slope = 0.0, 0.0, 1.0  # of B, of (BᵀB)⁻¹
    for i in range(d):
        frobenius += squares[i] + (above[i] if i < d - 1 else 0.0)
        inverse += slope / squares[i]
        slope = 1.0 + above[i] * slope / squares[i]
    high = math.sqrt(frobenius)
    low = 1.0 / math.sqrt(inverse) if inverse < math.inf else 0.0
    low = min(max(low, _EPS / d * high), 0.5 * high)
    out = fill(0.0)
    one = fill(1.0)
    for v in range(_nodes(low, high, shifts, weights)):
        shift, g, dg, trace = load(shifts, v), load(shifts, v), fill(0.0), fill(0.0)
        for i in range(d):
            own = spread(squares, i)
            recip = one / (own + g)
            trace = trace + (own + dg) * recip
            up = spread(above, i) * recip
            dg = up * (g * g + own * dg) * recip
            g = shift + up * g
        out = out + load(weights, v) * trace
    return total(out)


@njit(cache=True, nogil=True, error_model="numpy")
def solve(x, y, start, stop, value, status):
    """Fill value[i] and status[i] of the pairs start <= i < stop.

    x, y: (n or 1, d, d); value, status: (n,). Where status[i] is UNSOLVED, a covariance was singular, indefinite or
    NaN, or the traces cancelled: another way has to be taken.
    """
    d = x.shape[1]
    p = -(-d // LANES)
    f, g, r, k = space(LANES * p * p), space(LANES * p * p), space(LANES * p * p), space((LANES * p + 4) * p)
    squares, above, shifts, weights = np.zeros(d), np.zeros(d), space(_MOST_NODES), space(_MOST_NODES)
    for n in range(start, stop):
        own_x, own_y, traces = x[n % len(x)], y[n % len(y)], 0.0
        for i in range(d):
            traces += own_x[i, i] + own_y[i, i]
        _padded(d, own_x, f)
        _padded(d, own_y, g)
        status[n] = UNSOLVED
        if _cholesky(d, f) and _cholesky(d, g):
            _transposed(d, f, r)
            _product(d, g, r, k)
            _bidiagonalise(d, k, squares, above)
            value[n] = traces - 2 * _sum_of_singular_values(d, squares, above, shifts, weights)
            if value[n] >= _CANCELLED * traces:
                status[n] = SOLVED
