"""Compiled passes of Sinkhorn's algorithm over blocks of rows, and what follows from the plan of two potentials.

All in base 2 and in units of ε: S_ij = -|x_i - y_j|² log2(e)/ε, and G_j holds the potential of y_j and the logarithm of
its weight b_j. `absorb` computes rows of a matrix E that has the potentials in it, scaled so that each row's largest
entry is 1:

    E_ij = 2^(G_j + S_ij + shift_i),    shift_i = -max_j (G_j + S_ij)

While G then moves by log2 v_j, no exponential is needed: `sweep` reads each row once, for its sum and, while it is in
the cache, for its share of the columns:

    s_i = Σ_j E_ij v_j,    F_i = -λ (log2 s_i - shift_i),    u_i = a_i 2^(F_i - shift_i),    c_j = v_j Σ_i u_i E_ij

The plan is P_ij = a_i 2^(F_i + G_j + S_ij) = u_i E_ij v_j.

All arrays are flat. Points are packed for vectors of 64 bytes (see `simd`): the first cloud in groups of 6 rows (see
`rows`), the second in panels of as many columns as a vector has lanes. What is left over is filled with rows that weigh
nothing and columns whose G is -∞; so columns always come as whole vectors.
"""

import math

import numpy as np

from .._core.compiled import at_address, compiled
from .._core.flat import view
from .._core.simd import BYTES, LANES, everywhere, load, minimum, store
from .kernels import absorb as absorb_kernel
from .rows import (
    GROUP,
    add_products,
    add_square,
    exp2,
    exp2_rows,
    load_rows,
    log2,
    maximum_rows,
    multiply_add,
    power_rows,
    repeat,
    root_rows,
    spread_rows,
    store_largest,
    store_multiple,
    store_rows,
    store_totals,
)

# float32 sums run over about so many rows, or over a strip of columns, before they are added in float64; those of
# products with columns, over a part's rows.
DEEP = 48
STRIP = 256

# `absorb` or `absorb_power`, whichever has this address.
_absorb = at_address(absorb_kernel)


@compiled(inlined=True)
def pack(x, n, d, size, out):
    """Points x (n, d), as many side by side as `size`: out (n' / size, d, size), filled up with zeros."""
    for start in range(0, len(out) // d, size):
        for k in range(d):
            for q in range(size):
                out[start * d + k * size + q] = x[(start + q) * d + k] if start + q < n else 0.0


@compiled(inlined=True)
def exp2_all(x):
    """2^x in place, of doubles that fill whole vectors."""
    for p in range(len(x) // LANES):
        store(x, p, exp2(load(x, p)))


@compiled(inlined=True)
def log2_all(x):
    """log2 x in place, of positive normal doubles that fill whole vectors."""
    for p in range(len(x) // LANES):
        store(x, p, log2(load(x, p)))


@compiled(inlined=True)
def weigh(a, exponent):
    """a 2^exponent, and 0 where a is 0, whatever the exponent."""
    return a * np.exp2(exponent) if a > 0.0 else 0.0


@compiled(inlined=True)
def squared_distances(groups, panels, d, g, p):
    """|x_i - y_j|² between six rows and a panel, from differences, which do not cancel."""
    total = repeat(everywhere(groups, 0.0))
    for k in range(d):
        total = add_square(total, load(panels, p * d + k), spread_rows(groups, (g * d + k) * GROUP, 1))
    return total


@compiled(inlined=True)
def exponentials(E, shift, top, g, P):
    """2^E of six rows, divided by the largest of each."""
    store_largest(top, shift, g * GROUP)
    for i in range(g * GROUP, (g + 1) * GROUP):
        shift[i] = -shift[i]
    by = spread_rows(shift, g * GROUP, 1)
    for p in range(P):
        store_rows(E, g * GROUP * P + p, P, exp2_rows(load_rows(E, g * GROUP * P + p, P), by))


@compiled
def absorb(groups, panels, d, scale, power, G, E, shift):
    """Groups of rows against all panels: E (rows of len(G)) and shift. The power is 2, see `absorb_power`."""
    P, minus = len(G) * G.itemsize // BYTES, everywhere(E, -scale)
    low = repeat(everywhere(G, -np.inf))
    for g in range(len(shift) // GROUP):
        top, e = low, g * GROUP * P
        for p in range(P):
            z = multiply_add(repeat(load(G, p)), squared_distances(groups, panels, d, g, p), minus)
            top = maximum_rows(z, top)
            store_rows(E, e + p, P, z)
        exponentials(E, shift, top, g, P)
    return 0


@compiled
def absorb_power(groups, panels, d, scale, power, G, E, shift):
    """`absorb` for the cost |x_i - y_j|^power, in doubles."""
    P, minus = len(G) * G.itemsize // BYTES, everywhere(E, -scale)
    low = repeat(everywhere(G, -np.inf))
    for g in range(len(shift) // GROUP):
        top, e = low, g * GROUP * P
        for p in range(P):
            squares = squared_distances(groups, panels, d, g, p)
            costs = root_rows(squares) if power == 1.0 else power_rows(squares, 0.5 * power)
            z = multiply_add(repeat(load(G, p)), costs, minus)
            top = maximum_rows(z, top)
            store_rows(E, e + p, P, z)
        exponentials(E, shift, top, g, P)
    return 0


@compiled
def c_transform(groups, panels, d, scale, G, out, work):
    """out_i = max_j (G_j + S_ij), for the rows that out has: the pass at ε = 0. work: 6 numbers."""
    P, minus = len(G) * G.itemsize // BYTES, everywhere(G, -scale)
    low = repeat(everywhere(G, -np.inf))
    for g in range(-(-len(out) // GROUP)):
        top = low
        for p in range(P):
            distances = squared_distances(groups, panels, d, g, p)
            top = maximum_rows(multiply_add(repeat(load(G, p)), distances, minus), top)
        store_largest(top, work, 0)
        for q in range(minimum(GROUP, len(out) - g * GROUP)):
            out[g * GROUP + q] = work[q]


@compiled
def sweep(of, damping, columns, F, c, work):
    """The pass over a `Part`'s rows: F and, added to c in float64, Σ_i u_i E_ij.

    F and c have the filled-up lengths of shift and v. Without `columns` c is left alone. work: 6 + len(v) numbers in
    the type of E.
    """
    absorb_at, groups, panels, d, scale, power, G, stale, E, v, shift, a = of
    M, P, N = len(v), len(v) * v.itemsize // BYTES, len(shift)
    kept, step, partial, u = len(E) == N * M, minimum(DEEP, len(E) // M), view(work, 0, M), view(work, M, GROUP)
    zero = everywhere(E, 0)
    for p in range(P):
        store(partial, p, zero)
    for start in range(0, N, step):
        stop = minimum(start + step, N)
        rows = view(E, start * M if kept else 0, (stop - start) * M)
        if stale:
            part = view(shift, start, stop - start)
            _absorb(absorb_at, view(groups, start * d, (stop - start) * d), panels, d, scale, power, G, rows, part)
        for i in range(start, stop, GROUP):
            e, sums = (i - start) * P, repeat(zero)
            for p in range(P):
                sums = multiply_add(sums, load_rows(rows, e + p, P), load(v, p))
            store_totals(sums, u, 0)
            for q in range(GROUP):
                F[i + q] = u[q]
                u[q] = a[i + q] / u[q]
                if damping != 1.0 and a[i + q] > 0:  # a point without weight may be anywhere: 0 · 2^1024 is no number
                    exponent = np.log2(F[i + q]) - np.float64(shift[i + q])
                    u[q] *= np.exp2((1.0 - damping) * exponent)
            if columns:
                weights = spread_rows(u, 0, 1)
                for p in range(P):
                    store(partial, p, add_products(load(partial, p), weights, load_rows(rows, e + p, P)))
        if columns and (stop % DEEP < step or stop == N):
            for j in range(M):
                c[j] += np.float64(partial[j])
                partial[j] = 0.0
    whole = N // LANES * LANES
    log2_all(view(F, 0, whole))
    for i in range(N):
        logarithm = F[i] if i < whole else np.log2(F[i])
        F[i] = -damping * (logarithm - np.float64(shift[i]))
    return 0


@compiled(inlined=True)
def row_products(E, width, size, u, B, out, n, q, tile):
    """out (n, q) += u_i Σ_j E_ij B_jk: float64 sums of strips. B is packed by `pack_columns`."""
    count, zero = BYTES // E.itemsize, repeat(everywhere(E, 0))
    for left in range(0, width, STRIP):
        right = minimum(left + STRIP, width)
        for k in range(-(-q // count)):
            for i in range(0, size, GROUP):
                sums = zero
                for j in range(left, right):
                    sums = multiply_add(sums, spread_rows(E, i * width + j, width), load(B, k * width + j))
                store_rows(tile, 0, 1, sums)
                for r in range(minimum(GROUP, n - i)):
                    for t in range(minimum(count, q - k * count)):
                        out[(i + r) * q + k * count + t] += np.float64(u[i + r]) * np.float64(tile[r * count + t])


@compiled(inlined=True)
def column_products(E, width, size, A, columns, out):
    """out (columns, width) += Σ_i A_ik E_ij; A is packed, six k of each row side by side."""
    P = width * E.itemsize // BYTES
    for p in range(P):  # a panel of E and all of A stay in the first cache
        for k in range(columns // GROUP):
            sums = load_rows(out, k * GROUP * P + p, P)
            for i in range(size):
                sums = multiply_add(sums, spread_rows(A, (k * size + i) * GROUP, 1), load(E, i * P + p))
            store_rows(out, k * GROUP * P + p, P, sums)


@compiled
def products(of, F, B, x, Py, Ptx, work):
    """Py (n, q) += P y, of y (m, q) packed in B by `pack_columns`, and Ptx (p', len(v)) += Σ_i u_i x_ik E_ij, x (n, p).

    F (n,); an empty Py or x says that one of the two is not wanted. Py is in float64, Ptx in the type of E.
    work: 6 + 6 · 16 + (p' + 1) · min(48, rows of E) numbers, all of p' columns being whole groups of six.
    """
    absorb_at, groups, panels, d, scale, power, G, stale, E, v, shift, a = of
    n, q, p = len(F), len(Py) // len(F), len(x) // len(F)
    M, N = len(v), len(shift)
    kept, step, width = len(E) == N * M, minimum(DEEP, len(E) // M), -(-p // GROUP) * GROUP
    tile, u, packed = (
        view(work, 0, GROUP * 16),
        view(work, GROUP * 16, step),
        view(work, GROUP * 16 + step, width * step),
    )
    for start in range(0, N, step):
        size, inside = minimum(step, N - start), minimum(step, n - start)
        rows = view(E, start * M if kept else 0, size * M)
        if stale:
            part = view(shift, start, size)
            _absorb(absorb_at, view(groups, start * d, size * d), panels, d, scale, power, G, rows, part)
        for i in range(size):
            u[i] = weigh(a[start + i], F[start + i] - np.float64(shift[start + i])) if i < inside else 0.0
        if q:
            row_products(rows, M, size, u, B, view(Py, start * q, inside * q), inside, q, tile)
        if p:
            for k in range(0, width, GROUP):
                for i in range(size):
                    for t in range(GROUP):
                        value = u[i] * x[(start + i) * p + k + t] if i < inside and k + t < p else 0.0
                        packed[k * size + i * GROUP + t] = value
            column_products(rows, M, size, packed, width, Ptx)
    return 0


@compiled(inlined=True)
def pack_columns(y, m, q, v, out):
    """v_j y_jk for `row_products`: out holds a vector of coordinates k for each j, all j before further k."""
    count = BYTES // out.itemsize
    for k in range(0, len(out) // len(v), count):
        for j in range(len(v)):
            inside = minimum(count, q - k) if j < m else 0
            if inside == count:
                store_multiple(out, k // count * len(v) + j, v[j], y, j * q + k)
                continue
            for t in range(inside):
                out[k * len(v) + j * count + t] = v[j] * y[j * q + k + t]
            for t in range(inside, count):
                out[k * len(v) + j * count + t] = 0.0


@compiled
def plan_rows(of, F, out):
    """P_ij = u_i E_ij v_j into out (n, m), F (n,)."""
    absorb_at, groups, panels, d, scale, power, G, stale, E, v, shift, a = of
    m = len(out) // len(F)
    if stale:
        _absorb(absorb_at, groups, panels, d, scale, power, G, E, shift)
    for i in range(len(F)):
        u = weigh(a[i], F[i] - np.float64(shift[i]))
        for j in range(m):
            out[i * m + j] = u * np.float64(E[i * len(v) + j]) * np.float64(v[j])


@compiled
def power_gradients(x, y, P, d, power, by_x, by_y, w):
    """Σ_j and, added to by_y, -Σ_i of P_ij p |x_i - y_j|^(p-2) (x_i - y_j), which is 0 where the points coincide.

    x and by_x (n, d), y and by_y (d, m), P (n, m); w: m numbers. From differences, which do not cancel.
    """
    m = len(w)
    for i in range(len(x) // d):
        for j in range(m):
            w[j] = 0.0
        for k in range(d):
            for j in range(m):
                w[j] += (x[i * d + k] - y[k * m + j]) ** 2
        for j in range(m):
            slope = 1.0 / math.sqrt(w[j]) if power == 1.0 else w[j] ** (0.5 * power - 1.0)
            w[j] = P[i * m + j] * power * slope if w[j] > 0.0 else 0.0
        for k in range(d):
            total = 0.0
            for j in range(m):
                t = w[j] * (x[i * d + k] - y[k * m + j])
                total += t
                by_y[k * m + j] -= t
            by_x[i * d + k] = total
