"""Metrics that accumulate: whatever way the points come in, the number is that of all of them at once."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from otdist import gaussian, inference, metrics, sinkhorn, sliced

EPS = np.finfo(float).eps

DISTANCES = {
    "frechet": (metrics.FrechetDistance, gaussian.w2_squared_from_samples),
    "frechet, points": (partial(metrics.FrechetDistance, keep="points"), gaussian.w2_squared_from_samples),
    "corrected": (
        partial(metrics.FrechetDistance, correction="extrapolate"),
        partial(inference.frechet_distance, correction="extrapolate"),
    ),
    "sliced": (metrics.SlicedDistance, partial(sliced.w2_squared, rng=0)),
    "sinkhorn": (partial(metrics.SinkhornDivergence, epsilon=0.5), partial(sinkhorn.w2_squared, epsilon=0.5)),
    "test": (
        partial(metrics.TwoSampleTest, n_permutations=19),
        partial(inference.two_sample_test, n_permutations=19, rng=0),
    ),
}
every_metric = pytest.mark.parametrize("name", DISTANCES)


def samples(seed=0, n=90, m=70, d=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 1.5 * rng.standard_normal((m, d)) + 0.5


def feed(metric, x, y, sizes=(40, 0, 7, 100)):
    """Uneven batches, an empty one among them, the two sides in turns."""
    cuts = np.cumsum(sizes)
    for a, b in zip(np.split(x, cuts), np.split(y, cuts), strict=True):
        metric.update(a, real=True)
        metric.update(b, real=False)
    return metric


def close(found, expected):
    # Moments of n points differ from those of batches by n eps, relative to the scale of squares, here below 10.
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1000 * EPS, atol=1000 * EPS)


@every_metric
def test_batches_give_what_all_points_give(name):
    make, distance = DISTANCES[name]
    x, y = samples()
    close(feed(make(), x, y).compute(), distance(x, y))


@every_metric
def test_merging_is_seeing_both(name):
    make, distance = DISTANCES[name]
    x, y = samples(1)
    first, second = feed(make(), x[:50], y[:20]), feed(make(), x[50:], y[20:])
    first.merge(second)
    close(first.compute(), distance(x, y))
    close(feed(make(), x, y).compute(), first.compute())
    first.merge(make())  # nothing seen changes nothing
    close(first.compute(), distance(x, y))


@every_metric
def test_a_state_can_be_taken_over(name):
    make, distance = DISTANCES[name]
    x, y = samples(2)
    state = feed(make(), x, y).state_dict()
    assert set(state) == {"real", "fake"}
    other = feed(make(), y, x)
    other.load_state_dict({k: v.copy() for k, v in state.items()})
    close(other.compute(), distance(x, y))
    with pytest.raises(ValueError, match="must have the keys real and fake; got mean too"):
        other.load_state_dict({"mean": state["real"]})


@every_metric
def test_one_side_can_be_forgotten(name):
    make, distance = DISTANCES[name]
    x, y = samples(3)
    metric = feed(make(), x, x)
    metric.reset(real=False)
    metric.update(y, real=False)
    close(metric.compute(), distance(x, y))
    metric.reset()
    assert metric.state_dict() == {}
    with pytest.raises(ValueError, match=r"the real side has seen no points; call update\(points, real=True\) first"):
        metric.compute()


@every_metric
def test_tensors_give_what_arrays_give(name):
    make, _ = DISTANCES[name]
    x, y = samples(4)
    ours = feed(make(), x, y).compute()
    metric = make()
    for k in range(0, 90, 30):
        metric.update(torch.tensor(x[k : k + 30], requires_grad=True), True)
        metric.update(torch.tensor(y[k : k + 30]), False)
    np.testing.assert_allclose(np.asarray(metric.compute()), np.asarray(ours), rtol=1e-9)


@every_metric
def test_as_a_metric_of_torchmetrics(name):
    make, distance = DISTANCES[name]
    x, y = map(torch.tensor, samples(5))
    wrapped = metrics.to_torchmetrics(make())
    assert type(wrapped).__name__ == type(make()).__name__
    for k in range(0, 90, 45):
        wrapped.update(x[k : k + 45], real=True)
        wrapped.update(y[k : k + 45], real=False)
    found, expected = wrapped.compute(), distance(x, y)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-9)
    wrapped.reset()
    wrapped.update(x, real=True)
    wrapped.update(x, real=False)
    assert float(np.asarray(wrapped.compute()).ravel()[0]) == pytest.approx(0, abs=1e-3)


def test_what_was_given_is_copied():
    x, y = samples(6)
    metric = metrics.SlicedDistance()
    batch = x.copy()
    metric.update(batch, True)
    batch[:] = 0
    metric.update(y, False)
    close(metric.compute(), sliced.w2_squared(x, y, rng=0))


def test_the_interval_is_that_of_the_delta_method():
    x, y = samples(7)
    metric = feed(metrics.FrechetDistance(keep="points"), x, y)
    expected = inference.confidence_interval(x, y, distance=gaussian.w2_squared_from_samples, method="delta", level=0.9)
    close(metric.interval(0.9), expected)
    with pytest.raises(ValueError, match="an interval needs the points: make the metric with keep='points'"):
        feed(metrics.FrechetDistance(), x, y).interval()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.update(np.zeros(3), True), ValueError, r"points must have shape \(n, d\); got \(3,\)"),
        (lambda m: m.update(np.full((2, 3), np.nan), True), ValueError, "points must be finite"),
        (lambda m: m.update(np.zeros((2, 4)), True), ValueError, "must agree in the number of coordinates"),
        (lambda m: m.update(torch.zeros(2, 3), True), TypeError, "pass both as the same type"),
        (lambda m: m.merge(metrics.TwoSampleTest()), TypeError, "other must be a .* got TwoSampleTest"),
        (lambda m: metrics.FrechetDistance(correction="magic"), ValueError, "correction must be .* 'magic'"),
        (lambda m: metrics.FrechetDistance(keep="all"), ValueError, "keep must be 'moments' or 'points'; got 'all'"),
        (
            lambda m: metrics.FrechetDistance(correction="jackknife", keep="moments"),
            ValueError,
            "correction='jackknife' needs keep='points'",
        ),
    ],
)
@pytest.mark.parametrize("make", [metrics.FrechetDistance, metrics.SlicedDistance])
def test_refusals(make, call, error, message):
    metric = make()
    metric.update(samples()[0], True)
    before = metric.state_dict()["real"].copy()
    with pytest.raises(error, match=message):
        call(metric)
    np.testing.assert_array_equal(metric.state_dict()["real"], before)


@pytest.mark.parametrize("make", [metrics.FrechetDistance, metrics.SlicedDistance])
def test_sides_of_two_dimensions_are_refused_by_their_names(make):
    metric = make()
    metric.update(np.zeros((5, 2)), True)
    metric.update(np.zeros((5, 3)), False)
    with pytest.raises(ValueError, match="real and fake must agree in the number of coordinates; got 2 and 3"):
        metric.compute()


@pytest.mark.parametrize("make", [metrics.FrechetDistance, metrics.SlicedDistance])
def test_sides_of_two_libraries_are_refused_by_their_names(make):
    metric = make()
    metric.update(np.zeros((5, 2)), True)
    metric.update(torch.zeros(5, 2), False)
    with pytest.raises(TypeError, match=r"fake is a torch\.Tensor and real is a numpy\.ndarray"):
        metric.compute()


@pytest.mark.parametrize("make", [metrics.SlicedDistance, partial(metrics.SinkhornDivergence, epsilon=0.5)])
def test_the_result_has_the_dtype_of_the_points(make):
    """That to which the dtypes of all batches promote; half precision comes back as half precision."""
    x, y = samples()
    for one, two, expected in (
        (x.astype(np.float16), y.astype(np.float16), np.float16),
        (x.astype(np.float16), y.astype(np.float32), np.float32),
        (torch.tensor(x).bfloat16(), torch.tensor(y).bfloat16(), torch.bfloat16),
        (torch.tensor(x).bfloat16().requires_grad_(), torch.tensor(y).double(), torch.float64),
    ):
        metric = make()
        metric.update(one[:9], True)
        metric.update(one[9:], True)
        metric.update(two, False)
        assert metric.compute().dtype == expected


PROCESS = """
import sys
import numpy as np, torch
from torch import distributed
from otdist import metrics
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
rng = np.random.default_rng(0)
x, y = torch.tensor(rng.standard_normal((90, 3))), torch.tensor(rng.standard_normal((70, 3)) + 1)
for metric in (metrics.FrechetDistance(), metrics.SlicedDistance()):
    metric.update(x[:60] if rank == 0 else x[60:], True)  # uneven parts, and one process sees nothing of the fakes
    if rank == 0:
        metric.update(y, False)
    metric.sync()
    print(repr(float(metric.compute())))
distributed.destroy_process_group()
"""


def test_two_processes_see_what_one_sees(tmp_path):
    command = [sys.executable, "-c", PROCESS]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    found = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[0].split() for process in found]
    assert [process.returncode for process in found] == [0, 0]
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.standard_normal((90, 3))), torch.tensor(rng.standard_normal((70, 3)) + 1)
    for metric, *values in zip((metrics.FrechetDistance(), metrics.SlicedDistance()), *printed, strict=True):
        metric.update(x, True)
        metric.update(y, False)
        close([float(v) for v in values], [float(metric.compute())] * 2)
