"""Passes of Sinkhorn's algorithm over blocks of rows, and what follows from the plan of a pair of potentials.

All in base 2 and in units of ε: S_ij = -|x_i - y_j|² log2(e)/ε, and G_j holds the potential of y_j and the logarithm of
its weight b_j. `absorb` computes rows of a kernel that has the potentials in it, scaled so that each row's largest
entry is 1:

    E_ij = 2^(G_j + S_ij + shift_i),    shift_i = -max_j (G_j + S_ij)

While G then moves by log2 v_j, no exponential is needed: `sweep` reads each row once, for its sum and, while it is in
the cache, for its share of the columns:

    s_i = Σ_j E_ij v_j,    F_i = -λ (log2 s_i - shift_i),    u_i = a_i 2^(F_i - shift_i),    c_j = v_j Σ_i u_i E_ij

The plan is P_ij = a_i 2^(F_i + G_j + S_ij) = u_i E_ij v_j.

Points are packed for vectors of 64 bytes (see `simd`): the first cloud in groups of 6 rows, the second in panels of as
many columns as a vector has lanes. What is left over is filled with rows that weigh nothing and columns whose G is -∞;
so columns always come as whole vectors.
"""

import numpy as np

from .._core import simd
from .._core.compiled import njit
from .._core.simd import BYTES, fill, largest, load, maximum, store
from .exp2 import FAST, exp2, log2_all

OPTIONS = {"cache": True, "nogil": True, "fastmath": FAST, "error_model": "numpy", "no_cfunc_wrapper": True}
# What is called from compiled code alone: entries from Python would take as long to compile as the functions.
INNER = OPTIONS | {"no_cpython_wrapper": True}
# Six accumulators, a vector of the second operand and a number of the first fit into the 16 registers of AVX2, too.
GROUP = 6
# float32 sums run over about so many rows, or over a strip of columns, before they are added in float64; those of
# products with columns, over a part's rows.
DEEP = 48
STRIP = 256


@njit(**OPTIONS)
def pack(x, size, out):
    """Points x (n, d) into out (n' / size, d, size): so many side by side, filled up with zeros."""
    n, d = x.shape
    for i in range(out.shape[0] * size):
        g, q = i // size, i % size
        for k in range(d):
            out[g, k, q] = x[i, k] if i < n else 0.0


@njit(inline="always")
def _distances(rows, panels, g, p, d):
    """|x_i - y_j|² between six rows and a panel, from differences, which do not cancel."""
    s0 = fill(rows.dtype.type(0))
    s1 = s2 = s3 = s4 = s5 = s0
    for k in range(d):
        y, at = load(panels, p * d + k), (g * d + k) * GROUP
        t0, t1, t2 = y - simd.spread(rows, at), y - simd.spread(rows, at + 1), y - simd.spread(rows, at + 2)
        t3, t4, t5 = y - simd.spread(rows, at + 3), y - simd.spread(rows, at + 4), y - simd.spread(rows, at + 5)
        s0, s1, s2 = s0 + t0 * t0, s1 + t1 * t1, s2 + t2 * t2
        s3, s4, s5 = s3 + t3 * t3, s4 + t4 * t4, s5 + t5 * t5
    return s0, s1, s2, s3, s4, s5


@njit(**INNER)
def absorb(rows, panels, d, scale, G, E, shift):
    """Six rows each of `rows` (flat groups) against `panels` (flat): E (flat, rows of len(G)) and shift."""
    P, minus = len(G) * G.itemsize // BYTES, fill(-scale)
    low = fill(G.dtype.type(-np.inf))
    for g in range(len(shift) // GROUP):
        t0 = t1 = t2 = t3 = t4 = t5 = low
        e = g * GROUP * P
        for p in range(P):
            s0, s1, s2, s3, s4, s5 = _distances(rows, panels, g, p, d)
            z = load(G, p)
            z0, z1, z2 = z + minus * s0, z + minus * s1, z + minus * s2
            z3, z4, z5 = z + minus * s3, z + minus * s4, z + minus * s5
            t0, t1, t2 = maximum(z0, t0), maximum(z1, t1), maximum(z2, t2)
            t3, t4, t5 = maximum(z3, t3), maximum(z4, t4), maximum(z5, t5)
            store(E, e + p, z0)
            store(E, e + P + p, z1)
            store(E, e + 2 * P + p, z2)
            store(E, e + 3 * P + p, z3)
            store(E, e + 4 * P + p, z4)
            store(E, e + 5 * P + p, z5)
        i = g * GROUP
        shift[i], shift[i + 1], shift[i + 2] = -largest(t0), -largest(t1), -largest(t2)
        shift[i + 3], shift[i + 4], shift[i + 5] = -largest(t3), -largest(t4), -largest(t5)
        for q in range(GROUP):
            by = fill(shift[i + q])
            for p in range(e + q * P, e + (q + 1) * P):
                store(E, p, exp2(load(E, p) + by))


@njit(**OPTIONS)
def peaks(rows, panels, d, scale, G, out):
    """out_i = max_j (G_j + S_ij), for the rows that out has: the pass at ε = 0."""
    P, minus = len(G) * G.itemsize // BYTES, fill(-scale)
    low = fill(G.dtype.type(-np.inf))
    for g in range(-(-len(out) // GROUP)):
        t0 = t1 = t2 = t3 = t4 = t5 = low
        for p in range(P):
            s0, s1, s2, s3, s4, s5 = _distances(rows, panels, g, p, d)
            z = load(G, p)
            t0, t1, t2 = maximum(z + minus * s0, t0), maximum(z + minus * s1, t1), maximum(z + minus * s2, t2)
            t3, t4, t5 = maximum(z + minus * s3, t3), maximum(z + minus * s4, t4), maximum(z + minus * s5, t5)
        tops = (largest(t0), largest(t1), largest(t2), largest(t3), largest(t4), largest(t5))
        for q in range(min(GROUP, len(out) - g * GROUP)):
            out[g * GROUP + q] = tops[q]


@njit(inline="always")
def tile(part, start, stop):
    """Rows [start, stop) of the kernel of a part of the rows: those kept in E, or computed into it.

    A part is (groups, panels, d, scale, G, stale, E, v, shift): what `absorb` takes, with `groups` and `shift` of the
    part's rows, whether they are to be computed, room for all or for some of them, and v. All arrays are flat.
    """
    groups, panels, d, scale, G, stale, E, v, shift = part
    width = len(v)
    rows = E[start * width : stop * width] if len(E) == len(shift) * width else E[: (stop - start) * width]
    if stale:
        absorb(groups[start * d : stop * d], panels, d, scale, G, rows, shift[start:stop])
    return rows


@njit(**OPTIONS)
def sweep(part, a, strength, columns, F, c):
    """The pass over a part's rows: F (n,) and, added to c (m,) in float64, Σ_i u_i E_ij; a (n',) in the working type.

    c is left alone without `columns`.
    """
    E, v, shift = part[6:]
    n, N = len(F), len(shift)
    partial, step = np.zeros(len(v), E.dtype), min(DEEP, len(E) // len(v))
    for start in range(0, N, step):
        stop = min(start + step, N)
        rows = tile(part, start, stop)
        _spread(rows, v, shift[start:stop], a[start:stop], strength, columns, F[start : min(stop, n)], partial)
        if columns and (stop % DEEP < step or stop == N):
            for j in range(len(c)):
                c[j] += np.float64(partial[j])
                partial[j] = 0.0


@njit(inline="always")
def _spread(E, v, shift, a, strength, columns, F, partial):
    """`sweep` over rows whose kernel is there."""
    dtype = E.dtype.type
    P, n = len(v) * v.itemsize // BYTES, len(F)
    zero, u = fill(dtype(0)), np.zeros(GROUP, E.dtype)
    for g in range(len(shift) // GROUP):
        e, i = g * GROUP * P, g * GROUP
        s0 = s1 = s2 = s3 = s4 = s5 = zero
        for p in range(P):
            w = load(v, p)
            s0, s1, s2 = s0 + load(E, e + p) * w, s1 + load(E, e + P + p) * w, s2 + load(E, e + 2 * P + p) * w
            s3, s4 = s3 + load(E, e + 3 * P + p) * w, s4 + load(E, e + 4 * P + p) * w
            s5 = s5 + load(E, e + 5 * P + p) * w
        sums = (simd.total(s0), simd.total(s1), simd.total(s2), simd.total(s3), simd.total(s4), simd.total(s5))
        for q in range(GROUP):
            u[q] = 0.0
            if i + q < n:
                F[i + q] = sums[q]
                u[q] = a[i + q] / sums[q]
                if strength != 1.0:
                    u[q] *= dtype(2.0 ** ((1.0 - strength) * (np.log2(F[i + q]) - np.float64(shift[i + q]))))
        if columns:
            _add_rows(E, e, P, u, partial)
    log2_all(F)
    for i in range(n):
        F[i] = -strength * (F[i] - np.float64(shift[i]))


@njit(inline="always")
def _add_rows(E, e, P, u, out):
    """out += Σ_q u_q · row q of six."""
    u0, u1, u2, u3, u4, u5 = fill(u[0]), fill(u[1]), fill(u[2]), fill(u[3]), fill(u[4]), fill(u[5])
    for p in range(P):
        z = u0 * load(E, e + p) + u1 * load(E, e + P + p) + u2 * load(E, e + 2 * P + p)
        z = z + (u3 * load(E, e + 3 * P + p) + u4 * load(E, e + 4 * P + p) + u5 * load(E, e + 5 * P + p))
        store(out, p, load(out, p) + z)


@njit(**INNER)
def weigh(a, F, shift, u):
    """u_i = a_i 2^(F_i - shift_i), with which P_ij = u_i E_ij v_j; 0 for rows that fill up."""
    for i in range(len(u)):
        u[i] = a[i] * np.exp2(F[i] - np.float64(shift[i])) if i < len(F) else 0.0


@njit(**OPTIONS)
def products(part, a, F, B, x, Py, Ptx):
    """Py (n, q) += P y, of y (m, q) packed by `pack_columns`, and Ptx (p', m') += Σ_i u_i x_ik E_ij, of x (n, p).

    Py in float64, Ptx in the working type; q = 0 or p = 0: not wanted.
    """
    E, v, shift = part[6:]
    n, N, M, p = len(F), len(shift), len(v), x.shape[1]
    step = min(DEEP, len(E) // M)
    u, A, sums = np.empty(step, E.dtype), np.empty(Ptx.shape[0] * step, E.dtype), Ptx.reshape(-1)
    for start in range(0, N, step):
        stop, inside = min(start + step, N), min(start + step, n)
        rows, w = tile(part, start, stop), u[: stop - start]
        weigh(a[start:stop], F[start:inside], shift[start:stop], w)
        if Py.shape[1]:
            row_products(rows, M, w, B, Py[start:inside])
        if p:
            packed = A[: Ptx.shape[0] * len(w)]
            pack_rows(x[start:inside], w, packed)
            column_products(rows, M, packed, sums)


@njit(**INNER)
def row_products(E, width, u, B, out):
    """out (n, q) += u_i Σ_j E_ij B_jk: float64 sums of strips. E flat, rows of `width`; B packed by `pack_columns`."""
    dtype, count = E.dtype.type, BYTES // E.itemsize
    n, q = out.shape
    zero = fill(dtype(0))
    tile = np.empty(GROUP * count, E.dtype)
    for left in range(0, width, STRIP):
        right = min(left + STRIP, width)
        for k in range(-(-q // count)):
            for i in range(0, len(u), GROUP):
                s0 = s1 = s2 = s3 = s4 = s5 = zero
                at = i * width
                for j in range(left, right):
                    y = load(B, k * width + j)
                    s0 = s0 + simd.spread(E, at + j) * y
                    s1 = s1 + simd.spread(E, at + width + j) * y
                    s2 = s2 + simd.spread(E, at + 2 * width + j) * y
                    s3 = s3 + simd.spread(E, at + 3 * width + j) * y
                    s4 = s4 + simd.spread(E, at + 4 * width + j) * y
                    s5 = s5 + simd.spread(E, at + 5 * width + j) * y
                store(tile, 0, s0)
                store(tile, 1, s1)
                store(tile, 2, s2)
                store(tile, 3, s3)
                store(tile, 4, s4)
                store(tile, 5, s5)
                for r in range(min(GROUP, n - i)):
                    for t in range(min(count, q - k * count)):
                        out[i + r, k * count + t] += np.float64(u[i + r]) * np.float64(tile[r * count + t])


@njit(**OPTIONS)
def pack_columns(y, v, out):
    """v_j y_jk for `row_products`: out (flat) holds a vector of coordinates k for each j, all j before further k."""
    m, q = y.shape
    count = BYTES // out.itemsize
    for k in range(-(-q // count)):
        for j in range(len(v)):
            for t in range(count):
                inside = j < m and k * count + t < q
                out[(k * len(v) + j) * count + t] = v[j] * y[j, k * count + t] if inside else 0.0


@njit(**INNER)
def column_products(E, width, A, out):
    """out (flat, rows of `width`) += Σ_i A_ik E_ij, k by k: A packed by `pack_rows`, of as many rows as E has."""
    zero = fill(E.dtype.type(0))
    n, P = len(E) // width, width * E.itemsize // BYTES
    for p in range(P):  # a panel of E and all of A stay in the first cache
        for k in range(len(A) // (n * GROUP)):
            s0 = s1 = s2 = s3 = s4 = s5 = zero
            for i in range(n):
                e, at = load(E, i * P + p), (k * n + i) * GROUP
                s0, s1 = s0 + simd.spread(A, at) * e, s1 + simd.spread(A, at + 1) * e
                s2, s3 = s2 + simd.spread(A, at + 2) * e, s3 + simd.spread(A, at + 3) * e
                s4, s5 = s4 + simd.spread(A, at + 4) * e, s5 + simd.spread(A, at + 5) * e
            o = k * GROUP * P + p
            store(out, o, load(out, o) + s0)
            store(out, o + P, load(out, o + P) + s1)
            store(out, o + 2 * P, load(out, o + 2 * P) + s2)
            store(out, o + 3 * P, load(out, o + 3 * P) + s3)
            store(out, o + 4 * P, load(out, o + 4 * P) + s4)
            store(out, o + 5 * P, load(out, o + 5 * P) + s5)


@njit(**INNER)
def pack_rows(x, u, out):
    """u_i x_ik for `column_products`: out (flat) holds six coordinates k of each row i, all i before further k."""
    n, q = x.shape
    for k in range(-(-q // GROUP)):
        for i in range(len(u)):
            for t in range(GROUP):
                inside = i < n and k * GROUP + t < q
                out[(k * len(u) + i) * GROUP + t] = u[i] * x[i, k * GROUP + t] if inside else 0.0


@njit(**OPTIONS)
def add(part, out):
    """out += part, of two matrices whose types may differ."""
    for k in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[k, j] += part[k, j]


@njit(**OPTIONS)
def plan_rows(part, a, F, out):
    """P_ij = u_i E_ij v_j into out (n, m)."""
    v, shift = part[7:]
    E, u = tile(part, 0, len(shift)), np.empty(len(shift), part[6].dtype)
    weigh(a, F, shift, u)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = u[i] * (E[i * len(v) + j] * v[j])
