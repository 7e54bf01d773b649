"""The passes of Sinkhorn's method by Triton's kernels: on a card, and no matrix is stored whatever its size."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .._core import card
from .torch_passes import DIFFERENCES, LONGEST_BURST, Clouds, TorchPasses

# Coordinates of pairs up to which a pass is reckoned to take less than the launches and the wait of a look.
QUICK = 2**33


class TritonPasses(TorchPasses):
    """`TorchPasses` whose sums are taken tile by tile, in registers: beside the clouds, memory for some vectors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.keeps = False
        (k, n, d), m = self.x.shape, self.y.shape[1]
        self.longest_burst = LONGEST_BURST if k * n * m * d <= QUICK else 1

    def sweep(self, h: Tensor) -> tuple[Tensor, Tensor]:
        G = h + self.log_weight
        F = -self.dampings[0] * self._log_sums(self.x, self.y, G)
        if self.symmetric:
            return F, torch.zeros_like(self.b)
        return F, self._plan_sums(self.y, self.x, G, F + torch.log2(self.a), moved=False)[0]

    def column_softmin(self, F: Tensor) -> Tensor:
        return -self.dampings[1] * self._log_sums(self.y, self.x, F + torch.log2(self.a))

    def moved(self, h: Tensor, F: Tensor, columns: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        E, G = F + torch.log2(self.a), h + self.log_weight
        _, there = self._plan_sums(self.x, self.y, E, G, moved=True)
        mass, back = self._plan_sums(self.y, self.x, G, E, moved=True) if columns else (None, None)
        return there, mass, back

    def _log_sums(self, x: Tensor, y: Tensor, G: Tensor) -> Tensor:
        """log2 Σ_j 2^(G_j + S_ij), (k, n) in float64."""
        from .triton_kernels import softmin

        x, y, G, off, _ = self._in_scores(x, y, G)
        out = torch.empty(x.shape[:2], dtype=torch.float64, device=x.device)
        self._launch(softmin, x, y, G, out)
        return out - off

    def _plan_sums(self, x: Tensor, y: Tensor, E: Tensor, G: Tensor, *, moved: bool) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij (k, n) in float64 and, if asked for, Σ_j P_ij y_j (k, n, d), with P_ij = 2^(E_i + G_j + S_ij)."""
        from .triton_kernels import plan_sums

        x, y, G, off, unit = self._in_scores(x, y, G)
        mass, sums = torch.empty(x.shape[:2], dtype=torch.float64, device=x.device), torch.empty_like(x if moved else G)
        self._launch(plan_sums, x, y, (E - off).to(self.dtype), G, mass, sums, MOVED=moved)
        return mass, sums.double() / unit

    def _in_scores(self, x: Tensor, y: Tensor, G: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x, y and G as the kernels want them, in the working type; what their scores have too much, by row; a unit."""
        scale = self.scale[:, None]
        if x.shape[-1] <= DIFFERENCES:
            unit, off = scale.sqrt()[..., None], torch.zeros_like(scale)
        else:
            unit, off = (2 * scale).sqrt()[..., None], scale * (x * x).sum(-1)
            G = G - scale * (y * y).sum(-1)
        x, y, G = ((z).to(self.dtype).contiguous() for z in (x * unit, y * unit, G))
        return x, y, G, off, unit

    def _launch(self, kernel: Any, x: Tensor, y: Tensor, *arrays: Tensor, **constants: Any) -> None:
        from .triton_kernels import tiles

        (k, n, d), m, products = x.shape, y.shape[1], x.shape[-1] > DIFFERENCES
        table = tiles(products, self.double, d)
        constants |= {name: value for name, value in table.items() if name in (*kernel.arg_names, "num_warps")}
        last = -(-d // table["BLOCK_C"]) if constants.get("MOVED") else 1
        if not (n and k):
            return
        grid = -(-n // table["BLOCK_N"]), k, last
        card.launch(kernel, grid, x, y, *arrays, n, m, d, PRODUCTS=products, **constants)


def usable(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the kernels can be compiled for the card where points x (k, n, d) are, and are right there."""
    return card.takes_kernels(x) and _agree(x.device, dtype, x.shape[-1] > DIFFERENCES)


@cache
def _agree(device: torch.device, dtype: torch.dtype, products: bool) -> bool:
    """Whether the kernels agree with PyTorch's operators on a small problem: asked once in a process."""
    n, m, d = 70, 150, 20 if products else 3
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, rows, d, generator=generator, dtype=torch.float64).to(device) for rows in (n, m))
    a, b = (x.new_full((1, rows), 1 / rows) for rows in (n, m))
    clouds, h = Clouds(x, y, a, b, x.new_ones(1)), y.sum(-1)

    def error() -> float:
        found, expected = (_pass(kind(clouds, (1.0, 1.0), dtype), h) for kind in (TritonPasses, TorchPasses))
        return max(float((one - two).abs().max() / two.abs().max()) for one, two in zip(found, expected, strict=True))

    return card.agree("Sinkhorn's passes", device, error, 1000 * torch.finfo(dtype).eps * d)


def _pass(passes: TorchPasses, h: Tensor) -> list[Any]:
    """A pass and its gradients."""
    F, c = passes.sweep(h)
    return [F, c, *passes.gradients(h, F, (True, True))]
