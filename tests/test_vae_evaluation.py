"""Metrics on clouds with known answers, and the likelihood of a model whose evidence has a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from vae_small import fitted, labels, table

from otdist_vae import evaluation

METRICS = {"mean squared error", "unexplained variance", *evaluation.DISTANCES}


def cloud(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_evaluate_puts_a_floor_beside_each_metric():
    x = table(200)
    model = fitted(x=x[:100], max_epochs=3)
    result = evaluation.evaluate(model, x[100:], reference=x[:100])
    assert set(result) == METRICS | {"log-likelihood"}
    assert all(np.isfinite(v["model"]) for v in result.values())
    assert result["precision"]["floor"] > 0.7
    assert result["1-NN accuracy"]["model"] > result["1-NN accuracy"]["floor"]
    again = evaluation.evaluate(model, x[100:], reference=x[:100])
    assert again == result
    assert evaluation.table(result).count("\n") == len(result) + 2


def test_features_are_used():
    model = fitted()
    result = evaluation.evaluate(model, table(), reference=table(), features=lambda x: np.zeros((len(x), 2)) + len(x))
    assert result["Fréchet distance"] == {"model": 0, "error": 0, "floor": 0, "floor error": 0}


def test_metrics_of_a_small_model_share_out_nothing():
    # more threads wait for each other; what was set before is set again
    seen, before = [], torch.get_num_threads()

    def spy(x):
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        seen.append((torch.get_num_threads(), blas))
        return x

    model = fitted()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            evaluation.evaluate(model, table(), reference=table(), features=spy)
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, {1})] * len(seen)
    assert seen


def test_classes_and_images():
    x = np.random.default_rng(0).random((40, 4, 4), dtype=np.float32)
    model = fitted("mmd", x=x, y=labels(40))
    result = evaluation.evaluate(model, x, labels(40), reference=x)
    assert "sharpness" in result
    assert "log-likelihood" not in result  # a deterministic posterior


def test_equal_clouds():
    x = cloud(50, 3)
    assert evaluation.precision(x, x) == evaluation.recall(x, x) == 1
    assert evaluation.frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_far_clouds():
    x, y = cloud(50, 3), cloud(50, 3, 1) + 100
    assert evaluation.precision(x, y) == evaluation.recall(x, y) == 0
    assert evaluation.nearest_neighbour_accuracy(x, y) == 1


def test_precision_and_recall_tell_missing_modes_from_strange_ones():
    x = np.concatenate([cloud(50, 2), cloud(50, 2, 1) + 50])
    half = cloud(100, 2, 2)
    assert evaluation.precision(x, half) > 0.9
    assert evaluation.recall(x, half) < 0.6


def test_mmd_is_without_units():
    x, y = cloud(50, 3), cloud(50, 3, 1) + 1
    assert evaluation.mmd_squared(1000 * x, 1000 * y) == pytest.approx(evaluation.mmd_squared(x, y), rel=1e-9)


def test_sharpness_of_a_point_and_of_a_plane():
    point = np.zeros((1, 5, 5))
    point[0, 2, 2] = 1
    laplacian = np.array([0, 1, 0, 1, -4, 1, 0, 1, 0])
    assert evaluation.sharpness(point) == pytest.approx(laplacian.var())
    rows, columns = np.mgrid[:6, :7]
    assert evaluation.sharpness((rows + 2 * columns)[None]) == pytest.approx(0, abs=1e-24)
    assert evaluation.sharpness(point[:, None]) == evaluation.sharpness(point)
    assert evaluation.sharpness(np.zeros((2, 2, 2))) == 0


def linear_gaussian():
    """A model with decoder x = W z + b and noise s: p(x) = N(b, W Wᵀ + s² I), in units stretched by the scaling."""
    torch.manual_seed(0)
    model = fitted(
        "kl",
        x=5 * table(300) - 1,
        scaling="standard",
        likelihood={"name": "gaussian", "scale": 0.5},
        posterior="full",
        encoder=torch.nn.Identity(),
        decoder=torch.nn.Linear(2, 6),
        max_epochs=30,
        fit={"learning_rate": 0.03},
    )
    network = model.network
    weight, bias = network.decoder.body.weight.detach().double(), network.decoder.body.bias.detach().double()
    scale, shift = network.scale.double(), network.shift.double()
    covariance = torch.diag(scale) @ (weight @ weight.T + 0.25 * torch.eye(6)) @ torch.diag(scale)
    return model, torch.distributions.MultivariateNormal(shift + scale * bias, covariance)


def test_importance_weighting_finds_the_evidence():
    with torch.random.fork_rng():
        model, truth = linear_gaussian()
    x = 5 * table(40, seed=1) - 1
    exact = truth.log_prob(torch.from_numpy(x).double()).numpy()
    few = evaluation.log_likelihood(model, x, n_samples=2)
    many = evaluation.log_likelihood(model, x, n_samples=2000)
    assert few.mean() < exact.mean()  # Jensen: from below
    # the fitted posterior is near the true one, so weights vary little and 2000 draws leave a few thousandths
    np.testing.assert_allclose(many, exact, atol=0.15)
    assert abs(many.mean() - exact.mean()) < 0.02


@pytest.mark.parametrize(
    ("x", "reference", "message"),
    [
        (table(5), table(), "at least 8 examples"),
        (table(20), table(20, 5), r"reference must have examples of x's shape, \(6,\); got \(5,\)"),
    ],
)
def test_refusals(x, reference, message):
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(fitted(), x, reference=reference)
