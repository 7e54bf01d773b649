"""The Triton kernels in Triton's interpreter, on the CPU, against the dense formula in float64.

Run by `test_triton` in a process of its own: whether Triton interprets or compiles is decided when it is imported.
"""

from __future__ import annotations

import math

import pytest
import torch
import triton
from torch import Tensor

from otdist.sinkhorn import torch_engine, triton_kernels, triton_passes
from otdist.sinkhorn.numpy_engine import Limits

LN2 = math.log(2)
SHAPES = {"ragged tiles": (37, 300, 3), "one point": (1, 1, 1), "wide": (5, 70, 40)}


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
    largest = G[G.isfinite()].abs().max().double() + 2 * ((x * x).sum(-1).max() + (y * y).sum(-1).max())
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


PROBLEMS = {"d = 3": (9, 40, 3), "products": (9, 40, 12), "one point": (1, 5, 2)}


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("shape", PROBLEMS)
def test_a_divergence_is_that_of_the_operators(monkeypatch, shape, single):
    n, m, d = PROBLEMS[shape]
    generator = torch.Generator().manual_seed(n)
    x, y = (torch.rand(2, rows, d, generator=generator, dtype=torch.float64) for rows in (n, m))
    a, b = (torch.rand(2, rows, generator=generator, dtype=torch.float64) for rows in (n, m))
    b[1, -1] = 0.0
    tol = 1e-4 if single else 1e-9
    limits = Limits(0.3, tol, 1000, (1.0, 1.0))
    results = []
    for usable in (False, True):
        monkeypatch.setattr(torch_engine.triton_passes, "usable", lambda x, dtype, usable=usable: usable)
        monkeypatch.setattr(torch_engine, "TOGETHER", 0)
        flat = torch_engine.flatten(x, y, a, b)
        results.append(torch_engine.solve(*flat, limits, single=single, points=(True, True), debias=True))
    for one, two in zip(*results, strict=True):
        for name in ("value", "f", "g", "grad_x", "grad_y"):
            ours, theirs = getattr(one, name), getattr(two, name)
            assert (ours is None) == (theirs is None)
            if name in "fg":  # the constant between them is free
                ours, theirs = (z - z.mean(-1, keepdim=True) for z in (ours, theirs))
            if ours is not None:  # both are within tol of the solution, in units of the costs, which are below d
                assert (ours - theirs).abs().max() <= 4 * d * tol, name


def test_agreement_is_asked_of_the_kernels_themselves(monkeypatch, caplog):
    device = torch.device("cpu")
    for dtype in (torch.float32, torch.float64):
        for products in (False, True):
            assert triton_passes._agree.__wrapped__(device, dtype, products)
    monkeypatch.setattr(triton_passes.TritonPasses, "sweep", lambda self, h: (h[:, :70] * 0, h * 0))
    assert not triton_passes._agree.__wrapped__(device, torch.float64, False)
    assert "are wrong on cpu" in caplog.text


def test_a_compiler_that_fails_leaves_the_operators(monkeypatch, caplog):
    def fails(self, h):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(triton_passes.TritonPasses, "sweep", fails)
    assert not triton_passes._agree.__wrapped__(torch.device("cpu"), torch.float64, False)
    assert "no C compiler" in caplog.text
