"""Small Sinkhorn problems and sliced slopes by Triton's kernels, in its interpreter, against float64 formulas.

Run by `test_triton`, as `triton_interpreted` is.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from otdist.sinkhorn import torch_engine, torch_method, triton_small
from otdist.sinkhorn.numpy_engine import Limits
from otdist.sinkhorn.torch_passes import Clouds, TorchPasses
from otdist.sliced import estimator, triton_kernels, triton_match
from otdist.sliced.direction_sets import DirectionSet

CPU = torch.device("cpu")


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


# Sinkhorn


def pair_and_cloud(n: int, scale: float, dtype: torch.dtype = torch.float32) -> TorchPasses:
    """Two problems: of one cloud to another, which has a point without weight, and of a cloud with itself."""
    x, y, a = random(1, n, 3), 0.5 + random(1, n, 3), random(1, n)
    b = 1.5 - a
    b[0, n // 2] = 0.0
    a, b = a / a.sum(), b / b.sum()
    clouds = Clouds(torch.cat([x, y]), torch.cat([y, y]), torch.cat([a, b]), torch.cat([b, b]), x.new_full((2,), scale))
    return TorchPasses(clouds, (1.0, 1.0), dtype, own=torch.tensor([False, True]))


def marginal_errors(problem: TorchPasses, h: Tensor) -> list[float]:
    """‖P1 - a‖₁ + ‖Pᵀ1 - b‖₁ of both plans, dense in float64: the first's rows are right by construction."""
    costs = ((problem.x[:, :, None] - problem.y[:, None]) ** 2).sum(-1) * problem.scale[:, None, None]
    G = h + torch.log2(problem.b)
    F = -torch.logsumexp(math.log(2) * (G[:, None] - costs), -1) / math.log(2)
    F[1] = h[1]  # one potential for both sides
    plan = problem.a[..., None] * torch.exp2(F[..., None] + G[:, None] - costs)
    rows, columns = (plan.sum(2) - problem.a).abs().sum(1), (plan.sum(1) - problem.b).abs().sum(1)
    return (rows + columns).tolist()


@pytest.mark.parametrize(
    ("tile", "dtype", "tol"),
    [(triton_small.TILE, torch.float32, 1e-3), (2048, torch.float32, 1e-3), (triton_small.TILE, torch.float64, 1e-6)],
    ids=["one tile", "tiles", "float64"],
)
def test_each_problem_ends_where_its_marginals_are_right(monkeypatch, tile, dtype, tol):
    monkeypatch.setattr(triton_small, "TILE", tile)
    problem = pair_and_cloud(37, 30.0, dtype)
    h, passes = triton_small.advance(problem, tol, 1000, None, 0)
    assert max(marginal_errors(problem, h)) <= tol
    assert 4 < passes[1] < passes[0] < 1000  # the averaged iteration takes fewer, and does not wait
    # They end at the first that is right: half the passes leave more.
    h, taken = triton_small.advance(problem, tol, int(passes[1]) // 2, None, 0)
    assert taken.tolist() == [int(passes[1]) // 2] * 2
    assert min(marginal_errors(problem, h)) > tol


def test_no_more_passes_are_taken_than_asked_for_and_the_operators_go_on():
    problem, tol = pair_and_cloud(20, 40.0), 1e-3
    h, taken = triton_small.advance(problem, tol, 3, None, 0)
    assert taken.tolist() == [3, 3]
    found = torch_method.epsilon_scaling(problem, tol, 200, h, 0, 1, taken)
    assert float(found.error.max()) <= tol
    assert max(marginal_errors(problem, found.h)) <= 2 * tol  # of the cloud with itself: the mean of h and F
    assert int(found.passes.min()) > 3


def test_a_launch_ends_where_potentials_have_gone_too_far_and_the_next_absorbs_them(monkeypatch):
    problem, tol, passes = pair_and_cloud(16, 6.0), 1e-3, torch.zeros(2, dtype=torch.int32)
    start = 60.0 * torch.arange(16.0, dtype=torch.float64).expand(2, -1) / 15
    change = triton_small.iterate(problem, start, tol, 500, passes)
    assert passes.tolist() == [1, 1]
    assert float(change.abs().amax(1).min()) > problem.trust
    monkeypatch.setattr(triton_small, "LAUNCHES", 3)
    h, _ = triton_small.advance(problem, tol, 500, start, 0)
    assert max(marginal_errors(problem, h)) <= tol


def test_a_launch_takes_no_more_than_its_passes(monkeypatch):
    monkeypatch.setattr(triton_small, "PASSES", 2)
    _, taken = triton_small.advance(pair_and_cloud(16, 30.0), 1e-3, 500, None, 0)
    assert taken.tolist() == [2 * triton_small.LAUNCHES] * 2


@pytest.mark.parametrize(
    ("epsilon", "tol", "single"),
    [(0.3, 1e-3, True), (0.002, 1e-3, False), (0.3, 1e-9, False)],
    ids=["float32", "stages", "float64"],
)
def test_a_divergence_of_small_clouds_is_that_of_the_operators(monkeypatch, epsilon, tol, single):
    x, y, a, b = random(2, 12, 3), random(2, 17, 3) + 0.2, random(2, 12), random(2, 17)
    results: list[Any] = []
    launches: list[int] = []
    iterate = triton_small.iterate
    monkeypatch.setattr(triton_small, "PASSES", 8)  # not enough where there are stages
    monkeypatch.setattr(triton_small, "iterate", lambda *z: launches.append(1) or iterate(*z))
    for usable in (False, True):
        monkeypatch.setattr(triton_small, "usable", lambda problem, usable=usable: usable)
        flat = torch_engine.flatten(x, y, a, b)
        limits = Limits(epsilon, tol, 1000, (1.0, 1.0))
        results.append(torch_engine.solve(*flat, limits, single=single, points=(True, True), debias=True))
    assert launches
    for one, two in zip(*results, strict=True):
        assert float(two.error.max()) <= tol
        for name in ("value", "grad_x", "grad_y"):
            ours, theirs = getattr(two, name), getattr(one, name)
            assert (ours is None) == (theirs is None)
            if ours is not None:  # both are within tol of the solution, in units of the costs, which are below 5
                assert (ours - theirs).abs().max() <= 4 * 5 * tol, name


def test_agreement_is_asked_of_the_kernel_of_small_problems(monkeypatch, caplog):
    assert all(triton_small._agrees.__wrapped__(CPU, dtype) for dtype in (torch.float32, torch.float64))
    monkeypatch.setattr(triton_small, "iterate", lambda problem, h, *limits: 0 * h)
    assert not triton_small._agrees.__wrapped__(CPU, torch.float64)
    assert "are wrong on cpu" in caplog.text


# Sliced


def slopes_of(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Costs and slopes of rows (l, n), written out: tied projections share their mean."""
    gap, n = x.sort(-1).values - y.sort(-1).values, x.shape[1]
    slopes = []
    for own, sign in ((x, 1), (y, -1)):
        ascending = own.sort(-1).values
        same = ascending[:, :, None] == ascending[:, None]
        mean = (same * gap[:, None]).sum(-1) / same.sum(-1)
        place = (own[:, :, None] > own[:, None]).sum(-1)  # of the first that is as large
        slopes.append(sign * 2 / n * mean.gather(1, place))
    return (gap * gap).mean(-1), *slopes


def rows(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Projections without ties, with many small groups of them, and with one that goes over blocks."""
    x, y = (random(3, n + k).to(dtype)[:, :n].clone() for k in (0, 1))
    x[1], y[1] = (x[1] * 9).floor(), (y[1] * n / 2).floor()
    x[2, n // 4 : 3 * n // 4 + 1] = 0.5
    return x, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "block"), [(1, 512), (90, 32), (90, 512)])
def test_slopes_are_those_of_the_sorted_projections(monkeypatch, n, block, dtype):
    monkeypatch.setattr(triton_kernels, "BLOCK", block)
    x, y = rows(n, dtype)
    cost, *found = triton_match.match(x[None], y[None])
    expected = slopes_of(x.double(), y.double())
    eps = torch.finfo(dtype).eps
    largest = float((x.abs().amax() + y.abs().amax()).double())
    assert (cost[0] - expected[0]).abs().max() <= 4 * eps * largest**2
    for ours, theirs in zip(found, expected[1:], strict=True):
        assert ours.dtype == dtype
        assert (ours[0] - theirs).abs().max() <= 4 * eps * largest / n
    assert all(map(torch.equal, triton_match.match(x[None], y[None])[1:], found))  # in every run


def test_tied_points_have_the_same_slope_to_the_last_bit(monkeypatch):
    monkeypatch.setattr(triton_kernels, "BLOCK", 32)
    x, y = rows(90, torch.float32)
    _, by_x, _ = triton_match.match(x[None], y[None])
    assert len(by_x[0, 2][x[2] == 0.5].unique()) == 1


def test_only_a_direction_that_is_not_finite_has_no_slopes():
    x, y = rows(20, torch.float64)
    x[0, 3], y[1, 4] = math.nan, math.inf
    cost, by_x, by_y = triton_match.match(x[None], y[None])
    assert cost[0].isfinite().tolist() == [False, False, True]
    for slopes in (by_x, by_y):
        assert slopes[0].isnan().all(-1).tolist() == [True, True, False]
        assert slopes[0, 2].isfinite().all()


def test_the_sliced_distance_is_that_of_the_operators(monkeypatch):
    x, y, none = random(2, 40, 3), 0.2 + random(2, 41, 3)[:, 1:], random(2, 0)
    directions = DirectionSet(torch.nn.functional.normalize(random(1, 4, 3) - 0.5, dim=-1).numpy(), False)
    asked, found = [], []
    for usable in (True, False):
        monkeypatch.setattr(triton_match, "usable", lambda z, usable=usable: asked.append(1) or usable)
        found.append(estimator.estimate((x, y, none, none), directions, (True, True, False, False, True)))
    assert len(asked) == 2
    for ours, theirs in zip((found[0].value, *found[0].grads), (found[1].value, *found[1].grads), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15, equal_nan=True)


def test_agreement_is_asked_of_the_sliced_kernel(monkeypatch, caplog):
    assert all(triton_match._agrees.__wrapped__(CPU, dtype) for dtype in (torch.float32, torch.float64))
    match = triton_match.match

    def without_ties(x, y):
        """Each point as if no other had its projection."""
        (low, from_x), (high, from_y) = x.sort(stable=True), y.sort(stable=True)
        slope = 2 / x.shape[-1] * (low - high)
        sides = (torch.empty_like(x).scatter_(-1, p, z) for p, z in ((from_x, slope), (from_y, -slope)))
        return match(x, y)[0], *sides

    monkeypatch.setattr(triton_match, "match", without_ties)
    assert not triton_match._agrees.__wrapped__(CPU, torch.float32)
    assert "are wrong on cpu" in caplog.text
