"""Every public function on a graphics card, or on a stand-in where there is none: results, launches and waits."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from device_rows import PLAIN, ROWS, Row
from standin_device import StandInDevice
from test_transforms import ROWS as DIFFERENTIABLE
from torch import Tensor

from otdist import exact, gaussian, sinkhorn, sliced
from otdist.gaussian import triton_pairs
from otdist.sinkhorn import torch_engine, torch_passes, triton_passes, triton_small
from otdist.sliced import triton_match

# Launches and synchronisations that value and gradients of a row may take: as measured, rounded up; of what iterates a
# quarter more, for rounding decides when it stops.
BUDGETS = {
    "gaussian.w2_squared": (165, 1),
    "gaussian.w2_squared, batch": (165, 1),
    "gaussian.w2_squared, singular": (275, 10),
    "gaussian.w2": (180, 1),
    "gaussian.entropic_cost": (85, 3),
    "gaussian.sinkhorn_divergence": (200, 9),
    "gaussian.transport_map": (480, 8),
    "gaussian.geodesic": (280, 5),
    "gaussian.pairwise_w2_squared": (175, 1),
    "gaussian.mixture_w2_squared": (180, 8),
    "gaussian.fit": (27, 0),
    "gaussian.barycenter": (350, 39),
    "gaussian.barycenter, covariance": (340, 38),
    "gaussian.barycenter, wide": (1900, 27),
    "gaussian.barycenter, wide and singular": (305, 24),
    "gaussian.w2_squared_from_samples": (175, 1),
    "covariance.Diagonal": (165, 1),
    "covariance.Isotropic": (165, 1),
    "covariance.Factor": (65, 3),
    "covariance.Circulant": (175, 1),
    "covariance.Kronecker": (180, 1),
    "diagonal.w2_squared": (16, 2),
    "diagonal.w2": (38, 2),
    "diagonal.pairwise_w2_squared": (65, 0),
    "line.w2_squared": (90, 0),
    "line.w2_squared, weighted": (270, 0),
    "line.w2": (115, 0),
    "line.wp": (125, 0),
    "sliced.w2_squared": (265, 3),
    "sliced.w2_squared, batch": (260, 1),
    "sliced.w2_squared, weighted": (500, 1),
    "sliced.w2": (275, 3),
    "sliced.wp": (90, 3),
    "sliced.estimate": (450, 10),
    "sliced.max_w2_squared": (8250, 655),
    "sliced.spherical_w2_squared": (330, 1),
    "exact.w2_squared": (13, 7),
    "exact.w2": (13, 7),
    "exact.wp": (13, 7),
    "sinkhorn.w2_squared": (1800, 24),
    "sinkhorn.w2_squared, float32": (1350, 12),
    "sinkhorn.w2_squared, batch": (4750, 38),
    "sinkhorn.w2_squared, small epsilon": (7250, 72),
    "sinkhorn.w2_squared, weighted": (1850, 24),
    "sinkhorn.w2_squared, unbalanced": (1750, 13),
    "sinkhorn.w2": (1800, 24),
    "sinkhorn.wp": (2550, 29),
    "sinkhorn.solve": (1800, 22),
    "inference.frechet_distance": (4150, 21),
    "otdist.w2_squared": (22, 0),
    "otdist.pad_clouds": (15, 0),
    "otdist.w2": (43, 0),
    "sinkhorn.solve().plan": (1750, 22),
    "sinkhorn.solve().apply": (1750, 22),
    "sinkhorn.solve().barycentric_map": (1800, 22),
    "sinkhorn.solve().map": (1800, 22),
    "sinkhorn.solve().bounds": (1900, 22),
    "sinkhorn.solve().transport_cost": (1650, 22),
    "sinkhorn.bracket": (6200, 52),
    "sinkhorn.barycenter": (44200, 447),
    "inference.two_sample_test": (52, 10),
    "exact.plan": (9, 5),
}


def evaluate(row: Row, inputs: tuple[Tensor, ...], with_gradients: bool) -> list[Tensor]:
    """The value and the gradients by all inputs."""
    leaves = [z.requires_grad_(with_gradients and z.is_floating_point()) for z in inputs]
    value = row.function(*leaves)
    if not with_gradients:
        return [value]
    value.sum().backward()
    return [value.detach(), *(z.grad for z in leaves if z.grad is not None)]


def assert_close(row: Row, found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        largest = float(theirs.abs().max()) if theirs.numel() else 1.0
        torch.testing.assert_close(mine, theirs, rtol=0.0, atol=row.rtol * (largest + 1e-6))


@pytest.mark.parametrize("name", [*ROWS, *PLAIN])
def test_the_stand_in_agrees_with_the_cpu_within_its_budget(name):
    row = {**ROWS, **PLAIN}[name]
    expected = evaluate(row, tuple(z.clone() for z in row.inputs), name in ROWS)
    with StandInDevice() as device:
        inputs = tuple(device.put(z) for z in row.inputs)
        device.reset()
        found = evaluate(row, inputs, name in ROWS)
        launches, waits, by = device.launches, device.synchronisations, dict(device.waits)
        found = [z.cpu() for z in found]
    assert_close(row, found, expected)
    assert (launches <= BUDGETS[name][0], waits <= BUDGETS[name][1]) == (True, True), (launches, waits, by)


@pytest.mark.parametrize("kept", [True, False])
def test_sinkhorn_stays_within_its_memory(monkeypatch, kept):
    n, chunk = 500, 2**14
    monkeypatch.setattr(torch_engine, "TOGETHER", 0)
    monkeypatch.setattr(torch_passes, "CHUNK", chunk)
    monkeypatch.setattr(torch_passes, "KEPT", 8 * n * n if kept else 0)
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = sinkhorn.w2_squared(x, y, epsilon=0.5)
    with StandInDevice() as device:
        one, other = (device.put(z).requires_grad_() for z in (x, y))
        device.reset()
        value = sinkhorn.w2_squared(one, other, epsilon=0.5)
        value.backward()
        result = sinkhorn.solve(one.detach(), other.detach(), epsilon=0.5)
        result.bounds()
        result.apply(other.detach())
        assert float(value.detach()) == pytest.approx(float(expected), abs=1e-3)
        # A kernel if it fits, four blocks of scores, and what is linear: 40 vectors of 2 MEMORY, and points and slopes.
        linear = 8 * n * (2 * 11 + 40)
        assert device.bytes <= kept * 8 * n * n + 4 * 8 * chunk + linear


@pytest.mark.parametrize("function", [gaussian.w2_squared, sinkhorn.w2_squared])
def test_autocast_does_not_reach_inside(monkeypatch, function):
    entered = []
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "autocast", lambda kind, enabled: entered.append((kind, enabled)) or nullcontext())
    with StandInDevice() as device:
        if function is sinkhorn.w2_squared:
            function(device.put(torch.randn(5, 2)), device.put(torch.randn(5, 2)), epsilon=1.0)
        else:
            function(
                device.put(torch.ones(2)),
                device.put(torch.eye(2)),
                device.put(torch.ones(2)),
                2.0 * device.put(torch.eye(2)),
            )
    assert entered == [("cuda", False)]


def test_bounds_from_the_device_hold():
    x, y = (z.clone() for z in ROWS["sinkhorn.w2_squared"].inputs)
    truth = float(exact.w2_squared(x, y))
    with StandInDevice() as device:
        result = sinkhorn.solve(device.put(x), device.put(y), epsilon=2.0, tol=1e-1)
        found = sinkhorn.bracket(device.put(x), device.put(y), rel_tol=1e-3)
        ends = [float(z) for z in (*result.bounds(), found.lower, found.upper)]
    assert ends[0] <= ends[2] <= truth <= ends[3] <= ends[1]
    assert ends[3] - ends[2] <= 1e-3 * ends[3]


def test_no_differentiable_function_is_forgotten():
    covered = {name.partition(",")[0] for name in ROWS}
    assert {name.partition(",")[0] for name in DIFFERENTIABLE} - covered == set()


on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("name", [*ROWS, *PLAIN])
def test_a_card_agrees_with_the_cpu(name):
    row = {**ROWS, **PLAIN}[name]
    expected = evaluate(row, tuple(z.clone() for z in row.inputs), name in ROWS)
    found = evaluate(row, tuple(z.cuda() for z in row.inputs), name in ROWS)
    assert_close(row, [z.cpu() for z in found], expected)


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_card_uses_the_kernels(dtype):
    """Falling back on PyTorch's operators is silent but for a warning in the log."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("Triton's kernels need Ampere or newer")
    for d in (3, 20):
        x, w = torch.rand(1, 5, d, dtype=torch.float64).cuda(), torch.full((1, 5), 0.2, dtype=torch.float64).cuda()
        problem = torch_passes.TorchPasses(torch_passes.Clouds(x, x + 1, w, w, w[:, 0]), (1.0, 1.0), dtype)
        assert triton_passes.usable(x, dtype)
        assert triton_small.usable(problem)
        assert triton_match.usable(x.to(dtype))
        assert triton_pairs.usable(x.mT @ x)


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("d", [3, 20])
def test_large_problems_on_a_card_are_those_of_the_cpu_and_the_same_in_every_run(d):
    """Beyond 2^24 entries, where no matrix is stored; and projections in many blocks."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4500, d, generator=generator) + shift for shift in (0.0, 0.5))
    for function, options, rtol in (
        (sinkhorn.w2_squared, {"epsilon": 0.1 * d}, 5e-2),
        (sliced.w2_squared, {"rng": 0}, 1e-4),
    ):
        row = Row((x, y), lambda *z, function=function, options=options: function(*z, **options), rtol)
        expected = evaluate(row, (x.clone(), y.clone()), True)
        found, again = (evaluate(row, (x.cuda(), y.cuda()), True) for _ in range(2))
        assert_close(row, [z.cpu() for z in found], expected)
        assert all(map(torch.equal, found, again))


# The stand-in itself.


def test_the_stand_in_counts_launches_and_synchronisations():
    with StandInDevice() as device:
        x = device.put(torch.arange(6.0).reshape(2, 3))
        device.reset()
        y = x[1].reshape(3, 1).mT.expand(4, 3)  # views
        assert (device.launches, device.synchronisations) == (0, 0)
        assert float((y + 1).sum()) == 60.0
        assert (device.launches, device.synchronisations) == (3, 1)
        device.reset()
        assert bool((x > 4).any())
        assert x[x > 2].shape == (3,)
        assert x.sum().cpu() == 15
        assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert device.synchronisations == 4
        device.reset()
        torch.as_tensor(torch.ones(3).numpy(), device=x.device)
        torch.zeros(3, device=x.device)
        assert (device.launches, device.synchronisations) == (2, 1)


def test_the_stand_in_refuses_the_host():
    with StandInDevice() as device:
        x = device.put(torch.ones(3))
        assert x.is_cuda
        assert not x.is_cpu
        assert x.device.type == "cuda"
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3)
        with pytest.raises(TypeError, match="cuda"):
            x.numpy()
        assert (x + torch.tensor(1.0)).is_cuda
    with pytest.raises(RuntimeError, match="outside"):
        x + 1


def test_the_stand_in_knows_its_memory():
    with StandInDevice() as device:
        x = device.put(torch.ones(1000, dtype=torch.float64))
        device.reset()
        y = x + 1
        z = y[::2] * 1
        assert device.bytes == 12000
        del y, z
        device.reset()
        assert device.bytes == 0
