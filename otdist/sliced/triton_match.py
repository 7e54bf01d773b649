"""Squared costs and slopes of projections on a card: a sort, and one kernel for the rest.

For clouds of equal sizes without weights, whose k-th smallest go to each other along all directions. Other sizes,
weights and powers keep PyTorch's operators: there a slope is a sum over steps of a coupling.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .._core import card


def match(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Costs (b, l) in float64 of rows x, y (b, l, n), and their slopes by x and y in the order of the points."""
    from .triton_kernels import BLOCK, TIES, WARPS, match

    n = x.shape[-1]
    values, places = torch.stack([x, y]).sort(-1)
    slopes = torch.empty_like(values)
    costs = torch.empty((*x.shape[:-1], -(-n // BLOCK)), dtype=torch.float64, device=x.device)
    if slopes.numel():
        rows, constants = costs.numel() // costs.shape[-1], {"BLOCK": BLOCK, "TIES": TIES, "num_warps": WARPS}
        card.launch(match, (costs.numel(),), values, places, slopes, costs, n, rows, **constants)
    cost = costs.sum(-1) / n
    slopes += (0 * cost)[..., None].to(slopes.dtype)  # NaN along directions whose cost is not finite
    return cost, slopes[0], slopes[1]


def usable(x: Tensor) -> bool:
    """Whether the kernel can be compiled for the card where x is, and is right there."""
    return card.takes_kernels(x) and _agrees(x.device, x.dtype)


@cache
def _agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel agrees with sums that are exact on a small problem, with ties: asked once in a process.

    x is sorted and ties by pairs; y, in descending order, does not tie.
    """
    n = 600
    place = torch.arange(n, device=device)
    x, y = (place // 2).to(dtype), (n - 1 - place).to(dtype) / 4

    def error() -> float:
        cost, by_x, by_y = (z[0, 0] for z in match(x[None, None], y[None, None]))
        gap = x - y.flip(0)
        mean = gap.reshape(-1, 2).mean(-1).repeat_interleave(2)
        errors = cost / (gap.double() ** 2).mean() - 1, by_x - 2 / n * mean, by_y + 2 / n * gap.flip(0)
        return max(float(z.abs().max()) for z in errors)

    # Slopes are below 1; those of two that tie differ by 1 / (2 n) before they share their mean.
    return card.agree("sliced", device, error, 16 * torch.finfo(dtype).eps)
