"""The diagonal shortcut: its own conveniences; the laws are in test_laws.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import seeds

from otdist import diagonal

EPS = np.finfo(float).eps


def test_the_prior_is_standard_normal_by_default():
    mean, scale = np.array([1.0, -2.0]), np.array([0.5, 1.0])
    assert diagonal.w2_squared(mean, scale) == 1 + 4 + 0.25
    assert diagonal.w2_squared(torch.tensor(mean), torch.tensor(scale)) == 5.25


def test_it_trains():
    mean, scale = torch.full((3,), 2.0, requires_grad=True), torch.full((3,), 0.1, requires_grad=True)
    optimiser = torch.optim.SGD([mean, scale], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        diagonal.w2_squared(mean, scale).backward()
        optimiser.step()
    # Each step multiplies the error by 1 - 2 · 0.1: after 100 steps 2e-10 is left, below float32's resolution at 1.
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(scale, torch.ones(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_w2_neither_overflows_nor_underflows(scale):
    mean = np.array([3.0, 4.0], dtype=np.float32) * np.float32(scale)
    assert diagonal.w2(mean, np.zeros(2, np.float32), scale_y=0.0) == pytest.approx(5 * scale, rel=1e-6)


@given(seed=seeds)
def test_pairwise_is_every_pair(seed):
    rng = np.random.default_rng(seed)
    mx, my = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    sx, sy = rng.uniform(0, 2, (4, 3)), rng.uniform(0, 2, (5, 3))
    each = diagonal.w2_squared(mx[:, None], sx[:, None], my, sy)
    np.testing.assert_allclose(diagonal.pairwise_w2_squared(mx, sx, my, sy), each, rtol=1e-12, atol=100 * EPS)


def test_pairwise_is_differentiable_and_far_from_the_origin_accurate():
    rng = np.random.default_rng(0)
    args = [torch.tensor(rng.uniform(0.5, 1, (3, 2)), requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(diagonal.pairwise_w2_squared, args)
    x = np.float32(1e4) + rng.standard_normal((3, 2)).astype(np.float32)
    one = np.ones((3, 2), np.float32)
    each = diagonal.w2_squared(x[:, None], one, x, one)
    np.testing.assert_allclose(diagonal.pairwise_w2_squared(x, one, x, one), each, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "scale"), [(np.float64, 2.0**600), (np.float32, 2.0**90), (np.float16, 2.0**12)])
@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_what_is_beyond_the_range_is_infinite(dtype, scale, as_given):
    mean, one = (np.array([[0.0, 3.0], [-2.0, 1.0]]) * scale).astype(dtype), np.ones((2, 2), dtype)
    mean, one = as_given(mean), as_given(one)
    np.testing.assert_array_equal(diagonal.w2_squared(mean, one, 0 * mean, one), np.inf)
    np.testing.assert_array_equal(diagonal.pairwise_w2_squared(mean, one, mean, one), [[0, np.inf], [np.inf, 0]])
    np.testing.assert_array_equal(diagonal.pairwise_w2_squared(mean[:1], one[:1], mean[:1], one[:1]), [[0]])
    if as_given is np.asarray:
        value, grads = diagonal.w2_squared_and_grad(mean, one, 0 * mean, one)
        np.testing.assert_array_equal(value, np.inf)
        np.testing.assert_array_equal(grads.mean_x, 2 * mean)


def test_the_gradient_of_near_pairs_far_from_the_origin():
    mean = torch.full((3, 2), 2.0**600, dtype=torch.float64, requires_grad=True)
    diagonal.pairwise_w2_squared(mean, torch.ones_like(mean), mean, torch.ones_like(mean)).sum().backward()
    np.testing.assert_array_equal(mean.grad, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.array([1.0, -1.0])), r"scale_x must be nonnegative; got -1; .* exp\(log_variance / 2\)"),
        ((np.zeros(2), np.ones(3)), "mean_x and scale_x must agree in the number of coordinates; got 2 and 3"),
        ((1.0, 1.0), r"mean_x must have shape \(\.\.\., d\); got \(\)"),
        ((np.zeros(2), np.ones(2), 0.0, -1.0), "scale_y must be nonnegative"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        diagonal.w2_squared(*arguments)


def test_the_numpy_twin_refuses_tensors():
    with pytest.raises(TypeError, match=r"is a torch.Tensor; with PyTorch, call backward\(\)"):
        diagonal.w2_squared_and_grad(torch.zeros(2), torch.ones(2))
