"""Sinkhorn's loop for problems whose kernel fits in the cache: everything in one compiled call, Anderson included.

Potentials are in base 2 and in units of ε (see `softmin`). The loop works on one vector h: the potential of the second
cloud, or, where a cloud is compared with itself, the one potential that both sides share. Larger problems run the same
`assess` and `advance` between passes that are split over threads.
"""

import numpy as np

from .._core.compiled import njit
from .._core.simd import BYTES
from .cloud import LOG2E, gaussian_start, settle
from .exp2 import exp2_all, log2_all
from .softmin import GROUP, INNER, OPTIONS, pack_columns, products, sweep

# Differences that Anderson acceleration remembers. 5 are as good at an error of 1e-3, 10 are better at 1e-6.
MEMORY = 10
# Below this share of its weight a column's mass may consist of what underflowed.
LOST = 1e-25
# A kernel serves while the potential stays this close (in base 2) to the one in it, in float32 and in float64: what has
# underflowed in it, entries below 2^-126 and 2^-1022 of their row's largest, then is below LOST for rows and columns.
REACH_SINGLE, REACH_DOUBLE = 20.0, 200.0


@njit(**INNER)
def _penalty(a, F, strength):
    """What a potential adds to the dual: Σ a F, or its unbalanced form -Σ a (e^(-κ f) - 1)/κ."""
    total = 0.0
    kappa = 1.0 / strength - 1.0
    for i in range(a.shape[0]):
        total += a[i] * F[i] if kappa == 0.0 else -a[i] * (2.0 ** (-kappa * F[i]) - 1.0) * LOG2E / kappa
    return total


@njit(**OPTIONS)
def assess(h, F, c, a, b, strength, symmetric, r):
    """After a pass: the step r that plain Sinkhorn would take from h, the L1 error of the marginals, the dual value."""
    kappa = 1.0 / strength - 1.0
    error, mass = 0.0, 0.0
    if symmetric:
        for j in range(len(h)):
            r[j] = min(h[j] - F[j] / strength, 1000.0)
        exp2_all(r)
    else:
        for j in range(len(h)):
            r[j] = max(c[j] / b[j], 1e-300) if b[j] > 0.0 else 1.0
        log2_all(r)
    for j in range(len(h)):
        marginal = b[j] * r[j] if symmetric else c[j]
        if symmetric:
            r[j] = F[j] - h[j]
        else:
            r[j] = -strength * (r[j] - h[j]) - h[j] if b[j] > 0.0 else 0.0
        if b[j] > 0.0:
            target = b[j] if kappa == 0.0 else b[j] * np.exp2(-kappa * h[j])
            mass += marginal
            error += abs(marginal - target)
    if symmetric:
        dual = 2.0 * _penalty(b, h, strength)
        error *= 2.0
    else:
        dual = _penalty(a, F, strength) + _penalty(b, h, strength)
    if symmetric or strength != 1.0:
        dual -= (mass - 1.0) * LOG2E
    return error, dual


@njit(inline="always")
def _combine(gram, projected, gamma):
    """Solve the normal equations of Anderson's least squares by Cholesky; what is linearly dependent gets 0."""
    k = gamma.shape[0]
    scale, L, z = np.empty(k), np.empty((k, k)), np.empty(k)
    for i in range(k):
        scale[i] = 1.0 / np.sqrt(gram[i, i]) if gram[i, i] > 0.0 else 0.0
    for i in range(k):
        for j in range(i + 1):
            t = gram[i, j] * scale[i] * scale[j]
            for q in range(j):
                t -= L[i, q] * L[j, q]
            if i == j:
                L[i, i] = np.sqrt(t) if t > 1e-12 else np.inf  # the rounding of normal equations of unit columns
            else:
                L[i, j] = t / L[j, j]
    for i in range(k):
        t = projected[i] * scale[i]
        for q in range(i):
            t -= L[i, q] * z[q]
        z[i] = t / L[i, i]
    for i in range(k - 1, -1, -1):
        t = z[i]
        for q in range(i + 1, k):
            t -= L[q, i] * z[q]
        z[i] = t / L[i, i]
    for i in range(k):
        gamma[i] = z[i] * scale[i]


@njit(**OPTIONS)
def advance(h, r, w, dual, noise, damping, vectors, gram, state):
    """Move h to the next iterate: Anderson's, or back to plain Sinkhorn where the last one lowered the dual.

    The dual is concave and plain Sinkhorn never lowers it, so this safeguard makes the iteration converge from
    anywhere. The least squares are weighted with w, in which the Jacobian of Sinkhorn's map is self-adjoint.
    vectors (2 MEMORY + 3, m), gram (MEMORY, MEMORY) and state (3,) = (best dual, differences held, steps since the
    restart) are kept between calls; state starts as (-inf, 0, 0).
    """
    m, held = h.shape[0], int(state[1])
    former, former_r, plain = vectors[2 * MEMORY], vectors[2 * MEMORY + 1], vectors[2 * MEMORY + 2]
    if held > 0 and not dual >= state[0] - noise:
        for j in range(m):
            h[j] = plain[j]
        state[1], state[2] = 0.0, 0.0
        return
    state[0] = max(dual, state[0])
    if state[2] > 0:
        slot = int(state[2] - 1) % MEMORY
        move, change = vectors[slot], vectors[MEMORY + slot]
        for j in range(m):
            move[j], change[j] = h[j] - former[j], r[j] - former_r[j]
        held = min(held + 1, MEMORY)
        for k in range(held):
            gram[slot, k] = _dot(change, w, vectors[MEMORY + k])
            gram[k, slot] = gram[slot, k]
    for j in range(m):
        former[j], former_r[j], plain[j] = h[j], r[j], h[j] + damping * r[j]
        h[j] = plain[j]
    if held > 0:
        projected, gamma = np.empty(held), np.empty(held)
        for k in range(held):
            projected[k] = _dot(vectors[MEMORY + k], w, r)
        _combine(gram, projected, gamma)
        for k in range(held):
            move, change = vectors[k], vectors[MEMORY + k]
            for j in range(m):
                h[j] -= gamma[k] * (move[j] + damping * change[j])
    state[1] = held
    state[2] += 1.0


@njit(**INNER)
def _dot(u, w, v):
    total = 0.0
    for j in range(u.shape[0]):
        total += u[j] * w[j] * v[j]
    return total


@njit(**INNER)
def _softmin(x, y, scale, F, a, S):
    """-log2 Σ_i a_i 2^(F_i + S_i) for one point y; S (n,) is scratch."""
    top, total = -np.inf, 0.0
    for i in range(len(F)):
        if a[i] > 0.0:
            square = 0.0
            for k in range(len(y)):
                square += (x[i, k] - y[k]) ** 2
            S[i] = F[i] - scale * square
            top = max(top, S[i])
    for i in range(len(F)):
        if a[i] > 0.0:
            total += a[i] * np.exp2(S[i] - top)
    return -(top + np.log2(total))


@njit(**OPTIONS)
def repair(x, y, scale, F, a, b, c, h, strength, r):
    """The step of columns whose mass underflowed, c_j ≪ b_j, by their own softmin: it is right however far they are.

    Returns how many there were.
    """
    S, lost = np.empty(len(F)), 0
    for j in range(len(h)):
        if b[j] > 0.0 and c[j] < LOST * b[j]:
            r[j] = strength * _softmin(x, y[j], scale, F, a, S) - h[j]
            lost += 1
    return lost


@njit(**OPTIONS)
def prepare(h, b, at, G, v, free):
    """Whether the kernel of the potential `at` (NaN: none) serves h: then v_j = 2^(h_j - at_j), else G, v = 1, at = h.

    Columns without weight, and those that fill up, get v = 0. Where the potentials' constant is `free`, a new kernel
    gets the one for which Σ b h = 0: another one may grow until all digits drown in it.
    """
    reach, serves = REACH_SINGLE if G.itemsize == 4 else REACH_DOUBLE, True
    for j in range(len(b)):
        serves = serves and (b[j] == 0.0 or abs(h[j] - at[j]) <= reach)
    if free and not serves:
        constant = 0.0
        for j in range(len(b)):
            constant += b[j] * h[j]
        for j in range(len(b)):
            h[j] -= constant
    t = np.empty(len(b))
    for j in range(len(b)):
        t[j] = h[j] - at[j] if serves else b[j] if b[j] > 0.0 else 1.0
    if serves:
        exp2_all(t)
    else:
        log2_all(t)
    for j in range(len(v)):
        if j >= len(b) or b[j] == 0.0:
            G[j], v[j] = -np.inf, 0.0
        elif serves:
            v[j] = t[j]
        else:
            G[j], v[j], at[j] = h[j] + t[j], 1.0, h[j]
    return serves


@njit(**OPTIONS)
def done(converged, error, dual, late, noise, state):
    """Whether to stop: converged, or late, but not on a step of Anderson's that lowered the dual and will be undone.

    Such a step may lose columns of little weight, whose marginals are then right within the tolerance and whose
    potentials are anything. NaN does not get better.
    """
    if error != error:
        return True
    return (converged or late) and (state[1] == 0.0 or dual >= state[0] - noise)


@njit(**OPTIONS)
def loop(rows, panels, x, y, a, b, a_work, scale, h, F, strength, symmetric, tol, max_iter, noise, kernel):
    """Iterate on one problem until its marginal error is at most tol: passes, error, dual value.

    h (m,) is the start and the result, F (n,) a result. `kernel` (E, shift, at, v) is kept between calls.
    """
    E, shift, at, v = kernel
    m, d = y.shape
    G, r, c = np.empty(len(v), E.dtype), np.empty(m), np.empty(m)
    vectors, gram, state = np.empty((2 * MEMORY + 3, m)), np.empty((MEMORY, MEMORY)), np.zeros(3)
    state[0] = -np.inf
    damping = 2.0 / 3.0 if symmetric else 1.0
    passes = 0
    while True:
        stale = not prepare(h, b, at, G, v, strength == 1.0 and not symmetric)
        for j in range(m):
            c[j] = 0.0
        sweep((rows, panels, d, scale, G, stale, E, v, shift), a_work, strength, not symmetric, F, c)
        for j in range(m):
            c[j] *= v[j]
        passes += 1
        error, dual = assess(h, F, c, a, b, strength, symmetric, r)
        lost = 0 if symmetric else repair(x, y, scale, F, a, b, c, h, strength, r)
        if done(error <= tol and lost == 0, error, dual, passes >= max_iter, noise, state):
            return passes, error, dual
        advance(h, r, b, dual, noise, damping, vectors, gram, state)


@njit(**OPTIONS)
def row_gradient(x, a, F, unit, strength, Py, out):
    """2 Σ_j P_ij (x_i - y_j) from Py (n, d), after an update of F: then P_i has the mass a_i 2^(F_i (1 - 1/λ))."""
    for i in range(x.shape[0]):
        mass = a[i] if strength == 1.0 else a[i] * 2.0 ** (F[i] * (1.0 - 1.0 / strength))
        for k in range(x.shape[1]):
            out[i, k] = 2.0 * unit * (mass * x[i, k] - Py[i, k])


@njit(**OPTIONS)
def column_gradient(y, b, v, unit, strength, Ptx, out):
    """2 Σ_i P_ij (y_j - x_i), after one more update of the columns; Ptx (d + 1, m): of coordinates, then of ones."""
    d = y.shape[1]
    for j in range(y.shape[0]):
        mass = v[j] * Ptx[d, j]
        share = (b[j] / mass if mass > 0.0 else 0.0) if strength == 1.0 else 1.0
        for k in range(d):
            out[j, k] = 2.0 * unit * share * (mass * y[j, k] - v[j] * Ptx[k, j])


@njit(inline="always")
def _cost(first, second, E, unit, epsilon, h, F, how, grad_x, grad_y, stats):
    """One entropic cost, from two settled clouds (points, weights, mean, variances, rows, panels).

    Results: h, F, gradients, which are not wanted where they have length 0, and stats. `how` says whether h is a start,
    whether the clouds are the same, and (λ, tol, max_iter, largest exponent): a problem whose mean cost has a larger
    one is left, with passes = -1.
    """
    x, a, mean_x, variance_x, groups, _ = first
    y, b, mean_y, variance_y, _, panels = second
    started, symmetric, (strength, tol, max_iter, largest) = how
    (n, d), m, N, M = x.shape, len(y), len(groups) * GROUP, panels.shape[0] * panels.shape[2]
    scale = LOG2E * (unit / epsilon) * unit
    mean_cost = 0.0
    for k in range(d):
        mean_cost += (mean_x[k] - mean_y[k]) ** 2 + variance_x[k] + variance_y[k]
    exponent = scale * mean_cost
    if not started:
        if exponent > largest:
            stats[0] = -1.0
            return
        gaussian_start(y, mean_x, variance_x, mean_y, variance_y, scale, h)
    kernel, shift, a_work = E[: N * M], np.empty(N, E.dtype), np.empty(N, E.dtype)
    at, v, scaled = np.empty(m), np.empty(M, E.dtype), E.dtype.type(scale)
    for i in range(N):
        a_work[i] = a[i] if i < n else 0.0
    for j in range(m):
        at[j] = np.nan
    rows, columns = groups.reshape(-1), panels.reshape(-1)
    stats[0], stats[1], stats[2] = loop(
        rows, columns, x, y, a, b, a_work, scaled, h, F,
        strength, symmetric, tol, max_iter, rounding(E, exponent), (kernel, shift, at, v),
    )  # fmt: skip
    S = np.empty(n)
    for j in range(m):
        if b[j] == 0.0:  # continued by the softmin
            h[j] = F[j] if symmetric else strength * _softmin(x, y[j], scale, F, a, S)
    by_x, by_y = len(grad_x) > 0, len(grad_y) > 0
    if not (by_x or by_y):
        return
    wide, B = np.empty((n, d + 1 if by_y else 0)), np.empty(-(-d // panels.shape[2]) * panels.shape[2] * M, E.dtype)
    Py, Ptx = np.zeros((n, d if by_x else 0)), np.zeros((-(-(d + 1) // GROUP) * GROUP if by_y else 0, M), E.dtype)
    if by_y:
        for i in range(n):
            for k in range(d):
                wide[i, k] = x[i, k]
            wide[i, d] = 1.0
    if by_x:
        pack_columns(y, v, B)
    products((rows, columns, d, scaled, v, False, kernel, v, shift), a_work, F, B, wide, Py, Ptx)
    if by_x:
        row_gradient(x, a, F, unit, strength, Py, grad_x)
    if by_y:
        column_gradient(y, b, v, unit, strength, Ptx, grad_y)


@njit(**OPTIONS)
def solve(members, terms, kind, x, y, a, b, center, unit, epsilon, started, limits, potentials, grads, stats):
    """Solve those members of a batch, each until its own marginal error is at most tol, and differentiate them.

    Everything is in the caller's units and in float64, x (k, n, d), y (k, m, d), weights, frames; `kind` has the
    working type. Term 0 is x to y, term 1 x to itself, term 2 y to itself; `terms` is a range of them. Results:
    potentials (h and F of term 0, h of the others), in base 2; the gradients of terms 0, 0, 1 and 2 where those have
    length k; stats (3, k, 3): passes, error, dual value.
    """
    (n, d), m, count = x.shape[1:], y.shape[1], BYTES // kind.itemsize
    N, M, P, Q = -(-n // GROUP), -(-m // GROUP), -(-n // count), -(-m // count)
    entries = max(
        N * Q if terms[0] == 0 else 0, N * P if terms[0] <= 1 < terms[1] else 0, M * Q if terms[1] == 3 else 0
    )
    E = np.empty(entries * GROUP * count, kind.dtype)
    first = (
        np.empty((n, d)),
        np.empty(d),
        np.empty(d),
        np.empty((N, d, GROUP), E.dtype),
        np.empty((P, d, count), E.dtype),
    )
    second = (
        np.empty((m, d)),
        np.empty(d),
        np.empty(d),
        np.empty((M, d, GROUP), E.dtype),
        np.empty((Q, d, count), E.dtype),
    )
    h, F, h_x, h_y = potentials
    F_x, F_y, none = np.empty(n), np.empty(m), np.empty((0, d))
    for k in members:
        settle(x[k], a[k], center[k], unit[k], *first)
        settle(y[k], b[k], center[k], unit[k], *second)
        at_x = first[0], a[k], first[1], first[2], first[3], first[4]
        at_y = second[0], b[k], second[1], second[2], second[3], second[4]
        for t in range(terms[0], terms[1]):  # one call for all three: each would be compiled by itself
            one, two = at_y if t == 2 else at_x, at_x if t == 1 else at_y
            potential = h[k] if t == 0 else h_x[k] if t == 1 else h_y[k]
            other = F[k] if t == 0 else F_x if t == 1 else F_y
            by_one = grads[0] if t == 0 else grads[2] if t == 1 else grads[3]
            by_two = grads[1] if t == 0 else grads[0][:0]
            gradient_one, gradient_two = by_one[k] if len(by_one) else none, by_two[k] if len(by_two) else none
            how = started and t == 0, t > 0, limits
            _cost(one, two, E, unit[k], epsilon, potential, other, how, gradient_one, gradient_two, stats[t, k])


@njit(**OPTIONS)
def rounding(E, exponent):
    """How much rounding may lower a dual value in the type of E: eps times the largest exponents that occur."""
    return (4.8e-7 if E.itemsize == 4 else 8.9e-16) * (1.0 + exponent)
