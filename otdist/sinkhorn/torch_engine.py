"""Entropic transport on tensors that compiled loops for CPUs can't read: `torch_method` with `torch_passes`.

The three terms of a divergence are one batch while their matrices have at most `TOGETHER` entries: the smaller cloud is
filled up with points that weigh nothing. Beyond, launches cost less than that. Problems of a batch that need more than
`KEPT` bytes are solved as several batches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from . import torch_method, triton_passes, triton_small
from .constants import ANNEAL_ABOVE, ANNEAL_FACTOR, LOG2E, MAX_STAGES
from .normalization import float32_resolves, normalization
from .numpy_engine import Limits, Solution
from .torch_method import Measured
from .torch_passes import KEPT, Clouds, TorchPasses, inverse_epsilon, mean_costs
from .torch_powers import TorchPowerPasses
from .triton_passes import TritonPasses

TOGETHER = 2**24

Sides = tuple[bool, bool]


def flatten(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, *, normalize: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One batch dimension, float64; weights that were not given become uniform, others are divided by their sum."""
    k = math.prod(x.shape[:-2])
    wide = [z.detach().reshape(k, *z.shape[-2:]).double() for z in (x, y)]
    for w, points in ((a, wide[0]), (b, wide[1])):
        n = points.shape[1]
        mass = w.detach().double().reshape(k, n) if w.shape[-1] else points.new_full((k, n), 1 / n)
        wide.append(mass / mass.sum(-1, keepdim=True) if normalize and w.shape[-1] else mass)
    return wide[0], wide[1], wide[2], wide[3]


class Inside(NamedTuple):
    """A flat batch in coordinates inside, with their units, and what the host was told about it."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    unit: Tensor
    scale: Tensor
    mean_costs: Tensor  # (k, 1 or 3): of the terms
    dtype: torch.dtype
    n_stages: int
    weightless: bool  # whether points without weight may be among them

    def part(self, at: slice) -> Inside:
        tensors = {name: getattr(self, name)[at] for name in ("x", "y", "a", "b", "unit", "scale", "mean_costs")}
        return self._replace(**tensors)

    @property
    def clouds(self) -> Clouds:
        return Clouds(self.x, self.y, self.a, self.b, self.scale)


def solve(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    limits: Limits,
    *,
    single: bool,
    init: Tensor | None = None,
    points: Sides = (False, False),
    debias: bool = False,
) -> list[Solution]:
    """As `numpy_engine.solve`."""
    whole = _inside(x, y, a, b, limits, single, debias)
    start = None if init is None else init.double() * (LOG2E / limits.epsilon)
    n, m, size = x.shape[1], y.shape[1], 4 if whole.dtype == torch.float32 else 8
    together = debias and 3 * max(n, m) ** 2 <= TOGETHER and limits.power == 2
    entries = 3 * max(n, m) ** 2 if together else max(n, m) ** 2 if debias else n * m
    step = max(1, (TOGETHER if together else KEPT // size) // entries)
    parts = []
    for first in range(0, max(1, len(x)), step):
        at = slice(first, first + step)
        part, h = whole.part(at), None if start is None else start[at]
        if together:
            parts.append(_together(part, limits, points))
            continue
        parts.append([_term(part, t, limits, points, None if t else h) for t in range(3 if debias else 1)])
    return [_joined(list(of_term)) for of_term in zip(*parts, strict=True)]


def _inside(x: Tensor, y: Tensor, a: Tensor, b: Tensor, limits: Limits, single: bool, debias: bool) -> Inside:
    """Coordinates, precision and stages: the host waits once, for what it has to know."""
    box = normalization(x, y)
    low = float32_resolves(box, limits.epsilon, limits.tol)
    scale = inverse_epsilon(box.unit ** (0.5 * limits.power), limits.epsilon)
    unit, center = box.unit[:, None, None], box.center[:, None]
    x, y = (x - center) / unit, (y - center) / unit
    # A bound on them, for powers below 2; steps depend on their order alone.
    costs = torch.stack(mean_costs(x, y, a, b)[: 3 if debias else 1]) ** (0.5 * limits.power)
    steep = torch.cat([(costs * scale).nan_to_num(0.0).flatten(), scale.new_zeros(1)]).amax()
    told = torch.stack([low.all(), steep, (a == 0).any() | (b == 0).any()]).tolist()
    n_stages = 0
    while ANNEAL_FACTOR**-n_stages * told[1] > ANNEAL_ABOVE and n_stages < MAX_STAGES:
        n_stages += 1
    single = single and bool(told[0]) and limits.dampings == (1.0, 1.0) and exact_float32_products()
    dtype = torch.float32 if single and limits.power == 2 else torch.float64
    return Inside(x, y, a, b, box.unit, scale, costs.mT, dtype, n_stages, bool(told[2]))


def exact_float32_products() -> bool:
    """Whether products of float32 keep its digits: TF32, which users may allow everywhere, leaves three."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by one of PyTorch's two interfaces, which the other refuses to read
        return False


def _together(of: Inside, limits: Limits, points: Sides) -> list[Solution]:
    """The three terms of a divergence as one batch."""
    k, n, m = len(of.x), of.x.shape[1], of.y.shape[1]
    size = max(n, m)
    x, y = (pad(z, (0, 0, 0, size - z.shape[1])) for z in (of.x, of.y))
    a, b = (pad(w, (0, size - w.shape[1])) for w in (of.a, of.b))
    own = torch.ones(3 * k, dtype=torch.bool, device=x.device)
    own[:k] = False
    stacked = Clouds(*(torch.cat(z) for z in ((x, x, y), (y, x, y), (a, a, b), (b, a, b), (of.scale,) * 3)))
    all_live, costs = n == m and not of.weightless, of.mean_costs.mT.flatten()
    problem = TorchPasses(stacked, limits.dampings, of.dtype, own=own, all_live=all_live, mean_cost=costs)
    found = _solved(problem, limits, None, of.n_stages, k)
    grads = problem.gradients(found.h, found.F, (points[0] or points[1], points[1]))
    solutions = []
    for t, (rows, columns) in enumerate(((n, m), (n, n), (m, m))):
        at, need = slice(t * k, (t + 1) * k), points if t == 0 else (points[t - 1], False)
        its = Measured(found.h[at, :columns], found.F[at, :rows], *(z[at] for z in found[2:]))
        by = [
            None if grad is None or not wanted else grad[at, :length]
            for grad, wanted, length in zip(grads, need, (rows, columns), strict=True)
        ]
        solutions.append(_solution(_pair(of, t), t, its, by, limits))
    return solutions


def _solved(problem: TorchPasses, limits: Limits, h: Tensor | None, n_stages: int, count: int) -> Measured:
    """As `torch_method.epsilon_scaling`, which small problems on a card leave little to do."""
    taken = None
    if triton_small.usable(problem):
        h, taken = triton_small.advance(problem, limits.tol, limits.max_iter, h, n_stages)
    return torch_method.epsilon_scaling(problem, limits.tol, limits.max_iter, h, n_stages, count, taken)


def _pair(of: Inside, t: int) -> Inside:
    """Term t: of x to y, of x to itself, of y to itself."""
    if t == 0:
        return of
    z, w = (of.x, of.a) if t == 1 else (of.y, of.b)
    return of._replace(x=z, y=z, a=w, b=w)


def _term(of: Inside, t: int, limits: Limits, points: Sides, start: Tensor | None) -> Solution:
    """One term alone."""
    of, needed = _pair(of, t), points if t == 0 else (points[t - 1], False)
    problem = _passes(of, t, limits)
    found = _solved(problem, limits, start, of.n_stages, 0 if t else len(of.x))
    return _solution(of, t, found, problem.gradients(found.h, found.F, needed), limits)


def _passes(of: Inside, t: int, limits: Limits) -> TorchPasses:
    all_live, cost = not of.weightless, of.mean_costs[:, t]
    if limits.power != 2:
        given = {"own": t > 0, "all_live": all_live, "mean_cost": cost}
        return TorchPowerPasses(of.clouds, limits.dampings, of.dtype, **given, power=limits.power)
    kind = TritonPasses if triton_passes.usable(of.x, of.dtype) else TorchPasses
    return kind(of.clouds, limits.dampings, of.dtype, own=t > 0, all_live=all_live, mean_cost=cost)


def _solution(of: Inside, t: int, found: Measured, grads: Any, limits: Limits) -> Solution:
    """In the caller's units. Points without weight get the softmin of the other side's potential."""
    base, F, h = limits.epsilon / LOG2E, found.F, found.h
    if of.weightless:
        h = torch.where(of.b > 0, h, F if t else _passes(of, t, limits).column_softmin(F))
    shift = torch.zeros_like(of.unit)
    if t == 0:
        means = [torch.bmm(w[:, None], z)[:, 0] / w.sum(-1, keepdim=True) for z, w in ((of.x, of.a), (of.y, of.b))]
        shift = ((of.unit[:, None] * (means[0] - means[1])) ** 2).sum(-1)
    slope = of.unit[:, None, None] ** (limits.power - 1)
    sides = [None if grad is None else slope * grad for grad in grads]
    potentials = (h, h) if t else (F, h)
    f, g = (z * base for z in potentials)
    return Solution(f, g, found.value * base, found.passes, found.error, shift, *sides)


def _joined(parts: list[Solution]) -> Solution:
    """The solutions of a batch that was solved in parts."""
    if len(parts) == 1:
        return parts[0]
    return Solution._make(None if z[0] is None else torch.cat(z) for z in zip(*parts, strict=True))


def gradients_at(
    flat: tuple[Tensor, ...],
    f: Tensor,
    g: Tensor,
    epsilon: float,
    dampings: tuple[float, float],
    points: Sides,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by the points of a flat batch whose potentials are known (f, g with any batch shape)."""
    x, y, a, b = flat
    inside = normalization(x, y)
    unit, center = inside.unit[:, None, None], inside.center[:, None]
    scale = inverse_epsilon(inside.unit, epsilon)
    problem = TorchPasses(Clouds((x - center) / unit, (y - center) / unit, a, b, scale), dampings)
    F, h = (z.double().reshape(w.shape) * (LOG2E / epsilon) for z, w in ((f, a), (g, b)))
    grad_x, grad_y = problem.gradients(h, F, points)
    return None if grad_x is None else grad_x * unit, None if grad_y is None else grad_y * unit
