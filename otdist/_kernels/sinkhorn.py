"""Sinkhorn's loop for problems whose scores fit in the cache: everything in one compiled call, Anderson included.

Potentials are in base 2 and in units of ε (see `softmin`). The loop works on one vector h: the potential of the second
cloud, or, where a cloud is compared with itself, the one potential that both sides share. Larger problems run the same
`assess` and `advance` between passes that are split over threads.
"""

import numpy as np
from numba import njit

from .softmin import OPTIONS, sweep

# Differences that Anderson acceleration remembers. 5 are as good at an error of 1e-3, 10 are better at 1e-6.
MEMORY = 10
# Below this share of its weight a column's mass may consist of what underflowed.
LOST = 1e-25
LOG2E = 1.4426950408889634


@njit(**OPTIONS)
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
    for j in range(h.shape[0]):
        if b[j] == 0.0:
            r[j] = F[j] - h[j] if symmetric else 0.0
            continue
        if symmetric:
            marginal = b[j] * np.exp2(min(h[j] - F[j] / strength, 1000.0))
            r[j] = F[j] - h[j]
        else:
            marginal = c[j]
            r[j] = -strength * (np.log2(max(c[j] / b[j], 1e-300)) - h[j]) - h[j]
        mass += marginal
        target = b[j] if kappa == 0.0 else b[j] * np.exp2(-kappa * h[j])
        error += abs(marginal - target)
    if symmetric:
        dual = 2.0 * _penalty(b, h, strength)
        error *= 2.0
    else:
        dual = _penalty(a, F, strength) + _penalty(b, h, strength)
    if symmetric or strength != 1.0:
        dual -= (mass - 1.0) * LOG2E
    return error, dual


@njit(**OPTIONS)
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


@njit(**OPTIONS)
def _dot(u, w, v):
    total = 0.0
    for j in range(u.shape[0]):
        total += u[j] * w[j] * v[j]
    return total


@njit(**OPTIONS)
def repair(S, F, a, b, c, h, strength, r):
    """The step of columns whose mass underflowed, c_j ≪ b_j, by their own softmin: it is right however far they are."""
    for j in range(h.shape[0]):
        if b[j] > 0.0 and c[j] < LOST * b[j]:
            top = -np.inf
            for i in range(F.shape[0]):
                if a[i] > 0.0:
                    top = max(top, F[i] + S[i, j])
            total = 0.0
            for i in range(F.shape[0]):
                if a[i] > 0.0:
                    total += a[i] * np.exp2(F[i] + S[i, j] - top)
            r[j] = -strength * (top + np.log2(total)) - h[j]


@njit(**OPTIONS)
def solve(S, log_b, a, b, a_work, h, F, strength, symmetric, tol, max_iter, noise, stats):
    """Solve a batch of problems, each until its own marginal error is at most tol.

    S (k, n, m) and a_work (k, n) in the working type, everything else in float64: h (k, m) is the start and the
    result, F (k, n) a guess (NaN: none) and the result. stats (k, 3): passes, error, dual value.
    """
    m = S.shape[2]
    G, c, r = np.empty(m, S.dtype), np.empty(m), np.empty(m)
    vectors, gram, state = np.empty((2 * MEMORY + 3, m)), np.empty((MEMORY, MEMORY)), np.empty(3)
    damping = 2.0 / 3.0 if symmetric else 1.0
    for k in range(S.shape[0]):
        state[0], state[1], state[2] = -np.inf, 0.0, 0.0
        passes = 0
        while True:
            for j in range(m):
                G[j] = h[k, j] + log_b[k, j]
                c[j] = 0.0
            sweep(S[k], G, F[k], a_work[k], strength, not symmetric, c)
            passes += 1
            error, dual = assess(h[k], F[k], c, a[k], b[k], strength, symmetric, r)
            if error <= tol or (passes >= max_iter and (state[1] == 0.0 or dual >= state[0] - noise[k])):
                break  # but not on a step that will be undone
            if not symmetric:
                repair(S[k], F[k], a[k], b[k], c, h[k], strength, r)
            advance(h[k], r, b[k], dual, noise[k], damping, vectors, gram, state)
        stats[k, 0], stats[k, 1], stats[k, 2] = passes, error, dual
