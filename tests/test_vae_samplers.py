"""The densities that codes are drawn from: their moments, their log-density, which is chosen, and as tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from vae_small import fitted, labels, table

from otdist_vae import priors, samplers


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_clusters(n=2000, seed=0):
    codes = normal(n, 3, seed) * torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64)
    codes[: n // 2, 0] += 8
    return codes[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]


def draw(name, n, codes, classes=None, n_classes=0):
    rng = torch.Generator().manual_seed(3)
    densities = samplers.fit(codes, classes, n_classes, seed=0)
    wanted = None if classes is None else torch.arange(n) % n_classes
    return samplers.draw(name, n, wanted, fitted=densities, prior=priors.Normal(), latent_dim=codes.shape[1], rng=rng)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_fitted_densities_have_the_moments_of_the_codes(name):
    n, codes = 20_000, two_clusters()
    drawn = draw(name, n, codes).double()
    assert drawn.shape == (n, 3)
    # five standard errors, of the draw and of the 2000 codes
    error = 5 * codes.std(0) * (1 / n + 1 / 2000) ** 0.5
    assert (abs(drawn.mean(0) - codes.mean(0)) < error).all()
    assert (abs(drawn.T.cov() - codes.T.cov()) < 5 * codes.var(0).max() * (3 / n + 3 / 2000) ** 0.5).all()


def test_bic_finds_the_number_of_clusters():
    mixture = samplers.fit(two_clusters(), None, 0, seed=0)["mixture"][0]
    assert len(mixture.weights) == 2
    assert len(samplers.fit(normal(2000, 3), None, 0, seed=0)["mixture"][0].weights) == 1


def test_the_log_density_is_that_of_torch():
    roots = torch.eye(3).double() + 0.3 * normal(6, 3).reshape(2, 3, 3)
    weights, means, covs = torch.tensor([0.2, 0.8], dtype=torch.float64), normal(2, 3), roots @ roots.mT
    z = normal(7, 3, 1)
    theirs = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covs))
    # eps times the condition of the covariances
    torch.testing.assert_close(
        samplers.GaussianMixture(weights, means, covs).log_prob(z), theirs.log_prob(z), rtol=1e-10, atol=1e-10
    )


def test_bic_is_scikit_learns():
    codes = two_clusters(500)
    theirs = GaussianMixture(2, random_state=0).fit(codes.numpy())
    ours = samplers.GaussianMixture(*map(torch.from_numpy, (theirs.weights_, theirs.means_, theirs.covariances_)))
    assert ours.bic(codes) == pytest.approx(theirs.bic(codes.numpy()), rel=1e-9)


def test_gaussian_of_singular_codes():
    line = (normal(50, 1) @ torch.ones(1, 4).double()).float()
    drawn = draw("gaussian", 9, line)
    torch.testing.assert_close(drawn, drawn[:, :1].expand(-1, 4), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="at least 2 codes"):
        draw("gaussian", 9, line[:1])


def test_each_class_has_its_density():
    classes = torch.arange(300) % 3
    codes = normal(300, 2) + 20 * classes[:, None]
    for name in ("gaussian", "mixture"):
        drawn = draw(name, 300, codes, classes, 3)
        assert torch.equal((drawn.mean(1) / 20).round().long(), classes)


def test_a_small_class_borrows_the_covariance_of_the_others():
    classes = torch.tensor([0] * 400 + [1])
    codes = torch.cat([normal(400, 2), torch.full((1, 2), 50.0).double()])
    density = samplers.fit(codes, classes, 2, seed=0)["gaussian"][1]
    assert density.means.tolist() == [[50, 50]]
    # d observations of the covariance within classes, one example of its own: all of it, up to the 400's own error
    torch.testing.assert_close(density.covs[0], torch.eye(2).double(), atol=5 * (2 / 400) ** 0.5, rtol=0)


@pytest.mark.parametrize(
    ("codes", "name"),
    [(normal(3000, 4), "prior"), (3 * normal(3000, 4) + 1, "gaussian"), (two_clusters(3000), "mixture")],
    ids=["standard normal", "another Gaussian", "two clusters"],
)
def test_the_simplest_that_held_out_codes_prefer(codes, name):
    densities = samplers.fit(codes[:2000], None, 0, seed=0)
    choice = samplers.choose(densities, priors.Normal().double(), codes[2000:], None)
    assert choice.name == name
    assert set(choice.scores) == set(samplers.DENSITIES)
    assert f"codes from the {samplers.DENSITIES[name]}" in str(choice)


def test_the_scores_are_the_mean_log_densities():
    codes = normal(4000, 2)
    choice = samplers.choose(samplers.fit(codes, None, 0, seed=0), priors.Normal().double(), codes, None)
    entropy = 1 + math.log(2 * math.pi)  # of N(0, I) in two dimensions; each code's log-density has variance 1
    assert choice.scores["prior"] == pytest.approx(-entropy, abs=5 / 4000**0.5)
    assert choice.scores["gaussian"] >= choice.scores["prior"]  # the maximum of the likelihood on the same codes


def test_tensors_and_back():
    classes = torch.arange(60) % 2
    densities = samplers.fit(normal(60, 2), classes, 2, seed=0)
    again = samplers.from_tensors(samplers.to_tensors(densities), 2)
    for name, ones in densities.items():
        for mine, theirs in zip(ones, again[name], strict=True):
            assert all(torch.equal(getattr(mine, part), getattr(theirs, part)) for part in ("weights", "means", "covs"))


@pytest.mark.parametrize("y", [None, labels()])
@pytest.mark.parametrize("validation", [0.2, None])
def test_a_model_draws_from_what_it_says(y, validation):
    model = fitted("mmd", y=y, fit={"validation": validation})
    assert model.default_sampler == model.sampler_choice.name == model.report["sampler"]["name"]
    np.testing.assert_array_equal(model.sample(5), model.sample(5, sampler=model.default_sampler))
    np.testing.assert_array_equal(model.sample(5), model.sample(5, sampler="auto"))


def test_what_is_decoded_stays_in_the_range_of_the_data():
    x = table() * [1, 10, 100, 1, 1, 1] - [0, 5, 0, 0, 0, 0]
    model = fitted(x=x, max_epochs=1)
    far = 100 * np.random.default_rng(0).normal(size=(50, 2))
    for made in (model.decode(far), model.sample(50), model.reconstruct(x)):
        assert (made >= x.min(0).astype(np.float32)).all()
        assert (made <= x.max(0).astype(np.float32)).all()
    as_bytes = (255 * table().reshape(-1, 2, 3)).astype(np.uint8)
    far = fitted(x=as_bytes, max_epochs=1).decode(100 * np.ones((3, 2)))
    assert 0 <= far.min() <= far.max() <= 255
