"""Squared Bures distances of pairs of matrices that fit into the cache, one after another.

With X = FᵀF, Y = GᵀG (Cholesky) and K = G Fᵀ, ``B² = tr X + tr Y - 2 ‖K‖_*``. Reflections bring K to a bidiagonal B
with the same singular values (Golub & Kahan 1965). Their sum is a trace, for which no single one of them is needed:
``√λ = 2/π ∫ λ / (λ + t²) dt``, where quadrature by an elliptic substitution converges geometrically (Hale, Higham &
Trefethen 2008, "Computing A^α, log(A), and related matrix functions by contour integrals", section 4.2). All its terms
are positive, and so are those of the recurrences for ``tr BᵀB (BᵀB + t²)⁻¹``: no digit is lost that B had.

The gradients are I - T and I - T⁻¹, with T⁻¹ = P (BᵀB)^-½ Pᵀ, P = FᵀV, and T the same of GᵀU and BBᵀ: the inverses of
tridiagonal matrices, which the same quadrature sums up to those roots, have closed forms.

Matrices are flat arrays of vectors (`simd`), rows in memory, padded with zeros.
"""

import math

import numpy as np

from .._core.compiled import njit
from .._core.simd import ALL, LANES, choose, fill, load, space, spread, store, total

# Dimensions up to which this beats LAPACK, whose blocks count for more than vectors once a matrix leaves the cache.
LARGEST = 256
SOLVED, UNSOLVED = 0, 1

_EPS = 2.220446049250313e-16
_LEAST, _MOST = 1e-70, 1e70  # variances whose fourth powers are normal numbers
_MOST_NODES = 24  # vectors of eight; 20 are needed for singular values over a range of 1e18
_SPREAD = 1e-6  # singular values over more than this cost gradients ten digits
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
def _transposed(d, a, triangular, out):
    width = LANES * -(-d // LANES)
    for i in range(d):
        for j in range(i if triangular else 0, d):
            out[j * width + i] = a[i * width + j]


@njit(cache=True, nogil=True)
def _product(d, a, b, triangular, out):
    """-A B; a `triangular` A has nothing below its diagonal, and B nothing above."""
    p = -(-d // LANES)
    width, zero = LANES * p, fill(0.0)
    for top in range(0, width, LANES):
        for v in range(p):
            rows = (zero, zero, zero, zero, zero, zero, zero, zero)
            for i in range(max(top, LANES * v) if triangular else 0, width):
                rows = _minus(rows, a, top * width + i, width, load(b, i * p + v))
            _put(out, top * p + v, p, rows)


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
def _reflect_rows(p, first, d, a, v, scale):
    """A (I - scale v vᵀ), four rows of A at a time."""
    for i in range(0, d, 4):
        s0, s1, s2, s3 = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
        for j in range(first, p):
            own = load(v, j)
            s0, s1 = s0 + load(a, i * p + j) * own, s1 + load(a, (i + 1) * p + j) * own
            s2, s3 = s2 + load(a, (i + 2) * p + j) * own, s3 + load(a, (i + 3) * p + j) * own
        t0, t1 = fill(scale * total(s0)), fill(scale * total(s1))
        t2, t3 = fill(scale * total(s2)), fill(scale * total(s3))
        for j in range(first, p):
            own = load(v, j)
            store(a, i * p + j, load(a, i * p + j) - t0 * own)
            store(a, (i + 1) * p + j, load(a, (i + 1) * p + j) - t1 * own)
            store(a, (i + 2) * p + j, load(a, (i + 2) * p + j) - t2 * own)
            store(a, (i + 3) * p + j, load(a, (i + 3) * p + j) - t3 * own)


@njit(cache=True, nogil=True)
def _bidiagonalise(d, a, left, right, diagonal, above):
    """B = UᵀAV, by its diagonal and what is above; a has three rows more than the last.

    `left` and `right` (d, d) are replaced by their products with U and V, unless they are empty.
    """
    p = -(-d // LANES)
    u, z, w, v_old, v_new = space(p + 1), space(p + 1), space(p), space(p), space(p)
    width = LANES * p
    for k in range(d):
        first = k // LANES
        along = v_old[k]
        for i in range(k, d):
            u[i] = a[i * width + k] - z[i] * along
        for i in range(LANES * first, k):
            u[i] = z[i] = 0.0
        diagonal[k], scale = _reflect(u, k, _dot(first, p, u, u))
        if left.size:
            _reflect_rows(p, first, d, left, u, scale)
        if k == d - 1:
            break
        _times_rows(p, (k + 1) // LANES, k, d, u, a, scale, _dot(first, p, u, z), v_old, w)
        first = (k + 1) // LANES
        zk, uk = fill(z[k]), fill(u[k])
        for v in range(first, p):
            store(v_new, v, load(a, k * p + v) - zk * load(v_old, v) - uk * load(w, v))
        for i in range(LANES * first, k + 1):
            v_new[i] = 0.0
        above[k], scale = _reflect(v_new, k + 1, _dot(first, p, v_new, v_new))
        if right.size:
            _reflect_rows(p, first, d, right, v_new, scale)
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
def _bounds(d, diagonal, above):
    """Bounds of the singular values of B, or of those that matter: √(1 / tr (BᵀB)⁻¹) and |B|."""
    square, inverse, slope = 0.0, 0.0, 1.0
    for i in range(d):
        own = diagonal[i] ** 2
        square += own + above[i] ** 2
        inverse += slope / own
        slope = 1.0 + above[i] ** 2 * slope / own
    high = math.sqrt(square)
    low = 1.0 / math.sqrt(inverse) if inverse < math.inf else 0.0
    return min(max(low, _EPS / d * high), 0.5 * high), high


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_of_singular_values(d, diagonal, above, vectors, shifts, weights):
    """‖B‖_* = Σ weights tr BᵀB (BᵀB + shifts)⁻¹."""
    out, one = fill(0.0), fill(1.0)
    for v in range(vectors):
        shift, g, dg, trace = load(shifts, v), load(shifts, v), fill(0.0), fill(0.0)
        for i in range(d):
            own, beside = fill(diagonal[i] ** 2), fill(above[i] ** 2)
            recip = one / (own + g)
            trace = trace + (own + dg) * recip
            up = beside * recip
            dg = up * (g * g + own * dg) * recip
            g = shift + up * g
        out = out + load(weights, v) * trace
    return total(out)


@njit(cache=True, nogil=True, error_model="numpy")
def _inverse_root(d, diagonal, above, vectors, shifts, weights, scratch, out):
    """out = -(BᵀB)^-½ = -Σ weights (BᵀB + shifts)⁻¹.

    The inverse of a tridiagonal matrix, by its pivots from above and from below: the diagonal is the reciprocal of
    their sum less what both contain; from there on, each entry of a row is the one before times -off-diagonal / pivot.
    """
    width, one, zero = LANES * -(-d // LANES), fill(1.0), fill(0.0)
    for v in range(vectors):
        shift, e = load(shifts, v), load(shifts, v)
        for i in range(d - 1, -1, -1):  # pivots from below, less above[i - 1]²
            beside = fill(above[i] ** 2)
            e = shift + fill(diagonal[i] ** 2) * (e / (beside + e) if i < d - 1 else one)
            store(scratch, (2 * v) * d + i, e)
        g = zero
        for i in range(d):  # pivots from above, less diagonal[i]² and the shift
            store(scratch, (2 * v + 1) * d + i, load(weights, v) / (g + load(scratch, (2 * v) * d + i)))
            g = fill(above[i] ** 2) * (g + shift) / (fill(diagonal[i] ** 2) + g + shift)
        for i in range(1, d):  # minus off-diagonal / pivot
            factor = fill(-diagonal[i - 1] * above[i - 1])
            store(scratch, 2 * v * d + i, factor / (load(scratch, 2 * v * d + i) + fill(above[i - 1] ** 2)))
    for i in range(d):
        for v in range(vectors):
            store(scratch, 2 * vectors * d + v, load(scratch, (2 * v + 1) * d + i))
        for k in range(i, d):
            entry = zero
            for v in range(vectors):
                own = load(scratch, 2 * vectors * d + v)
                if k > i:
                    own = own * load(scratch, 2 * v * d + k)
                    store(scratch, 2 * vectors * d + v, own)
                entry = entry - own
            out[i * width + k] = out[k * width + i] = total(entry)


@njit(cache=True, nogil=True)
def _turn_around(d, a):
    """Reverse the order of rows and columns."""
    width = LANES * -(-d // LANES)
    for i in range(d // 2 + d % 2):
        for j in range(d if i < d // 2 else d // 2):
            other = (d - 1 - i) * width + d - 1 - j
            a[i * width + j], a[other] = a[other], a[i * width + j]


@njit(cache=True, nogil=True)
def _slope(d, root, minus_inverse_root, one, two, grad):
    """grad = I - P C Pᵀ with P = `root` and -C = `minus_inverse_root`; `one` and `two` are for use."""
    width = LANES * -(-d // LANES)
    _product(d, root, minus_inverse_root, False, one)
    _transposed(d, root, False, two)
    _product(d, one, two, False, root)
    for i in range(d):
        for j in range(i):
            grad[i, j] = grad[j, i] = root[i * width + j]
        grad[i, i] = 1.0 + root[i * width + i]


@njit(cache=True, nogil=True, error_model="numpy")
def solve(x, y, start, stop, value, grad_x, grad_y, status):
    """Fill value[i], grad_x[i], grad_y[i] and status[i] of the pairs start <= i < stop.

    x, y: (n or 1, d, d); value, status: (n,); grad_x, grad_y: (n or 0, d, d), without rows where they are not wanted.
    Where status[i] is UNSOLVED, a covariance was singular, indefinite or NaN, the traces cancelled, or the gradients
    would lose too many digits: another way has to be taken.
    """
    d = x.shape[1]
    p = -(-d // LANES)
    size = LANES * p * p
    f, g, r, k = space(size), space(size), space(size), space(size + 4 * p)
    want_x, want_y = grad_x.shape[0] > 0, grad_y.shape[0] > 0
    diagonal, above, shifts, weights = np.zeros(d), np.zeros(d), space(_MOST_NODES), space(_MOST_NODES)
    s, none = space(size if want_x else 0), space(0)
    scratch = space((2 * d + 1) * _MOST_NODES if want_x or want_y else 0)
    for n in range(start, stop):
        own_x, own_y, traces = x[n % len(x)], y[n % len(y)], 0.0
        for i in range(d):
            traces += own_x[i, i] + own_y[i, i]
        _padded(d, own_x, f)
        _padded(d, own_y, g)
        status[n] = UNSOLVED
        if not (_cholesky(d, f) and _cholesky(d, g)):
            continue
        r[:] = 0.0
        _transposed(d, f, True, r)
        _product(d, g, r, True, k)
        if want_x:
            s[:] = 0.0
            _transposed(d, g, True, s)
        _bidiagonalise(d, k, s if want_x else none, r if want_y else none, diagonal, above)
        low, high = _bounds(d, diagonal, above)
        vectors = _nodes(low, high, shifts, weights)
        value[n] = traces - 2 * _sum_of_singular_values(d, diagonal, above, vectors, shifts, weights)
        if not value[n] >= _CANCELLED * traces:
            continue
        if want_x or want_y:
            if low < _SPREAD * high:
                continue
            if want_y:
                _inverse_root(d, diagonal, above, vectors, shifts, weights, scratch, f)
                _slope(d, r, f, g, k, grad_y[n])
            if want_x:  # BBᵀ is the same of the reversed B
                diagonal[:], above[: d - 1] = diagonal[::-1].copy(), above[: d - 1][::-1].copy()
                _inverse_root(d, diagonal, above, vectors, shifts, weights, scratch, f)
                _turn_around(d, f)
                _slope(d, s, f, g, k, grad_x[n])
        status[n] = SOLVED
