"""Entropic transport on plain NumPy arrays: scaling, precision, starts, regimes and the finish.

Inside, points are centred and divided by a power of two, so that squares neither overflow nor lose their digits, and
potentials are in base 2 and in units of ε (see `_kernels.softmin`). Everything that leaves this file is in the
caller's units.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ._arrays import Array

LOG2E = 1.4426950408889634
# Scores are kept while they take at most this much memory; beyond it, they are recomputed row by row in each pass.
STORED_BYTES = 2**28
# A batch is solved in groups of this many scores, and a streamed problem in tiles of this many: about an L2 cache.
TILE = 2**19
# From this size on, the rows of one problem are worth splitting over threads.
LARGE = 2**18
# Newton's method forms the Hessian of the second cloud's potential: at most this many points.
NEWTON_POINTS = 2048
# It takes over after so many passes, or earlier, at a marginal error of 1e-3, where the tolerance is below 1e-5.
NEWTON_AFTER = 500
# Tasks that a pass over one problem is cut into, whatever the number of threads: sums then add up alike everywhere.
SHARES = 16
# From this size on, the three terms of one divergence are worth solving on several threads.
SIDE_BY_SIDE = 2**16
# Its quadratic model is not trusted to move a potential by more than this, in base 2: entries change by 2^16.
NEWTON_REACH = 16.0
# Below this ratio of ε to the mean cost, potentials are first found for larger ε, each stage to this marginal error.
ANNEAL_BELOW, ANNEAL_FACTOR, ANNEAL_TOL = 1 / 300, 4.0, 0.03

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
    """A flat batch of weighted clouds in the units inside: x (k, n, d) and a (k, n) in float64."""

    def __init__(self, x: np.ndarray, a: np.ndarray, dtype: type) -> None:
        self.x, self.a, self.dtype = x, a, np.dtype(dtype)

    @cached_property
    def mean(self) -> np.ndarray:
        return _mean(self.x, self.a)

    @cached_property
    def variances(self) -> np.ndarray:
        """Of each coordinate."""
        return _mean((self.x - self.mean[:, None]) ** 2, self.a)

    @cached_property
    def work(self) -> np.ndarray:
        return np.ascontiguousarray(self.x, self.dtype)

    @cached_property
    def work_t(self) -> np.ndarray:
        return np.ascontiguousarray(self.x.mT, self.dtype)

    @cached_property
    def a_work(self) -> np.ndarray:
        return np.ascontiguousarray(self.a, self.dtype)

    @cached_property
    def log_a(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log2(self.a)


class Frame(NamedTuple):
    """The coordinates inside: x = center + unit · (x inside). Units are powers of two: dividing by them is exact."""

    center: np.ndarray  # (k, 1, d)
    unit: np.ndarray  # (k,)
    radius: np.ndarray  # (k,) no two points of the two clouds are farther apart than this, inside

    @classmethod
    def around(cls, x: np.ndarray, y: np.ndarray) -> Frame:
        low = np.minimum(x.min(1), y.min(1))
        high = np.maximum(x.max(1), y.max(1))
        center, half = low + 0.5 * (high - low), 0.5 * (high - low)
        unit = _power_of_two(half.max(1))
        return cls(center[:, None], unit, 2 * np.sqrt(((half / unit[:, None]) ** 2).sum(1)))

    def inside(self, x: np.ndarray) -> np.ndarray:
        return (x - self.center) / self.unit[:, None, None]

    def at(self, members: np.ndarray) -> Frame:
        return Frame(*(z[members] for z in self))


class Problem:
    """A flat batch of problems of one shape in one working precision.

    Without a second cloud each one is transported to itself: then one potential serves both sides. ``strength`` is
    λ = ρ/(ρ + ε), 1 for balanced transport.
    """

    def __init__(
        self, first: Cloud, second: Cloud | None, frame: Frame, epsilon: float | np.ndarray, strength: float
    ) -> None:
        self.symmetric = second is None
        self.first, self.second = first, first if second is None else second
        self.x, self.a, self.y, self.b = first.x, first.a, self.second.x, self.second.a
        self.epsilon, self.strength, self.dtype = epsilon, strength, first.dtype
        self.center, self.unit = frame.center, frame.unit
        self.scale = LOG2E * (self.unit / epsilon) * self.unit  # log2(e)/ε in the units inside
        self.x_work, self.yt_work = first.work, self.second.work_t
        self.a_work, self.log_b = first.a_work, self.second.log_a
        self.shape = (*self.a.shape, self.b.shape[1])
        self.stored: np.ndarray | None = None
        self.h, self.F = np.zeros(self.b.shape), np.full(self.a.shape, np.nan)
        shift = self.first.mean - self.second.mean
        self.mean_cost = (shift**2).sum(-1) + self.first.variances.sum(-1) + self.second.variances.sum(-1)

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        epsilon: float | np.ndarray,
        strength: float,
        dtype: type = np.float64,
    ) -> Problem:
        """From clouds in the caller's units, x (k, n, d), y (k, m, d), a (k, n), b (k, m) in float64."""
        frame = Frame.around(x, y)
        return cls(Cloud(frame.inside(x), a, dtype), Cloud(frame.inside(y), b, dtype), frame, epsilon, strength)

    # Scores.

    def scores(self, k: int, rows: slice) -> np.ndarray:
        """Rows of the scores of problem k: kept ones, or computed now."""
        if self.stored is not None:
            return self.stored[k, rows]
        out = np.empty((rows.stop - rows.start, self.shape[2]), self.dtype)
        self._compute_scores(k, rows, out)
        return out

    def _compute_scores(self, k: int, rows: slice, out: np.ndarray) -> None:
        from ._kernels.softmin import scores

        scores(self.x_work[k, rows], self.yt_work[k], self.dtype.type(self.scale[k]), out)

    def keep_scores(self) -> None:
        """Compute all scores once, if they may stay in memory."""
        k, n, m = self.shape
        if self.stored is not None or k * n * m * self.dtype.itemsize > STORED_BYTES:
            return
        kept = np.empty((k, n, m), self.dtype)
        tasks = [(i, rows) for i in range(k) for rows in _blocks(n, m)]
        _map(lambda at: self._compute_scores(at[0], at[1], kept[at]), tasks, k * n * m)
        self.stored = kept

    def rescale(self, factor: float | np.ndarray) -> None:
        """Multiply 1/ε, and with it everything that is in units of ε."""
        self.scale = self.scale * factor
        self.h *= factor
        self.F *= factor
        if self.stored is not None:
            self.stored *= self.dtype.type(factor)

    def columns(self, k: int) -> np.ndarray:
        """G_j: potential and weight of the second cloud, in the working type."""
        return (self.h[k] + self.log_b[k]).astype(self.dtype)

    # Solving.

    def start(self) -> None:
        """Start from the entropic potential of the Gaussians that fit the clouds, which is quadratic."""
        _, n, m = self.shape
        full = 32 * self.x.shape[2] ** 3 <= n * m  # its eigendecompositions then cost less than the passes they save
        mean_x, mean_y = self.first.mean, self.second.mean
        yc = self.y - mean_y[:, None]
        half = 0.5 * LOG2E / np.maximum(self.scale, 1e-150)  # σ² = ε/2
        if full:
            B = _covariance(yc, self.b)
            A = B if self.symmetric else _covariance(self.x - mean_x[:, None], self.a)
            slope = np.eye(yc.shape[2]) - _gaussian_map(A, B, half)
            pulled = yc @ slope
        else:
            u, v = self.first.variances, self.second.variances
            pulled = yc * (1 - 2 * u / (np.sqrt(4 * u * v + half[:, None] ** 2) + half[:, None]))[:, None]
        if not self.symmetric:
            pulled += 2 * (mean_y - mean_x)[:, None]
        self.h = self.scale[:, None] * (yc * pulled).sum(-1)

    def run(self, tol: float, max_iter: int, warm: np.ndarray | None, points: tuple[bool, bool]) -> Solution:
        """Solve, from the Gaussian start or from given g (k, m); `points` says which clouds' gradients are wanted."""
        largest = float(np.max(self.mean_cost * self.scale, initial=0.0)) * ANNEAL_BELOW / LOG2E
        stages = math.ceil(math.log(largest, ANNEAL_FACTOR)) if warm is None and largest > 1 else 0
        if stages:
            self.rescale(ANNEAL_FACTOR**-stages)
        if warm is None:
            self.start()
        else:
            self.h = warm * (LOG2E / self.epsilon)
        if self.symmetric:
            self.F[...] = self.h
        self.keep_scores()
        passes = np.zeros(self.shape[0])
        for _ in range(stages):
            passes += self.iterate(max(ANNEAL_TOL, tol), max_iter)[:, 0]
            self.rescale(ANNEAL_FACTOR)
        stats = self._finish(tol, max_iter)
        value = stats[:, 2] * (self.epsilon / LOG2E)
        gradients = self.gradients(points)
        return Solution(*self.potentials(), value, (passes + stats[:, 0]).astype(np.int64), stats[:, 1], *gradients)

    def _finish(self, tol: float, max_iter: int) -> np.ndarray:
        """Anderson to tol, or to where Newton's method takes over."""
        possible = self.strength == 1.0 and not self.symmetric and self.dtype == np.float64
        if not possible or max(self.shape[1:]) > NEWTON_POINTS or max_iter <= NEWTON_AFTER:
            return self.iterate(tol, max_iter)
        small = max(self.shape[1:]) <= NEWTON_POINTS // 4
        stats = self.iterate(tol if tol >= 1e-5 else 1e-3, NEWTON_AFTER)
        for k in range(self.shape[0]):
            if tol < stats[k, 1] <= (1.0 if small else 1e-3):
                steps, *stats[k, 1:] = newton_finish(self, k, tol)
                stats[k, 0] += steps
        if (stats[:, 1] > tol).any():  # Newton gave up: on from there
            more = self.iterate(tol, max_iter)
            stats[:, 0] += more[:, 0]
            stats[:, 1:] = more[:, 1:]
        return stats

    def iterate(self, tol: float, max_iter: int) -> np.ndarray:
        """Run the accelerated iteration; returns (k, 3): passes, marginal error, dual value."""
        k, n, m = self.shape
        stats = np.zeros((k, 3))
        if self.stored is not None and (n * m <= LARGE or k >= 8):
            from ._kernels.sinkhorn import solve

            def group(s: slice) -> None:
                rest = (self.log_b[s], self.a[s], self.b[s], self.a_work[s], self.h[s], self.F[s])
                limits = (self.strength, self.symmetric, tol, max_iter, noise[s], stats[s])
                solve(scores[s], *rest, *limits)

            scores, noise = self.stored, self._noise()
            _map(group, [slice(i, i + 1) for i in range(k)], k * n * m)
        else:
            for i in range(k):
                stats[i] = self._iterate_large(i, tol, max_iter)
        return stats

    def _iterate_large(self, k: int, tol: float, max_iter: int) -> tuple[int, float, float]:
        """The loop of `_kernels.sinkhorn.solve` for one problem whose passes are split over threads."""
        from ._kernels.sinkhorn import MEMORY, advance, assess, repair

        m = self.shape[2]
        r, vectors = np.empty(m), np.empty((2 * MEMORY + 3, m))
        gram, state = np.empty((MEMORY, MEMORY)), np.array([-np.inf, 0.0, 0.0])
        noise, damping = self._noise()[k], 2.0 / 3.0 if self.symmetric else 1.0
        passes = 0
        while True:
            c = self.sweep(k)
            passes += 1
            h, F, a, b = self.h[k], self.F[k], self.a[k], self.b[k]
            error, dual = assess(h, F, c, a, b, self.strength, self.symmetric, r)
            if error <= tol or (passes >= max_iter and (state[1] == 0 or dual >= state[0] - noise)):
                break
            if self.stored is not None and not self.symmetric:
                repair(self.stored[k], F, a, b, c, h, self.strength, r)
            advance(h, r, b, dual, noise, damping, vectors, gram, state)
        return passes, error, dual

    def _noise(self) -> np.ndarray:
        """How much rounding may lower the dual value: eps times the largest exponents that occur."""
        return 4 * np.finfo(self.dtype).eps * (1 + self.scale * self.mean_cost)

    def sweep(self, k: int) -> np.ndarray:
        """One pass over problem k: updates F[k], returns the second marginal (zeros where symmetric)."""
        from ._kernels.softmin import sweep

        _, n, m = self.shape
        G, blocks = self.columns(k), _blocks(n, m)
        tasks = [blocks[t::SHARES] for t in range(min(SHARES, len(blocks)))]
        c = np.zeros((len(tasks), m))

        def task(t: int) -> None:
            for rows in tasks[t]:
                args = (G, self.F[k, rows], self.a_work[k, rows], self.strength, not self.symmetric)
                sweep(self.scores(k, rows), *args, c[t])

        _map(task, range(len(tasks)), n * m)
        return c.sum(0)

    # What follows from the potentials.

    def potentials(self) -> tuple[np.ndarray, np.ndarray]:
        """f and g in the caller's units, continued by the softmin to points without weight."""
        F, h = self.F, self.h
        if not (self.b > 0).all():
            if self.symmetric:
                other = F
            else:
                epsilon = LOG2E / np.maximum(self.scale, 1e-300)
                frame = Frame(0 * self.center, np.ones(len(self.unit)), self.unit)
                swapped = Problem(self.second, self.first, frame, epsilon, self.strength)
                swapped.h = F
                for k in range(self.shape[0]):
                    swapped.sweep(k)
                other = swapped.F
            h = np.where(self.b > 0, h, other)
        unit = self.epsilon / LOG2E
        return (h if self.symmetric else F) * unit, h * unit

    def gradients(self, points: tuple[bool, bool]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Envelope theorem: ∂/∂x_i = 2 Σ_j P_ij (x_i - y_j), and its mirror image, each after its own last update.

        Where a cloud is transported to itself, the derivative with respect to one of the two sides.
        """
        columns = points[1] and not self.symmetric
        if not (points[0] or columns):
            return None, None
        k = self.shape[0]
        ones_x, ones_y = np.ones((*self.x.shape[:2], 1), self.dtype), np.ones((*self.y.shape[:2], 1), self.dtype)
        Py, Ptx = self.moments(
            np.concatenate((self.x_work, ones_x), 2), np.concatenate((self.yt_work, ones_y.mT), 1), columns
        )
        scale = 2 * self.unit.reshape(k, 1, 1)
        grad_x = (Py[..., -1:] * self.x - Py[..., :-1]) * scale
        if not columns:
            return grad_x, None
        mass, mean = Ptx[:, -1, :, None], Ptx[:, :-1].mT
        share = self.b[..., None] / np.where(mass > 0, mass, 1.0) if self.strength == 1.0 else 1.0
        return grad_x if points[0] else None, share * (mass * self.y - mean) * scale

    def moments(self, x: np.ndarray, yt: np.ndarray, columns: bool) -> tuple[np.ndarray, np.ndarray]:
        """P y (k, n, q) and xᵀ P (k, p, m) for x (k, n, p) and yt (k, q, m) in the working type."""
        from ._kernels.softmin import moments

        k, n, m = self.shape
        Py = np.zeros((k, n, yt.shape[1]))
        Ptx = np.zeros((k, x.shape[2], m))

        def task(at: tuple[int, int]) -> None:
            i, t = at
            part = np.zeros((x.shape[2], m), self.dtype)
            for rows in tasks[t]:
                G, a = G_all[i], self.a_work[i, rows]
                moments(self.scores(i, rows), G, self.F[i, rows], a, x[i, rows], yt[i], Py[i, rows], columns, part)
            if columns:
                with adding:
                    Ptx[i] += part

        adding = threading.Lock()
        blocks = _blocks(n, m)
        tasks = [blocks[t::SHARES] for t in range(min(SHARES, len(blocks)))]
        G_all = [self.columns(i) for i in range(k)]
        _map(task, [(i, t) for i in range(k) for t in range(len(tasks))], k * n * m)
        return Py, Ptx

    def plan_blocks(self, k: int, potential: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """The plan's rows, block after block; each block is valid until the next one."""
        from ._kernels.softmin import plan_rows

        _, n, m = self.shape
        F, G, blocks = self.F[k] if potential is None else potential, self.columns(k), _blocks(n, m)
        P = np.empty((blocks[0].stop, m), self.dtype)
        for rows in blocks:
            block = P[: rows.stop - rows.start]
            plan_rows(self.scores(k, rows), G, F[rows], self.a_work[k, rows], block)
            yield rows, block


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
    k, n, m = *a.shape, b.shape[1]
    if k == 0:
        none, count = np.zeros(0), np.zeros(0, np.int64)
        pairs = ((x, y, a, b), (x, x, a, a), (y, y, b, b))[: 3 if debias else 1]
        return [Solution(f, g, none, count, none, u, v) for u, v, f, g in pairs]
    frame = Frame.around(x, y)
    low = _single_suffices(frame, epsilon, tol) & single
    size = max(1, STORED_BYTES // 8 // (n * m * 4))
    found, order = [], []
    for dtype, mask in ((np.float32, low), (np.float64, ~low)):
        members = np.flatnonzero(mask)
        for i in range(0, len(members), size):
            at: Any = members[i : i + size] if len(members) < k or k > size else slice(None)
            part = frame.at(at)
            first, second = Cloud(part.inside(x[at]), a[at], dtype), Cloud(part.inside(y[at]), b[at], dtype)
            terms: list[tuple] = [(first, second, points)]
            if debias:
                terms += [(first, None, (points[0], False)), (second, None, (points[1], False))]
            start = None if warm is None else warm[at]
            found.append(_solve_terms(terms, part, epsilon, strength, tol, max_iter, start))
            order.append(members[i : i + size])
    if len(found) == 1:
        return found[0]
    back = np.argsort(np.concatenate(order))
    return [_merge(parts, back) for parts in zip(*found, strict=True)]


def _solve_terms(
    terms: list, frame: Frame, epsilon: float, strength: float, tol: float, max_iter: int, warm: np.ndarray | None
) -> list[Solution]:
    """Solve the terms of a divergence, side by side where each is small enough to stay on one thread."""
    from ._kernels import _pool

    found: list[Any] = [None] * len(terms)

    def task(t: int) -> None:
        first, second, points = terms[t]
        problem = Problem(first, second, frame, epsilon, strength)
        found[t] = problem.run(tol, max_iter, warm, points)

    work = sum(t[0].a.size * (t[1] or t[0]).a.shape[1] for t in terms)
    if SIDE_BY_SIDE <= work < LARGE:
        _pool.map(task, range(len(terms)))
    else:
        for t in range(len(terms)):
            task(t)
    return found


def _merge(parts: tuple[Solution, ...], back: np.ndarray) -> Solution:
    fields = zip(*parts, strict=True)
    return Solution._make(None if field[0] is None else np.concatenate(field)[back] for field in fields)


def flatten(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[Array, Array, Array, Array]:
    """One batch dimension, float64; weights that were not given become uniform. NumPy."""
    k = math.prod(x.shape[:-2])
    wide = [np.asarray(z, np.float64).reshape(k, *z.shape[-2:]) for z in (x, y)]
    for w, points in ((a, wide[0]), (b, wide[1])):
        n = points.shape[1]
        mass = np.asarray(w, np.float64).reshape(k, n) if w.shape[-1] else np.ones((k, n))
        # What float32 left of the sum would be multiplied with ε.
        wide.append(mass / mass.sum(-1, keepdims=True))
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
) -> Problem:
    """The problem of a flat batch with its potentials in place (f, g with any batch shape), in float64."""
    problem = Problem.of(x, y, a, b, epsilon, strength)
    unit = LOG2E / epsilon
    problem.F = np.asarray(f, np.float64).reshape(problem.a.shape) * unit
    problem.h = np.asarray(g, np.float64).reshape(problem.b.shape) * unit
    return problem


def _single_suffices(frame: Frame, epsilon: float, tol: float) -> np.ndarray:
    """Whether float32 resolves the plan to well below tol, in each problem.

    The entries of the plan have relative errors of about eps times their exponents, which go up to the largest cost
    over ε; and where ε exceeds the costs, the value is a small difference of order cost in numbers of order ε.
    """
    eps = float(np.finfo(np.float32).eps)
    with np.errstate(over="ignore", divide="ignore"):
        ratio = (frame.unit / epsilon) * frame.unit * frame.radius**2
        return (eps * ratio <= tol) & (eps / ratio <= 1e-5) & (tol > 1e-5)


def newton_finish(problem: Problem, k: int, tol: float) -> tuple[int, float, float]:
    """Newton's method on the semi-dual, Σ a F(h) + Σ b h, which is concave and smooth; for few points.

    Gradient b - c and Hessian -(diag c - Pᵀ diag(1/a) P), in units of ε. Sinkhorn's own convergence slows down with
    the gap of this Hessian, Newton's does not: 1e-3 to 1e-10 takes 5 to 20 steps at every ε. Steps are shortened
    until the value rises, so that it converges from wherever it is started. Returns passes, marginal error, dual value.
    """
    from ._kernels.sinkhorn import assess

    a, b = problem.a[k], problem.b[k]
    live, r = b > 0, np.empty(len(b))
    root = np.sqrt(b[live])

    def measure() -> tuple[np.ndarray, float, float]:
        c = problem.sweep(k)
        error, dual = assess(problem.h[k], problem.F[k], c, a, b, 1.0, False, r)
        return c, error, dual

    (c, error, dual), passes = measure(), 1
    noise = problem._noise()[k]
    for _ in range(50):
        if error <= tol:
            break
        problem.h[k] += r  # Sinkhorn's own step first: it is exact where a small column is off by a factor
        c, error, dual = measure()
        passes += 1
        if error <= tol:
            break
        step = np.zeros(len(b))
        step[live] = _newton_step(problem, k, c, live, root) * LOG2E
        start, former = problem.h[k].copy(), error
        t = longest = min(1.0, NEWTON_REACH / max(float(np.abs(step).max()), 1e-300))
        slope = step @ (b - c)
        while t > 1e-4 * longest:
            problem.h[k] = start + t * step
            c, error, new_dual = measure()
            passes += 1
            if new_dual >= dual + 1e-4 * t * slope - noise:
                break
            t *= 0.3
        else:
            problem.h[k] = start
            c, error, dual = measure()
            break
        dual = new_dual
        if error > 0.5 * former and error < 1e-11:
            break  # rounding
    return passes, error, dual


def _newton_step(problem: Problem, k: int, c: np.ndarray, live: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Solve (diag c - Pᵀ diag(1/a) P) step = b - c on the points that have weight, symmetrically scaled by √b."""
    a, b = problem.a[k], problem.b[k]
    H = np.zeros((len(root), len(root)))
    for rows, P in problem.plan_blocks(k):
        P = P[:, live] / root
        H -= P.T @ (P / np.where(a[rows] > 0, a[rows], 1.0)[:, None])
    H[np.diag_indices(len(root))] += c[live] / b[live] + 1e-13  # semidefinite but for rounding
    H += np.outer(root, root)  # constants are its kernel
    return np.linalg.solve(H, (b - c)[live] / root) / root


# Small helpers.


def _map(function: Callable, tasks, work: int) -> None:
    """Run the tasks on the pool, if there is work enough for waking it."""
    from ._kernels import _pool

    if work < LARGE or len(tasks) == 1:
        for task in tasks:
            function(task)
    else:
        _pool.map(function, tasks)


def _blocks(n: int, m: int) -> list[slice]:
    """Rows in tiles: of the size of a cache, and at least 4 for the threads to share where the work is worth it."""
    rows = max(1, min(n, TILE // m))
    if n * m >= LARGE:
        rows = max(1, min(rows, -(-n // 4)))
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


def _mean(x: np.ndarray, a: np.ndarray) -> np.ndarray:
    return (a[:, None] @ x)[:, 0]


def _covariance(centred: np.ndarray, a: np.ndarray) -> np.ndarray:
    return (centred * a[..., None]).mT @ centred


def _gaussian_map(A: np.ndarray, B: np.ndarray, half: np.ndarray) -> np.ndarray:
    """2 A^½ [(4 A^½ B A^½ + σ⁴)^½ + σ²]⁻¹ A^½: the slope of the entropic map from N(0, B) to N(0, A), σ² = ε/2.

    Regular also where A or B is singular (Janati et al. 2020, arXiv:2006.02572).
    """
    w, V = np.linalg.eigh(A)
    root = (V * np.sqrt(np.maximum(w, 0.0))[:, None]) @ V.mT
    w, V = np.linalg.eigh(root @ B @ root)
    half = half[:, None]
    inner = (V / (np.sqrt(np.maximum(4 * w, 0.0) + half**2) + half)[:, None]) @ V.mT
    return 2 * root @ inner @ root


def _power_of_two(size: np.ndarray) -> np.ndarray:
    """The power of two next to each size, 1 for 0: dividing by it rounds nothing."""
    return np.where(size > 0, np.exp2(np.round(np.log2(np.where(size > 0, size, 1.0)))), 1.0)


# Certificates.


def bounds(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    g: np.ndarray,
    epsilon: float | np.ndarray,
    others: tuple[np.ndarray, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (k,) on the exact W2² of a flat batch, from any potentials g (k, m).

    Lower: g and its c-transform are feasible for the dual, whatever g is; so are all ``others``. Upper: the entropic
    plan of g, rounded onto the marginals (Altschuler, Weed and Rigollet 2017, arXiv:1705.09634, algorithm 2), is
    feasible for the primal. Both are moved outwards by a bound on their rounding.
    """
    hard = Problem.of(x, y, a, b, LOG2E, 1.0)
    hard.scale = np.ones(len(x))  # scores are then minus the costs
    back = Problem.of(y, x, b, a, LOG2E, 1.0)
    back.scale = np.ones(len(x))
    square = hard.unit**2
    # Sums of d and of n terms, none above 4 in the units inside; 64 covers their constants.
    slack = 64 * np.finfo(float).eps * (x.shape[2] + math.log2(x.shape[1] + y.shape[1]))
    lower = np.max([_dual_value(hard, back, h / square[:, None]) for h in (g, *others)], axis=0)
    upper = _rounded_cost(Problem.of(x, y, a, b, epsilon, 1.0), g)
    return np.maximum(lower - slack, 0.0) * square, np.maximum(upper + slack, 0.0) * square


def _dual_value(hard: Problem, back: Problem, g: np.ndarray) -> np.ndarray:
    """Σ a g^c + Σ b g^cc, where g^c_i = min_j (C_ij - g_j) over the points that have weight."""
    f = _c_transform(hard, np.where(hard.b > 0, g, -np.inf))
    g = _c_transform(back, np.where(hard.a > 0, f, -np.inf))
    return (hard.a * f).sum(-1) + (hard.b * g).sum(-1)


def _c_transform(hard: Problem, g: np.ndarray) -> np.ndarray:
    from ._kernels.softmin import max_rows

    k, n, m = hard.shape
    out = np.empty((k, n))

    def task(at: tuple[int, slice]) -> None:
        max_rows(hard.scores(*at), g[at[0]], out[at])

    _map(task, [(i, rows) for i in range(k) for rows in _blocks(n, m)], k * n * m)
    return -out


def _rounded_cost(problem: Problem, g: np.ndarray) -> np.ndarray:
    """Cost of the plan of g, rounded onto the marginals, inside."""
    problem.h = g * (LOG2E / np.reshape(problem.epsilon, (-1, 1)))
    cost = np.empty(len(g))
    for k in range(len(g)):
        c = problem.sweep(k)  # the rows are exact after it
        x, y, a, b = problem.x[k], problem.y[k], problem.a[k], problem.b[k]
        share = np.minimum(1.0, b / np.where(c > 0, c, 1.0))
        inner, left = 0.0, np.empty(len(a))
        for rows, P in problem.plan_blocks(k):
            P *= share
            left[rows] = a[rows] - P.sum(1)
            inner += np.vdot(x[rows], P @ y)
        left, over = np.maximum(left, 0.0), np.maximum(b - np.minimum(b, c), 0.0)
        if left.sum() > 0:
            inner += (left @ x) @ (over @ y) / left.sum()
        cost[k] = a @ (x**2).sum(1) + b @ (y**2).sum(1) - 2 * inner
    return cost


def bracket(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, rel_tol: float
) -> tuple[float, float, float, int, bool]:
    """Bounds of one problem (a batch of one), ε, passes and whether they are within rel_tol of each other."""
    start = Problem.of(x, y, a, b, 1.0, 1.0)
    mean = float(start.mean_cost[0] * start.unit[0] ** 2)
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
