"""`TorchPasses` for the cost |x - y|^p, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .torch_passes import TorchPasses


class TorchPowerPasses(TorchPasses):
    """A batch of k problems; see `method.Passes`. Points are inside, and `scale` is log2(e)/ε times unit^p."""

    def __init__(
        self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: Tensor, dampings: tuple[float, float], power: float
    ) -> None:
        super().__init__(x, y, a, b, scale, dampings)
        self.power, self.mean_cost = power, self.mean_cost ** (0.5 * power)  # a bound on it, for powers below 2

    def gaussian_start(self) -> Tensor:
        return torch.zeros_like(self.b)

    def members(self, chosen: Any) -> TorchPowerPasses:
        x = self.x[chosen]
        y = x if self.symmetric else self.y[chosen]
        return TorchPowerPasses(x, y, self.a[chosen], self.b[chosen], self.scale[chosen], self.dampings, self.power)

    def column_softmin(self, F: Tensor) -> Tensor:
        x, dampings = self.x.clone() if self.symmetric else self.x, (self.dampings[1], self.dampings[0])
        return TorchPowerPasses(self.y, x, self.b, self.a, self.scale, dampings, self.power).sweep(F)[0]

    def squares(self, rows: slice) -> Tensor:
        """|x_i - y_j|² of a block of rows, from differences, which do not cancel."""
        total = self.b.new_zeros(())
        for k in range(self.x.shape[-1]):
            total = total + (self.x[:, rows, k, None] - self.y[:, None, :, k]) ** 2
        return total

    def scores(self, rows: slice, h: Tensor) -> Tensor:
        return (h + torch.log2(self.b))[:, None] - self.scale[:, None, None] * self.squares(rows) ** (0.5 * self.power)

    def gradients(self, h: Tensor, F: Tensor, points: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """As `NumpyPasses.power_gradients`."""
        grad_x, grad_y, mass = torch.empty_like(self.x), torch.zeros_like(self.y), torch.zeros_like(self.b)
        for rows in self.blocks():
            P, squares = self.plan(rows, h, F), self.squares(rows)
            apart = squares > 0
            slopes = self.power * torch.where(apart, squares, 1.0) ** (0.5 * self.power - 1.0)
            W = torch.where(apart, P * slopes, 0.0)
            for k in range(self.x.shape[-1]):
                pull = W * (self.x[:, rows, k, None] - self.y[:, None, :, k])
                grad_x[:, rows, k] = pull.sum(2)
                grad_y[..., k] -= pull.sum(1)
            mass += P.sum(1)
        if self.dampings[1] == 1.0:
            grad_y *= torch.where(mass > 0, self.b / torch.where(mass > 0, mass, 1.0), 0.0)[..., None]
        return grad_x if points[0] else None, grad_y if points[1] and not self.symmetric else None
