"""Entropic transport on plain NumPy arrays: a flat batch of problems, each in the precision and the way that fit it.

Problems whose matrix fits in a cache are solved in one compiled call (`loop`), larger ones by `method` with compiled
passes. Everything that leaves this file is in the caller's units.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .._core.backend import Array
from .._core.kernels import aligned
from . import kernels, method
from .constants import ANNEAL_ABOVE, LOG2E, MEMORY, NEWTON_AFTER
from .normalization import Normalization, float32_resolves, normalization
from .numpy_passes import GROUP, SHARES, NumpyPasses, Workspace, on_threads

# Entries up to which a matrix sits in a cache, so that one thread and one compiled call do best.
CACHED = 2**22
# The same where ε is so small that it is annealed: such problems take long, and nobody can interrupt a compiled call.
CACHED_ANNEALED = 2**21
# Entries that a compiled call goes over at one ε, some seconds' worth, and passes that it may take at least.
UNINTERRUPTED, FEWEST = 2**31, NEWTON_AFTER
# From this size on, the terms of one divergence, or the problems of a batch, are worth solving on several threads.
SIDE_BY_SIDE = 2**18
# Scratch of small problems is kept between calls, by each thread, while it takes at most so many bytes.
KEPT_BYTES = 2**24
# How much rounding may lower a dual value of order 1.
ROUNDING = {dtype: 4 * float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}
_kept = threading.local()


class Solution(NamedTuple):
    """Solutions of a flat batch of k problems, in the caller's units and in float64; NumPy's or PyTorch's."""

    f: Array  # (k, n)
    g: Array  # (k, m)
    value: Array  # (k,)
    n_iter: Array  # (k,)
    error: Array  # (k,)
    shift_squared: Array  # (k,): the squared distance of the means
    grad_x: Array | None  # (k, n, d), of one side where the clouds are the same
    grad_y: Array | None  # (k, m, d)


class Limits(NamedTuple):
    """When to stop, how far potentials are damped: λ = ρ/(ρ + ε) of each side, and the power of the cost |x - y|^p."""

    epsilon: float
    tol: float
    max_iter: int
    dampings: tuple[float, float]
    power: float = 2.0


class Batch(NamedTuple):
    """Clouds x (k, n, d), y (k, m, d), weights (k, n), (k, m) in float64, their coordinates inside and precision."""

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    inside: Normalization
    single: np.ndarray

    def passes(self, t: int, i: int, limits: Limits) -> NumpyPasses:
        """Term t of member i: of x to y, of x to itself, of y to itself."""
        center, unit = self.inside.center[i], self.inside.unit[i]
        first, second = ((self.x, self.a), (self.y, self.b))[t == 2], ((self.y, self.b), (self.x, self.a))[t == 1]
        x = (first[0][i] - center) / unit
        y = x if t else (second[0][i] - center) / unit
        dtype = np.float32 if self.single[i] else np.float64
        root = unit ** (0.5 * limits.power)
        scale = LOG2E * (root / limits.epsilon) * root
        return NumpyPasses(x, y, first[1][i], second[1][i], scale, limits.dampings, dtype, limits.power)


class Results:
    """Where the solutions of a batch are collected: of x to y and, with ``debias``, of x to itself and y to itself.

    Potentials in base 2, h (k, m) and F (k, n), and of the others h alone; gradients, of length 0 where they are not
    wanted; stats (terms, k, 5): passes (-1: not begun), marginal error, dual to compare, value, squared distance
    of the means.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, points: tuple[bool, bool], debias: bool) -> None:
        k, n, m, d = len(x), x.shape[1], y.shape[1], x.shape[2]
        self.points, self.stats = points, np.full((3 if debias else 1, k, 5), -1.0)
        self.sizes = (m, n, n, m)
        self.potentials = np.zeros(2 * k * (n + m))
        self.h, self.F, self.h_x, self.h_y = self.split(self.potentials)
        rows = (points[0] * n, points[1] * m) * (2 if debias else 1)
        self.gradients, self.grads, start = np.empty(k * sum(rows) * d), [], 0
        for t, wide in enumerate(rows):
            self.grads.append(self.gradients[start : start + k * wide * d].reshape(k * points[t % 2], (n, m)[t % 2], d))
            start += k * wide * d

    def split(self, potentials: np.ndarray) -> list[np.ndarray]:
        """The flat potentials, one after the other."""
        k, parts, start = self.stats.shape[1], [], 0
        for size in self.sizes:
            parts.append(potentials[start : start + k * size].reshape(k, size))
            start += k * size
        return parts

    def unconverged(self, limits: Limits) -> bool:
        """Whether some term needs to be solved, or solved further."""
        passes, error = self.stats[..., 0], self.stats[..., 1]
        return bool(((error > limits.tol) & (passes < limits.max_iter)).any())

    def term(self, t: int) -> np.ndarray:
        """The potentials of the second cloud of a term, (k, ...)."""
        return (self.h, self.h_x, self.h_y)[t]

    def write(self, t: int, i: int, problem: NumpyPasses, state: method.State, unit: float) -> None:
        """Results of term t of member i, whose passes are added to former ones; gradients inside times `unit`."""
        passes, value = max(self.stats[t, i, 0], 0.0) + state.passes[0], state.value[0]
        self.stats[t, i] = passes, state.error[0], value, value, unit * unit * problem.shift_squared
        points = (self.points, self.points[:1] * 2, self.points[1:] * 2)[t]
        out = (self.grads[:2], self.grads[2:3], self.grads[3:])[t]
        for room, grad in zip(out, problem.gradients(state.F, points), strict=False):
            if grad is not None:
                room[i] = unit * grad
        self.term(t)[i] = problem.continued(state.h, state.F)[0]
        if t == 0:
            self.F[i] = state.F[0]

    def solutions(self, epsilon: float) -> list[Solution]:
        unit = epsilon / LOG2E
        h, F, h_x, h_y = self.split(self.potentials * unit)
        value, passes = self.stats[..., 3] * unit, self.stats[..., 0].astype(np.int64)
        grads = [grad if wanted else None for grad, wanted in zip(self.grads, 2 * self.points, strict=False)]
        sides = ((F, h, *grads[:2]), (h_x, h_x, *grads[2:3], None), (h_y, h_y, *grads[3:], None))
        return [
            Solution(f, g, value[t], passes[t], stats[:, 1], stats[:, 4], *sides[t][2:])
            for t, stats in enumerate(self.stats)
            for f, g in [sides[t][:2]]
        ]


def solve(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    limits: Limits,
    *,
    single: bool,
    init: np.ndarray | None = None,
    points: tuple[bool, bool] = (False, False),
    debias: bool = False,
) -> list[Solution]:
    """Solve a flat batch, each problem in the precision that it needs; ``single`` allows float32.

    x (k, n, d), y (k, m, d), a (k, n) and b (k, m) in float64; ``init`` is a former g (k, m). Returns the solution and,
    with ``debias``, those of x to itself and of y to itself, whose gradients are in ``grad_x``. Costs other than the
    square are always in float64, and solved one after the other.
    """
    n, m = x.shape[1], y.shape[1]
    size = max(n, m) ** 2 if debias else n * m
    squared = limits.power == 2
    inside = _normalization(x, y, limits.epsilon) if squared else _normalization_of_power(x, y, limits)
    batch = Batch(x, y, a, b, inside, float32_resolves(inside, limits.epsilon, limits.tol) & (single and squared))
    found = Results(x, y, points, debias)
    if init is not None:
        found.h[:] = init * (LOG2E / limits.epsilon)
        found.stats[0, :, :2] = 0.0, np.inf
    if size > CACHED or not squared or (size > CACHED_ANNEALED and _is_annealed(batch, limits)):
        _solve_large(batch, found, limits, init is not None)
        return found.solutions(limits.epsilon)
    newton = _newton_possible(batch, limits)
    _solve_small(batch, found, limits, NEWTON_AFTER if newton else 0)
    if newton and found.unconverged(limits):
        _finish_small(batch, found, limits)
    while found.unconverged(limits):  # Newton gave up, or the call took long: on from there
        _solve_small(batch, found, limits, 0)
    return found.solutions(limits.epsilon)


def _is_annealed(batch: Batch, limits: Limits) -> bool:
    """Whether the mean cost of some problem is so far above ε that larger ε come first."""
    members = range(len(batch.x))
    return any(float(batch.passes(0, i, limits).steepness.max()) > ANNEAL_ABOVE for i in members)


def _normalization(x: np.ndarray, y: np.ndarray, epsilon: float) -> Normalization:
    """`normalization`, compiled. Costs over ε, and costs, must be numbers."""
    (k, n, d), m = x.shape, y.shape[1]
    center, span, unit, largest = np.empty(k * d), np.empty(k * d), np.empty(k), np.empty(k)
    sizes = np.array([k, n, m, d])
    if kernels.box(x.reshape(-1), y.reshape(-1), sizes, epsilon, center, span, unit, largest):
        _refuse_range(epsilon, unit)
    return Normalization(center.reshape(k, d), unit, largest)


def _normalization_of_power(x: np.ndarray, y: np.ndarray, limits: Limits) -> Normalization:
    """`normalization`, with the same conditions on the costs |x - y|^p."""
    inside = normalization(x, y)
    root, most = inside.unit ** (0.5 * limits.power), inside.largest ** (0.5 * limits.power)
    with np.errstate(over="ignore"):
        beyond = ((root / limits.epsilon) * root * most.clip(1.0) == np.inf) | (root * root * most == np.inf)
    if beyond.any():
        _refuse_range(limits.epsilon, inside.unit)
    return inside


def _refuse_range(epsilon: float, unit: np.ndarray) -> None:
    raise ValueError(
        f"epsilon={epsilon:g} is too small for points as far apart as {2 * unit.max():g}, or these are too "
        "far apart: their costs, or the ratio of these to epsilon, exceed the range of float64; scale the points"
    )


def _solve_large(batch: Batch, found: Results, limits: Limits, begun: bool) -> None:
    """By `method`, one after the other, each on all threads."""
    workspace = Workspace()
    for t, i in np.ndindex(found.stats.shape[:2]):
        problem = batch.passes(t, i, limits)
        problem.keep_matrix(workspace)
        h = found.h[i : i + 1].copy() if begun and t == 0 else None
        slope = float(batch.inside.unit[i]) ** (limits.power - 1)  # of the costs inside to those outside
        found.write(t, i, problem, method.epsilon_scaling(problem, limits.tol, limits.max_iter, h), slope)


def _newton_possible(batch: Batch, limits: Limits) -> bool:
    """`method.newton_possible` for some problem of the batch."""
    few = max(batch.a.shape[1], batch.b.shape[1]) <= method.NEWTON_POINTS
    enough = limits.max_iter > NEWTON_AFTER
    return few and enough and limits.dampings == (1.0, 1.0) and not bool(batch.single.all())


def _finish_small(batch: Batch, found: Results, limits: Limits) -> None:
    """Newton's method for the problems that need it."""
    stats, points = found.stats[0], max(batch.a.shape[1], batch.b.shape[1])
    chosen = method.newton_takes_over(stats[:, 1], limits.tol, points) & (stats[:, 0] < limits.max_iter) & ~batch.single

    def task(i: int) -> None:
        problem = batch.passes(0, i, limits)
        problem.keep_matrix(Workspace())
        state = method.newton_finish(problem, found.h[i : i + 1], limits.tol, int(limits.max_iter - stats[i, 0]))
        found.write(0, i, problem, state, float(batch.inside.unit[i]))

    indices = np.flatnonzero(chosen)
    on_threads(task, indices, len(indices) * batch.a.shape[1] * batch.b.shape[1])


def _scratch(number: int, name: str, dtype: Any) -> np.ndarray:
    """Scratch of this name and thread, kept between calls: fresh pages would cost as much as a pass."""
    kept = _kept.__dict__.get(name)
    if kept is None or len(kept) < number:
        kept = aligned(number, dtype)
        if kept.nbytes <= KEPT_BYTES:
            _kept.__dict__[name] = kept
    return kept


@lru_cache
def _scratch_sizes(n: int, m: int, d: int, dtype: Any, debias: bool) -> tuple[int, int, int]:
    """Numbers that `loop.solve_small` needs: for a matrix, beside it in its type, and of doubles."""
    lanes = 16 if dtype is np.float32 else 8
    big = max(n, m) if debias else 0
    N, M = (-(-max(z, big) // size) * size for z, size in ((n, GROUP), (m, lanes)))
    columns = -(-(d + 1) // GROUP) * GROUP
    clouds = (N + M) * d + N
    low = clouds + 2 * (N + 2 * M) + GROUP + (d + lanes + columns) * M + GROUP * 16 + (columns + 1) * 48
    history = (2 * MEMORY + 3) * M + 2 * MEMORY**2 + MEMORY
    work = N + GROUP + (N + M) * d + 4 * d + 3 + max(3 * M + N + 3 + M + history, N * (2 * d + 1))
    return N * M, low + 64, work + 64


def _solve_small(batch: Batch, found: Results, limits: Limits, newton_after: int) -> None:
    """Those that are not solved, each to its tolerance, in compiled calls over ranges of the batch."""
    from .._core import threads

    (terms, k), (n, d), m = found.stats.shape[:2], batch.x.shape[1:], batch.y.shape[1]
    debias = terms > 1
    apart = k * (n * m + (n * n + m * m if debias else 0)) >= SIDE_BY_SIDE
    sizes = np.array([k, n, m, d, *found.points])
    arrays = tuple(z.ravel() for z in (batch.x, batch.y, batch.a, batch.b, *batch.inside[:2]))
    out = found.potentials, found.gradients, found.stats.reshape(-1)
    tol = limits.tol if limits.tol >= 1e-5 else 1e-3

    def task(part: tuple[Any, np.ndarray]) -> None:
        dtype, chosen = part
        numbers = np.array([limits.epsilon, *limits.dampings, 1.0, limits.tol, tol, ANNEAL_ABOVE, ROUNDING[dtype]])
        slice_of = max(FEWEST, UNINTERRUPTED // max(1, n * m))
        integers = np.array([limits.max_iter, newton_after if dtype is np.float64 else 0, slice_of])
        entries, low, work = _scratch_sizes(n, m, d, dtype, debias)
        entries = -(-entries // 16) * 16
        room = _scratch(entries + low, "single" if dtype is np.float32 else "double", dtype)
        scratch = room[:entries], room[entries:], _scratch(work, "work", np.float64)
        at = kernels.absorb[dtype].address
        kernels.solve_small[dtype](at, chosen, sizes, integers, numbers, *arrays, *out, *scratch)

    if k == 1 and not apart:
        task((np.float32 if batch.single[0] else np.float64, np.arange(terms)))
        return
    parts = []
    for dtype, chosen in ((np.float32, batch.single), (np.float64, ~batch.single)):
        members = np.flatnonzero(chosen)
        if len(members):
            step = -(-len(members) // SHARES) if apart else len(members)
            of_terms = [[t] for t in range(terms)] if apart and k < SHARES else [list(range(terms))]
            parts += [
                (dtype, np.add.outer(members[i : i + step], k * np.array(which)).reshape(-1))
                for i in range(0, len(members), step)
                for which in of_terms
            ]
    if apart and len(parts) > 1:
        threads.map(task, parts)
    else:
        for part in parts:
            task(part)


def flatten(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, normalize: bool = True
) -> tuple[Array, Array, Array, Array]:
    """One batch dimension, float64; weights that were not given become uniform, others are divided by their sum."""
    k = math.prod(x.shape[:-2])
    wide = [np.asarray(z, np.float64, order="C").reshape(k, *z.shape[-2:]) for z in (x, y)]
    for w, points in ((a, wide[0]), (b, wide[1])):
        n = points.shape[1]
        if w.shape[-1]:
            mass = np.array(w, np.float64, order="C").reshape(k, n)
            # What float32 left of the sum would be multiplied with ε.
            wide.append(mass / mass.sum(-1, keepdims=True) if normalize else mass)
        else:
            wide.append(np.full((k, n), 1 / n))
    return wide[0], wide[1], wide[2], wide[3]


class Potentials(NamedTuple):
    """A problem whose potentials are known, in float64, with its units: x = center + unit · (x inside)."""

    passes: NumpyPasses
    h: np.ndarray  # (1, m), in base 2 and units of ε
    F: np.ndarray  # (1, n)
    center: np.ndarray
    unit: float


def at_potentials(
    flat: tuple[np.ndarray, ...],
    f: np.ndarray,
    g: np.ndarray,
    epsilon: float,
    dampings: tuple[float, float] = (1.0, 1.0),
) -> list[Potentials]:
    """The problems of a flat batch with their potentials (f, g with any batch shape), after a refresh of the kernel."""
    x, y, a, b = flat
    inside, scale = normalization(x, y), LOG2E / epsilon
    batch = Batch(x, y, a, b, inside, np.zeros(len(x), bool))
    found = []
    for i, (F, h) in enumerate(zip(np.reshape(f, a.shape), np.reshape(g, b.shape), strict=True)):
        passes = batch.passes(0, i, Limits(epsilon, 1.0, 1, dampings))
        h = h.astype(np.float64)[None] * scale
        passes.refresh_kernel(h[0])
        found.append(Potentials(passes, h, F.astype(np.float64)[None] * scale, inside.center[i], float(inside.unit[i])))
    return found


def gradients_at(
    flat: tuple[np.ndarray, ...],
    f: np.ndarray,
    g: np.ndarray,
    epsilon: float,
    dampings: tuple[float, float],
    points: tuple[bool, bool],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The gradients by the points of a flat batch whose potentials are known."""
    found = [of.passes.gradients(of.F, points) for of in at_potentials(flat, f, g, epsilon, dampings)]
    units = normalization(*flat[:2]).unit[:, None, None]
    sides = zip(points, flat, zip(*found, strict=True) if found else ((), ()), strict=False)
    grad_x, grad_y = (np.reshape(grads, z.shape) * units if wanted else None for wanted, z, grads in sides)
    return grad_x, grad_y
