"""What type checkers make of calls: nothing here runs, see test_typing.py.

Each ignored error has to be there: mypy reports an ignore comment that ignores nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import otdist
from otdist import covariance, diagonal, exact, gaussian, inference, line, metrics, sinkhorn, sliced

if TYPE_CHECKING:
    import torch
    from typing_extensions import assert_type


def distances(x: np.ndarray, t: torch.Tensor, d: list[float], c: list[list[float]]) -> None:
    assert_type(line.w2_squared(x, x), np.ndarray)
    assert_type(line.w2_squared(t, t), "torch.Tensor")
    assert_type(line.w2_squared(d, d), np.ndarray)
    assert_type(line.w2(t, d, a=t), "torch.Tensor")
    assert_type(line.wp(x, x, p=3), np.ndarray)
    assert_type(diagonal.w2_squared(t, t, 0.0, 1), "torch.Tensor")
    assert_type(diagonal.w2(d, d), np.ndarray)
    assert_type(diagonal.pairwise_w2_squared(x, x, x, x), np.ndarray)
    assert_type(exact.w2_squared(t, t, d), "torch.Tensor")
    assert_type(exact.w2(x, c), np.ndarray)
    assert_type(exact.wp(t, t), "torch.Tensor")
    assert_type(exact.plan(t, t), "torch.Tensor")
    assert_type(exact.solve(x, x), exact.ExactTransport)
    assert_type(sliced.w2_squared(t, t, directions=t), "torch.Tensor")
    assert_type(sliced.w2_squared(x, x, directions=64, rng=np.random.default_rng(0)), np.ndarray)
    assert_type(sliced.w2(t, t, rng=0), "torch.Tensor")
    assert_type(sliced.wp(t, t, rng=torch.Generator()), "torch.Tensor")
    assert_type(sliced.spherical_w2_squared(t, t), "torch.Tensor")
    assert_type(sliced.directions(3, 2), np.ndarray)
    assert_type(sliced.directions(3, 2, like=t), "torch.Tensor")
    assert_type(sliced.estimate(x, x), sliced.Estimate)
    assert_type(sliced.max_w2_squared(x, x), sliced.MaxSliced)
    assert_type(sliced.barycenter([x, x]), sliced.Barycenter)
    assert_type(sinkhorn.w2_squared(t, t, epsilon=1.0), "torch.Tensor")
    assert_type(sinkhorn.w2(x, x, epsilon=1), np.ndarray)
    assert_type(sinkhorn.wp(t, t, epsilon=1), "torch.Tensor")
    assert_type(sinkhorn.solve(t, t, epsilon=1.0, init=(t, t)), sinkhorn.SinkhornResult)
    assert_type(sinkhorn.bracket(x, x), sinkhorn.Bracket)
    assert_type(sinkhorn.barycenter([t, t], epsilon=1.0, start=t), sinkhorn.Barycenter)
    assert_type(otdist.pad_clouds([t, t], [None, t]), "tuple[torch.Tensor, torch.Tensor]")
    assert_type(otdist.pad_clouds([c, c]), tuple[np.ndarray, np.ndarray])
    assert_type(inference.frechet_distance(t, t), "torch.Tensor")
    assert_type(inference.two_sample_test(x, x), inference.TestResult)
    assert_type(inference.confidence_interval(x, x, distance=line.w2), inference.Interval)


def gaussians(x: np.ndarray, t: torch.Tensor) -> None:
    structure = covariance.Kronecker(x, covariance.Isotropic(2.0, 3))
    assert_type(gaussian.w2_squared(x, x, x, structure), np.ndarray)
    assert_type(gaussian.w2_squared(t, covariance.Diagonal(t), t, covariance.Factor(t)), "torch.Tensor")
    assert_type(gaussian.w2(t, t, t, covariance.Circulant(t)), "torch.Tensor")
    assert_type(gaussian.pairwise_w2_squared(x, x, x, structure), np.ndarray)
    assert_type(gaussian.entropic_cost(t, t, t, t, epsilon=1.0), "torch.Tensor")
    assert_type(gaussian.sinkhorn_divergence(x, x, x, x, epsilon=1.0), np.ndarray)
    assert_type(gaussian.mixture_w2_squared(None, t, t, None, t, t), "torch.Tensor")
    assert_type(gaussian.mixture_plan(x, x, x, x, x, x), np.ndarray)
    assert_type(gaussian.mixture_map(x, x, x, x, x, x)(x), np.ndarray)
    assert_type(gaussian.transport_map(t, t, t, t)(t), "torch.Tensor")
    assert_type(gaussian.geodesic(t, t, t, t, 0.5), "tuple[torch.Tensor, torch.Tensor]")
    assert_type(gaussian.barycenter(x, x), gaussian.Barycenter)
    assert_type(gaussian.fit(x), tuple[np.ndarray, np.ndarray])
    assert_type(gaussian.w2_squared_from_samples(t, t), "torch.Tensor")


def gradients(x: np.ndarray) -> None:
    assert_type(line.w2_squared_and_grad(x, x)[1].x, np.ndarray)
    assert_type(line.w2_squared_and_grad(x, x, x)[1].a, np.ndarray | None)
    assert_type(diagonal.w2_squared_and_grad(x, x)[0], np.ndarray)
    assert_type(exact.w2_squared_and_grad(x, x)[1].y, np.ndarray)
    assert_type(sliced.w2_squared_and_grad(x, x)[1], sliced.Gradients)
    assert_type(sinkhorn.w2_squared_and_grad(x, x, epsilon=1.0)[1].x, np.ndarray)
    assert_type(gaussian.w2_squared_and_grad(x, x, x, x)[1].mean_x, np.ndarray)
    assert_type(gaussian.w2_squared_from_samples_and_grad(x, x)[1].x, np.ndarray)


def streams(x: np.ndarray, t: torch.Tensor) -> None:
    moments = gaussian.Moments()
    assert_type(moments.update(x), gaussian.Moments)
    for metric in (
        metrics.FrechetDistance(),
        metrics.SlicedDistance(directions=t, rng=None),
        metrics.SinkhornDivergence(epsilon=1.0),
        metrics.TwoSampleTest(distance=gaussian.w2_squared_from_samples),
    ):
        metric.update(x, real=True)
        metrics.to_torchmetrics(metric)
        metric.update("a", real=True)  # type: ignore[arg-type]


def distributions(q: torch.distributions.Normal, p: torch.distributions.Distribution, frozen: Any) -> None:
    assert_type(otdist.w2_squared(q, p), "torch.Tensor")
    assert_type(otdist.w2(p, q), "torch.Tensor")
    assert_type(otdist.w2(Drawn(), Drawn()), np.ndarray)
    otdist.w2_squared(frozen, frozen)
    otdist.w2_squared(p, Drawn())  # type: ignore[call-overload]
    otdist.w2_squared("a", p)  # type: ignore[call-overload]
    otdist.w2("a", "b")  # type: ignore[call-overload]
    otdist.register_w2(Drawn, Drawn)
    otdist.register_w2("a", Drawn)  # type: ignore[arg-type]
    assert_type(otdist.warm_up(), float)


class Drawn:
    """Distributions are known by their draws."""

    def rvs(self, size: int) -> np.ndarray:
        return np.zeros(size)


def refused(x: np.ndarray, t: torch.Tensor) -> None:
    line.w2_squared("a", x)  # type: ignore[type-var]
    line.w2_squared("a", "b")  # type: ignore[type-var]
    line.w2_squared(x, t)  # type: ignore[type-var]
    line.w2_squared([x, "a"], x)  # type: ignore[type-var]
    line.w2_squared_and_grad(t, x)  # type: ignore[arg-type]
    line.wp(x, x, p="2")  # type: ignore[arg-type]
    diagonal.w2_squared("a", x)  # type: ignore[type-var]
    gaussian.w2_squared(x, "a", x, x)  # type: ignore[type-var]
    gaussian.w2_squared(x, t, x, x)  # type: ignore[type-var]
    exact.w2_squared("a", x)  # type: ignore[type-var]
    sliced.w2_squared("a", x)  # type: ignore[type-var]
    sliced.w2_squared(x, x, rng="a")  # type: ignore[arg-type]
    sinkhorn.w2_squared("a", x, epsilon=1.0)  # type: ignore[type-var]
    sinkhorn.w2_squared(x, x)  # type: ignore[call-arg]
    covariance.Diagonal("a")  # type: ignore[arg-type]
    otdist.pad_clouds(["a", "b"])  # type: ignore[list-item]
    inference.two_sample_test("a", x)  # type: ignore[type-var]
