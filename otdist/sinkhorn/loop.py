"""Sinkhorn's method (see `method`) for small problems, step by step the same, in one compiled call for a whole batch.

Python between two passes over 256 x 256 points would take longer than the passes. Each function here is the compiled
twin of the one of that name in `method`; that file says why the steps are what they are.
Potentials are in base 2 and in units of ε (see `passes`): h, that of the second cloud, is iterated, and F follows from
it. All arrays are flat.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .._core.compiled import compiled
from .._core.flat import view
from .._core.simd import (
    BYTES,
    LANES,
    exponent,
    fill,
    largest,
    load_from,
    mantissa,
    maximum,
    minimum,
    store_to,
)
from .constants import (
    ANNEAL_FACTOR,
    ANNEAL_MOST,
    ANNEAL_TOL,
    ARRIVED,
    LOG2E,
    LOST,
    MAX_STAGES,
    MEMORY,
    MOST_LEFT,
    RIDGE,
    SYMMETRIC_STEP,
    TRUST_DOUBLE,
    TRUST_SINGLE,
)
from .kernels import Part
from .passes import exp2_all, log2_all, pack, pack_columns, products, sweep, weigh
from .rows import GROUP, exp2


class Term(NamedTuple):
    """Two clouds inside, n of d and m of d numbers, their weights and what one term of the divergence asks of them."""

    x: Any
    y: Any
    a: Any
    b: Any
    d: int
    scale: float  # log2(e)/ε
    damping_x: float
    damping_y: float
    product_mass: float
    symmetric: bool


class Stop(NamedTuple):
    """When to stop, and how much rounding may lower a dual value."""

    tol: float
    max_iter: int
    noise: float


class Scratch(NamedTuple):
    """The matrix, the packed panels, groups and weights of the rows, and the rest, in the working type; doubles."""

    E: Any
    clouds: Any
    low: Any
    work: Any


class Given(NamedTuple):
    """A term in the caller's units, and what takes it inside."""

    x: Any
    y: Any
    a: Any
    b: Any
    d: int
    symmetric: bool
    center: Any
    unit: float


class Found(NamedTuple):
    """Where a term's solution goes: see `solve_small`."""

    h: Any
    F: Any
    grad_x: Any
    grad_y: Any
    stats: Any


@compiled(inlined=True)
def refresh_kernel(h, b, at, G, v, t):
    """Whether the matrix that absorbed the potential `at` still serves h; then v = 2^(h - at), else G, v = 1, at = h.

    Columns without weight, and those that fill up, get v = 0. t: scratch of the length of v.
    """
    trusted, serves = TRUST_SINGLE if G.itemsize == 4 else TRUST_DOUBLE, True
    for j in range(len(b)):
        serves = serves and (b[j] == 0.0 or abs(h[j] - at[j]) <= trusted)
    for j in range(len(v)):
        live = j < len(b) and b[j] > 0.0
        t[j] = (h[j] - at[j] if serves else b[j]) if live else 1.0
    if serves:
        exp2_all(t)
    else:
        log2_all(t)
    for j in range(len(v)):
        live = j < len(b) and b[j] > 0.0
        if not live:
            G[j], v[j] = -np.inf, 0.0
        elif serves:
            v[j] = t[j]
        else:
            G[j], v[j], at[j] = h[j] + t[j], 1.0, h[j]
    return serves


@compiled(inlined=True)
def penalty(a, F, kappa):
    """What a potential adds to the dual: Σ a F, or its unbalanced form -Σ a (2^(-κ F) - 1) log2(e)/κ."""
    total = 0.0
    for i in range(len(a)):
        total += a[i] * F[i] if kappa == 0.0 else (a[i] - weigh(a[i], -kappa * F[i])) * LOG2E / kappa
    return total


@compiled(inlined=True)
def residual_and_dual(of, h, F, c, r, out):
    """After a pass: r, the step of plain Sinkhorn from h; out = (marginal error, dual to compare, value)."""
    a, b, damping_x, damping_y, symmetric = of.a, of.b, of.damping_x, of.damping_y, of.symmetric
    kappa_x, kappa_y = 1.0 / damping_x - 1.0, 1.0 / damping_y - 1.0
    error, mass, row_mass = 0.0, 0.0, 0.0
    for j in range(len(r)):
        live = j < len(b)
        if symmetric:
            r[j] = minimum(1000.0, h[j] - F[j] / damping_x) if live else 0.0
        else:
            r[j] = maximum(1e-300, c[j] / b[j]) if live and b[j] > 0.0 else 1.0
    if symmetric:
        exp2_all(r)
    else:
        log2_all(r)
    for j in range(len(b)):
        marginal = b[j] * r[j] if symmetric else c[j]
        step = F[j] - h[j] if symmetric else -damping_y * (r[j] - h[j]) - h[j]
        r[j] = step if b[j] > 0.0 or symmetric else 0.0
        if b[j] > 0.0:
            mass += marginal
            error += abs(marginal - (b[j] if kappa_y == 0.0 else b[j] * np.exp2(-kappa_y * h[j])))
    for i in range(len(a)):
        row_mass += a[i] if kappa_x == 0.0 else weigh(a[i], -kappa_x * F[i])
    half = penalty(b, h, kappa_y)
    out[0] = 2.0 * error if symmetric else error
    out[2] = penalty(a, F, kappa_x) + half - (row_mass - of.product_mass) * LOG2E
    out[1] = 2.0 * half - (mass - of.product_mass) * LOG2E if symmetric else out[2]


@compiled(inlined=True)
def weighted_dot(u, w, v):
    """Σ u w v."""
    total = 0.0
    for j in range(len(u)):
        total += u[j] * w[j] * v[j]
    return total


@compiled(inlined=True)
def least_squares(gram, z, k, L):
    """Solve the normal equations of k columns, made unit columns, with a ridge, by Cholesky; z goes in and out."""
    for i in range(k):
        for j in range(i + 1):
            norms = math.sqrt(gram[i * MEMORY + i] * gram[j * MEMORY + j])
            t = 1.0 + RIDGE if i == j else gram[i * MEMORY + j] / norms if norms > 0.0 else 0.0
            for q in range(j):
                t -= L[i * MEMORY + q] * L[j * MEMORY + q]
            L[i * MEMORY + j] = math.sqrt(maximum(1e-16, t)) if i == j else t / L[j * MEMORY + j]
    for i in range(k):
        norm = math.sqrt(gram[i * MEMORY + i])
        z[i] = z[i] / norm if norm > 0.0 else 0.0
        for q in range(i):
            z[i] -= L[i * MEMORY + q] * z[q]
        z[i] /= L[i * MEMORY + i]
    for i in range(k - 1, -1, -1):
        for q in range(i + 1, k):
            z[i] -= L[q * MEMORY + i] * z[q]
        z[i] /= L[i * MEMORY + i]
    for i in range(k):
        norm = math.sqrt(gram[i * MEMORY + i])
        z[i] = z[i] / norm if norm > 0.0 else 0.0


@compiled(inlined=True)
def anderson_step(h, r, w, dual, noise, step, history, state):
    """Move h to the next iterate: Anderson's, or back to plain Sinkhorn where the last one lowered the dual.

    history ((2 MEMORY + 3) m + 2 MEMORY² + MEMORY,): differences of h and of r, the former h and r, plain Sinkhorn's h,
    normal equations. state (3,) = (best dual, differences held, steps since the restart).
    """
    m, held = len(h), np.int64(state[1])
    former, former_r = view(history, 2 * MEMORY * m, m), view(history, (2 * MEMORY + 1) * m, m)
    plain, small = view(history, (2 * MEMORY + 2) * m, m), (2 * MEMORY + 3) * m
    gram, z = view(history, small, MEMORY * MEMORY), view(history, small + 2 * MEMORY * MEMORY, MEMORY)
    if held > 0 and not dual >= state[0] - noise:
        for j in range(m):
            h[j] = plain[j]
        state[1], state[2] = 0.0, 0.0
        return
    state[0] = maximum(dual, state[0])
    if state[2] > 0:
        slot = np.int64(state[2] - 1) % MEMORY
        move, change = view(history, slot * m, m), view(history, (MEMORY + slot) * m, m)
        for j in range(m):
            move[j], change[j] = h[j] - former[j], r[j] - former_r[j]
        held = minimum(held + 1, MEMORY)
        for k in range(held):
            gram[slot * MEMORY + k] = weighted_dot(change, w, view(history, (MEMORY + k) * m, m))
            gram[k * MEMORY + slot] = gram[slot * MEMORY + k]
    for j in range(m):
        former[j], former_r[j], plain[j] = h[j], r[j], h[j] + step * r[j]
        h[j] = plain[j]
    for k in range(held):
        z[k] = weighted_dot(view(history, (MEMORY + k) * m, m), w, r)
    least_squares(gram, z, held, view(history, small + MEMORY * MEMORY, MEMORY * MEMORY))
    for k in range(held):
        move, change = view(history, k * m, m), view(history, (MEMORY + k) * m, m)
        for j in range(m):
            h[j] -= z[k] * (move[j] + step * change[j])
    state[1] = held
    state[2] += 1.0


@compiled(inlined=True)
def column_softmin(of, j, F, t):
    """-log2 Σ_i a_i 2^(F_i + S_ij) of one column; t: scratch of the length of a, filled up."""
    x, y, a, d, top, total = of.x, of.y, of.a, of.d, -np.inf, 0.0
    n, filled = len(a), -(-len(a) // LANES) * LANES
    for i in range(filled):
        t[i] = -np.inf
        if i < n and a[i] > 0.0:
            square = 0.0
            for k in range(d):
                square += (x[i * d + k] - y[j * d + k]) ** 2
            t[i] = F[i] - of.scale * square
            top = maximum(t[i], top)
    for i in range(filled):
        t[i] -= top
    exp2_all(view(t, 0, filled))
    for i in range(n):
        total += a[i] * t[i]
    return -(top + np.log2(total))


@compiled(inlined=True)
def recompute_underflowed(of, h, F, c, r, t):
    """The step of columns whose mass underflowed, by their own softmin; returns how many are on their way."""
    lost, b = 0, of.b
    for j in range(len(h)):
        if b[j] > 0.0 and c[j] < LOST * b[j]:
            r[j] = of.damping_y * column_softmin(of, j, F, t) - h[j]
            lost += abs(r[j]) > ARRIVED
    return lost


@compiled(inlined=True)
def remove_constant(h, b):
    """Move h to mean 0 under the weights b."""
    constant = 0.0
    for j in range(len(h)):
        constant += b[j] * h[j]
    for j in range(len(h)):
        h[j] -= constant


@compiled
def iterate(absorb_at, of, stop, scratch, h, F, out):
    """Iterate until the marginal error is at most tol, or about max_iter passes; returns how many. out: see above.

    In `low`, v and the shifts of the rows are left.
    """
    E, b, low, work = scratch.E, of.b, scratch.low, scratch.work
    n, m, d, count = len(of.a), len(b), of.d, BYTES // E.itemsize
    N, M = -(-n // GROUP) * GROUP, -(-m // count) * count
    panels, groups = view(scratch.clouds, 0, M * d), view(scratch.clouds, M * d, N * d)
    weights = view(scratch.clouds, (N + M) * d, N)
    v, G, sums, shift = view(low, 0, M), view(low, M, M), view(low, 2 * M, M + GROUP), view(low, 3 * M + GROUP, N)
    longest = maximum(-(-n // LANES) * LANES, M)
    c, r, at, t = view(work, 0, M), view(work, M, M), view(work, 2 * M, m), view(work, 2 * M + m, longest)
    state, history = view(work, 2 * M + m + longest, 3), 2 * M + m + longest + 3
    memory = view(work, history, (2 * MEMORY + 3) * m + 2 * MEMORY * MEMORY + MEMORY)
    state[0], state[1], state[2], passes = -np.inf, 0.0, 0.0, 0
    for j in range(m):
        at[j] = np.nan
    while True:
        if of.damping_x == 1.0 and of.damping_y == 1.0 and not of.symmetric:
            remove_constant(h, b)
        for j in range(M):
            c[j] = 0.0
        stale = 0 if refresh_kernel(h, b, at, G, v, r) else 1
        part = Part(absorb_at, groups, panels, d, of.scale, 2.0, G, stale, E, v, shift, weights)
        sweep(part, of.damping_x, 0 if of.symmetric else 1, F, c, sums)
        for j in range(M):
            c[j] *= v[j]
        passes += 1
        residual_and_dual(of, h, F, c, r, out)
        lost = 0 if of.symmetric else recompute_underflowed(of, h, F, c, r, t)
        undone = state[1] > 0.0 and not out[1] >= state[0] - stop.noise
        if out[0] != out[0] or (((out[0] <= stop.tol and lost == 0) or passes >= stop.max_iter) and not undone):
            return passes
        anderson_step(h, r, b, out[1], stop.noise, SYMMETRIC_STEP if of.symmetric else 1.0, memory, state)


@compiled(inlined=True)
def extend(x, d, low, high):
    """Extend the box around points to x (n, d)."""
    for c in range(0, d // LANES * LANES, LANES):
        least, most = load_from(low, c), load_from(high, c)
        for j in range(c, len(x), d):
            least, most = minimum(load_from(x, j), least), maximum(load_from(x, j), most)
        store_to(low, c, least)
        store_to(high, c, most)
    for c in range(d // LANES * LANES, d):
        for j in range(c, len(x), d):
            low[c], high[c] = minimum(x[j], low[c]), maximum(x[j], high[c])


@compiled(inlined=True)
def nearest_power(x):
    """The power of 2 that is within a factor of √2 of a positive number; 0 below the normal numbers."""
    down = largest(exp2(exponent(fill(x))))
    return 2.0 * down if largest(mantissa(fill(x))) > 1.4142135623730951 else down


@compiled
def box(x, y, sizes, epsilon, center, span, unit, largest):
    """`normalization` of k problems in one look at the points; sizes: (k, n, m, d). Returns how many overflow."""
    k, n, m, d, beyond = sizes[0], sizes[1], sizes[2], sizes[3], 0
    for i in range(k):
        half, largest[i] = 0.0, 0.0
        lowest, highest = view(center, i * d, d), view(span, i * d, d)
        for c in range(d):
            lowest[c] = highest[c] = x[i * n * d + c]
        extend(view(x, i * n * d, n * d), d, lowest, highest)
        extend(view(y, i * m * d, m * d), d, lowest, highest)
        for c in range(d):
            low, high = lowest[c], highest[c]
            lowest[c], highest[c] = low + (0.5 * high - 0.5 * low), 0.5 * high - 0.5 * low
            half = maximum(highest[c], half)
        unit[i] = 1.0
        if 0.0 < half < np.inf:
            unit[i] = maximum(2.0**-1021, nearest_power(half))  # its inverse is a number
        for c in range(d):
            largest[i] += (2.0 * span[i * d + c] / unit[i]) ** 2
        ratio, cost = (unit[i] / epsilon) * unit[i] * maximum(1.0, largest[i]), unit[i] * unit[i] * largest[i]
        if ratio == np.inf or cost == np.inf:
            beyond += 1
    return beyond


@compiled(inlined=True)
def normalize(x, n, d, a, center, unit, out, moments):
    """A cloud in the coordinates inside, and their means (d,) and variances (d,)."""
    total, inverse = 0.0, 1.0 / unit  # exact
    for k in range(2 * d):
        moments[k] = 0.0
    for i in range(n):
        total += a[i]
        for k in range(d):
            out[i * d + k] = (x[i * d + k] - center[k]) * inverse
            moments[k] += a[i] * out[i * d + k]
    for k in range(d):
        moments[k] /= total
    for i in range(n):
        for k in range(d):
            moments[d + k] += a[i] * (out[i * d + k] - moments[k]) ** 2
    for k in range(d):
        moments[d + k] /= total


@compiled(inlined=True)
def gaussian_start(y, d, moments_x, moments_y, scale, kappa, h):
    """The entropic potential, at y, between Gaussians with these means and variances; 0 where κ makes it too much."""
    half = 0.5 * LOG2E / maximum(1e-150, scale)  # σ² = ε/2
    for j in range(len(h)):
        h[j] = 0.0
    for k in range(d):
        u, v = moments_x[d + k], moments_y[d + k]
        slope = 1.0 - 2.0 * u / (math.sqrt(4.0 * u * v + half * half) + half)
        shift = 2.0 * (moments_y[k] - moments_x[k])
        for j in range(len(h)):
            t = y[j * d + k] - moments_y[k]
            h[j] += scale * t * (t * slope + shift)
    most = 0.0
    for j in range(len(h)):
        most = maximum(abs(h[j]), most)
    for j in range(len(h) if kappa * most > MOST_LEFT else 0):
        h[j] = 0.0


@compiled(inlined=True)
def gradients(absorb_at, of, scratch, unit, F, grad_x, grad_y):
    """2 Σ_j P_ij (x_i - y_j), and its mirror image after one more update of the columns; of length 0: not wanted."""
    x, y, a, b, d, E, low, work = of.x, of.y, of.a, of.b, of.d, scratch.E, scratch.low, scratch.work
    n, m, count = len(a), len(b), BYTES // E.itemsize
    N, M, q, p = -(-n // GROUP) * GROUP, -(-m // count) * count, d * (len(grad_x) > 0), (d + 1) * (len(grad_y) > 0)
    panels, groups = view(scratch.clouds, 0, M * d), view(scratch.clouds, M * d, N * d)
    weights = view(scratch.clouds, (N + M) * d, N)
    wide, v, shift = -(-p // GROUP) * GROUP, view(low, 0, M), view(low, 3 * M + GROUP, N)
    start, columns = (3 * M + GROUP + N + 15) // 16 * 16, -(-q // count) * count
    B, Ptx = view(low, start, columns * M), view(low, start + columns * M, wide * M)
    start += (columns + wide) * M
    Py, ones = view(work, 0, n * q), view(work, n * q, n * p)
    for i in range(n):
        for k in range(p):
            ones[i * p + k] = x[i * d + k] if k < d else 1.0
    for i in range(n * q):
        Py[i] = 0.0
    for j in range(wide * M):
        Ptx[j] = 0.0
    pack_columns(y, m, q, v, B)
    part = Part(absorb_at, groups, panels, d, of.scale, 2.0, v, 0, E, v, shift, weights)
    products(part, view(F, 0, n), B, ones, Py, Ptx, view(low, start, len(low) - start))
    for i in range(n if q else 0):
        mass = a[i] if of.damping_x == 1.0 else weigh(a[i], F[i] * (1.0 - 1.0 / of.damping_x))
        for k in range(i * d, (i + 1) * d):
            grad_x[k] = 2.0 * unit * (mass * x[k] - Py[k])
    for j in range(m if p else 0):
        mass = v[j] * np.float64(Ptx[d * M + j])
        share = (b[j] / mass if mass > 0.0 else 0.0) if of.damping_y == 1.0 else 1.0
        for k in range(d):
            grad_y[j * d + k] = 2.0 * unit * share * (mass * y[j * d + k] - v[j] * np.float64(Ptx[k * M + j]))


@compiled(inlined=True)
def pack_term(x, y, a, d, count, clouds):
    """The panels of y, the groups of x and its weights, filled up, in the working type.

    Returns the rows and columns of the matrix, filled up, and what all this takes.
    """
    n, m = len(a), len(y) // d
    N, M = -(-n // GROUP) * GROUP, -(-m // count) * count
    pack(y, m, d, count, view(clouds, 0, M * d))
    pack(x, n, d, GROUP, view(clouds, M * d, N * d))
    for i in range(N):
        clouds[(N + M) * d + i] = a[i] if i < n else 0.0
    return N, M, ((N + M) * d + N + 15) // 16 * 16  # whole vectors


@compiled
def solve_term(absorb_at, given, found, integers, numbers, E, low, work):
    """Solve one term from where it is, or from the Gaussian start if it was not begun, and differentiate it.

    integers: max_iter, passes after which Newton's method may take over, passes at this ε in one call; numbers: ε,
    dampings, Σa Σb, tol, the tolerance before Newton's method, the exponent above which ε is annealed, the rounding of
    a dual value of order 1.
    """
    a, b, d, symmetric, unit = given.a, given.b, given.d, given.symmetric, given.unit
    n, m, h, F, stats = len(a), len(b), found.h, found.F, found.stats
    x, y = view(work, 0, n * d), view(work, 0 if symmetric else n * d, m * d)
    moments_x, used = view(work, (n + m) * d, 2 * d), (n + m) * d + 4 * d
    moments_y = moments_x if symmetric else view(work, (n + m) * d + 2 * d, 2 * d)
    out, rest = view(work, used, 3), view(work, used + 3, len(work) - used - 3)
    normalize(given.x, n, d, a, given.center, unit, x, moments_x)
    if not symmetric:
        normalize(given.y, m, d, b, given.center, unit, y, moments_y)
    rows, columns, own = pack_term(x, y, a, d, BYTES // E.itemsize, low)
    scratch = Scratch(view(E, 0, rows * columns), low, view(low, own, len(low) - own), rest)
    scale, mean_cost, stages, factor = LOG2E * (unit / numbers[0]) * unit, 0.0, 0, 1.0
    for k in range(d):
        mean_cost += (moments_x[k] - moments_y[k]) ** 2 + moments_x[d + k] + moments_y[d + k]
    if stats[0] < 0.0:
        while scale * mean_cost * factor > numbers[6] and stages < MAX_STAGES:
            stages, factor = stages + 1, factor / ANNEAL_FACTOR
        kappa = 1.0 / minimum(numbers[1], numbers[2]) - 1.0
        gaussian_start(y, d, moments_x, moments_y, scale * factor, kappa, h)
    newton = integers[1] > 0 and not symmetric
    tol, limit = numbers[5] if newton else numbers[4], minimum(integers[1] if newton else integers[0], integers[2])
    passes, former = 0, np.int64(maximum(0.0, stats[0]))
    for stage in range(stages, -1, -1):
        aim = maximum(ANNEAL_TOL, tol) if stage else tol
        noise = numbers[7] * (1.0 + scale * factor * mean_cost)
        most = maximum(1, integers[0] - former - passes)
        of = Term(x, y, a, b, d, scale * factor, numbers[1], numbers[2], numbers[3], symmetric)
        stop = Stop(aim, minimum(most, ANNEAL_MOST if stage else limit), noise)
        passes += iterate(absorb_at, of, stop, scratch, h, F, out)
        for j in range(m):
            h[j] *= ANNEAL_FACTOR if stage else 1.0
        factor *= ANNEAL_FACTOR
    stats[0], stats[1], stats[2], stats[3], stats[4] = former + passes, out[0], out[1], out[2], 0.0
    for k in range(d):
        stats[4] += (unit * (moments_x[k] - moments_y[k])) ** 2
    of = Term(x, y, a, b, d, scale, numbers[1], numbers[2], numbers[3], symmetric)
    for j in range(m):
        if b[j] == 0.0:  # continued by the softmin
            h[j] = F[j] if symmetric else numbers[2] * column_softmin(of, j, F, rest)
    if len(found.grad_x) or len(found.grad_y):
        gradients(absorb_at, of, scratch, unit, F, found.grad_x, found.grad_y)
    return 0


@compiled(inlined=True)
def total(a):
    """Σ a."""
    found = 0.0
    for i in range(len(a)):
        found += a[i]
    return found


@compiled
def solve_small(absorb_at, tasks, sizes, integers, numbers, arrays, out, scratch):
    """Solve those (term, member) of a batch in `tasks` that need it, each on its own, and differentiate them.

    Term 0 is x to y, term 1 x to itself, term 2 y to itself. sizes: (k, n, m, d, gradients by x, by y). Three tuples of
    flat arrays, in the caller's units and in float64: x, y, a, b, centers, units; potentials, gradients, stats; and as
    scratch a matrix and what is beside it, whose type is that of the computation, and doubles. Potentials: h (k, m) and
    F (k, n) of term 0, h (k, n) of term 1, h (k, m) of term 2. Gradients, where they are wanted: by x and y of term 0,
    of terms 1 and 2. stats (terms, k, 5): passes (-1: not begun), marginal error, dual, value, squared distance of the
    means.
    """
    (all_x, all_y, all_a, all_b, center, unit), (potentials, grads, all_stats), (E, low, work) = arrays, out, scratch
    k, n, m, d, by_x, by_y = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    wide_x, wide_y, start_y = by_x * n * d, by_y * m * d, k * by_x * n * d
    spare = view(work, 0, maximum(n, m) + GROUP)  # F of one task, filled up
    rest, none = view(work, len(spare), len(work) - len(spare)), view(grads, 0, 0)
    for position in range(len(tasks)):
        task = tasks[position]
        t, i = task // k, task % k
        x, y = view(all_x, i * n * d, n * d), view(all_y, i * m * d, m * d)
        a, b = view(all_a, i * n, n), view(all_b, i * m, m)
        grad_x, grad_y = view(grads, i * wide_x, wide_x), view(grads, start_y + i * wide_y, wide_y)
        h, stats = view(potentials, i * m, m), view(all_stats, 5 * task, 5)
        if t == 1:
            y, b, h, grad_y = x, a, view(potentials, k * (m + n) + i * n, n), none
            grad_x = view(grads, start_y + k * wide_y + i * wide_x, wide_x)
        elif t == 2:
            x, a, h, grad_y = y, b, view(potentials, k * (m + 2 * n) + i * m, m), none
            grad_x = view(grads, 2 * start_y + k * wide_y + i * wide_y, wide_y)
        numbers[3] = total(a) * total(b)
        if stats[0] < 0.0 or (stats[1] > numbers[4] and stats[0] < integers[0]):
            given = Given(x, y, a, b, d, t > 0, view(center, i * d, d), unit[i])
            found = Found(h, spare, grad_x, grad_y, stats)
            solve_term(absorb_at, given, found, integers, numbers, E, low, rest)
            for j in range(n if t == 0 else 0):
                potentials[k * m + i * n + j] = spare[j]
