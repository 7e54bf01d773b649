"""Each posterior against the dense Gaussian it stands for, as torch.distributions and the dense W2 see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from otdist import gaussian
from otdist_vae import likelihoods, posteriors, priors

EPS = torch.finfo(torch.float64).eps
CASES = [
    (posteriors.Diagonal(), 5),
    (posteriors.Diagonal(), 1),
    (posteriors.Full(), 5),
    (posteriors.Full(), 1),
    (posteriors.Circulant(), 6),
    (posteriors.Circulant(), 5),
    (posteriors.Circulant(), 1),
    (posteriors.Circulant((3, 4)), 12),
    (posteriors.Circulant((4, 3)), 12),
    (posteriors.Circulant((2, 2)), 4),
    (posteriors.Circulant((1, 5)), 5),
]
IDS = [f"{type(f).__name__}{getattr(f, 'shape', '') or ''}-{d}" for f, d in CASES]


def batch(family, d, n=3):
    """A batch's posterior from random numbers, and the matrix A of its codes: z = mean + A noise."""
    rng = torch.Generator().manual_seed(0)
    raw = torch.randn(n, family.n_outputs(d), generator=rng, dtype=torch.float64)
    q = family(raw, d)
    basis = torch.eye(d, dtype=torch.float64)[:, None, :].expand(d, n, d)
    return q, (q.rsample(basis) - q.mean).movedim(0, -1)  # columns


def dense(q, root):
    return MultivariateNormal(q.mean, root @ root.mT)


@pytest.mark.parametrize(("family", "d"), CASES, ids=IDS)
def test_density_divergence_and_distance_are_the_dense_ones(family, d):
    q, root = batch(family, d)
    p = MultivariateNormal(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    tolerance = {"rtol": 1e3 * d * EPS, "atol": 1e3 * d * EPS}
    z = torch.randn(4, 3, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), dense(q, root).log_prob(z), **tolerance)
    torch.testing.assert_close(q.kl(), kl_divergence(dense(q, root), p), **tolerance)
    expected = gaussian.w2_squared(q.mean, root @ root.mT, p.mean, p.covariance_matrix)
    torch.testing.assert_close(q.w2_squared(), expected, **tolerance)
    variance = (root @ root.mT).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(q.variance, variance, **tolerance)


@pytest.mark.parametrize(("family", "d"), CASES, ids=IDS)
def test_distance_has_the_right_gradient(family, d):
    raw = torch.randn(2, family.n_outputs(d), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: family(r, d).w2_squared(), raw)
    assert torch.autograd.gradcheck(lambda r: family(r, d).kl(), raw)


@pytest.mark.parametrize(("family", "d"), CASES, ids=IDS)
def test_zero_output_is_the_prior(family, d):
    q = family(torch.zeros(1, family.n_outputs(d), dtype=torch.float64), d)
    np.testing.assert_allclose([q.kl().item(), q.w2_squared().item()], 0, atol=100 * d * EPS)


@pytest.mark.parametrize("shape", [(6,), (5,), (3, 4), (4, 3), (4, 4)])
def test_circulant_covariance_commutes_with_shifts(shape):
    d = int(np.prod(shape))
    q, root = batch(posteriors.Circulant(shape), d)
    covariance = (root @ root.mT)[0].numpy().reshape(*shape, *shape)
    axes = len(shape)
    for axis in range(axes):
        shifted = np.roll(np.roll(covariance, 1, axis), 1, axis + axes)
        np.testing.assert_allclose(shifted, covariance, atol=100 * d * EPS)
    eigenvalues = np.linalg.eigvalsh(covariance.reshape(d, d))
    np.testing.assert_allclose(np.sort(q.spectrum[0].flatten().numpy()), eigenvalues, rtol=1e3 * d * EPS)


def test_circulant_outputs_are_not_redundant_in_one_dimension():
    assert [posteriors.Circulant().n_outputs(d) for d in (1, 2, 5, 6)] == [2, 4, 8, 10]


def test_deterministic_posterior():
    q = posteriors.Deterministic()(torch.tensor([[3.0, 4.0]]), 2)
    assert q.w2_squared().tolist() == [27.0]  # |m|² + d
    assert torch.equal(q.rsample(torch.ones(1, 2)), q.mean)
    with pytest.raises(ValueError, match="infinite"):
        q.kl()
    with pytest.raises(ValueError, match="no density"):
        q.log_prob(q.mean)


@pytest.mark.parametrize("shape", [(0,), (1, 2, 3), ()])
def test_bad_grids_are_refused(shape):
    with pytest.raises(ValueError, match="shape must be one or two positive sizes"):
        posteriors.Circulant(shape)


def test_mixture_prior_is_the_mixture():
    prior = priors.Mixture(3, spread=3.0)
    prior.build(2, torch.Generator().manual_seed(0))
    z = torch.randn(7, 2, generator=torch.Generator().manual_seed(1))
    each = torch.stack([MultivariateNormal(m, torch.eye(2)).log_prob(z) for m in prior.means])
    torch.testing.assert_close(prior.log_prob(z), each.exp().mean(0).log())
    n = 200_000
    drawn = prior.sample(n, 2, generator=torch.Generator().manual_seed(2)).detach()
    mean, cov = prior.moments(2)
    # five standard errors of a mean and of a covariance
    scale = cov.diagonal().max().item()
    torch.testing.assert_close(drawn.mean(0), mean.detach(), atol=5 * (scale / n) ** 0.5, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), cov.detach(), atol=5 * scale * (3 / n) ** 0.5, rtol=0)
    prior.sample(5, 2).sum().backward()
    assert prior.means.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="n_components must be at least 1"):
        priors.Mixture(0)


def test_likelihoods_are_the_densities():
    rng = torch.Generator().manual_seed(0)
    output, x = torch.randn(3, 2, 2, generator=rng), torch.rand(3, 2, 2, generator=rng)
    normal = torch.distributions.Normal(output, 0.3).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihoods.Gaussian(0.3).log_prob(output, x), normal)
    learned = likelihoods.Gaussian(None)
    learned.log_scale.data.fill_(np.log(0.3))
    torch.testing.assert_close(learned.log_prob(output, x).detach(), normal)
    binary = (x > 0.5).float()
    bernoulli = torch.distributions.Bernoulli(logits=output).log_prob(binary).flatten(1).sum(1)
    torch.testing.assert_close(likelihoods.Bernoulli().log_prob(output, binary), bernoulli)
    with pytest.raises(ValueError, match="scale must be positive"):
        likelihoods.Gaussian(0.0)


def test_a_scale_from_the_data_is_the_likeliest_and_loses_no_gradient():
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(16, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    x = torch.randn(16, 3, generator=rng, dtype=torch.float64)
    likelihood = likelihoods.Gaussian().double().train()
    value = likelihood.negative_log_likelihood(output, x).mean()
    value.backward()
    error = (output - x).square().mean()
    assert likelihood.deviation() == pytest.approx(error.sqrt().item(), rel=1e-12)
    # with the likeliest scale put in, the term is D/2 log(mean squared error) + D/2, and so is its gradient
    whole = 1.5 * error.log() + 1.5
    assert value.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(output.grad, torch.autograd.grad(whole, output)[0], rtol=1e-12, atol=1e-15)
    fixed = likelihoods.Gaussian(error.sqrt().item())
    for mine, theirs in ((likelihood.eval(), fixed),):
        torch.testing.assert_close(mine.log_prob(output, x), theirs.log_prob(output, x), rtol=1e-12, atol=1e-12)


def test_other_units_add_a_constant_to_the_reconstruction_and_leave_its_worth():
    rng = torch.Generator().manual_seed(0)
    output, x = (torch.randn(16, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    values = [likelihoods.Gaussian().train().negative_log_likelihood(s * output, s * x) for s in (1.0, 10.0)]
    # log_scale is a float32 buffer, about 1: three of them are added
    torch.testing.assert_close(values[1], values[0] + 3 * np.log(10), rtol=0, atol=3 * 1e-6)
