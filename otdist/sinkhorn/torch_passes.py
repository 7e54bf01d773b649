"""The passes of Sinkhorn's method in PyTorch operators, for tensors that the compiled loops for CPUs can't read.

As in `passes`, potentials are absorbed into a matrix E, with each row's largest entry 1, which is kept while they stay
near: a pass is then two products of E with vectors. A matrix above `KEPT` bytes is not kept; its rows are computed in
each pass, from the logarithms. Rows are computed in blocks of at most `CHUNK` scores in float64, with two temporaries
of the same size beside them. Nothing here waits for the device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .constants import LOG2E, LOST, SYMMETRIC_STEP, TRUST_DOUBLE, TRUST_SINGLE
from .starts import start

CHUNK = 2**24  # 128 MiB
KEPT = 2**31  # 2 GiB
# Passes between two looks at their outcome, at most; one where a pass takes longer than a look.
LONGEST_BURST = 4
# Distances of points of so many coordinates are sums of squares of differences, beyond it they come from products.
DIFFERENCES = 8


class Clouds(NamedTuple):
    """Points x (k, n, d) and y (k, m, d) inside, in float64, their weights, and log2(e)/ε in the units inside (k,)."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    scale: Tensor


class TorchPasses:
    """A batch of k problems; see `method.Passes`.

    ``own`` says which problems compare a cloud with itself: all, none, or some (k,), where n = m; ``all_live`` that no
    point of y is without weight.
    """

    def __init__(
        self,
        clouds: Clouds,
        dampings: tuple[float, float],
        dtype: torch.dtype = torch.float64,
        *,
        own: bool | Tensor = False,
        all_live: bool = False,
        mean_cost: Tensor | None = None,
    ) -> None:
        x, y, a, b, scale = clouds
        self.x, self.y, self.a, self.b, self.own = x, y, a, b, own
        self.scale, self.dampings, self.dtype, self.double = scale, dampings, dtype, dtype == torch.float64
        self.symmetric, self.all_live = own is True, all_live
        self.mean_cost = _mean_cost(x, y, a, b) if mean_cost is None else mean_cost
        self.product_mass, self.log_weight = a.sum(-1) * b.sum(-1), torch.log2(b)
        self.live, self.divisor = (b, b) if all_live else (b > 0, b.masked_fill(b == 0, 1.0))
        if isinstance(own, Tensor):
            self.step_size: Any = 1.0 - (1.0 - SYMMETRIC_STEP) * own.double()[:, None]
        self.keeps = a.numel() * b.shape[1] * (8 if self.double else 4) <= KEPT
        # Columns whose mass is less may have underflowed. Unbalanced, the solution's may be small.
        self.farthest = -math.log2(LOST) if dampings == (1.0, 1.0) else 990.0
        self.longest_burst = LONGEST_BURST if self.keeps else 1
        self.trust = TRUST_DOUBLE if self.double else TRUST_SINGLE
        self.kernel: Tensor | None = None

    @property
    def steepness(self) -> Tensor:
        return self.mean_cost * self.scale

    @property
    def noise(self) -> Tensor:
        return 4 * torch.finfo(self.dtype).eps * (1 + self.steepness)

    def rescale(self, factor: float) -> None:
        self.scale = self.scale * factor

    def gaussian_start(self) -> Tensor:
        return start(self.x, self.y, self.a, self.b, self.scale, self.dampings)

    def members(self, chosen: Any) -> TorchPasses:
        """The chosen problems, of which all or none compare a cloud with itself."""
        clouds = Clouds(*(z[chosen] for z in (self.x, self.y, self.a, self.b, self.scale)))
        return type(self)(
            clouds,
            self.dampings,
            self.dtype,
            own=self.own is True,
            all_live=self.all_live,
            mean_cost=self.mean_cost[chosen],
        )

    def blocks(self) -> list[slice]:
        k, n = self.a.shape
        rows = max(1, CHUNK // max(1, k * self.b.shape[1]))
        return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

    def scores(self, rows: slice, h: Tensor) -> Tensor:
        """log2 b_j + h_j + S_ij for a block of rows, in float64."""
        x, y = self.x[:, rows], self.y
        G, scale = h + self.log_weight, self.scale[:, None, None]
        if x.shape[-1] <= DIFFERENCES:
            return torch.addcmul(G[:, None], squares(x, y), scale, value=-1)
        row = (G - scale[:, 0] * (y * y).sum(-1))[:, None] - scale * (x * x).sum(-1)[..., None]
        return torch.baddbmm(row, 2 * scale * x, y.mT)

    def scaled_rows(self, rows: slice, h: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of E, in the working type, and log2 of what they were divided by (k, rows)."""
        z = self.scores(rows, h)
        top = z.amax(-1, keepdim=True)
        top = top.masked_fill_(top.isinf(), 0.0)
        return z.sub_(top).to(self.dtype).exp2_(), top[..., 0]

    def absorb(self, h: Tensor) -> None:
        """Compute the kernel for potentials near h, if it is kept."""
        if not self.keeps:
            return
        self.kernel, self.absorbed = None, h  # gone before there is another
        blocks = self.blocks()
        if len(blocks) == 1:
            self.kernel, top = self.scaled_rows(blocks[0], h)
            self.shift = -top
            return
        kernel, parts = torch.empty((*self.a.shape, self.b.shape[1]), dtype=self.dtype, device=h.device), []
        for rows in blocks:
            kernel[:, rows], top = self.scaled_rows(rows, h)
            parts.append(-top)
        self.kernel, self.shift = kernel, torch.cat(parts, 1)

    def advance(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """A pass: F, the step of plain Sinkhorn, the second marginal (k, m), and how far h is from what is kept, (k,).

        Farther than `trust`, all three may be anything. A marginal that is not needed is h.
        """
        if self.kernel is None:
            F, c = self.sweep(h)
            return F, self.residual(h, F, c), c, None
        change = h - self.absorbed
        far, v = torch.linalg.vector_norm(change, math.inf, -1), torch.exp2(change).to(self.dtype)
        sums = torch.bmm(self.kernel, v[..., None])[..., 0].double()
        F = self.shift - torch.log2(sums)
        if self.dampings[0] != 1.0:
            F = self.dampings[0] * F
        if self.symmetric:
            return F, self.residual(h, F, h), h, far
        u = self.a / sums if self.dampings[0] == 1.0 else self.a * torch.exp2(F - self.shift)
        c = (v * torch.bmm(u.to(self.dtype)[:, None], self.kernel)[:, 0]).double()
        return F, self.residual(h, F, c), c, far

    def residual(self, h: Tensor, F: Tensor, c: Tensor) -> Tensor:
        """The step of plain Sinkhorn from h: 0 at points without weight.

        Columns whose mass may have underflowed go `farthest`; the rest follows in further passes.
        """
        if self.symmetric:
            return self.of_live(F - h)
        r = torch.log2(self.divisor / c).clip(max=self.farthest)
        if self.dampings[1] != 1.0:
            r = self.dampings[1] * (r + h) - h
        if isinstance(self.own, Tensor):
            r = torch.where(self.own[:, None], F - h, r)
        return self.of_live(r)

    def plain_step(self, h: Tensor, r: Tensor) -> Tensor:
        """Plain Sinkhorn's, which lowers no dual; of a cloud with itself, a share of it."""
        if isinstance(self.own, Tensor):
            return torch.addcmul(h, r, self.step_size)
        return torch.add(h, r, alpha=SYMMETRIC_STEP if self.own else 1.0)

    def of_live(self, z: Tensor) -> Tensor:
        """z, and 0 at points without weight."""
        return z if self.all_live else z * self.live

    def plan(self, rows: slice, h: Tensor, F: Tensor) -> Tensor:
        """Rows of the plan in the working type."""
        z = self.scores(rows, h) + F[:, rows, None]
        return torch.exp2(z.to(self.dtype)) * self.a[:, rows, None].to(self.dtype)

    def sweep(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """F and the second marginal, from the logarithms."""
        c, F = torch.zeros_like(self.b), torch.empty_like(self.a)
        for rows in self.blocks():
            e, top = self.scaled_rows(rows, h)
            F[:, rows] = -self.dampings[0] * (torch.log2(e.sum(-1, dtype=torch.float64)) + top)
            if not self.symmetric:
                u = self.a[:, rows] * torch.exp2(F[:, rows] + top)
                c += (u.to(self.dtype)[:, None] @ e)[:, 0]
        return F, c

    def column_softmin(self, F: Tensor) -> Tensor:
        dampings = self.dampings[1], self.dampings[0]
        turned = Clouds(self.y, self.x, self.b, self.a, self.scale)
        return TorchPasses(turned, dampings, self.dtype, mean_cost=self.mean_cost).sweep(F)[0]

    def hessian(self, h: Tensor, F: Tensor) -> Tensor:
        a, b = self.a[0], self.b[0]
        scale = self.divisor[0].rsqrt() * (b > 0)
        H = b.new_zeros((len(b), len(b)))
        for rows in self.blocks():
            P = self.plan(rows, h, F)[0].double() * scale
            H += P.mT @ (P / torch.where(a[rows] > 0, a[rows], 1.0)[:, None])
        return H

    def moved(self, h: Tensor, F: Tensor, columns: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """P y (k, n, d), and for the columns, if asked for, their mass (k, m) and Pᵀ x (k, m, d)."""
        x, y = self.x.to(self.dtype), self.y.to(self.dtype)
        mass, back = (torch.zeros_like(self.b), torch.zeros_like(self.y)) if columns else (None, None)
        there = torch.empty_like(self.x)
        for rows in self.blocks():
            P = self.plan(rows, h, F)
            there[:, rows] = P @ y
            if mass is not None and back is not None:
                mass += P.sum(1, dtype=torch.float64)
                back += P.mT @ x[:, rows]
        return there, mass, back

    def gradients(self, h: Tensor, F: Tensor, points: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """As `NumpyPasses.gradients`."""
        columns = points[1] and not self.symmetric
        if not (points[0] or columns):
            return None, None
        there, mass, back = self.moved(h, F, columns)
        row_mass = self.a
        if self.dampings[0] != 1.0:
            row_mass = self.a * torch.exp2(F.masked_fill(self.a == 0, 0.0) * (1.0 - 1.0 / self.dampings[0]))
        grad_x = 2 * (row_mass[..., None] * self.x - there) if points[0] else None
        if mass is None or back is None:
            return grad_x, None
        one = self.dampings[1] == 1.0
        share = torch.where(mass > 0, self.b / torch.where(mass > 0, mass, 1.0), 0.0) if one else torch.ones_like(mass)
        return grad_x, 2 * share[..., None] * (mass[..., None] * self.y - back)


def squares(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|² from differences, which do not cancel, one coordinate after the other."""
    gap = x[..., 0, None] - y[:, None, :, 0]
    total = gap * gap
    for c in range(1, x.shape[-1]):
        gap = x[..., c, None] - y[:, None, :, c]
        total.addcmul_(gap, gap)
    return total


def mean_costs(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ a_i b_j |x_i - y_j|² / (Σ a Σ b) of x to y, of x to itself and of y to itself, (k,) each."""
    (mean_x, spread_x), (mean_y, spread_y) = _moments(x, a), _moments(y, b)
    return ((mean_x - mean_y) ** 2).sum((1, 2)) + spread_x + spread_y, 2 * spread_x, 2 * spread_y


def _mean_cost(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return mean_costs(x, y, a, b)[0]


def _moments(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (k, 1, d) and the mean squared distance from it (k,) of points with weights."""
    share = (a / a.sum(-1, keepdim=True))[:, None]
    mean = torch.bmm(share, x)
    return mean, torch.bmm(share, ((x - mean) ** 2).sum(-1, keepdim=True))[:, 0, 0]


def inverse_epsilon(unit: Tensor, epsilon: float) -> Tensor:
    """log2(e)/ε in normalized coordinates."""
    return LOG2E * (unit / epsilon) * unit
