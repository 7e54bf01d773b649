"""The passes of Sinkhorn's method in PyTorch operators, for tensors that the compiled loops for CPUs can't read.

Passes go over blocks of rows, so that no more than `CHUNK` scores are held at a time: 256 MiB in float32, with twice as
much beside it for the products that make them. A batch moves together; problems that are done keep their potentials.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .constants import LOG2E
from .starts import gaussian_potential

CHUNK = 2**26
# Distances of points of so many coordinates are sums of squares of differences, beyond it they come from products.
DIFFERENCES = 8


class TorchPasses:
    """A batch of k problems; see `method.Passes`. Points x (k, n, d) and y (k, m, d) are inside and in float64."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        dampings: tuple[float, float],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.x, self.y, self.a, self.b, self.symmetric = x, y, a, b, y is x
        self.scale, self.dampings, self.dtype, self.double = scale, dampings, dtype, dtype == torch.float64
        self.product_mass = a.sum(-1) * b.sum(-1)
        self.mean_cost = _mean_cost(x, y, a, b)

    @property
    def steepness(self) -> Tensor:
        return self.mean_cost * self.scale

    @property
    def noise(self) -> Tensor:
        return 4 * torch.finfo(self.dtype).eps * (1 + self.steepness)

    def rescale(self, factor: float) -> None:
        self.scale = self.scale * factor

    def gaussian_start(self) -> Tensor:
        return gaussian_potential(self.x, self.y, self.a, self.b, self.scale)

    def members(self, chosen: Any) -> TorchPasses:
        x = self.x[chosen]
        y = x if self.symmetric else self.y[chosen]
        return TorchPasses(x, y, self.a[chosen], self.b[chosen], self.scale[chosen], self.dampings, self.dtype)

    def blocks(self) -> list[slice]:
        k, n = self.a.shape
        rows = max(1, CHUNK // max(1, k * self.b.shape[1]))
        return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

    def scores(self, rows: slice, h: Tensor) -> Tensor:
        """log2 b_j + h_j + S_ij for a block of rows, in the working type."""
        x, y = self.x[:, rows], self.y
        G = h + torch.log2(self.b)
        if x.shape[-1] <= DIFFERENCES or not self.double:
            return G.to(self.dtype)[:, None] - self.scale[:, None, None].to(self.dtype) * _squares(x, y, self.dtype)
        half = self.scale[:, None, None]
        squares = half * (x * x).sum(-1)[..., None]
        row = (G - half[:, 0] * (y * y).sum(-1))[:, None] - squares
        return torch.baddbmm(row, 2 * half * x, y.mT)

    def plan(self, rows: slice, h: Tensor, F: Tensor) -> Tensor:
        z = self.scores(rows, h) + F[:, rows, None].to(self.dtype)
        return torch.exp2(z) * self.a[:, rows, None].to(self.dtype)

    def sweep(self, h: Tensor) -> tuple[Tensor, Tensor]:
        c, F = torch.zeros_like(self.b), torch.empty_like(self.a)
        for rows in self.blocks():
            z = self.scores(rows, h)
            top = z.amax(-1, keepdim=True)
            top = torch.where(top.isinf(), 0.0, top)
            e = torch.exp2(z - top)
            F[:, rows] = -self.dampings[0] * (torch.log2(e.sum(-1, dtype=torch.float64)) + top[..., 0])
            if not self.symmetric:
                u = self.a[:, rows] * torch.exp2(F[:, rows] + top[..., 0])
                c += (u.to(self.dtype)[:, None] @ e)[:, 0]
        return F, c

    def column_softmin(self, F: Tensor) -> Tensor:
        dampings = self.dampings[1], self.dampings[0]
        x = self.x.clone() if self.symmetric else self.x
        return TorchPasses(self.y, x, self.b, self.a, self.scale, dampings, self.dtype).sweep(F)[0]

    def hessian(self, h: Tensor, F: Tensor) -> Tensor:
        a, b = self.a[0], self.b[0]
        scale = torch.where(b > 0, torch.where(b > 0, b, 1.0).rsqrt(), 0.0)
        H = b.new_zeros((len(b), len(b)))
        for rows in self.blocks():
            P = self.plan(rows, h, F)[0].double() * scale
            H += P.mT @ (P / torch.where(a[rows] > 0, a[rows], 1.0)[:, None])
        return H

    def gradients(self, h: Tensor, F: Tensor, points: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """As `NumpyPasses.gradients`."""
        columns = points[1] and not self.symmetric
        if not (points[0] or columns):
            return None, None
        grad_x, grad_y, mass = torch.empty_like(self.x), torch.zeros_like(self.y), torch.zeros_like(self.b)
        x, y = self.x.to(self.dtype), self.y.to(self.dtype)
        row_mass = self.a * torch.exp2(F * (1.0 - 1.0 / self.dampings[0]))
        for rows in self.blocks():
            P = self.plan(rows, h, F)
            grad_x[:, rows] = row_mass[:, rows, None] * self.x[:, rows] - P @ y
            mass += P.sum(1, dtype=torch.float64)
            grad_y -= P.mT @ x[:, rows]
        one = self.dampings[1] == 1.0
        share = torch.where(mass > 0, self.b / torch.where(mass > 0, mass, 1.0), 0.0) if one else torch.ones_like(mass)
        grad_y = share[..., None] * (mass[..., None] * self.y + grad_y)
        return 2 * grad_x if points[0] else None, 2 * grad_y if columns else None

    def continued(self, h: Tensor, F: Tensor) -> Tensor:
        """h, and the softmin of F at points without weight."""
        if bool((self.b > 0).all()):
            return h
        return torch.where(self.b > 0, h, F if self.symmetric else self.column_softmin(F))


def _squares(x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """|x_i - y_j|² from differences, which do not cancel, one coordinate after the other."""
    x, y = x.to(dtype), y.to(dtype)
    total = x.new_zeros((*x.shape[:2], y.shape[1]))
    for c in range(x.shape[-1]):
        gap = x[..., c, None] - y[:, None, :, c]
        total.addcmul_(gap, gap)
    return total


def _mean_cost(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ a_i b_j |x_i - y_j|² / (Σ a Σ b), (k,)."""
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    mean_x, mean_y = (w[:, None] @ z for z, w in ((x, a), (y, b)))
    spread = [(w * ((z - mean) ** 2).sum(-1)).sum(-1) for z, mean, w in ((x, mean_x, a), (y, mean_y, b))]
    return ((mean_x - mean_y) ** 2).sum((1, 2)) + spread[0] + spread[1]


def inverse_epsilon(unit: Tensor, epsilon: float) -> Tensor:
    """log2(e)/ε in normalized coordinates."""
    return LOG2E * (unit / epsilon) * unit
