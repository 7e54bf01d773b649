"""`TorchPasses` for the cost |x - y|^p, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .torch_passes import Clouds, TorchPasses, squares


class TorchPowerPasses(TorchPasses):
    """A batch of k problems, all or none of a cloud with itself; `scale` is log2(e)/ε times the units' power."""

    def __init__(self, clouds: Clouds, dampings: tuple[float, float], *args: Any, power: float, **options: Any) -> None:
        super().__init__(clouds, dampings, *args, **options)
        self.power = power

    def gaussian_start(self) -> Tensor:
        return torch.zeros_like(self.b)

    def members(self, chosen: Any) -> TorchPowerPasses:
        clouds = Clouds(*(z[chosen] for z in (self.x, self.y, self.a, self.b, self.scale)))
        given = {"own": self.own is True, "all_live": self.all_live, "mean_cost": self.mean_cost[chosen]}
        return TorchPowerPasses(clouds, self.dampings, self.dtype, **given, power=self.power)

    def scores(self, rows: slice, h: Tensor) -> Tensor:
        """log2 b_j + h_j + S_ij for a block of rows."""
        costs = squares(self.x[:, rows], self.y).pow_(0.5 * self.power)
        return torch.addcmul((h + self.log_weight)[:, None], costs, self.scale[:, None, None], value=-1)

    def column_softmin(self, F: Tensor) -> Tensor:
        turned, dampings = Clouds(self.y, self.x, self.b, self.a, self.scale), (self.dampings[1], self.dampings[0])
        return TorchPowerPasses(turned, dampings, self.dtype, mean_cost=self.mean_cost, power=self.power).sweep(F)[0]

    def gradients(self, h: Tensor, F: Tensor, points: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """As `NumpyPasses.power_gradients`."""
        columns = points[1] and not self.symmetric
        if not (points[0] or columns):
            return None, None
        grad_x, grad_y, mass = torch.empty_like(self.x), torch.zeros_like(self.y), torch.zeros_like(self.b)
        for rows in self.blocks():
            P, distances = self.plan(rows, h, F), squares(self.x[:, rows], self.y)
            slopes = self.power * torch.where(distances > 0, distances, 1.0) ** (0.5 * self.power - 1.0)
            W = torch.where(distances > 0, P * slopes, 0.0)
            for k in range(self.x.shape[-1]):
                pull = W * (self.x[:, rows, k, None] - self.y[:, None, :, k])
                grad_x[:, rows, k] = pull.sum(2)
                grad_y[..., k] -= pull.sum(1)
            mass += P.sum(1)
        if self.dampings[1] == 1.0:
            grad_y *= torch.where(mass > 0, self.b / torch.where(mass > 0, mass, 1.0), 0.0)[..., None]
        return grad_x if points[0] else None, grad_y if columns else None
