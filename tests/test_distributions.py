"""w2(p, q) on distribution objects: a drop-in for the KL divergence."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from strategies import covariance
from torch.distributions import (
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

import otdist
from otdist import gaussian


def normal(seed, *shape):
    rng = np.random.default_rng(seed)
    return Normal(
        torch.tensor(rng.standard_normal(shape), requires_grad=True),
        torch.tensor(rng.uniform(0.5, 2, shape), requires_grad=True),
    )


def cov(seed, d=3):
    return torch.tensor(covariance(d, np.random.default_rng(seed)))


def test_normals_are_compared_element_by_element_as_kl_does():
    p, q = normal(0, 4, 3), normal(1, 3)
    out = otdist.w2_squared(q, p)
    assert out.shape == kl_divergence(q, p).shape == (4, 3)
    torch.testing.assert_close(out, (p.loc - q.loc) ** 2 + (p.scale - q.scale) ** 2)
    out.sum().backward()
    torch.testing.assert_close(q.scale.grad, (2 * (q.scale - p.scale)).sum(0).detach())


@pytest.mark.parametrize("joined", [1, 2, 3])
def test_independent_normals_add_up(joined):
    p, q = Independent(normal(0, 5, 4, 3), joined), Independent(normal(1, 5, 4, 3), joined)
    out = otdist.w2_squared(p, q)
    assert out.shape == kl_divergence(p, q).shape
    each = otdist.w2_squared(p.base_dist, q.base_dist)
    torch.testing.assert_close(out, each.sum(tuple(range(-joined, 0))))
    torch.testing.assert_close(otdist.w2(p, q), out.sqrt())


@pytest.mark.parametrize("parameter", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_multivariate_normals_by_any_parameter(parameter):
    x, y = cov(0), cov(1)
    argument = {"covariance_matrix": x, "precision_matrix": x.inverse(), "scale_tril": torch.linalg.cholesky(x)}
    leaf = argument[parameter].clone().requires_grad_()
    mean = torch.zeros(3, dtype=torch.float64)
    p = MultivariateNormal(mean, **{parameter: leaf})
    q = MultivariateNormal(mean + 1, covariance_matrix=y)
    out = otdist.w2_squared(p, q)
    torch.testing.assert_close(out, gaussian.w2_squared(mean, x, mean + 1, y))
    out.backward()
    assert torch.isfinite(leaf.grad).all()


def test_structures_mix():
    d = Independent(normal(0, 2, 3), 1)
    full = MultivariateNormal(torch.zeros(3, dtype=torch.float64), scale_tril=torch.linalg.cholesky(cov(1)))
    low = LowRankMultivariateNormal(
        torch.ones(3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    )
    mean = d.mean.detach()
    diag = torch.diag_embed(d.base_dist.scale.detach() ** 2)
    for other in (full, low):
        expected = gaussian.w2_squared(mean, diag, other.mean, other.covariance_matrix)
        torch.testing.assert_close(otdist.w2_squared(d, other).detach(), expected)
        torch.testing.assert_close(otdist.w2(other, d).detach() ** 2, expected)


def test_products_of_vectors():
    base = MultivariateNormal(torch.zeros(4, 3, dtype=torch.float64), covariance_matrix=cov(0))
    other = MultivariateNormal(torch.ones(4, 3, dtype=torch.float64), covariance_matrix=cov(1))
    out = otdist.w2_squared(Independent(base, 1), Independent(other, 1))
    torch.testing.assert_close(out, otdist.w2_squared(base, other).sum())


def test_the_distance_of_a_distribution_to_itself_has_a_finite_gradient():
    p = Independent(normal(0, 3), 1)
    otdist.w2(p, p).backward()
    assert torch.isfinite(p.base_dist.loc.grad).all()


def test_scipy():
    rng = np.random.default_rng(0)
    x, y = covariance(3, rng), covariance(3, rng)
    p, q = scipy.stats.multivariate_normal(np.zeros(3), x), scipy.stats.multivariate_normal(np.ones(3), y)
    assert otdist.w2_squared(p, q) == gaussian.w2_squared(np.zeros(3), x, np.ones(3), y)
    a, b = scipy.stats.norm(loc=[0.0, 1.0], scale=2.0), scipy.stats.norm(1.0, 3.0)
    np.testing.assert_array_equal(otdist.w2_squared(a, b), [2.0, 1.0])


@pytest.mark.parametrize(
    ("p", "q", "names"),
    [
        (Laplace(0.0, 1.0), Normal(0.0, 1.0), "torch.distributions.laplace.Laplace and .*Normal"),
        (Normal(0.0, 1.0), scipy.stats.norm(0, 1), "Normal and scipy.stats.* of norm"),
        (scipy.stats.norm(0, 1), scipy.stats.gamma(2.0), "of norm and scipy.* of gamma"),
        (
            Normal(torch.zeros(3), torch.ones(3)),
            Independent(Normal(torch.zeros(3), torch.ones(3)), 1),
            r"Independent\(",
        ),
        (1.0, Normal(0.0, 1.0), "builtins.float and"),
    ],
)
def test_unsupported_pairs_name_both_types(p, q, names):
    with pytest.raises(NotImplementedError, match=names):
        otdist.w2(p, q)


def test_a_drop_in_for_the_kl_divergence_trains():
    loc = torch.full((8,), 3.0, requires_grad=True)
    log_scale = torch.zeros(8, requires_grad=True)
    prior = Independent(Normal(torch.zeros(8), torch.ones(8)), 1)
    optimiser = torch.optim.Adam([loc, log_scale], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        loss = otdist.w2_squared(Independent(Normal(loc, log_scale.exp()), 1), prior)
        loss.backward()
        optimiser.step()
    assert loss.detach() < 1e-3
