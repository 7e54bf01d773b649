"""The Triton kernels in Triton's interpreter, on the CPU, against the dense formula in float64.

Run by `test_triton` in a process of its own: whether Triton interprets or compiles is decided when it is imported.
"""

from __future__ import annotations

import math

import pytest
import torch
import triton
from torch import Tensor

from otdist.sinkhorn import triton_kernels

LN2 = math.log(2)
SHAPES = {"ragged tiles": (37, 300, 3), "one point": (1, 1, 1), "more than a tile": (70, 65, 40), "wide": (5, 130, 70)}


def problems(n: int, m: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Two problems x (2, n, d), y (2, m, d) and G (2, m), exact in dtype; a point without weight if there are more."""
    generator = torch.Generator().manual_seed(n + m + d)
    x, y, G = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((2, n, d), (2, m, d), (2, m)))
    if m > 1:
        G[0, m // 2] = -math.inf
    return x, y, G


def dense_scores(x: Tensor, y: Tensor, G: Tensor, products: bool) -> Tensor:
    """The scores, (2, n, m), in float64."""
    x, y, G = x.double(), y.double(), G.double()
    return G[:, None] + (x @ y.mT if products else -((x[:, :, None] - y[:, None]) ** 2).sum(-1))


def rounding_of_scores(x: Tensor, y: Tensor, G: Tensor) -> float:
    """A bound on the error of a score: d + 1 additions in dtype of terms whose sizes add up to at most `largest`."""
    eps, (x, y) = torch.finfo(x.dtype).eps, (x.double(), y.double())
    largest = G[G > -math.inf].abs().max().double() + 2 * ((x * x).sum(-1).max() + (y * y).sum(-1).max())
    return float(2 * (x.shape[-1] + 2) * eps * largest)


def launch(kernel, x: Tensor, y: Tensor, arrays: tuple[Tensor, ...], products: bool, **constants) -> None:
    (k, n, d), m = x.shape, y.shape[1]
    tiles = triton_kernels.tiles(products, x.dtype == torch.float64, d)
    tiles = {name: tiles[name] for name in tiles if name in kernel.arg_names}
    grid = (triton.cdiv(n, tiles["BLOCK_N"]), k, triton.cdiv(d, tiles.get("BLOCK_C", d)))
    kernel[grid](x, y, *arrays, n, m, d, PRODUCTS=products, **constants, **tiles)


every_kind = pytest.mark.parametrize(
    ("shape", "dtype", "products"),
    [(shape, dtype, products) for shape in SHAPES for dtype in (torch.float32, torch.float64) for products in (0, 1)],
)


@every_kind
def test_softmin_is_the_log_of_the_dense_sum(shape, dtype, products):
    x, y, G = problems(*SHAPES[shape], dtype)
    out = torch.full(x.shape[:2], math.nan, dtype=torch.float64)
    launch(triton_kernels.softmin, x, y, (G, out), bool(products))
    expected = torch.logsumexp(LN2 * dense_scores(x, y, G, bool(products)), -1) / LN2
    bound = rounding_of_scores(x, y, G) + 8 * torch.finfo(dtype).eps  # of the sum within a tile: its depth, over ln 2
    assert (out - expected).abs().max() <= bound


@every_kind
def test_c_transform_is_the_largest_score(shape, dtype, products):
    x, y, G = problems(*SHAPES[shape], dtype)
    out = torch.full(x.shape[:2], math.nan, dtype=dtype)
    launch(triton_kernels.c_transform, x, y, (G, out), bool(products))
    expected = dense_scores(x, y, G, bool(products)).amax(-1)
    assert (out.double() - expected).abs().max() <= rounding_of_scores(x, y, G)


@every_kind
def test_plan_sums_are_those_of_the_dense_plan(shape, dtype, products):
    x, y, G = problems(*SHAPES[shape], dtype)
    scores = dense_scores(x, y, G, bool(products))
    E = (-torch.logsumexp(LN2 * scores, -1) / LN2).to(dtype)
    mass, moved = torch.full(E.shape, math.nan, dtype=torch.float64), torch.full(x.shape, math.nan, dtype=dtype)
    launch(triton_kernels.plan_sums, x, y, (E, G, mass, moved), bool(products), MOVED=True)
    plan = torch.exp2(scores + E.double()[..., None])  # rows have mass 1, but for the rounding of E
    eps = torch.finfo(dtype).eps
    relative = LN2 * (rounding_of_scores(x, y, G) + 2 * eps * float(E.abs().max())) + (x.shape[1] + y.shape[1]) * eps
    assert (mass - plan.sum(-1)).abs().max() <= 2 * relative
    assert (moved.double() - plan @ y.double()).abs().max() <= 2 * relative * float(y.abs().max())


def test_sums_are_the_same_in_every_run():
    x, y, G = problems(37, 300, 3, torch.float32)
    runs = []
    for _ in range(2):
        mass, moved = torch.empty(x.shape[:2], dtype=torch.float64), torch.empty_like(x)
        launch(triton_kernels.plan_sums, x, y, (G.new_zeros(x.shape[:2]), G, mass, moved), False, MOVED=True)
        runs.append((mass, moved))
    assert all(map(torch.equal, *runs))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's; a card is silent
def test_a_row_without_any_mass_and_nan():
    x, y, G = problems(3, 5, 2, torch.float64)
    out = torch.empty(2, 3, dtype=torch.float64)
    launch(triton_kernels.softmin, x, y, (torch.full_like(G, -math.inf), out), False)
    assert (out == -math.inf).all()
    x[0, 1] = math.nan
    launch(triton_kernels.softmin, x, y, (G, out), False)
    assert out.isnan().nonzero().tolist() == [[0, 1]]
