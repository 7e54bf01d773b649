"""Every public function on a graphics card, or on a stand-in where there is none: results, launches and waits."""

from __future__ import annotations

import pytest
import torch
from device_rows import PLAIN, ROWS, Row
from standin_device import StandInDevice
from test_transforms import ROWS as DIFFERENTIABLE
from torch import Tensor

from otdist import exact, sinkhorn

# Launches and synchronisations that value and gradients of a row may take: as measured, rounded up by a tenth at most.
BUDGETS = {
    "gaussian.w2_squared": (130, 3),
    "gaussian.w2_squared, batch": (130, 3),
    "gaussian.w2_squared, singular": (240, 13),
    "gaussian.w2": (145, 3),
    "gaussian.entropic_cost": (80, 5),
    "gaussian.sinkhorn_divergence": (195, 15),
    "gaussian.transport_map": (410, 12),
    "gaussian.geodesic": (240, 7),
    "gaussian.pairwise_w2_squared": (140, 3),
    "gaussian.mixture_w2_squared": (145, 10),
    "gaussian.fit": (27, 0),
    "gaussian.barycenter": (280, 33),
    "gaussian.w2_squared_from_samples": (140, 3),
    "covariance.Diagonal": (130, 3),
    "covariance.Isotropic": (130, 3),
    "covariance.Factor": (65, 4),
    "covariance.Circulant": (140, 3),
    "covariance.Kronecker": (145, 3),
    "diagonal.w2_squared": (16, 2),
    "diagonal.w2": (38, 2),
    "diagonal.pairwise_w2_squared": (65, 0),
    "line.w2_squared": (92, 0),
    "line.w2_squared, weighted": (270, 0),
    "line.w2": (118, 0),
    "line.wp": (124, 0),
    "sliced.w2_squared": (350, 6),
    "sliced.w2_squared, batch": (340, 1),
    "sliced.w2_squared, weighted": (600, 1),
    "sliced.w2": (360, 6),
    "sliced.wp": (95, 6),
    "sliced.estimate": (550, 14),
    "sliced.max_w2_squared": (8500, 1236),
    "sliced.spherical_w2_squared": (330, 1),
    "exact.w2_squared": (13, 7),
    "exact.w2": (13, 7),
    "exact.wp": (13, 7),
    "sinkhorn.w2_squared": (1450, 19),
    "sinkhorn.w2_squared, float32": (1100, 9),
    "sinkhorn.w2_squared, batch": (3800, 31),
    "sinkhorn.w2_squared, small epsilon": (5800, 57),
    "sinkhorn.w2_squared, weighted": (1500, 19),
    "sinkhorn.w2_squared, unbalanced": (1400, 10),
    "sinkhorn.w2": (1450, 19),
    "sinkhorn.wp": (2100, 25),
    "sinkhorn.solve": (1450, 17),
    "inference.frechet_distance": (3300, 103),
    "otdist.w2_squared": (22, 0),
    "otdist.w2": (43, 0),
    "sinkhorn.solve().plan": (1400, 17),
    "sinkhorn.solve().apply": (1400, 17),
    "sinkhorn.solve().barycentric_map": (1450, 17),
    "sinkhorn.solve().map": (1450, 17),
    "sinkhorn.solve().bounds": (1550, 17),
    "sinkhorn.solve().transport_cost": (1350, 17),
    "sinkhorn.bracket": (4950, 44),
    "sinkhorn.barycenter": (36100, 465),
    "inference.two_sample_test": (37, 13),
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
    assert set(DIFFERENTIABLE) - covered == set()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")
@pytest.mark.parametrize("name", [*ROWS, *PLAIN])
def test_a_card_agrees_with_the_cpu(name):
    row = {**ROWS, **PLAIN}[name]
    expected = evaluate(row, tuple(z.clone() for z in row.inputs), name in ROWS)
    found = evaluate(row, tuple(z.cuda() for z in row.inputs), name in ROWS)
    assert_close(row, [z.cpu() for z in found], expected)


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
