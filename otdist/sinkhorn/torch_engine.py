"""The engine of `numpy_engine` in torch operators, for tensors that the kernels for the CPU can't read.

The same iteration in the same units: fused passes, Anderson's method with its safeguard, a stop for each problem.
Passes go over blocks of rows, so that no matrix larger than `CHUNK` scores is ever held. A batch moves together;
problems that are done keep their potentials.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .numpy_engine import ANNEAL_BELOW, ANNEAL_FACTOR, ANNEAL_TOL, LOG2E, Solution

CHUNK = 2**26
MEMORY = 10


def flatten(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One batch dimension; weights that were not given become uniform."""
    k = math.prod(x.shape[:-2])
    wide = [z.detach().reshape(k, *z.shape[-2:]) for z in (x, y)]
    for w, points in ((a, wide[0]), (b, wide[1])):
        n = points.shape[1]
        mass = w.detach().double().reshape(k, n) if w.shape[-1] else points.new_ones((k, n)).double()
        wide.append(mass / mass.sum(-1, keepdim=True))
    return wide[0], wide[1], wide[2], wide[3]


def gradients_at(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    strength: float,
    points: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by the points of a flat batch whose potentials are known (f, g with any batch shape)."""
    problem = Problem(x, y, a, b, epsilon, strength, torch.float64)
    problem.F = f.double().reshape(a.shape) * (LOG2E / epsilon)
    problem.h = g.double().reshape(b.shape) * (LOG2E / epsilon)
    return problem.gradients(points)


class Problem:
    """A flat batch; see `numpy_engine.Problem`."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        a: Tensor,
        b: Tensor | None,
        epsilon: float,
        strength: float,
        dtype: torch.dtype,
    ) -> None:
        self.symmetric = y is None
        y, b = (x, a) if y is None or b is None else (y, b)
        x, y, self.a, self.b = x.double(), y.double(), a.double(), b.double()
        self.epsilon, self.strength, self.dtype = epsilon, strength, dtype
        center = 0.5 * (_mean(x, self.a) + _mean(y, self.b))[:, None]
        x, y = x - center, y - center
        size = torch.maximum(x.abs().amax((1, 2)), y.abs().amax((1, 2)))
        self.unit = torch.where(size > 0, torch.exp2(torch.round(torch.log2(size.clamp(min=1e-300)))), 1.0)
        self.x, self.y = x / self.unit[:, None, None], y / self.unit[:, None, None]
        self.scale = LOG2E * (self.unit / epsilon) * self.unit
        self.h = torch.zeros_like(self.b)
        self.F = torch.zeros_like(self.a)

    def mean_cost(self) -> Tensor:
        mean_x, mean_y = _mean(self.x, self.a), _mean(self.y, self.b)
        u, v = _variance(self.x, self.a), _variance(self.y, self.b)
        return ((mean_x - mean_y) ** 2).sum(-1) + u.sum(-1) + v.sum(-1)

    def start(self) -> None:
        """The entropic potential of the Gaussians with the clouds' means and variances."""
        mean_x, mean_y = _mean(self.x, self.a), _mean(self.y, self.b)
        u, v = _variance(self.x, self.a), _variance(self.y, self.b)
        half = (0.5 * LOG2E / self.scale.clamp(min=1e-150))[:, None]
        yc = self.y - mean_y[:, None]
        mapped = yc * (2 * u / (torch.sqrt(4 * u * v + half**2) + half))[:, None]
        self.h = self.scale[:, None] * (yc * (yc - mapped + 2 * (mean_y - mean_x)[:, None])).sum(-1)

    def blocks(self) -> list[slice]:
        k, n = self.a.shape
        rows = max(1, CHUNK // max(1, k * self.b.shape[1]))
        return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

    def exponents(self, rows: slice) -> Tensor:
        """log2 b_j + h_j + S_ij for a block of rows, in the working type."""
        x, y = self.x[:, rows].to(self.dtype), self.y.to(self.dtype)
        distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        G = (self.h + torch.log2(self.b)).to(self.dtype)
        return G[:, None] - self.scale[:, None, None].to(self.dtype) * distances.square()

    def plan(self, rows: slice) -> Tensor:
        z = self.exponents(rows) + self.F[:, rows, None].to(self.dtype)
        return torch.exp2(z) * self.a[:, rows, None].to(self.dtype)

    def sweep(self) -> Tensor:
        """One pass: updates F, returns the second marginal."""
        c = torch.zeros_like(self.b)
        for rows in self.blocks():
            z = self.exponents(rows)
            log_sum = torch.logsumexp(z / LOG2E, -1).double() * LOG2E
            self.F[:, rows] = -self.strength * log_sum
            if not self.symmetric:
                P = torch.exp2(z + self.F[:, rows, None].to(self.dtype)) * self.a[:, rows, None].to(self.dtype)
                c += P.sum(1, dtype=torch.float64)
        return c

    def assess(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Plain Sinkhorn's step from h, L1 error of the marginals and dual value, (k, m), (k,), (k,)."""
        h, F, b, kappa = self.h, self.F, self.b, 1 / self.strength - 1
        if self.symmetric:
            marginal, r = b * torch.exp2((h - F / self.strength).clamp(max=1000.0)), F - h
        else:
            step = torch.log2((c / torch.where(b > 0, b, 1.0)).clamp(min=1e-37)) - h
            marginal, r = c, torch.where(b > 0, -self.strength * step - h, 0.0)
        error = (marginal - b * torch.exp2(-kappa * h)).abs().nan_to_num(0.0, posinf=math.inf).where(b > 0, 0.0).sum(-1)
        dual = self._penalty(b, h) + (self._penalty(b, h) if self.symmetric else self._penalty(self.a, F))
        if self.symmetric or kappa:
            dual = dual - (marginal.where(b > 0, 0.0).sum(-1) - 1) * LOG2E
        return r, error * (2 if self.symmetric else 1), dual

    def _penalty(self, a: Tensor, F: Tensor) -> Tensor:
        kappa = 1 / self.strength - 1
        if kappa == 0:
            return (a * F).sum(-1)
        return -(a * (torch.exp2(-kappa * F) - 1)).sum(-1) * LOG2E / kappa

    def iterate(self, tol: float, max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
        """Passes, marginal error and dual value of each problem."""
        k = len(self.b)
        anderson = Anderson(self.b, 2 / 3 if self.symmetric else 1.0)
        noise = 4 * torch.finfo(self.dtype).eps * (1 + self.scale * self.mean_cost())
        passes = torch.zeros(k, dtype=torch.int64, device=self.b.device)
        active = torch.ones(k, dtype=torch.bool, device=self.b.device)
        step = 0
        while True:
            r, error, dual = self.assess(self.sweep())
            step += 1
            passes += active
            undone = dual < anderson.best - noise  # do not end on a step that will be undone
            active = active & (~(error <= tol) | undone) & ~error.isnan()
            undone = active & undone
            if not active.any() or (step >= max_iter and not undone.any()):
                break
            self.h = torch.where(active[:, None], anderson.advance(self.h, r, dual, noise), self.h)
        return passes, error, dual

    def gradients(self, points: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """As `numpy_engine.Problem.gradients`."""
        columns = points[1] and not self.symmetric
        if not (points[0] or columns):
            return None, None
        grad_x, grad_y, mass = torch.empty_like(self.x), torch.zeros_like(self.y), torch.zeros_like(self.b)
        x, y = self.x.to(self.dtype), self.y.to(self.dtype)
        for rows in self.blocks():
            P = self.plan(rows)
            grad_x[:, rows] = P.sum(2, dtype=torch.float64)[..., None] * self.x[:, rows] - P @ y
            mass += P.sum(1, dtype=torch.float64)
            grad_y -= P.mT @ x[:, rows]
        scale = 2 * self.unit[:, None, None]
        share = self.b / torch.where(mass > 0, mass, 1.0) if self.strength == 1.0 else torch.ones_like(mass)
        grad_y = share[..., None] * (mass[..., None] * self.y + grad_y)
        return grad_x * scale if points[0] else None, grad_y * scale if columns else None


class Anderson:
    """`kernels.advance` for a batch: a problem that restarts has its history set to 0."""

    def __init__(self, w: Tensor, damping: float) -> None:
        self.w, self.damping = w, damping
        self.moves: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.best = torch.full_like(w[:, 0], -math.inf)
        self.former: tuple[Tensor, Tensor] | None = None
        self.plain: Tensor | None = None
        self.fresh = torch.ones_like(w[:, 0], dtype=torch.bool)  # just restarted: no difference to take

    def advance(self, h: Tensor, r: Tensor, dual: Tensor, noise: Tensor) -> Tensor:
        """The next iterate."""
        rejected = ~(dual >= self.best - noise) & bool(self.moves)
        if self.former is not None:
            valid = (~(self.fresh | rejected))[:, None].to(h.dtype)
            self.moves = [*self.moves, (h - self.former[0]) * valid][-MEMORY:]
            self.changes = [*self.changes, (r - self.former[1]) * valid][-MEMORY:]
        plain = h + self.damping * r
        following = plain
        if self.moves:
            keep = (~rejected)[:, None].to(h.dtype)
            self.moves = [z * keep for z in self.moves]
            self.changes = [z * keep for z in self.changes]
            changes = torch.stack(self.changes, 1)
            scale = ((changes**2 * self.w[:, None]).sum(-1, keepdim=True)).clamp(min=1e-300).rsqrt()
            unit = changes * scale
            gram = (unit * self.w[:, None]) @ unit.mT
            gram = gram + 1e-12 * torch.eye(len(self.moves), dtype=h.dtype, device=h.device)
            gamma = torch.linalg.solve(gram, (unit * self.w[:, None]) @ r[..., None]) * scale
            following = plain - (gamma * (torch.stack(self.moves, 1) + self.damping * changes)).sum(1)
        following = following if self.plain is None else torch.where(rejected[:, None], self.plain, following)
        self.best = torch.where(rejected, self.best, torch.maximum(self.best, dual))
        self.former, self.plain, self.fresh = (h, r), plain, rejected
        return following


def solve(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    points: tuple[bool, bool] = (False, False),
    debias: bool = False,
    warm: Tensor | None = None,
    **limits: Any,
) -> list[Solution]:
    """As `numpy_engine.solve`; a batch is solved in float64 if any of its problems must be."""
    found = [_solve(x, y, a, b, **limits, warm=warm, points=points)]
    if debias:
        found += [
            _solve(z, None, w, None, **limits, points=(p, False)) for z, w, p in ((x, a, points[0]), (y, b, points[1]))
        ]
    return found


def _solve(
    x: Tensor,
    y: Tensor | None,
    a: Tensor,
    b: Tensor | None,
    *,
    epsilon: float,
    tol: float,
    max_iter: int,
    strength: float,
    single: bool,
    warm: Tensor | None = None,
    points: tuple[bool, bool] = (False, False),
) -> Solution:
    """One term of `solve`."""
    problem = Problem(x, y, a, b, epsilon, strength, torch.float64)
    k = len(a)
    if k == 0:
        none = problem.a.new_zeros(0)
        return Solution(problem.a, problem.b, none, none.long(), none, problem.x, problem.y)
    costs = problem.scale / LOG2E * (problem.x.square().sum(-1).amax(1) + problem.y.square().sum(-1).amax(1)) * 2
    eps = torch.finfo(torch.float32).eps
    if single and tol > 1e-5 and bool(((eps * costs <= tol) & (eps <= 1e-5 * costs)).all()):
        problem.dtype = torch.float32
    largest = float((problem.mean_cost() * problem.scale).max()) * ANNEAL_BELOW / LOG2E
    stages = math.ceil(math.log(largest, ANNEAL_FACTOR)) if warm is None and largest > 1 else 0
    problem.scale = problem.scale * ANNEAL_FACTOR**-stages
    if warm is None:
        problem.start()
    else:
        problem.h = warm.double() * (LOG2E / epsilon)
    total = torch.zeros(k, dtype=torch.int64, device=a.device)
    for _ in range(stages):
        total += problem.iterate(max(ANNEAL_TOL, tol), max_iter)[0]
        problem.scale, problem.h = problem.scale * ANNEAL_FACTOR, problem.h * ANNEAL_FACTOR
    passes, error, dual = problem.iterate(tol, max_iter)
    grad_x, grad_y = problem.gradients(points)
    unit = epsilon / LOG2E
    f, g = problem.F * unit, _continued(problem) * unit
    return Solution(g if problem.symmetric else f, g, dual * unit, total + passes, error, grad_x, grad_y)


def _continued(problem: Problem) -> Tensor:
    """h, and the softmin of the other potential at points without weight."""
    if bool((problem.b > 0).all()):
        return problem.h
    if problem.symmetric:
        return torch.where(problem.b > 0, problem.h, problem.F)
    other = torch.zeros_like(problem.h)
    for k in range(len(other)):
        y = (problem.y[k : k + 1], problem.x[k : k + 1], problem.b[k : k + 1], problem.a[k : k + 1])
        epsilon = LOG2E / max(float(problem.scale[k]), 1e-300)
        swapped = Problem(*y, epsilon, problem.strength, problem.dtype)
        swapped.h = problem.F[k : k + 1]
        swapped.sweep()
        other[k] = swapped.F[0]
    return torch.where(problem.b > 0, problem.h, other)


def _mean(x: Tensor, a: Tensor) -> Tensor:
    return (a[:, None] @ x)[:, 0]


def _variance(x: Tensor, a: Tensor) -> Tensor:
    return _mean((x - _mean(x, a)[:, None]) ** 2, a)
