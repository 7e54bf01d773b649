"""Entropic transport on plain NumPy arrays: scaling, precision, starts, regimes and the finish.

Inside, points are centred and divided by a power of two, so that squares neither overflow nor lose their digits, and
potentials are in base 2 and in units of ε (see `softmin`). Everything that leaves this file is in the
caller's units.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .._core.backend import Array

LOG2E = 1.4426950408889634
GROUP = 6  # rows that the kernels take at a time
# A kernel is kept while it takes at most this much memory; beyond it, its rows are computed again in each pass.
STORED_BYTES = 2**28
# Entries up to which a kernel sits in a cache, so that one thread and one compiled call do best.
CACHED = 2**22
# A kernel that is not kept is computed in tiles of so many entries: about a second cache.
TILE = 2**17
# From this size on, the rows of one problem are worth splitting over threads.
LARGE = 2**18
# Newton's method forms the Hessian of the second cloud's potential: at most this many points.
NEWTON_POINTS = 2048
# It takes over after so many passes, or earlier, at a marginal error of 1e-3, where the tolerance is below 1e-5.
NEWTON_AFTER = 500
# Its quadratic model is not trusted at first to move a potential by more than this, in base 2: entries change by 2^16.
NEWTON_REACH = 16.0
# Tasks that a pass over one problem is cut into, whatever the number of threads: sums then add up alike everywhere.
SHARES = 16
# From this size on (and 128 d³) eigendecompositions for a start with correlations cost less than the passes they save.
CORRELATED = 2**18
# From this size on, the three terms of one divergence are worth solving on several threads.
SIDE_BY_SIDE = 2**18
# Below this ratio of ε to the mean cost, potentials are first found for larger ε, each stage to this marginal error.
ANNEAL_BELOW, ANNEAL_FACTOR, ANNEAL_TOL = 1 / 300, 4.0, 0.03
ANNEAL_ABOVE = LOG2E / ANNEAL_BELOW  # the mean cost inside

# Each ε of a bracket is the one before, divided by this.
BRACKET_FACTOR = 4.0


class Solution(NamedTuple):
    """Solutions of a flat batch of k problems, in the caller's units and in float64; NumPy's or PyTorch's."""

    f: Array  # (k, n)
    g: Array  # (k, m)
    value: Array  # (k,)
    n_iter: Array  # (k,)
    error: Array  # (k,)
    grad_x: Array | None  # (k, n, d), of one side where the clouds are the same
    grad_y: Array | None  # (k, m, d)


class Cloud:
    """A weighted cloud in the units inside, packed for the kernels in the working type."""

    def __init__(self, x: np.ndarray, a: np.ndarray, frame: Frame, dtype: Any) -> None:
        from .._core.simd import BYTES
        from .cloud import settle

        (n, d), lanes = x.shape, BYTES // np.dtype(dtype).itemsize
        self.a, self.points, self.mean, self.variances = a, np.empty((n, d)), np.empty(d), np.empty(d)
        self.rows = np.empty((-(-n // GROUP), d, GROUP), dtype)
        self.panels = np.empty((-(-n // lanes), d, lanes), dtype)
        settle(x, a, *frame, self.points, self.mean, self.variances, self.rows, self.panels)


class Frame(NamedTuple):
    """The coordinates inside: x = center + unit · (x inside). Units are powers of two: dividing by them is exact."""

    center: np.ndarray  # (d,)
    unit: float


def frames(x: np.ndarray, y: np.ndarray, epsilon: float, tol: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each problem: center (k, d), unit (k,), and whether float32 resolves its plan to well below tol (k,)."""
    from .cloud import frame

    k, d = len(x), x.shape[2]
    center, unit, single = np.empty((k, d)), np.empty(k), np.empty(k, bool)
    frame(x, y, float(epsilon), float(tol), center, unit, single)
    return center, unit, single


class Room:
    """Memory for one kernel after the other: fresh pages would cost as much as a pass."""

    def __init__(self) -> None:
        self.taken = np.empty(0)

    def of(self, size: int, dtype: np.dtype) -> np.ndarray:
        if len(self.taken) < size or self.taken.dtype != dtype:
            self.taken = np.empty(size, dtype)
        return self.taken[:size]


class Problem:
    """One problem in one working precision.

    Without a second cloud the first is transported to itself: then one potential serves both sides. ``strength`` is
    λ = ρ/(ρ + ε), 1 for balanced transport.
    """

    def __init__(self, first: Cloud, second: Cloud | None, frame: Frame, epsilon: float, strength: float) -> None:
        self.symmetric = second is None
        self.first, self.second = first, first if second is None else second
        self.x, self.a, self.y, self.b = first.points, first.a, self.second.points, self.second.a
        self.rows, self.panels = first.rows, self.second.panels
        self.frame, self.center, self.unit = frame, frame.center, float(frame.unit)
        self.epsilon, self.strength, self.dtype = epsilon, strength, self.rows.dtype
        self.scale = LOG2E * (self.unit / epsilon) * self.unit  # log2(e)/ε in the units inside
        self.shape = len(self.a), len(self.b)
        self.full = len(self.rows) * GROUP, len(self.panels) * self.panels.shape[2]  # filled up
        self.a_work = np.zeros(self.full[0], self.dtype)
        self.a_work[: len(self.a)] = self.a
        self.h, self.F = np.zeros(len(self.b)), np.full(len(self.a), np.nan)
        self.kernel: np.ndarray | None = None
        self.shift = np.empty(self.full[0], self.dtype)
        self.at, self.v = np.full(len(self.b), np.nan), np.zeros(self.full[1], self.dtype)
        shift = first.mean - self.second.mean
        self.mean_cost = float(shift @ shift + first.variances.sum() + self.second.variances.sum())

    # Kernels (see `softmin`): their rows are kept where there is room, or computed whenever they are needed.

    def keep(self, room: Room) -> None:
        size = self.full[0] * self.full[1]
        if size * self.dtype.itemsize <= STORED_BYTES:
            self.kernel = room.of(size, self.dtype)

    def parts(self, rows: int) -> list[slice]:
        n = self.full[0]
        return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

    def tasks(self) -> list[slice]:
        """Rows in parts for the threads to share, whatever their number: sums then add up alike everywhere."""
        n, m = self.full
        return self.parts(n if n * m < LARGE else -(-n // (GROUP * SHARES)) * GROUP)

    def tile(self) -> int:
        """Rows of a kernel that is not kept to compute at a time: as many as fit in a second cache."""
        return max(GROUP, TILE // self.full[1] // GROUP * GROUP)

    def part(self, free: bool = False) -> Callable[[slice, int], tuple]:
        """What gives `softmin` the kernel's rows: those kept or, if they are too old, new ones."""
        from .kernels import prepare

        if self.kernel is None:
            self.at[:] = np.nan
        m, G = self.full[1], np.empty_like(self.v)
        stale = not prepare(self.h, self.b, self.at, G, self.v, free)
        common = self.panels.reshape(-1), self.x.shape[1], self.dtype.type(self.scale), G, stale

        def rows(at: slice, room: int) -> tuple:
            kept = self.kernel
            E = np.empty(room * m, self.dtype) if kept is None else kept[at.start * m : at.stop * m]
            return self.rows[at.start // GROUP : at.stop // GROUP].reshape(-1), *common, E, self.v, self.shift[at]

        return rows

    def rescale(self, factor: float) -> None:
        """Multiply 1/ε, and with it everything that is in units of ε."""
        self.scale *= factor
        self.h *= factor
        self.F *= factor
        self.at[:] = np.nan

    # Solving.

    def start(self) -> None:
        """Start from the entropic potential of the Gaussians that fit the clouds, which is quadratic."""
        from .cloud import gaussian_start

        (n, m), d, first, second = self.shape, self.x.shape[1], self.first, self.second
        finite = math.isfinite(self.mean_cost)  # NaN is not refused everywhere, and eigensolvers refuse it
        if d == 1 or n * m < CORRELATED + 128 * d**3 or not finite:
            moments = first.mean, first.variances, second.mean, second.variances
            gaussian_start(self.y, *moments, self.scale, self.h)
            return
        xc, yc = self.x - first.mean, self.y - second.mean
        B = _covariance(yc, self.b)
        A = B if self.symmetric else _covariance(xc, self.a)
        pulled = yc @ (np.eye(d) - _gaussian_map(A, B, 0.5 * LOG2E / max(self.scale, 1e-150)))  # σ² = ε/2
        self.h = self.scale * (yc * (pulled + 2 * (second.mean - first.mean))).sum(-1)

    def run(self, tol: float, max_iter: int, h: np.ndarray | None) -> tuple[float, float, float]:
        """Solve, from the Gaussian start or from h (m,): passes, error, dual value."""
        passes, stages = 0, 0
        if h is None:
            steepness = self.mean_cost * self.scale / ANNEAL_ABOVE
            stages = math.ceil(math.log(steepness, ANNEAL_FACTOR)) if steepness > 1 else 0
            self.rescale(ANNEAL_FACTOR**-stages)
            self.start()
        else:
            self.h[:] = h
        for _ in range(stages):
            passes += self.iterate(max(ANNEAL_TOL, tol), max(1, max_iter - passes))[0]
            self.rescale(ANNEAL_FACTOR)
        more, error, dual = self.finish(tol, max(1, max_iter - passes))
        return passes + more, error, dual

    def finish(self, tol: float, max_iter: int) -> tuple[int, float, float]:
        """Anderson to tol, or to where Newton's method takes over."""
        possible = self.strength == 1.0 and not self.symmetric and self.dtype == np.float64
        if not possible or max(self.shape) > NEWTON_POINTS or max_iter <= NEWTON_AFTER:
            return self.iterate(tol, max_iter)
        passes, error, dual = self.iterate(tol if tol >= 1e-5 else 1e-3, NEWTON_AFTER)
        if tol < error <= (1.0 if max(self.shape) <= NEWTON_POINTS // 4 else 1e-3):
            steps, error, dual = newton_finish(self, tol, max_iter - passes)
            passes += steps
        if error > tol and passes < max_iter:  # Newton gave up: on from there
            more, error, dual = self.iterate(tol, max_iter - passes)
            passes += more
        return passes, error, dual

    def iterate(self, tol: float, max_iter: int) -> tuple[int, float, float]:
        """Run the accelerated iteration; returns passes, marginal error, dual value."""
        from . import kernels

        (n, m), limits = self.shape, (self.strength, self.symmetric)
        if self.kernel is not None and n * m <= CACHED:
            flat = self.rows.reshape(-1), self.panels.reshape(-1)
            clouds = self.x, self.y, self.a, self.b, self.a_work, self.dtype.type(self.scale)
            state = self.kernel, self.shift, self.at, self.v
            return kernels.loop(*flat, *clouds, self.h, self.F, *limits, tol, max_iter, self.noise, state)
        r, vectors = np.empty(m), np.empty((2 * kernels.MEMORY + 3, m))
        gram, anderson = np.empty((kernels.MEMORY, kernels.MEMORY)), np.array([-np.inf, 0.0, 0.0])
        passes, damping = 0, 2.0 / 3.0 if self.symmetric else 1.0
        while True:
            c = self.sweep(free=self.strength == 1.0 and not self.symmetric)
            passes += 1
            error, dual = kernels.assess(self.h, self.F, c, self.a, self.b, *limits, r)
            lost = 0 if self.symmetric else self.repair(c, r)
            if kernels.done(error <= tol and lost == 0, error, dual, passes >= max_iter, self.noise, anderson):
                return passes, error, dual
            kernels.advance(self.h, r, self.b, dual, self.noise, damping, vectors, gram, anderson)

    def repair(self, c: np.ndarray, r: np.ndarray) -> int:
        """`kernels.repair`; if there is much to do, by a pass over columns."""
        from . import kernels

        lost = (self.b > 0) & (c < kernels.LOST * self.b)
        if lost.sum() * SHARES <= len(lost):
            points = self.x, self.y, self.scale
            kernels.repair(*points, self.F, self.a, self.b, c, self.h, self.strength, r)
        else:
            r[lost] = self.column_softmin()[lost] - self.h[lost]
        return int(lost.sum())

    def column_softmin(self) -> np.ndarray:
        """-λ log2 Σ_i a_i 2^(F_i + S_ij) of every column."""
        swapped = Problem(self.second, self.first, self.frame, self.epsilon, self.strength)
        swapped.scale, swapped.h = self.scale, self.F
        swapped.sweep()
        return swapped.F

    @property
    def noise(self) -> float:
        """How much rounding may lower the dual value."""
        from .kernels import rounding

        return rounding(self.v, self.scale * self.mean_cost)

    def sweep(self, free: bool = False) -> np.ndarray:
        """One pass: updates F, chooses a `free` constant of h; the second marginal (zeros where symmetric)."""
        from .softmin import sweep

        (n, m), part, tasks, tile = self.shape, self.part(free), self.tasks(), self.tile()
        c = np.zeros((len(tasks), m))

        def task(t: int) -> None:
            rows = tasks[t]
            side = self.a_work[rows], self.strength, not self.symmetric, self.F[rows]
            sweep(part(rows, min(tile, rows.stop - rows.start)), *side, c[t])

        _map(task, range(len(tasks)), n * m)
        return c.sum(0) * self.v[:m]

    # What follows from the potentials.

    def potentials(self) -> tuple[np.ndarray, np.ndarray]:
        """F and h, continued by the softmin to points without weight."""
        if (self.b > 0).all():
            return self.F, self.h
        return self.F, np.where(self.b > 0, self.h, self.F if self.symmetric else self.column_softmin())

    def gradients(self, points: tuple[bool, bool]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Envelope theorem: ∂/∂x_i = 2 Σ_j P_ij (x_i - y_j), and its mirror image, each after its own last update.

        Where a cloud is transported to itself, the derivative with respect to one of the two sides.
        """
        from .kernels import column_gradient, row_gradient

        (n, d), m = self.x.shape, self.shape[1]
        by_x, by_y = points[0], points[1] and not self.symmetric
        if not (by_x or by_y):
            return None, None
        wide = np.concatenate((self.x, np.ones((n, 1))), 1)
        Py, Ptx = self.moments(self.y if by_x else np.empty((m, 0)), wide if by_y else np.empty((n, 0)))
        grad_x, grad_y = np.empty((n, d)) if by_x else None, np.empty((m, d)) if by_y else None
        if by_x:
            row_gradient(self.x, self.a, self.F, self.unit, self.strength, Py, grad_x)
        if by_y:
            column_gradient(self.y, self.b, self.v, self.unit, self.strength, Ptx, grad_y)
        return grad_x, grad_y

    def moments(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P y (n, q) for y (m, q), and Σ_i u_i x_ik E_ij (p', m'), which times v_j is xᵀ P, for x (n, p)."""
        from .softmin import add, pack_columns, products

        (n, m), part, tasks, tile = self.shape, self.part(), self.tasks(), self.tile()
        width, lanes = self.full[1], self.panels.shape[2]
        Py, Ptx = np.zeros((n, y.shape[1])), np.zeros((-(-x.shape[1] // GROUP) * GROUP, width))
        B = np.empty(-(-y.shape[1] // lanes) * lanes * width, self.dtype)
        pack_columns(y, self.v, B)

        def task(rows: slice) -> None:
            kernel, sums = part(rows, min(tile, rows.stop - rows.start)), np.zeros(Ptx.shape, self.dtype)
            products(kernel, self.a_work[rows], self.F[rows], B, x[rows], Py[rows], sums)
            with adding:
                add(sums, Ptx)

        adding = threading.Lock()
        _map(task, tasks, n * m)
        return Py, Ptx

    def plan_blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The plan's rows, block after block; each block is valid until the next one."""
        from .softmin import plan_rows

        (n, m), part, tile = self.shape, self.part(), self.tile()
        P = np.empty((min(tile, n), m), self.dtype)
        for rows in self.parts(tile):
            inside = slice(rows.start, min(rows.stop, n))
            plan = P[: inside.stop - inside.start]
            plan_rows(part(rows, rows.stop - rows.start), self.a_work[rows], self.F[rows], plan)
            yield inside, plan


def solve(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    epsilon: float,
    tol: float,
    max_iter: int,
    strength: float,
    single: bool,
    warm: np.ndarray | None = None,
    points: tuple[bool, bool] = (False, False),
    debias: bool = False,
) -> list[Solution]:
    """Solve a flat batch, each problem in the precision that it needs; ``single`` allows float32.

    x (k, n, d), y (k, m, d), a (k, n) and b (k, m) in float64; ``warm`` is a former g (k, m). Returns the solution and,
    with ``debias``, those of x to itself and of y to itself, whose gradients are in ``grad_x``.
    """
    n, m = x.shape[1], y.shape[1]
    size = max(n, m) ** 2 if debias else n * m
    center, unit, low = frames(x, y, epsilon, tol)
    low &= single
    found = Results(x, y, points, debias)
    if warm is not None:
        found.h[:] = warm * (LOG2E / epsilon)
    if tol >= 1e-5 and size <= CACHED:
        limits = strength, float(tol), min(max_iter, NEWTON_AFTER), ANNEAL_ABOVE
        _solve_cached(found, low, x, y, a, b, center, unit, epsilon, warm is not None, limits)
    room = Room()

    def task(at: tuple[int, int]) -> None:
        t, i = at
        frame, dtype = Frame(center[i], unit[i]), np.float32 if low[i] else np.float64
        clouds = [Cloud(z[i], w[i], frame, dtype) for z, w in ((x, a), (y, b))[int(t == 2) : 2 - int(t == 1)]]
        problem = Problem(clouds[0], clouds[1] if t == 0 else None, frame, epsilon, strength)
        problem.keep(room if size >= LARGE else Room())
        found.solve(t, i, problem, tol, max_iter, t == 0 and warm is not None)

    left = found.left(tol, max_iter)
    if size < LARGE:
        _map(task, left, len(left) * size)
    else:
        for at in left:
            task(at)
    return found.solutions(epsilon)


class Results:
    """Where the solutions of a batch are collected: of x to y and, with ``debias``, of x to itself and y to itself.

    Potentials in base 2, h (k, m) and F (k, n), and of the others h alone; gradients, of length 0 where they are not
    wanted; stats (terms, k, 3): passes (-1: none yet), error, dual value.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, points: tuple[bool, bool], debias: bool) -> None:
        k, n, m = len(x), x.shape[1], y.shape[1]
        self.points, self.stats = points, np.full((3 if debias else 1, k, 3), -1.0)
        self.h, self.F, self.h_x, self.h_y = (np.empty((k, size)) for size in (m, n, n, m))
        shapes = ((z, wanted) for also in (True, debias) for z, wanted in zip((x, y), points, strict=True) if also)
        self.grads = tuple(np.empty((k * wanted, *z.shape[1:])) for z, wanted in shapes)

    def left(self, tol: float, max_iter: int) -> list[tuple[int, int]]:
        """Terms and members that need to be solved, or solved further."""
        passes, error = self.stats[..., 0], self.stats[..., 1]
        if passes.min(initial=0) == 0 and (error <= tol).all():
            return []
        return list(zip(*np.nonzero((passes < 0) | ((error > tol) & (passes < max_iter))), strict=True))

    def solve(self, t: int, i: int, problem: Problem, tol: float, max_iter: int, warm: bool) -> None:
        """Solve term t of member i, from where it is or, without `warm`, from the start if it was not begun."""
        h, former = (self.h, self.h_x, self.h_y)[t][i], max(self.stats[t, i, 0], 0.0)
        passes, *rest = problem.run(tol, max_iter - int(former), h if warm or former else None)
        self.stats[t, i] = former + passes, *rest
        points, room = (
            (self.points, self.grads[:2]),
            (self.points[:1], self.grads[2:3]),
            (self.points[1:], self.grads[3:]),
        )[t]
        for out, grad in zip(room, problem.gradients((points[0], points[-1])), strict=False):
            if grad is not None:
                out[i] = grad
        F, h[:] = problem.potentials()
        if t == 0:
            self.F[i] = F

    def solutions(self, epsilon: float) -> list[Solution]:
        unit = epsilon / LOG2E
        pairs = ((self.F, self.h), (self.h_x, self.h_x), (self.h_y, self.h_y))
        grads = [grad if wanted else None for grad, wanted in zip(self.grads, 2 * self.points, strict=False)]
        sides = [tuple(grads[:2]), *((grad, None) for grad in grads[2:])]
        return [
            Solution(F * unit, h * unit, stats[:, 2] * unit, stats[:, 0].astype(np.int64), stats[:, 1], *grad)
            for (F, h), stats, grad in zip(pairs, self.stats, sides, strict=False)
        ]


def _solve_cached(
    found: Results,
    low: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    center: np.ndarray,
    unit: np.ndarray,
    epsilon: float,
    warm: bool,
    limits: tuple,
) -> None:
    """Solve small problems, each in one compiled call; those that need stages are left."""
    from .._core import threads
    from .kernels import solve

    terms, (k, n), m = len(found.stats), a.shape, b.shape[1]
    work = k * (n * m + (n * n + m * m if terms > 1 else 0))
    apart = work >= SIDE_BY_SIDE
    ranges = [(t, t + 1) for t in range(terms)] if apart and k < SHARES else [(0, terms)]
    step = max(1, -(-k // SHARES) if apart else k)
    tasks = [
        (members[i : i + step], part, np.empty(0, dtype))
        for dtype, members in ((np.float32, np.flatnonzero(low)), (np.float64, np.flatnonzero(~low)))
        for i in range(0, len(members), step)
        for part in ranges
    ]
    nothing = np.empty((0, 0, 0))
    grads = (*found.grads, nothing, nothing)[:4]
    potentials = found.h, found.F, found.h_x, found.h_y

    def task(at: tuple[np.ndarray, tuple[int, int], np.ndarray]) -> None:
        solve(*at, x, y, a, b, center, unit, epsilon, warm, limits, potentials, grads, found.stats)

    if apart:
        threads.map(task, tasks)
    else:
        for at in tasks:
            task(at)


def flatten(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[Array, Array, Array, Array]:
    """One batch dimension, float64; weights that were not given become uniform. NumPy."""
    k = math.prod(x.shape[:-2])
    wide = [np.require(z, np.float64, ("C", "W")).reshape(k, *z.shape[-2:]) for z in (x, y)]
    for w, points in ((a, wide[0]), (b, wide[1])):
        n = points.shape[1]
        if w.shape[-1]:
            mass = np.asarray(w, np.float64).reshape(k, n)
            wide.append(mass / mass.sum(-1, keepdims=True))  # what float32 left of the sum would be multiplied with ε
        else:
            wide.append(np.full((k, n), 1 / n))
    return wide[0], wide[1], wide[2], wide[3]


def at_potentials(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    f: np.ndarray,
    g: np.ndarray,
    epsilon: float,
    strength: float,
) -> list[Problem]:
    """The problems of a flat batch with their potentials in place (f, g with any batch shape), in float64."""
    problems, unit = _problems(x, y, a, b, epsilon, strength), LOG2E / epsilon
    for problem, F, h in zip(problems, np.reshape(f, a.shape), np.reshape(g, b.shape), strict=True):
        problem.F, problem.h = F.astype(np.float64) * unit, h.astype(np.float64) * unit
    return problems


def gradients_at(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    f: np.ndarray,
    g: np.ndarray,
    epsilon: float,
    strength: float,
    points: tuple[bool, bool],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The gradients by the points of a flat batch whose potentials are known."""
    found = [problem.gradients(points) for problem in at_potentials(x, y, a, b, f, g, epsilon, strength)]
    sides = zip(points, (x, y), zip(*found, strict=True) if found else ((), ()), strict=True)
    grad_x, grad_y = (np.reshape(grads, z.shape) if wanted else None for wanted, z, grads in sides)
    return grad_x, grad_y


def _problems(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, strength: float = 1.0
) -> list[Problem]:
    out = []
    for points_x, points_y, weights_x, weights_y, center, unit in zip(
        x, y, a, b, *frames(x, y, epsilon, 1.0)[:2], strict=True
    ):
        frame = Frame(center, unit)
        sides = (points_x, weights_x), (points_y, weights_y)
        first, second = (Cloud(points, weights, frame, np.float64) for points, weights in sides)
        out.append(Problem(first, second, frame, epsilon, strength))
    return out


def newton_finish(problem: Problem, tol: float, max_iter: int) -> tuple[int, float, float]:
    """Newton's method on the semi-dual, Σ a F(h) + Σ b h, which is concave and smooth; for few points.

    Gradient b - c and Hessian -(diag c - Pᵀ diag(1/a) P), in units of ε. Sinkhorn's own convergence slows down with
    the gap of this Hessian, Newton's does not: 1e-3 to 1e-10 takes 5 to 20 steps at every ε. Steps are shortened
    until the value rises, so that it converges from wherever it is started. Returns passes, marginal error, dual value.
    """
    from .kernels import assess

    a, b = problem.a, problem.b
    live, r = b > 0, np.empty(len(b))
    root = np.sqrt(b[live])

    def measure() -> tuple[np.ndarray, float, float]:
        c = problem.sweep()
        error, dual = assess(problem.h, problem.F, c, a, b, 1.0, False, r)
        return c, error, dual

    (c, error, dual), passes = measure(), 1
    noise, reach = problem.noise, NEWTON_REACH
    for _ in range(50):
        if error <= tol or passes >= max_iter:
            break
        problem.h += r  # Sinkhorn's own step first: it is exact where a small column is off by a factor
        c, error, dual = measure()
        passes += 1
        if error <= tol:
            break
        step = np.zeros(len(b))
        step[live] = _newton_step(problem, c, live, root) * LOG2E
        start, former = problem.h.copy(), error
        t = longest = min(1.0, reach / max(float(np.abs(step).max()), 1e-300))
        slope = step @ (b - c)
        while t > 1e-4 * longest:
            problem.h = start + t * step
            c, error, new_dual = measure()
            passes += 1
            if new_dual >= dual + 1e-4 * t * slope - noise:
                break
            t *= 0.3
        else:
            problem.h = start
            c, error, dual = measure()
            break
        reach = 4 * reach if t == longest else NEWTON_REACH
        dual = new_dual
        if error > 0.5 * former and error < 1e-11:
            break  # rounding
    return passes, error, dual


def _newton_step(problem: Problem, c: np.ndarray, live: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Solve (diag c - Pᵀ diag(1/a) P) step = b - c on the points that have weight, symmetrically scaled by √b."""
    a, b = problem.a, problem.b
    H = np.zeros((len(root), len(root)))
    for rows, P in problem.plan_blocks():
        P = P[:, live] / root
        H -= P.T @ (P / np.where(a[rows] > 0, a[rows], 1.0)[:, None])
    H[np.diag_indices(len(root))] += c[live] / b[live] + 1e-13  # semidefinite but for rounding
    H += np.outer(root, root)  # constants are its kernel
    return np.linalg.solve(H, (b - c)[live] / root) / root


# Small helpers.


def _map(function: Callable, tasks, work: int) -> None:
    """Run the tasks on the pool, if there is work enough for waking it."""
    from .._core import threads

    if work < LARGE or len(tasks) == 1:
        for task in tasks:
            function(task)
    else:
        threads.map(function, tasks)


def _covariance(centred: np.ndarray, a: np.ndarray) -> np.ndarray:
    return (centred * a[..., None]).mT @ centred


def _gaussian_map(A: np.ndarray, B: np.ndarray, half: float) -> np.ndarray:
    """2 A^½ [(4 A^½ B A^½ + σ⁴)^½ + σ²]⁻¹ A^½: the slope of the entropic map from N(0, B) to N(0, A), σ² = ε/2.

    Regular also where A or B is singular (Janati et al. 2020, arXiv:2006.02572).
    """
    w, V = np.linalg.eigh(A)
    root = (V * np.sqrt(np.maximum(w, 0.0))) @ V.T
    w, V = np.linalg.eigh(root @ B @ root)
    inner = (V / (np.sqrt(np.maximum(4 * w, 0.0) + half**2) + half)) @ V.T
    return 2 * root @ inner @ root


# Certificates.


def bounds(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    g: np.ndarray,
    epsilon: float,
    others: tuple[np.ndarray, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (k,) on the exact W2² of a flat batch, from any potentials g (k, m).

    Lower: g and its c-transform are feasible for the dual, whatever g is; so are all ``others``. Upper: the entropic
    plan of g, rounded onto the marginals (Altschuler, Weed and Rigollet 2017, arXiv:1705.09634, algorithm 2), is
    feasible for the primal. Both are moved outwards by a bound on their rounding.
    """
    hard, back = _problems(x, y, a, b, LOG2E), _problems(y, x, b, a, LOG2E)
    soft = _problems(x, y, a, b, epsilon)
    lower, upper = np.empty(len(x)), np.empty(len(x))
    # Sums of d terms, and of n by strips of 256, none above 4 in the units inside.
    slack = 256 * np.finfo(float).eps * (x.shape[2] + math.log2(x.shape[1] + y.shape[1]))
    for k, problem in enumerate(soft):
        hard[k].scale = back[k].scale = 1.0  # scores are then minus the costs
        square = problem.unit**2
        low = max(_dual_value(hard[k], back[k], h[k] / square) for h in (g, *others))
        lower[k] = max(low - slack, 0.0) * square
        upper[k] = max(_rounded_cost(problem, g[k]) + slack, 0.0) * square
    return lower, upper


def _dual_value(hard: Problem, back: Problem, g: np.ndarray) -> float:
    """Σ a g^c + Σ b g^cc, where g^c_i = min_j (C_ij - g_j) over the points that have weight."""
    f = _c_transform(hard, g)
    return float(hard.a @ f + hard.b @ _c_transform(back, f))


def _c_transform(hard: Problem, g: np.ndarray) -> np.ndarray:
    from .softmin import peaks

    (n, m), panels = hard.shape, hard.panels.reshape(-1)
    G, out = np.full(hard.full[1], -np.inf), np.empty(n)
    G[:m] = np.where(hard.b > 0, g, -np.inf)

    def task(rows: slice) -> None:
        groups = hard.rows[rows.start // GROUP : rows.stop // GROUP].reshape(-1)
        peaks(groups, panels, hard.x.shape[1], 1.0, G, out[rows])

    _map(task, hard.tasks(), n * m)
    return -out


def _rounded_cost(problem: Problem, g: np.ndarray) -> float:
    """Cost of the plan of g, rounded onto the marginals, inside."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    problem.h = g * (LOG2E / problem.epsilon)
    c = problem.sweep()  # the rows are exact after it
    share = np.minimum(1.0, b / np.where(c > 0, c, 1.0))
    kept, _ = problem.moments(share[:, None] * np.column_stack((y, np.ones(len(y)))), np.empty((len(x), 0)))
    inner, left = (x * kept[:, :-1]).sum(), a - kept[:, -1]
    left, over = np.maximum(left, 0.0), np.maximum(b - np.minimum(b, c), 0.0)
    if left.sum() > 0:
        inner += (left @ x) @ (over @ y) / left.sum()
    return float(a @ (x**2).sum(1) + b @ (y**2).sum(1) - 2 * inner)


def bracket(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, rel_tol: float
) -> tuple[float, float, float, int, bool]:
    """Bounds of one problem (a batch of one), ε, passes and whether they are within rel_tol of each other."""
    (start,) = _problems(x, y, a, b, 1.0)
    mean = start.mean_cost * start.unit**2
    if mean == 0.0:
        return 0.0, 0.0, 0.0, 0, True
    # Below rounding of the costs, an upper bound can't be told from 0, and ε can't be resolved.
    zero, smallest = 1e-12 * mean, 1e-10 * mean
    epsilon, lower, upper, passes = mean / 20, 0.0, math.inf, 0
    g: np.ndarray | None = None
    former: np.ndarray | None = None
    while True:
        limits: dict[str, Any] = {"epsilon": epsilon, "tol": min(1e-3, rel_tol / 20), "max_iter": 2000, "strength": 1.0}
        (found,) = solve(x, y, a, b, **limits, single=False, warm=g)
        passes += int(found.n_iter[0])
        former, g = g, found.g
        # Potentials differ from their limit by a multiple of ε to first order: extrapolate it away.
        others = () if former is None else (g + (g - former) / (BRACKET_FACTOR - 1),)
        low, high = bounds(x, y, a, b, g, epsilon, others)
        lower, upper = max(lower, float(low[0])), min(upper, float(high[0]))
        done = upper - lower <= rel_tol * upper or upper <= zero
        if done or epsilon < smallest:
            return lower, upper, epsilon, passes, done
        epsilon /= BRACKET_FACTOR
