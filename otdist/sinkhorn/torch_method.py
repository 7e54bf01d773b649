"""Sinkhorn's method on a device: that of `method`, arranged so that the host seldom waits.

Passes come in bursts. What decides (whether a problem has converged, whether its acceleration lowered the dual and is
undone, whether the kernel still serves) is computed on the device at the last pass of a burst, for every problem of the
batch on its own, and the host reads four numbers of it: `method` decides after each pass. Where a burst has lowered a
problem's dual, or has gone farther from the absorbed potentials than the kernel serves, the problem goes back to the
point measured last and takes plain Sinkhorn's step from there. Problems that are done keep what was measured; that the
others go on costs them nothing. The first burst has one pass, each that went well is followed by one twice as long.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import method
from .constants import ANNEAL_FACTOR, ANNEAL_MOST, ANNEAL_TOL, LOG2E, MEMORY, NEWTON_AFTER, RIDGE
from .method import penalty
from .torch_passes import TorchPasses

# Newton's method takes over at this marginal error where the tolerance is below 1e-5, from batches of at most `FEW`: it
# takes one problem after the other.
NEAR, FEW = 1e-3, 1
# What makes the least squares' matrix regular where there are no differences yet.
SMALLEST = 1e-280


class Measured(NamedTuple):
    """Of each problem of a batch: the potentials, the marginal error, the dual's value, and passes taken until then."""

    h: Tensor
    F: Tensor
    error: Tensor
    value: Tensor
    passes: Tensor


def epsilon_scaling(
    problem: TorchPasses,
    tol: float,
    max_iter: int,
    h: Tensor | None,
    n_stages: int,
    count: int,
    taken: Tensor | None = None,
) -> Measured:
    """Solve from h, or from the potentials of the Gaussians that fit the clouds, through `n_stages` larger ε.

    The first `count` problems are not of a cloud with itself. To find h, so many passes were taken (k,).
    """
    if h is None:
        problem.rescale(ANNEAL_FACTOR**-n_stages)
        h = problem.gaussian_start()
    else:
        n_stages = 0
    passes = torch.zeros_like(problem.product_mass, dtype=torch.int64) if taken is None else taken
    for _ in range(n_stages):
        found, _ = iterate(problem, h, max(ANNEAL_TOL, tol), (max_iter - passes).clip(1, ANNEAL_MOST), ANNEAL_MOST)
        h, passes = found.h * ANNEAL_FACTOR, passes + found.passes
        problem.rescale(ANNEAL_FACTOR)
    anderson = tolerances(problem, tol, max_iter, count)
    most = NEWTON_AFTER if newton_possible(problem, max_iter) else max_iter
    found, early = iterate(problem, h, anderson, (max_iter - passes).clip(1, most), most)
    found = found._replace(passes=found.passes + passes)
    unlimited = early and n_stages == 0 and taken is None  # all problems had `most` passes, and needed less
    if not (unlimited and anderson is tol):
        finish(problem, found, tol, max_iter, count)
    problem.kernel = None  # what follows has need of its room
    return found


def finish(problem: TorchPasses, found: Measured, tol: float, max_iter: int, count: int) -> None:
    """Newton's method for those of the first `count` problems that are near enough, and Anderson's for what is left."""
    if not newton_possible(problem, max_iter):
        return
    told = torch.stack([found.error[:count], found.passes[:count].double()], 1).tolist()
    points = max(problem.a.shape[1], problem.b.shape[1])
    for k, (error, taken) in enumerate(told):
        if not error > tol or taken >= max_iter:
            continue
        part = slice(k, k + 1)
        one, h, limit = problem.members(part), found.h[part], int(max_iter - taken)
        if method.newton_takes_over(error, tol, points):
            done = method.newton_finish(one, h, tol, limit)
            _write(found, part, Measured(done.h, done.F, done.error, done.value, done.passes))
            if float(done.error[0]) <= tol:
                continue
            h, limit = done.h, limit - int(done.passes[0])
        limit = max(limit, 1)
        _write(found, part, iterate(one, h, tol, found.passes[part] * 0 + limit, limit)[0])


def _write(found: Measured, part: slice, done: Measured) -> None:
    done = done._replace(passes=found.passes[part] + done.passes)
    for whole, piece in zip(found, done, strict=True):
        whole[part] = piece


def newton_possible(problem: TorchPasses, max_iter: int) -> bool:
    """As `method.newton_possible`: of the problems that are not of a cloud with itself."""
    if not problem.double or problem.dampings != (1.0, 1.0) or problem.symmetric:
        return False
    return max(problem.a.shape[1], problem.b.shape[1]) <= method.NEWTON_POINTS and max_iter > NEWTON_AFTER


def tolerances(problem: TorchPasses, tol: float, max_iter: int, count: int) -> Any:
    """Tolerances of Anderson's iteration, for the first `count` problems where Newton's method may take over."""
    if tol >= 1e-5 or count > FEW or not newton_possible(problem, max_iter):
        return tol
    return torch.where(problem.own, tol, NEAR) if isinstance(problem.own, Tensor) else NEAR


def iterate(problem: TorchPasses, h: Tensor, tol: Any, limit: Tensor, most: int) -> tuple[Measured, bool]:
    """Anderson's iteration, until each problem's marginal error is at most tol or its limit of passes is reached.

    No limit is above `most`; the second says whether all ended before.
    """
    look, acceleration = Look(problem, tol, limit, h), Acceleration(problem)
    problem.absorb(h)
    burst, taken, undone_before, own_kernel = 1, 0, False, True
    while True:
        farthest: Tensor | None = None
        for _ in range(min(burst, most - taken)):
            at = h
            F, r, c, far = problem.advance(at)
            farthest = far if farthest is None or far is None else torch.maximum(farthest, far)
            h = acceleration.following(at, r)
            taken += 1
        h = look.decide((at, F, r, c), farthest, h, taken, burst == 1 and (own_kernel or not problem.keeps))
        active, undone, distant = look.read(h)
        if not active or taken >= most:
            return look.found, taken < most
        if undone:
            acceleration.forget(look.good)
        own_kernel = (undone and undone_before) or not distant <= 0.5 * problem.trust
        steady = not undone and not undone_before and distant <= problem.trust
        burst, undone_before = min(2 * burst, problem.longest_burst) if steady else 1, undone
        if own_kernel:
            problem.absorb(h)


class Look:
    """What is decided at the last pass of a burst, problem by problem, and stays on the device."""

    def __init__(self, problem: TorchPasses, tol: Any, limit: Tensor, h: Tensor) -> None:
        self.problem, self.tol, self.limit, self.noise = problem, tol, limit, problem.noise
        nothing = torch.zeros_like(problem.product_mass)
        self.found = Measured(h, problem.a, nothing + math.inf, nothing, nothing.long())
        self.best, self.active = nothing - math.inf, nothing == 0
        self.good = nothing > 0  # whether the burst before was not undone
        self.safe = h
        free = problem.dampings == (1.0, 1.0) and not problem.symmetric
        self.free = problem.b if free else None
        if free and isinstance(problem.own, Tensor):
            self.free = problem.b.masked_fill(problem.own[:, None], 0.0)

    def decide(
        self,
        at: tuple[Tensor, Tensor, Tensor, Tensor],
        farthest: Tensor | None,
        h: Tensor,
        taken: int,
        own_kernel: bool,
    ) -> Tensor:
        """Measure, take what is good, undo what is not; the next iterate.

        `own_kernel`: the point measured is that of the kernel. What is not a number there does not get better.
        """
        (point, F, r, c), found, problem = at, self.found, self.problem
        error, dual, value = measure(problem, point, F, c)
        largest = r.amax(-1)
        broken = largest != largest
        # A plain step, the first after an undone burst, is taken as it is: only rounding can lower its dual.
        good = (~self.good | (dual >= self.best - self.noise)) & ~broken
        if farthest is not None:
            good = good & (farthest <= problem.trust)
        take = self.active & (good | broken if own_kernel else good)
        self.found = Measured(
            torch.where(take[:, None], point, found.h),
            torch.where(take[:, None], F, found.F),
            torch.where(take, error, found.error),
            torch.where(take, value, found.value),
            found.passes.masked_fill(take, taken),
        )
        done = good & (error <= self.tol) & (largest < problem.farthest)
        done = done | broken if own_kernel else done
        self.active = self.active & ~done & (self.limit > taken)
        self.best = torch.where(good, torch.maximum(self.best, dual), self.best)
        self.safe = torch.where(good[:, None], problem.plain_step(point, r), self.safe)
        self.good = good
        h = torch.where(good[:, None], h, self.safe)
        if self.free is not None:  # the constant that is free may grow until all digits drown in it
            h = h - (self.free * h).sum(-1, keepdim=True)
        return h

    def read(self, h: Tensor) -> tuple[bool, bool, float]:
        """Whether problems are left, whether bursts of such were undone, how far they now are from what was absorbed.

        The one place where the host waits.
        """
        asked = [self.active.any(), (self.active & ~self.good).any()]
        if self.problem.keeps:
            far = torch.linalg.vector_norm(h - self.problem.absorbed, math.inf, -1)
            asked.append((far * self.active).amax())
        active, undone, *distant = torch.stack(asked).tolist()
        return bool(active), bool(undone), distant[0] if distant else 0.0


def measure(problem: TorchPasses, h: Tensor, F: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The L1 error of the marginals, the dual to compare and the value: see `method.residual_and_dual`."""
    a, b, own = problem.a, problem.b, problem.own
    kappa_x, kappa_y = (1.0 / damping - 1.0 for damping in problem.dampings)
    marginal = c
    if own is not False:
        mirrored = b * torch.exp2(((h - F) if kappa_x == 0 else h - F / problem.dampings[0]).clip(max=1000.0))
        marginal = problem.of_live(mirrored if own is True else torch.where(own[:, None], mirrored, c))
    if problem.dampings != (1.0, 1.0):  # far points without weight: 0 · 2^1024 is no number
        h, F = problem.of_live(h), F.masked_fill(a == 0, 0.0)
    target = b * torch.exp2(-kappa_y * h) if kappa_y else b
    error = torch.linalg.vector_norm(problem.of_live(marginal - target), 1, -1)
    row_mass = (a * torch.exp2(-kappa_x * F) if kappa_x else a).sum(-1)
    half = penalty(b, h, kappa_y)
    value = penalty(a, F, kappa_x) + half - (row_mass - problem.product_mass) * LOG2E
    error = error.nan_to_num(math.inf)  # unbalanced marginals that overflowed, far from the solution
    if own is False:
        return error, value, value
    dual = 2 * half - (marginal.sum(-1) - problem.product_mass) * LOG2E
    if own is True:
        return 2 * error, dual, value
    return torch.where(own, 2 * error, error), torch.where(own, dual, value), value


class Acceleration:
    """Anderson's acceleration, as `method.Anderson`, without its safeguard: `Look` has it.

    history (k, 2, MEMORY + 1, m): differences of the plain steps h + r and of the residuals r that belong to them, and
    last the latest of both. The least squares' matrix is Cholesky's, whose digits the columns' sizes do not change.
    """

    def __init__(self, problem: TorchPasses) -> None:
        k, m = problem.b.shape
        self.b, self.plain_step, self.count = problem.b[:, None], problem.plain_step, -1
        self.history = problem.b.new_zeros((k, 2, MEMORY + 1, m))
        self.kept: Tensor | None = None

    def following(self, h: Tensor, r: Tensor) -> Tensor:
        """The next iterate."""
        plain = self.plain_step(h, r)
        point, latest, slot = torch.stack([plain, r], 1), self.history[:, :, MEMORY], self.count % MEMORY
        self.count += 1
        if self.count == 0:
            latest.copy_(point)
            return plain
        if self.kept is None:
            torch.sub(point, latest, out=self.history[:, :, slot])
        else:  # there is no difference to a point that was undone
            self.history[:, :, slot] = (point - latest).masked_fill(~self.kept[:, None, None], 0.0)
            self.kept = None
        latest.copy_(point)
        changes = self.history[:, 1]
        dots = torch.bmm(self.b * changes[:, :MEMORY], changes.mT)
        diagonal = dots.diagonal(dim1=1, dim2=2)
        diagonal.mul_(1.0 + RIDGE).add_(SMALLEST)
        root = torch.linalg.cholesky_ex(dots[:, :, :MEMORY]).L
        gamma = torch.cholesky_solve(dots[:, :, MEMORY:], root)
        return torch.baddbmm(plain[:, None], gamma.mT, self.history[:, 0, :MEMORY], alpha=-1)[:, 0]

    def forget(self, good: Tensor) -> None:
        """Forget the differences of problems whose burst was undone."""
        self.history.masked_fill_(~good[:, None, None, None], 0.0)
        self.kept = good
