"""One fused pass of Sinkhorn over rows of scores, and what follows from the plan of a pair of potentials.

All in base 2 and in units of ε: S_ij = -|x_i - y_j|² log2(e)/ε, and G_j holds the potential of y_j and the logarithm of
its weight b_j. A pass reads each row once:

    F_i = -λ log2 Σ_j 2^(G_j + S_ij),    P_ij = a_i 2^(F_i + G_j + S_ij),    c_j = Σ_i P_ij

so that one exponential an entry serves the update of F, the update of the other potential (from c) and the marginal.
"""

import numpy as np
from numba import njit

from .exp2 import FAST, exp2

OPTIONS = {"cache": True, "nogil": True, "fastmath": FAST}
# float32 sums of at most this many rows before they are added to the float64 total.
BLOCK = 64
LANES = 32


@njit(cache=True, nogil=True, fastmath={"contract"})
def row_max(row, G, lanes):
    """max_j (row_j + G_j); `lanes` is scratch, whose entries' maxima are independent and so are computed by SIMD."""
    m, q = G.shape[0], lanes.shape[0]
    for k in range(q):
        lanes[k] = -np.inf
    for start in range(0, m - q + 1, q):
        r, g = row[start : start + q], G[start : start + q]
        for k in range(q):
            z = r[k] + g[k]
            lanes[k] = z if z > lanes[k] else lanes[k]
    top = lanes[0]
    for k in range(q):
        top = lanes[k] if lanes[k] > top else top
    for j in range(m - m % q, m):
        z = row[j] + G[j]
        top = z if z > top else top
    return top


@njit(**OPTIONS)
def exp_row(row, G, shift, out):
    """out_j = 2^(row_j + G_j + shift); returns their sum."""
    total = row.dtype.type(0)
    for j in range(row.shape[0]):
        e = exp2(row[j] + G[j] + shift)
        out[j] = e
        total += e
    return total


@njit(**OPTIONS)
def sweep(S, G, F, a, strength, columns, c):
    """The fused pass. S (n, m), G (m,) and a (n,) in the working type; F (n,) and c (m,) in float64.

    F holds a guess on entry, NaN for none: the exponents are shifted by it, and only where that leaves the range
    (2^±60 for a row's sum) a row is done again with its true maximum. `strength` is λ, 1 for balanced transport.
    c is added to, and left alone without `columns`.
    """
    n, m = S.shape
    dtype = S.dtype.type
    e, u = np.zeros((4, m), S.dtype), np.zeros(4, S.dtype)
    partial, lanes = np.zeros(m, S.dtype), np.empty(LANES, S.dtype)
    for start in range(0, n, 4):  # by fours, so that c is read and written less often
        for q in range(4):
            i = start + q
            u[q] = dtype(0)
            if i >= n:
                continue
            shift, total = dtype(F[i] / strength), dtype(0)
            if shift == shift:
                total = exp_row(S[i], G, shift, e[q])
            if not (total > 8.7e-19 and total < 1.2e18):
                shift = -row_max(S[i], G, lanes)
                total = exp_row(S[i], G, shift, e[q])
            log_sum = np.log2(np.float64(total)) - np.float64(shift)
            F[i] = -strength * log_sum
            u[q] = a[i] / total
            if strength != 1.0:
                u[q] *= dtype(2.0 ** (F[i] + log_sum))
        if not columns:
            continue
        add_rows(e, u, partial)
        if start % BLOCK == BLOCK - 4 or start + 4 >= n:
            for j in range(m):
                c[j] += np.float64(partial[j])
                partial[j] = dtype(0)


@njit(**OPTIONS)
def add_rows(e, u, out):
    """out_j += Σ_q u_q e_qj over four rows."""
    e0, e1, e2, e3 = e[0], e[1], e[2], e[3]
    u0, u1, u2, u3 = u[0], u[1], u[2], u[3]
    for j in range(out.shape[0]):
        out[j] += (e0[j] * u0 + e1[j] * u1) + (e2[j] * u2 + e3[j] * u3)


@njit(**OPTIONS)
def plan_rows(S, G, F, a, P):
    """P_ij = a_i 2^(F_i + G_j + S_ij), for given potentials."""
    for i in range(S.shape[0]):
        exp_row(S[i], G, S.dtype.type(F[i]), P[i])
        for j in range(S.shape[1]):
            P[i, j] *= a[i]


@njit(**OPTIONS)
def moments(S, G, F, a, x, yt, Py, columns, Ptx):
    """Products of the plan with coordinates, without keeping it: Py_ik += Σ_j P_ij y_jk and Ptx_kj += Σ_i x_ik P_ij.

    x (n, p), yt (q, m), Py (n, q) and Ptx (p, m). Four rows and two coordinates at a time, so that what was read
    serves several sums. Ptx is left alone without `columns`.
    """
    n, m = S.shape
    dtype = S.dtype.type
    # Columns of yt and Ptx that stay in the second cache (256 KiB of float32) while all rows pass by.
    width = min(m, 2048, max(512, 65536 // (x.shape[1] + yt.shape[0])))
    P, w = np.zeros((4, width), S.dtype), np.zeros(4, S.dtype)
    for left in range(0, m, width):
        right = min(left + width, m)
        for start in range(0, n, 4):
            live = min(4, n - start)
            for q in range(4):
                w[q] = a[start + q] if q < live else dtype(0)
                if q < live:
                    exp_row(S[start + q][left:right], G[left:right], dtype(F[start + q]), P[q])
            _rows_times(P, w, yt, left, right, Py[start : start + live])
            if columns:
                _columns_times(P, w, x[start : start + live], left, right, Ptx)


@njit(**OPTIONS)
def strip(m, rows):
    """Width of a strip of so many rows: fits a first cache of 32 KiB, but is not so narrow that its loops are short."""
    return min(m, max(512, 8192 // rows))


@njit(**OPTIONS)
def _rows_times(P, w, yt, left, right, Py):
    p0, p1, p2, p3 = P[0], P[1], P[2], P[3]
    zero = P.dtype.type(0)
    for k in range(0, yt.shape[0], 2):
        y0, y1 = yt[k][left:right], yt[min(k + 1, yt.shape[0] - 1)][left:right]
        s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
        for j in range(right - left):
            u, v = y0[j], y1[j]
            s0 += p0[j] * u
            s1 += p1[j] * u
            s2 += p2[j] * u
            s3 += p3[j] * u
            t0 += p0[j] * v
            t1 += p1[j] * v
            t2 += p2[j] * v
            t3 += p3[j] * v
        first, second = (s0, s1, s2, s3), (t0, t1, t2, t3)
        for q in range(Py.shape[0]):
            Py[q, k] += w[q] * first[q]
            if k + 1 < yt.shape[0]:
                Py[q, k + 1] += w[q] * second[q]


@njit(**OPTIONS)
def _columns_times(P, w, x, left, right, Ptx):
    p0, p1, p2, p3 = P[0], P[1], P[2], P[3]
    u, v = np.zeros(4, P.dtype), np.zeros(4, P.dtype)
    for k in range(0, x.shape[1], 2):
        pair = k + 1 < x.shape[1]
        for q in range(x.shape[0]):
            u[q] = w[q] * x[q, k]
            v[q] = w[q] * x[q, k + 1] if pair else u[q]
        u0, u1, u2, u3 = u[0], u[1], u[2], u[3]
        out = Ptx[k][left:right]
        if not pair:
            for j in range(out.shape[0]):
                out[j] += (p0[j] * u0 + p1[j] * u1) + (p2[j] * u2 + p3[j] * u3)
            continue
        v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
        other = Ptx[k + 1][left:right]
        for j in range(out.shape[0]):
            z0, z1, z2, z3 = p0[j], p1[j], p2[j], p3[j]
            out[j] += (z0 * u0 + z1 * u1) + (z2 * u2 + z3 * u3)
            other[j] += (z0 * v0 + z1 * v1) + (z2 * v2 + z3 * v3)


@njit(**OPTIONS)
def max_rows(S, G, out):
    """out_i = max_j (S_ij + G_j): the pass at ε = 0."""
    lanes = np.empty(LANES, S.dtype)
    for i in range(S.shape[0]):
        out[i] = row_max(S[i], G, lanes)


@njit(**OPTIONS)
def scores(x, yt, scale, S):
    """S_ij = -scale |x_i - y_j|², from differences, which do not cancel. x (n, d), yt (d, m).

    Coordinates by fours and rows by twos, so that S is written less often and a coordinate that was read serves twice;
    in strips of y that stay in the first cache.
    """
    n, d = x.shape
    m = yt.shape[1]
    width = strip(m, d)
    spare = np.empty(width, S.dtype)
    for left in range(0, m, width):
        right = min(left + width, m)
        for i in range(0, n, 2):
            second = min(i + 1, n - 1)
            v = S[i + 1][left:right] if i + 1 < n else spare[: right - left]
            _two_rows(x[i], x[second], yt, left, right, -scale, S[i][left:right], v)


@njit(**OPTIONS)
def _two_rows(xu, xv, yt, left, right, scale, u, v):
    """scale · |x - y_j|² of two points."""
    d, m = len(xu), right - left
    for k in range(0, d - d % 4, 4):
        y0, y1 = yt[k][left:right], yt[k + 1][left:right]
        y2, y3 = yt[k + 2][left:right], yt[k + 3][left:right]
        u0, u1, u2, u3 = xu[k], xu[k + 1], xu[k + 2], xu[k + 3]
        v0, v1, v2, v3 = xv[k], xv[k + 1], xv[k + 2], xv[k + 3]
        for j in range(m):
            s0, s1, s2, s3 = y0[j] - u0, y1[j] - u1, y2[j] - u2, y3[j] - u3
            t0, t1, t2, t3 = y0[j] - v0, y1[j] - v1, y2[j] - v2, y3[j] - v3
            s = (s0 * s0 + s1 * s1) + (s2 * s2 + s3 * s3)
            t = (t0 * t0 + t1 * t1) + (t2 * t2 + t3 * t3)
            u[j] = s if k == 0 else u[j] + s
            v[j] = t if k == 0 else v[j] + t
    for k in range(d - d % 4, d):
        yk, uk, vk = yt[k][left:right], xu[k], xv[k]
        for j in range(m):
            s, t = yk[j] - uk, yk[j] - vk
            u[j] = s * s if k == 0 else u[j] + s * s
            v[j] = t * t if k == 0 else v[j] + t * t
    for j in range(m):
        u[j] *= scale
        v[j] *= scale
