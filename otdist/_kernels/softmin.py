"""One fused pass of Sinkhorn over rows of scores, and the plan that belongs to a pair of potentials.

All in base 2 and in units of ε: S_ij = -|x_i - y_j|² log2(e)/ε up to a part p_i that depends on i alone and one in j
that is folded into G_j, which also holds the logarithm of the weight b_j. A pass reads each row once:

    F_i = λ (p_i - log2 Σ_j 2^(G_j + S_ij)),    P_ij = a_i 2^(F_i - p_i + G_j + S_ij),    c_j = Σ_i P_ij

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
def sweep(S, p, G, F, a, strength, columns, c):
    """The fused pass. S (n, m), G (m,) and a (n,) in the working type; p, F (n,) and c (m,) in float64.

    F holds a guess on entry, NaN for none: the exponents are shifted by it, and only where that leaves the range
    (2^±60 for a row's sum) a row is done again with its true maximum. `strength` is λ, 1 for balanced transport.
    c is added to, and left alone without `columns`.
    """
    n, m = S.shape
    dtype = S.dtype.type
    e, partial, lanes = np.empty(m, S.dtype), np.zeros(m, S.dtype), np.empty(LANES, S.dtype)
    for i in range(n):
        shift = dtype(F[i] / strength - p[i])
        total = exp_row(S[i], G, shift, e)
        if not (total > 8.7e-19 and total < 1.2e18):
            shift = -row_max(S[i], G, lanes)
            total = exp_row(S[i], G, shift, e)
        log_sum = np.log2(np.float64(total)) - np.float64(shift)
        F[i] = strength * (p[i] - log_sum)
        if not columns:
            continue
        u = a[i] / total
        if strength != 1.0:
            u *= dtype(2.0 ** (F[i] - p[i] + log_sum))
        for j in range(m):
            partial[j] += e[j] * u
        if i % BLOCK == BLOCK - 1 or i == n - 1:
            for j in range(m):
                c[j] += np.float64(partial[j])
                partial[j] = dtype(0)


@njit(**OPTIONS)
def plan_rows(S, p, G, F, a, P):
    """P_ij = a_i 2^(F_i - p_i + G_j + S_ij), for given potentials."""
    for i in range(S.shape[0]):
        exp_row(S[i], G, S.dtype.type(F[i] - p[i]), P[i])
        for j in range(S.shape[1]):
            P[i, j] *= a[i]


@njit(**OPTIONS)
def max_rows(S, G, out):
    """out_i = max_j (S_ij + G_j): the pass at ε = 0."""
    lanes = np.empty(LANES, S.dtype)
    for i in range(S.shape[0]):
        out[i] = row_max(S[i], G, lanes)


@njit(**OPTIONS)
def minus_squared_distances(x, yt, scale, S):
    """S_ij = -scale |x_i - y_j|², from differences: no cancellation, for few coordinates. yt is (d, m)."""
    for i in range(x.shape[0]):
        row = S[i]
        for k in range(x.shape[1]):
            xk, yk = x[i, k], yt[k]
            if k == 0:
                for j in range(row.shape[0]):
                    t = xk - yk[j]
                    row[j] = -scale * t * t
            else:
                for j in range(row.shape[0]):
                    t = xk - yk[j]
                    row[j] -= scale * t * t
