"""Entropic transport on tensors that compiled loops for CPUs can't read: `method` with the passes of `torch_passes`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import method
from .constants import ANNEAL_ABOVE, ANNEAL_FACTOR, LOG2E
from .normalization import float32_resolves, normalization
from .numpy_engine import Limits, Solution
from .torch_passes import TorchPasses, inverse_epsilon
from .torch_powers import TorchPowerPasses


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


def solve(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    limits: Limits,
    *,
    single: bool,
    init: Tensor | None = None,
    points: tuple[bool, bool] = (False, False),
    debias: bool = False,
) -> list[Solution]:
    """As `numpy_engine.solve`."""
    inside = normalization(x, y)
    low = float32_resolves(inside, limits.epsilon, limits.tol) & (single and limits.power == 2)
    scale = inverse_epsilon(inside.unit ** (0.5 * limits.power), limits.epsilon)
    unit, center = inside.unit[:, None, None], inside.center[:, None]
    x, y = (x - center) / unit, (y - center) / unit
    start = None if init is None else init.double() * (LOG2E / limits.epsilon)
    terms = [(x, y, a, b, points, start)]
    if debias:
        terms += [(x, x, a, a, points[:1] * 2, None), (y, y, b, b, points[1:] * 2, None)]
    return [_term(*term, unit, scale, low, limits) for term in terms]


def _term(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    points: tuple[bool, bool],
    start: Tensor | None,
    unit: Tensor,
    scale: Tensor,
    low: Tensor,
    limits: Limits,
) -> Solution:
    """One term: problems of the same precision and the same stages move together."""
    symmetric = y is x
    if limits.power == 2:
        whole = TorchPasses(x, y, a, b, scale, limits.dampings)
    else:
        whole = TorchPowerPasses(x, y, a, b, scale, limits.dampings, limits.power)
    steep = (whole.steepness / ANNEAL_ABOVE).clip(1.0).nan_to_num(1.0)
    stages = torch.ceil(torch.log2(steep) / math.log2(ANNEAL_FACTOR)) if start is None else torch.zeros_like(steep)
    f, g, value, error = torch.empty_like(a), torch.empty_like(b), torch.empty_like(scale), torch.empty_like(scale)
    n_iter = torch.zeros_like(scale, dtype=torch.int64)
    grad_x, grad_y = torch.empty_like(x), torch.empty_like(y)
    group = 2 * stages + low
    for which in torch.unique(group).tolist():
        at = group == which
        part = whole.members(at)
        if which % 2:
            part = TorchPasses(part.x, part.y, part.a, part.b, part.scale, part.dampings, torch.float32)
        h = None if start is None else start[at]
        state = method.solve(part, limits.tol, limits.max_iter, h)
        by_x, by_y = part.gradients(state.h, state.F, points)
        f[at], g[at] = state.F, part.continued(state.h, state.F)
        value[at], error[at], n_iter[at] = state.value, state.error, state.passes
        for out, grad in ((grad_x, by_x), (grad_y, by_y)):
            if grad is not None:
                out[at] = unit[at] ** (limits.power - 1) * grad
    base = limits.epsilon / LOG2E
    means = [(w[:, None] @ z)[:, 0] / w.sum(-1, keepdim=True) for z, w in ((x, a), (y, b))]
    shift = ((unit[:, 0] * (means[0] - means[1])) ** 2).sum(-1)
    wanted = points[0], points[1] and not symmetric
    sides = [grad if want else None for grad, want in zip((grad_x, grad_y), wanted, strict=True)]
    return Solution((g if symmetric else f) * base, g * base, value * base, n_iter, error, shift, *sides)


def gradients_at(
    flat: tuple[Tensor, ...],
    f: Tensor,
    g: Tensor,
    epsilon: float,
    dampings: tuple[float, float],
    points: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by the points of a flat batch whose potentials are known (f, g with any batch shape)."""
    x, y, a, b = flat
    inside = normalization(x, y)
    unit, center = inside.unit[:, None, None], inside.center[:, None]
    scale = inverse_epsilon(inside.unit, epsilon)
    problem = TorchPasses((x - center) / unit, (y - center) / unit, a, b, scale, dampings)
    F, h = (z.double().reshape(w.shape) * (LOG2E / epsilon) for z, w in ((f, a), (g, b)))
    grad_x, grad_y = problem.gradients(h, F, points)
    return None if grad_x is None else grad_x * unit, None if grad_y is None else grad_y * unit
