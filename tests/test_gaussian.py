"""Gaussians: accuracy against 80 digits, and the places where formulas break."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from oracles import bures_squared, gaussian_w2_squared, relative_error
from strategies import covariance, dimensions, rotation, seeds

from otdist import diagonal, gaussian

EPS = np.finfo(float).eps


def w2_squared(cov_x, cov_y):
    zero = np.zeros(len(cov_x), dtype=np.asarray(cov_x).dtype)
    return gaussian.w2_squared(zero, cov_x, zero, cov_y)


@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_the_closed_form(d):
    rng = np.random.default_rng(d)
    (m, n), (x, y) = rng.standard_normal((2, d)), (covariance(d, rng), covariance(d, rng))
    assert relative_error(gaussian.w2_squared(m, x, n, y), gaussian_w2_squared(m, x, n, y)) < 1e-13


# What is promised: twelve digits up to a condition of 1e4, nine up to 1e12, where the distance is not small.
@pytest.mark.parametrize(("condition", "bound"), [(1.0, 1e-12), (1e2, 1e-12), (1e4, 1e-12), (1e8, 1e-9), (1e12, 1e-9)])
@pytest.mark.parametrize("d", [2, 5, 12])
def test_digits_against_condition(d, condition, bound):
    rng = np.random.default_rng(d)
    x, y = covariance(d, rng, condition=condition), covariance(d, rng)
    y2 = covariance(d, rng, condition=condition)
    assert relative_error(w2_squared(x, y), bures_squared(x, y)) < bound
    assert relative_error(w2_squared(x, 2 * y2), bures_squared(x, 2 * y2)) < bound


@pytest.mark.parametrize("t", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("d", [2, 8])
def test_digits_of_a_tiny_distance(d, t):
    rng = np.random.default_rng(d)
    x, e = covariance(d, rng), covariance(d, rng, condition=3.0)
    y = x + t * e
    assert relative_error(w2_squared(x, y), bures_squared(x, y)) < 1e-6


@pytest.mark.parametrize(("t", "bound"), [(1.0, 1e-5), (1e-4, 1e-3)])
def test_digits_in_float32(t, bound):
    rng = np.random.default_rng(0)
    x = covariance(8, rng).astype(np.float32)
    y = x + np.float32(t) * covariance(8, rng, condition=3.0).astype(np.float32)
    y = (y + y.T) / 2
    assert relative_error(w2_squared(x, y), bures_squared(x, y)) < bound


@given(seed=seeds, d=dimensions)
def test_rotating_both_changes_nothing(seed, d):
    rng = np.random.default_rng(seed)
    x, y, q = covariance(d, rng), covariance(d, rng), rotation(d, rng)
    turned = w2_squared(*((c + c.T) / 2 for c in (q @ x @ q.T, q @ y @ q.T)))
    assert abs(turned - w2_squared(x, y)) <= 1000 * EPS * d


@given(seed=seeds, d=dimensions)
def test_diagonal_covariances_are_the_diagonal_distance(seed, d):
    rng = np.random.default_rng(seed)
    (m, n), (s, t) = rng.standard_normal((2, d)), rng.uniform(0.1, 3, (2, d))
    full = gaussian.w2_squared(m, np.diag(s**2), n, np.diag(t**2))
    assert abs(full - diagonal.w2_squared(m, s, n, t)) <= 1000 * EPS * (1 + full)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_scales(scale):
    rng = np.random.default_rng(1)
    x, y = covariance(5, rng), covariance(5, rng)
    np.testing.assert_allclose(w2_squared(scale * x, scale * y), scale * w2_squared(x, y), rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_singular_covariances(rank):
    rng = np.random.default_rng(rank)
    x, y = covariance(4, rng, rank=rank), covariance(4, rng)
    both = covariance(4, rng, rank=rank)
    # The oracle's matrix is the rounded one: its eigenvalues are eps away from 0, their roots √eps of the rest.
    for a, b in ((x, y), (y, x), (x, both)):
        reference = float(bures_squared(a, b))
        assert abs(w2_squared(a, b) - reference) <= 10 * np.sqrt(EPS) * (1 + reference)
    value, grads = gaussian.w2_squared_and_grad(np.zeros(4), x, np.zeros(4), y)
    assert all(np.isfinite(g).all() for g in grads)
    assert np.isfinite(value)


def test_rank_deficient_gaussians_on_the_same_subspace():
    # N(0, diag(1, 4, 0)) to N(0, diag(9, 1, 0)): (1 - 3)² + (2 - 1)²
    assert w2_squared(np.diag([1.0, 4.0, 0.0]), np.diag([9.0, 1.0, 0.0])) == pytest.approx(5.0, rel=1e-14)


def test_the_gradient_of_least_norm_at_equal_singular_covariances():
    x = np.diag([2.0, 1.0, 0.0])
    _, grads = gaussian.w2_squared_and_grad(np.zeros(3), x, np.zeros(3), x)
    np.testing.assert_allclose(grads.cov_x, 0, atol=10 * EPS)
    np.testing.assert_allclose(grads.cov_y, 0, atol=10 * EPS)


@pytest.mark.parametrize("spectrum", [[1.0, 1.0, 1.0], [2.0, 2.0, 1.0]])
def test_gradcheck_with_repeated_eigenvalues(spectrum):
    x, y = torch.diag(torch.tensor(spectrum, dtype=torch.float64)), torch.eye(3, dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    args = (x.requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: gaussian.w2_squared(zero, a, zero, b), args)
    assert torch.autograd.gradgradcheck(lambda a, b: gaussian.w2_squared(zero, a, zero, b), args)


def test_gradients_agree_on_both_sides_of_the_switch():
    # The eigenvalue and the singular value routes meet at a spread of 1e-3: the gradient must not notice.
    rng = np.random.default_rng(3)
    q = rotation(4, rng)
    previous = None
    for smallest in (0.9e-3, 1.1e-3):
        x = (q * np.array([1, 0.5, 0.2, smallest**2])) @ q.T
        _, grads = gaussian.w2_squared_and_grad(np.zeros(4), (x + x.T) / 2, np.zeros(4), np.eye(4))
        exact = np.eye(4) - (q * np.array([1, 0.5, 0.2, smallest**2]) ** -0.5) @ q.T
        np.testing.assert_allclose(grads.cov_x, exact, rtol=0, atol=1e-9 / smallest)
        previous = grads if previous is None else previous


def test_second_derivatives_are_refused_at_singular_covariances():
    x = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)).requires_grad_()
    zero, one = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    (grad,) = torch.autograd.grad(gaussian.w2_squared(zero, x, zero, one), x, create_graph=True)
    with pytest.raises(ValueError, match="only at positive definite covariances"):
        torch.autograd.grad(grad.sum(), x)


def test_a_shared_argument_collects_the_gradient_of_all_pairs():
    rng = np.random.default_rng(4)
    means, x, y = rng.standard_normal((5, 2)), covariance(2, rng), covariance(2, rng)
    _, grads = gaussian.w2_squared_and_grad(means, x, np.zeros(2), y)
    _, single = gaussian.w2_squared_and_grad(np.zeros(2), x, np.zeros(2), y)
    np.testing.assert_allclose(grads.cov_x, 5 * single.cov_x, rtol=1e-13)
    np.testing.assert_allclose(grads.mean_y, -2 * means.sum(0), rtol=1e-13)


def test_nan_propagates_where_values_cannot_be_checked():
    covs = torch.stack([torch.eye(2), torch.full((2, 2), torch.nan), 4 * torch.eye(2)])
    zero = torch.zeros(2)
    out = torch.func.vmap(lambda c: gaussian.w2_squared(zero, c, zero, torch.eye(2)))(covs)
    assert out[0] == 0
    assert torch.isnan(out[1])
    assert out[2] == pytest.approx(2.0)


def test_a_covariance_indefinite_by_rounding_is_accepted():
    x = np.diag([1.0, 1.0, -1e-16])
    assert w2_squared(x, np.eye(3)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.zeros(3), np.ones((3, 4)), np.zeros(3), np.eye(3)),
            r"cov_x must have shape \(\.\.\., d, d\); got \(3, 4\)",
        ),
        ((np.zeros(2), np.eye(3), np.zeros(3), np.eye(3)), "mean_x and cov_x must agree in the number of coordinates"),
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "mean_x and mean_y must agree in the number of coordinates"),
        ((np.float64(0), np.eye(1), np.zeros(1), np.eye(1)), r"mean_x must have shape \(\.\.\., d\); got \(\)"),
        ((np.zeros(0), np.eye(0), np.zeros(0), np.eye(0)), "mean_x must have at least one coordinate"),
        ((np.zeros(2), np.diag([1.0, -0.5]), np.zeros(2), np.eye(2)), "cov_x .* its smallest eigenvalue is -0.5"),
        ((np.zeros(2), np.eye(2), np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "cov_y must be symmetric; .* 0.5"),
        ((np.zeros((2, 2)), np.eye(2), np.zeros((3, 2)), np.eye(2)), r"must broadcast; got mean_x \(2,\)"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian.w2_squared(*arguments)


@pytest.mark.parametrize("d", [2, 20, 60])
def test_single_precision_may_make_a_singular_covariance_slightly_indefinite(d):
    rng = np.random.default_rng(d)
    samples = rng.standard_normal((d // 2, d)).astype(np.float32)
    cov = samples.T @ samples
    exact = samples.astype(float)
    zero, eye = np.zeros(d, np.float32), np.eye(d, dtype=np.float32)
    # W2² to N(0, I) by the singular values of the samples; eigenvalues are off by d eps, their roots by its root.
    expected = (exact**2).sum() + d - 2 * np.linalg.svd(exact, compute_uv=False).sum()
    tolerance = 4 * d * np.sqrt(d * np.finfo(np.float32).eps * (exact**2).sum())
    for value in (gaussian.w2_squared(zero, cov, zero, eye), gaussian.w2_squared(zero, eye, zero, cov)):
        assert abs(value - expected) <= tolerance


@pytest.mark.parametrize("d", [1, 3, 6, 20, 300])
def test_nan_behind_a_transform_stays_in_its_problem(d):
    cov = torch.eye(d).repeat(3, 1, 1)
    cov[1] = torch.nan
    zero, other = torch.zeros(3, d), 2 * torch.eye(d).repeat(3, 1, 1)
    value = torch.func.vmap(gaussian.w2_squared)(zero, cov, zero, other)
    assert value.isnan().tolist() == [False, True, False]


anywhere_in_150 = pytest.mark.parametrize("where", [(0, 149), (70, 65), (149, 148), (3, 60)])


@anywhere_in_150
def test_asymmetry_anywhere_in_a_large_covariance_is_refused(where):
    cov, zero = np.eye(150), np.zeros(150)
    cov[where] = 0.1
    for x, y in ((cov, np.eye(150)), (np.eye(150), cov)):
        with pytest.raises(ValueError, match=r"must be symmetric; .* 0\.1"):
            gaussian.w2_squared(zero, x, zero, y)


@anywhere_in_150
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_anywhere_in_a_large_covariance_is_refused(where, bad):
    zero = np.zeros(150)
    for mirror in (where[::-1], (where[0], where[0])):
        cov = np.eye(150)
        cov[where] = cov[mirror] = bad
        for x, y in ((cov, np.eye(150)), (np.eye(150), cov)):
            with pytest.raises(ValueError, match="must be finite"):
                gaussian.w2_squared(zero, x, zero, y)
