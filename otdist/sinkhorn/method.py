"""Sinkhorn's method: stages, steps, stopping, safeguard and finish, for a batch of problems and any library.

Everything is in base 2 and in units of ε. The iteration works on one log potential h (k, m), that of the second cloud
or, where a cloud is compared with itself, the one that both sides share; a pass over the matrix gives the other, F:

    F_i = -λ_x log2 Σ_j b_j 2^(h_j + S_ij),    T(h)_j = -λ_y log2 Σ_i a_i 2^(F_i + S_ij),    S = -cost · log2(e)/ε

with λ = ρ/(ρ + ε), the damping of unbalanced transport, or 1. What passes need is asked of a `Passes` object, of which
there is one for NumPy (compiled loops) and one for PyTorch, whose Newton finish is this one. `loop` is the same method
compiled, for small problems; `torch_method` arranges its iteration for a device, whose host should seldom wait.

References
----------
Cuturi (2013), arXiv:1306.0895; Walker & Ni (2011), SIAM J. Numer. Anal. 49 (Anderson's acceleration); Janati et al.
(2020), arXiv:2006.02572 (the start); Séjourné et al. (2019), arXiv:1910.12958 (unbalanced).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from .._core import backend
from .._core.backend import Array
from .constants import (
    ANNEAL_ABOVE,
    ANNEAL_FACTOR,
    ANNEAL_MOST,
    ANNEAL_TOL,
    ARRIVED,
    LOG2E,
    LOST,
    MAX_STAGES,
    MEMORY,
    NEWTON_AFTER,
    NEWTON_POINTS,
    RIDGE,
    SYMMETRIC_STEP,
    TRUST_RADIUS,
)


class Passes(Protocol):
    """A batch of k problems, all balanced or all not, and the passes over their matrices.

    Attributes: the weights a (k, n) and b (k, m) in float64; the dampings of F and of h; Σa Σb (k,); whether each cloud
    is compared with itself; whether the work is in float64; how much rounding may lower a dual value, (k,).
    """

    a: Array
    b: Array
    dampings: tuple[float, float]
    product_mass: Array
    symmetric: bool
    double: bool

    @property
    def noise(self) -> Array: ...

    @property
    def steepness(self) -> Array:
        """The mean cost in base 2 and units of ε, (k,)."""

    def rescale(self, factor: float) -> None:
        """Multiply 1/ε."""

    def gaussian_start(self) -> Array: ...

    def sweep(self, h: Array) -> tuple[Array, Array]:
        """F and the second marginal c (k, m), which is not needed where symmetric."""

    def column_softmin(self, F: Array) -> Array:
        """T(h), (k, m), from F by a pass of its own."""

    def hessian(self, h: Array, F: Array) -> Array:
        """diag(1/√b) Pᵀ diag(1/a) P diag(1/√b), (m, m), of a single problem after a pass."""

    def members(self, chosen: Array) -> Passes:
        """The chosen problems of the batch, as a batch."""


class State(NamedTuple):
    """Where a batch is: log potentials, passes taken, marginal error and the value of the dual at (F, h)."""

    h: Array
    F: Array
    passes: Array
    error: Array
    value: Array


def epsilon_scaling(problem: Any, tol: float, max_iter: int, h: Array | None = None) -> State:
    """Solve from h, or from the potentials of the Gaussians that fit the clouds, through larger ε where ε is small."""
    n_stages = 0
    if h is None:
        while ANNEAL_FACTOR**-n_stages * float(problem.steepness.max()) > ANNEAL_ABOVE and n_stages < MAX_STAGES:
            n_stages += 1
        problem.rescale(ANNEAL_FACTOR**-n_stages)
        h = problem.gaussian_start()
    passes = (problem.b[:, 0] * 0 != 0) * 0
    for _ in range(n_stages):
        state = iterate(problem, h, max(ANNEAL_TOL, tol), (max_iter - passes).clip(1, ANNEAL_MOST))
        h, passes = state.h * ANNEAL_FACTOR, passes + state.passes
        problem.rescale(ANNEAL_FACTOR)
    state = finish(problem, h, tol, (max_iter - passes).clip(1), max_iter)
    return state._replace(passes=passes + state.passes)


def newton_possible(problem: Any, max_iter: int) -> bool:
    """Newton's method is for balanced problems of few points, in float64."""
    if problem.symmetric or not problem.double or problem.dampings != (1.0, 1.0):
        return False
    return max(problem.a.shape[1], problem.b.shape[1]) <= NEWTON_POINTS and max_iter > NEWTON_AFTER


def newton_takes_over(error: Any, tol: float, points: int) -> Any:
    """Whether it is near enough for Newton's method, whose step costs the cube of the points."""
    return (error > tol) & (error <= (1.0 if points <= NEWTON_POINTS // 4 else 1e-3))


def finish(problem: Any, h: Array, tol: float, limit: Array, max_iter: int) -> State:
    """Anderson to tol, or to where Newton's method takes over."""
    if not newton_possible(problem, max_iter):
        return iterate(problem, h, tol, limit)
    state = iterate(problem, h, tol if tol >= 1e-5 else 1e-3, limit.clip(max=NEWTON_AFTER))
    points = max(problem.a.shape[1], problem.b.shape[1])
    chosen = newton_takes_over(state.error, tol, points) & (state.passes < limit)
    for k in chosen.nonzero()[0] if hasattr(chosen, "astype") else chosen.nonzero()[:, 0]:
        part = slice(int(k), int(k) + 1)
        done = newton_finish(problem.members(part), state.h[part], tol, int(limit[k] - state.passes[k]))
        _write(state, part, done)
    chosen = (state.error > tol) & (state.passes < limit)
    if chosen.any():  # Newton gave up, or is not for it: on from there
        _write(state, chosen, iterate(problem.members(chosen), state.h[chosen], tol, (limit - state.passes)[chosen]))
    return state


def _write(state: State, where: Any, part: State) -> None:
    part = part._replace(passes=state.passes[where] + part.passes)
    for whole, piece in zip(state, part, strict=True):
        whole[where] = piece


def iterate(problem: Any, h: Array, tol: float, limit: Array) -> State:
    """Anderson's iteration, until each problem's marginal error is at most tol or its limit of passes is reached."""
    xp, free = backend.namespace(h), problem.dampings == (1.0, 1.0) and not problem.symmetric
    anderson = Anderson(problem.b, SYMMETRIC_STEP if problem.symmetric else 1.0)
    passes = limit * 0
    active, noise = passes == 0, problem.noise
    while True:
        if free:  # the constant that is free may grow until all digits drown in it
            h = h - (problem.b * h).sum(-1)[:, None]
        F, c = problem.sweep(h)
        passes = passes + active
        r, error, dual, value = residual_and_dual(problem, h, F, c)
        lost = (passes < 0) if problem.symmetric else recompute_underflowed(problem, h, F, c, r)
        late = ((error <= tol) & ~lost) | (passes >= limit)
        active = active & ~should_stop(late, error, anderson.lowered(dual, noise))
        if not active.any():
            return State(h, F, passes, error, value)
        h = xp.where(active[:, None], anderson.step(h, r, dual, noise), h)


def should_stop(late: Array, error: Array, undone: Array) -> Array:
    """Converged, or late, but not on a step of Anderson's that lowered the dual and will be undone.

    Such a step may lose columns of little weight, whose marginals are then right within the tolerance and whose
    potentials are anything. NaN does not get better.
    """
    return (error != error) | (late & ~undone)


def residual_and_dual(problem: Any, h: Array, F: Array, c: Array) -> tuple[Array, Array, Array, Array]:
    """After a pass: the step of plain Sinkhorn from h, the L1 error of the marginals, the dual to compare, the value.

    The rows' marginals are exact. The value is the dual's at (F, h), which is below the solution's whatever h is; the
    one to compare is that of the iteration, at (h, h) where both sides share the potential.
    """
    xp, (a, b), live = backend.namespace(h), (problem.a, problem.b), problem.b > 0
    kappa_x, kappa_y = (1.0 / damping - 1.0 for damping in problem.dampings)
    if problem.symmetric:
        marginal, r = b * xp.exp2((h - F / problem.dampings[0]).clip(max=1000.0)), F - h
    else:
        share = xp.where(live, c, 1.0) / xp.where(live, b, 1.0)
        marginal = c
        r = xp.where(live, -problem.dampings[1] * (xp.log2(share.clip(1e-300)) - h) - h, 0.0)
    if kappa_x or kappa_y:  # far points without weight: 0 · 2^1024 is no number
        h, F = xp.where(live, h, 0.0), xp.where(a > 0, F, 0.0)
    target = b * xp.exp2(-kappa_y * h) if kappa_y else b
    error = xp.where(live, abs(marginal - target), 0.0).sum(-1) * (2 if problem.symmetric else 1)
    row_mass = (a * xp.exp2(-kappa_x * F) if kappa_x else a).sum(-1)
    half = penalty(b, h, kappa_y)
    value = penalty(a, F, kappa_x) + half - (row_mass - problem.product_mass) * LOG2E
    if problem.symmetric:
        mass = xp.where(live, marginal, 0.0).sum(-1)
        return r, error, 2 * half - (mass - problem.product_mass) * LOG2E, value
    return r, error, value, value


def penalty(a: Array, F: Array, kappa: float) -> Array:
    """What a potential adds to the dual: Σ a F, or its unbalanced form -Σ a (2^(-κ F) - 1) log2(e)/κ."""
    if kappa == 0.0:
        return (a * F).sum(-1)
    return -(a * (backend.namespace(a).exp2(-kappa * F) - 1)).sum(-1) * (LOG2E / kappa)


def recompute_underflowed(problem: Any, h: Array, F: Array, c: Array, r: Array) -> Array:
    """Write into r the step of columns whose mass underflowed, c_j ≪ b_j, by their own softmin.

    It is right however far they are. Returns which problems have such columns that are still on their way: their
    marginals are right within any tolerance wherever they are, and in unbalanced transport they may have arrived.
    """
    lost = (problem.b > 0) & (c < LOST * problem.b)
    if lost.any():
        r[lost] = (problem.column_softmin(F) - h)[lost]
    return (lost & (abs(r) > ARRIVED)).any(-1)


class Anderson:
    """Anderson's acceleration of h ↦ T(h) with a safeguard.

    The dual is concave and plain Sinkhorn never lowers it: an accelerated step that lowers it is undone and plain
    Sinkhorn's is taken, so that the iteration converges from anywhere. The least squares are weighted with b, in which
    the Jacobian of Sinkhorn's map is self-adjoint. A problem that restarts has its differences set to 0.
    """

    def __init__(self, b: Array, step: float) -> None:
        xp, (k, m) = backend.namespace(b), b.shape
        self.b, self.step_size, self.count = b, step, 0
        like = {"device": b.device} if backend.is_torch(b) else {}
        self.moves = xp.zeros((k, MEMORY, m), dtype=b.dtype, **like)
        self.changes, self.one = xp.zeros_like(self.moves), xp.eye(MEMORY, dtype=b.dtype, **like)
        self.gram = xp.zeros_like(self.moves[:, :, :1]) * self.one[0]
        self.best = b[:, 0] * 0 - math.inf
        self.held = self.best > 0  # whether there are differences, so that the last step was accelerated
        self.fresh = ~self.held  # no former point to take a difference to
        self.former: Any = (b, b, b)

    def lowered(self, dual: Array, noise: Array) -> Array:
        """Whether the last step was an accelerated one that lowered the dual: it will be undone."""
        return self.held & ~(dual >= self.best - noise)

    def step(self, h: Array, r: Array, dual: Array, noise: Array) -> Array:
        """The next iterate."""
        xp, rejected, slot = backend.namespace(h), self.lowered(dual, noise), self.count % MEMORY
        former, former_r, plain = self.former
        valid = (~(self.fresh | rejected))[:, None]
        self.moves[:, slot] = xp.where(valid, h - former, 0.0)
        self.changes[:, slot] = xp.where(valid, r - former_r, 0.0)
        if rejected.any():
            self.moves[rejected] = 0.0
            self.changes[rejected] = 0.0
            self.gram[rejected] = 0.0
        row = self.dots(self.changes[:, slot])
        self.gram[:, slot], self.gram[:, :, slot] = row, row
        following = xp.where(rejected[:, None], plain, h + self.step_size * r)
        if self.count:
            gamma = self.least_squares(self.dots(r))[..., None]
            following = following - (gamma * (self.moves + self.step_size * self.changes)).sum(1)
        self.best = xp.where(rejected, self.best, xp.maximum(self.best, dual))
        self.held, self.fresh = (self.held | valid[:, 0]) & ~rejected, rejected
        self.former, self.count = (h, r, h + self.step_size * r), self.count + 1
        return following

    def dots(self, r: Array) -> Array:
        """Σ_j change_kj b_j r_j. Not by BLAS, which does not promise to add up in the same order every time."""
        return (self.changes * (self.b * r)[:, None]).sum(-1)

    def least_squares(self, right: Array) -> Array:
        """Solve the normal equations of unit columns, with a ridge; columns that are 0 get 0."""
        xp = backend.namespace(right)
        square = xp.diagonal(self.gram, 0, 1, 2)
        scale = xp.where(square > 0, 1.0 / xp.sqrt(xp.where(square > 0, square, 1.0)), 0.0)
        gram = self.gram * scale[:, :, None] * scale[:, None]
        gram = xp.where(self.one > 0, 1.0 + RIDGE, gram)
        # NaN in one problem must not stop the others: solvers refuse it.
        usable = xp.isfinite(gram).all(-1).all(-1)
        gram = gram if usable.all() else xp.where(usable[:, None, None], gram, self.one)
        return xp.linalg.solve(gram, (right * scale)[..., None])[..., 0] * scale


def newton_finish(problem: Any, h: Array, tol: float, max_iter: int) -> State:
    """Newton's method on the semi-dual of one problem, Σ a F(h) + Σ b h, which is concave and smooth.

    Gradient b - c and Hessian -(diag c - Pᵀ diag(1/a) P), in units of ε. Sinkhorn's own convergence slows down with
    the gap of this Hessian, Newton's does not: 1e-3 to 1e-10 takes 5 to 20 steps at every ε. Steps are shortened
    until the value rises, so that it converges from wherever it is started.
    """
    noise, trust, taken = float(problem.noise[0]), TRUST_RADIUS, 1

    def measure(at: Array) -> tuple[Any, ...]:
        F, c = problem.sweep(at)
        r, error, dual, value = residual_and_dual(problem, at, F, c)
        return F, c, r, value, *backend.numbers(error[0], dual[0])

    F, c, r, value, error, dual = measure(h)
    for _ in range(50):
        if error <= tol or taken >= max_iter:
            break
        h = h + r  # Sinkhorn's own step first: it is exact where a small column is off by a factor
        F, c, r, value, error, dual = measure(h)
        taken += 1
        if error <= tol or error != error:
            break
        step, former = newton_step(problem, h, F, c), error
        largest, slope = backend.numbers(abs(step).max(), (step * (problem.b - c)).sum())
        if slope < 0:  # along a flat direction, in which rounding has bent the Hessian upwards
            step, slope = -step, -slope
        longest = min(1.0, trust / max(largest, 1e-300))
        t, risen = longest, False
        while not risen and t > 1e-4 * longest:
            trial = h + t * step
            F, c, r, value, error, new_dual = measure(trial)
            taken += 1
            risen = new_dual >= dual + 1e-4 * t * slope - noise
            t = t if risen else 0.3 * t
        if not risen:
            F, c, r, value, error, dual = measure(h)
            break
        h, dual = trial, new_dual
        trust = 4 * trust if t == longest else TRUST_RADIUS
        if error > 0.5 * former and error < 1e-11:
            break  # rounding
    passes = (problem.b[:, 0] * 0 != 0) * 0 + taken
    return State(h, F, passes, (problem.b[:, 0] * 0) + error, value)


def newton_step(problem: Any, h: Array, F: Array, c: Array) -> Array:
    """Solve (diag c - Pᵀ diag(1/a) P) step = b - c on the points that have weight, symmetrically scaled by √b."""
    xp, b = backend.namespace(h), problem.b[0]
    live = b > 0
    root = xp.sqrt(xp.where(live, b, 1.0))
    H = -problem.hessian(h, F)  # 0 where a point has no weight
    diagonal = xp.where(live, c[0] / root**2 + 1e-13, 1.0)  # semidefinite but for rounding
    weight = xp.where(live, root, 0.0)
    H = H + xp.diag(diagonal) + weight[:, None] * weight  # constants are its kernel
    right = xp.where(live, (b - c[0]) / root, 0.0)
    return (xp.linalg.solve(H, right) / root)[None] * LOG2E
