"""What follows from potentials, for tensors on a device: the plan, its products and costs, maps, certified bounds.

The formulas are those of `result` and `certificates`. All is in float64 and goes over blocks of rows: memory is linear
in n + m beside `torch_passes.CHUNK`, but for the dense plan. Nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .constants import LOG2E
from .normalization import normalization
from .torch_passes import Clouds, TorchPasses, inverse_epsilon, mean_costs, squares

Flat = tuple[Tensor, Tensor, Tensor, Tensor]


class Plans:
    """The plans of a flat batch x, y, a, b at potentials f (k, n) and g (k, m)."""

    def __init__(self, flat: Flat, f: Tensor, g: Tensor, epsilon: float) -> None:
        x, y, a, b = flat
        box, scale = normalization(x, y), LOG2E / epsilon
        self.unit, self.center = box.unit[:, None, None], box.center[:, None]
        x, y = (x - self.center) / self.unit, (y - self.center) / self.unit
        inside = Clouds(x, y, a, b, inverse_epsilon(box.unit, epsilon))
        self.problem = TorchPasses(inside, (1.0, 1.0))
        self.h, self.F = g.double().reshape(b.shape) * scale, f.double().reshape(a.shape) * scale

    def blocks(self, F: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the plan, or of that with other potentials of x."""
        for rows in self.problem.blocks():
            yield rows, self.problem.plan(rows, self.h, self.F if F is None else F)

    def dense(self) -> Tensor:
        """The plan (k, n, m)."""
        return torch.cat([block for _, block in self.blocks()], 1)

    def apply(self, v: Tensor) -> Tensor:
        """P v of v (k, m, r)."""
        return torch.cat([block @ v for _, block in self.blocks()], 1)

    def apply_transposed(self, v: Tensor) -> Tensor:
        """Pᵀ v of v (k, n, r)."""
        return sum((block.mT @ v[:, rows] for rows, block in self.blocks()), v.new_zeros((*self.h.shape, v.shape[2])))

    def transport_cost(self) -> Tensor:
        """Σ P_ij |x_i - y_j|² in the caller's units, (k,)."""
        x, y, total = self.problem.x, self.problem.y, torch.zeros_like(self.problem.scale)
        xx, yy = (x * x).sum(-1), (y * y).sum(-1)
        for rows, block in self.blocks():
            total += (block.sum(2) * xx[:, rows]).sum(-1) + (block.sum(1) * yy).sum(-1)
            total -= 2 * (x[:, rows] * (block @ y)).sum((1, 2))
        return total.clip(0.0) * self.unit[:, 0, 0] ** 2

    def map(self, points: Tensor | None = None) -> Tensor:
        """Σ_j w_j y_j / Σ_j w_j at points (k, p, d), or at those of x."""
        problem = self.problem
        z = problem.x if points is None else (points - self.center) / self.unit
        ones = z.new_ones(z.shape[:2])
        clouds = Clouds(z, problem.y, ones, problem.b, problem.scale)
        shares = TorchPasses(clouds, (1.0, 1.0), mean_cost=problem.mean_cost)
        F, _ = shares.sweep(self.h)
        moved = torch.cat([shares.plan(rows, self.h, F) @ problem.y for rows in shares.blocks()], 1)
        return moved * self.unit + self.center

    def bounds(self, others: tuple[Tensor, ...] = ()) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (k,) on the exact W2², see `certificates.bounds`; `others` are more potentials g."""
        problem, size = self.problem, self.unit[:, 0, 0] ** 2
        (_, n, d), m = problem.x.shape, problem.y.shape[1]
        slack = 256 * torch.finfo(torch.float64).eps * (d + math.log2(n + m))
        scale = problem.scale[:, None]
        duals = [self._dual(h / scale) for h in (self.h, *(g / size[:, None] * scale for g in others))]
        lower = torch.stack(duals).amax(0) - slack
        return lower.clip(0.0) * size, (self._rounded_cost() + slack).clip(0.0) * size

    def _dual(self, g: Tensor) -> Tensor:
        """Σ a g^c + Σ b g^cc in units inside."""
        problem = self.problem
        f = _c_transform(problem.x, problem.y, problem.b, g, problem.blocks())
        turned = TorchPasses(Clouds(problem.y, problem.x, problem.b, problem.a, problem.scale), (1.0, 1.0))
        back = _c_transform(problem.y, problem.x, problem.a, f, turned.blocks())
        return (problem.a * f).sum(-1) + (problem.b * back).sum(-1)

    def _rounded_cost(self) -> Tensor:
        """Cost of the plan of h, rounded onto the marginals, in units inside."""
        problem = self.problem
        x, y, a, b = problem.x, problem.y, problem.a, problem.b
        F, c = problem.sweep(self.h)  # the rows are exact after it
        share = (b / torch.where(c > 0, c, 1.0)).clip(max=1.0)
        columns = share[..., None] * torch.cat([y, torch.ones_like(y[..., :1])], -1)
        kept = torch.cat([block @ columns for _, block in self.blocks(F)], 1)
        missing, over = (a - kept[..., -1]).clip(0.0), (b - torch.minimum(b, c)).clip(0.0)
        left = missing.sum(-1)
        product = ((missing[:, None] @ x) * (over[:, None] @ y)).sum((1, 2)) / torch.where(left > 0, left, 1.0)
        inner = (x * kept[..., :-1]).sum((1, 2)) + product
        return (a * (x * x).sum(-1)).sum(-1) + (b * (y * y).sum(-1)).sum(-1) - 2 * inner


def _c_transform(x: Tensor, y: Tensor, b: Tensor, g: Tensor, blocks: list[slice]) -> Tensor:
    """min_j (|x_i - y_j|² - g_j) over the y_j that have weight b_j: (k, n)."""
    counted = torch.where(b > 0, g, -math.inf)[:, None]
    return torch.cat([(squares(x[:, rows], y) - counted).amin(-1) for rows in blocks], 1)


def bounds(flat: Flat, g: Tensor, epsilon: float, others: tuple[Tensor, ...] = ()) -> tuple[Tensor, Tensor]:
    """As `certificates.bounds`."""
    return Plans(flat, torch.zeros_like(flat[2]), g, epsilon).bounds(others)


def mean_cost(flat: Flat) -> float:
    """Σ a_i b_j |x_i - y_j|² of one problem."""
    return float(mean_costs(*flat)[0])
