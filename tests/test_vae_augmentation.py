"""Augmentation keeps counts, classes and types; the fitted samplers follow the codes they were fitted to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vae_small import fitted, labels, table

from otdist_vae import priors, samplers

METHODS = ["prior", "posterior", "interpolation"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ratio", [0, 0.5, 1, 2.5])
def test_counts_follow_the_classes(method, ratio):
    y = np.array(["a"] * 60 + ["b"] * 36)
    model = fitted(y=y)
    x_new, y_new = model.augment(table(), y, ratio=ratio, method=method)
    assert x_new.shape == (round(60 * ratio) + round(36 * ratio), 6)
    assert (y_new == "a").sum() == round(60 * ratio)
    again, _ = model.augment(table(), y, ratio=ratio, method=method)
    np.testing.assert_array_equal(x_new, again)


def test_interpolation_stays_in_its_class():
    y = labels(90)
    x = np.repeat(np.eye(3, dtype=np.float32), 30, axis=0)[np.argsort(np.argsort(y, kind="stable"))]
    model = fitted(x=x, max_epochs=60, fit={"learning_rate": 1e-2})
    x_new, y_new = model.augment(x, y, method="interpolation")
    assert (x_new.argmax(1) == y_new).all()


@pytest.mark.parametrize(
    ("regularizer", "y", "expected"),
    [
        ("kl", None, "prior"),
        ("kl", labels(), "prior"),
        ("w2", None, "gaussian"),
        ("nothing", None, "gaussian"),
        ("mmd", None, "prior"),
        ("mmd", labels(), "gaussian"),
        ("exact", None, "gaussian"),
        ({"name": "exact", "unbiased": True}, None, "prior"),
        ({"name": "exact", "unbiased": True}, labels(), "gaussian"),
    ],
)
def test_samples_come_from_the_prior_only_where_codes_fill_it(regularizer, y, expected):
    model = fitted(regularizer, y=y, max_epochs=1)
    assert model.default_sampler == expected
    np.testing.assert_array_equal(model.sample(5), model.sample(5, sampler=expected))


def test_posterior_draws_scatter_about_reconstructions():
    model, x = fitted(), table()
    drawn, none = model.augment(x, method="posterior", random_state=1)
    other, _ = model.augment(x, method="posterior", random_state=2)
    assert none is None
    assert drawn.shape == x.shape
    assert not np.array_equal(drawn, other)


def test_tensors_in_tensors_out():
    x = torch.from_numpy(table())
    for method in METHODS:
        assert isinstance(fitted(x=x).augment(x, method=method)[0], torch.Tensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mixup"}, "method must be one of"),
        ({"ratio": -1}, "ratio must be nonnegative"),
        ({"y": labels()}, "draws from the prior have no label"),
        ({"y": labels(5), "method": "posterior"}, r"y must have shape \(96,\)"),
        ({"sampler": "flow"}, "sampler must be one of"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        fitted().augment(table(), options.pop("y", None), **options)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_fitted_densities_have_the_moments_of_the_codes(name):
    rng = torch.Generator().manual_seed(0)
    n = 20_000
    codes = torch.randn(2000, 3, generator=rng, dtype=torch.float64) @ torch.diag(
        torch.tensor([1.0, 0.3, 2.0]).double()
    )
    codes[:1000, 0] += 4
    drawn = samplers.draw(name, n, prior=priors.Normal(), codes=codes, generator=rng)
    assert drawn.shape == (n, 3)
    # five standard errors, of the draw and of the 2000 codes EM has seen
    error = 5 * codes.std(0) * (1 / n + 1 / 2000) ** 0.5
    assert (abs(drawn.mean(0) - codes.mean(0)) < error).all()
    assert (abs(drawn.T.cov() - codes.T.cov()) < 5 * codes.var(0).max() * (3 / n + 3 / 2000) ** 0.5).all()


def test_gaussian_of_singular_codes():
    rng = torch.Generator().manual_seed(0)
    line = torch.randn(50, 1, generator=rng) @ torch.ones(1, 4)
    drawn = samplers.draw("gaussian", 9, prior=priors.Normal(), codes=line, generator=rng)
    torch.testing.assert_close(drawn, drawn[:, :1].expand(-1, 4), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="at least 2 codes"):
        samplers.draw("gaussian", 9, prior=priors.Normal(), codes=line[:1], generator=rng)
