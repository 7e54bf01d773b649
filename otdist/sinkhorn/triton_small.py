"""Small Sinkhorn problems on a card: each is iterated to its end by one block of threads, and nobody waits.

A pass of `torch_method` over clouds of some hundred points is a dozen launches, and a dozen times longer than what they
compute. Here a launch is plain Sinkhorn's method on the kernel that `TorchPasses` absorbs, for all problems of a batch,
each until its marginals are right. It takes more passes than with acceleration, but much cheaper ones.

What it finds is only where `torch_method` starts: that measures the marginals by PyTorch's operators, as ever, and goes
on where they are not right, because the plain method is slow or because the potentials have moved too far.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .._core import card
from .constants import ANNEAL_FACTOR, ANNEAL_TOL, SYMMETRIC_STEP
from .torch_method import measure
from .torch_passes import Clouds, TorchPasses

# Points of a cloud, at most: the vectors of a problem stay in registers, its kernel (1 or 2 MiB) near.
POINTS = 512
# Bytes of the kernel that a program holds at a time, and its warps.
TILE, WARPS = 2**15, 8
# Launches for each ε, of so many passes at most: each absorbs what has changed.
LAUNCHES, PASSES = 2, 500
# A marginal is measured here in another order than there: a share of the tolerance is left for that.
SHARE = 0.9


def usable(problem: TorchPasses) -> bool:
    """Whether these are balanced problems, small enough, on a card where the kernel is right."""
    small = max(problem.a.shape[1], problem.b.shape[1]) <= POINTS and problem.keeps
    if problem.dampings != (1.0, 1.0) or not small or type(problem) is not TorchPasses:
        return False
    return card.takes_kernels(problem.x) and _agrees(problem.x.device, problem.dtype)


def advance(problem: TorchPasses, tol: float, max_iter: int, h: Tensor | None, n_stages: int) -> tuple[Tensor, Tensor]:
    """Potentials to go on from, and the passes taken (k,): from h, or as `epsilon_scaling` starts without."""
    passes = torch.zeros_like(problem.product_mass, dtype=torch.int32)
    if h is None:
        problem.rescale(ANNEAL_FACTOR**-n_stages)
        h = problem.gaussian_start()
    else:
        n_stages = 0
    for stage in range(n_stages + 1):
        wanted = tol if stage == n_stages else max(ANNEAL_TOL, tol)
        for _ in range(LAUNCHES):
            h = h + iterate(problem, h, SHARE * wanted, max_iter, passes)
        if stage < n_stages:
            h = h * ANNEAL_FACTOR
            problem.rescale(ANNEAL_FACTOR)
    problem.kernel = None
    return h, passes.long()


def iterate(problem: TorchPasses, h: Tensor, tol: float, max_iter: int, passes: Tensor) -> Tensor:
    """What one launch adds to the potentials h (k, m), in float64; `passes` (k,) are counted up."""
    from .triton_kernels import scalings

    problem.absorb(h)
    (k, n), m = problem.a.shape, problem.b.shape[1]
    own, apart = torch.zeros_like(passes), torch.zeros_like(h)
    if problem.own is not False:  # n = m
        own, apart = own + problem.own, problem.shift - h
    arrays = [z.to(problem.dtype).contiguous() for z in (problem.a, problem.b, apart)]
    change, sums = torch.zeros_like(arrays[1]), torch.empty_like(arrays[0])
    if not k:
        return change.double()
    sizes = {**tile(n, m, problem.double), "SHARE": SYMMETRIC_STEP, "num_warps": WARPS}
    limits = min(max_iter, 1 << 30), PASSES, tol, problem.trust, problem.farthest
    card.launch(scalings, (k,), problem.kernel, *arrays, own, change, passes, sums, n, m, *limits, **sizes)
    return change.double()


def tile(n: int, m: int, double: bool) -> dict[str, int]:
    """What a program holds of a kernel (n, m) at a time: powers of two."""
    columns, size = 1 << (m - 1).bit_length(), 8 if double else 4
    return {"ROWS": max(1, min(1 << (n - 1).bit_length(), TILE // (size * columns))), "COLUMNS": columns}


@cache
def _agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch's operators find the marginals right where the kernel has stopped, of one problem and of one of a
    cloud with itself: asked once in a process."""
    n, d, tol = 70, 3, 1e-3
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, n, d, generator=generator, dtype=torch.float64).to(device) for _ in "xy")
    w = x.new_full((2, n), 1 / n)
    own = torch.arange(2, device=device) > 0
    clouds = Clouds(torch.cat([x, x]), torch.cat([y, x]), w, w, x.new_full((2,), 5.0))
    problem = TorchPasses(clouds, (1.0, 1.0), dtype, own=own)

    def error() -> float:
        h, _ = advance(problem, tol, 1000, None, 0)
        F, c = problem.sweep(h)
        return float(measure(problem, h, F, c)[0].amax())

    return card.agree("small Sinkhorn problems", device, error, tol)
