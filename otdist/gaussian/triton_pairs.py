"""The Bures distance of pairs of small covariances on a card: one launch for a batch, in place of some hundred."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .._core import card
from . import polar
from .factor import least_pivot

# Coordinates of which a block of threads has a pair's matrices in its registers.
WIDEST = 32

Range = tuple[float, float]


def value_and_slopes(x: Tensor, y: Tensor, eps: float, traces: Range) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """B² (n,) of pairs (n or 1, d, d) in float64, its gradients, and of which pairs they are right.

    Not of those with a trace outside of `traces`, nor where `polar.Roots` would not find the pair regular.
    """
    from .triton_kernels import pairs

    n, d = max(len(x), len(y)), x.shape[-1]
    x, y = x.contiguous(), y.contiguous()
    value, good = x.new_empty(n), torch.empty(n, dtype=torch.int8, device=x.device)
    slopes = x.new_empty((2, n, d, d))
    strides = (0 if len(z) == 1 else d * d for z in (x, y))
    card.launch(pairs, (n,), x, y, value, *slopes, good, _table(x.device, d, eps, traces), d, *strides, **sizes(d))
    return value, (slopes[0], slopes[1]), good != 0


def sizes(d: int) -> dict[str, int]:
    """The kernel's constants: matrices are padded to what tensor cores take, with some sixteen numbers a thread."""
    padded = 16 if d <= 16 else 32
    well, least = (len(polar.SCHEDULES[lower]) for lower in (polar.WELL, polar.LEAST))
    return {"WELL": well, "LEAST": least, "D": padded, "num_warps": 1 if padded == 16 else 4}


@cache
def _table(device: torch.device, d: int, eps: float, traces: Range) -> Tensor:
    """The numbers that all pairs share, on the device: Triton's own arguments are float32."""
    pivot = float(least_pivot(torch.eye(d, dtype=torch.float64) / d, eps))  # of trace 1
    steps = [number for lower in (polar.WELL, polar.LEAST) for step in polar.SCHEDULES[lower] for number in step]
    return torch.tensor([*traces, pivot, polar.WELL, polar.LEAST, *steps], dtype=torch.float64, device=device)


def usable(x: Tensor) -> bool:
    """Whether covariances x (n, d, d) are small enough, and on a card where the kernel is right."""
    return 0 < x.shape[-1] <= WIDEST and card.takes_kernels(x) and _agrees(x.device, x.shape[-1] > 16)


@cache
def _agrees(device: torch.device, wide: bool) -> bool:
    """Whether the kernel agrees with PyTorch's operators on a few pairs: asked once in a process."""
    d, eps = 17 if wide else 5, torch.finfo(torch.float64).eps
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 2, d, 2 * d, generator=generator, dtype=torch.float64).to(device)
    x, y = z @ z.mT / d

    def error() -> float:
        value, slopes, good = value_and_slopes(x, y, eps, (1e-70, 1e70))
        nothing = torch.zeros_like(value)
        expected, its = polar.Roots(x, y, nothing == 0, (nothing, nothing)).value_and_slopes(polar.LEAST, (True, True))
        answers = zip((value, *slopes), (expected, *its), strict=True)
        worst = max(float((one - two).abs().max() / two.abs().max()) for one, two in answers if two is not None)
        return worst if bool(good.all()) else 1.0

    return card.agree("Gaussian pairs", device, error, 1e6 * d * eps)
