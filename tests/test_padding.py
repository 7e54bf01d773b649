"""Clouds of different sizes as one batch: each pair's distance and gradient are those that it has alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import otdist
from otdist import exact, line, sinkhorn, sliced

SIZES = (5, 1, 8, 3)
EPS = np.finfo(float).eps
THETA = sliced.directions(16, 3, rng=0)
TOL = 1e-10
DISTANCES = {
    "line": line.w2_squared,
    "sliced": partial(sliced.w2_squared, directions=THETA),
    "exact": exact.w2_squared,
    # The marginal error bounds that of the value, in units of the largest cost: below 100 here.
    "sinkhorn": partial(sinkhorn.w2_squared, epsilon=0.5, tol=TOL),
}
ERRORS = {"sinkhorn": 100 * TOL}


def draw(name, seed=0):
    rng = np.random.default_rng(seed)
    shape = () if name == "line" else (3,)
    clouds = [rng.standard_normal((n, *shape)) for n in SIZES]
    weights = [rng.dirichlet(np.ones(n)) for n in SIZES]
    return clouds, weights, rng.standard_normal((6, *shape))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_padded_batch_has_the_distances_of_its_clouds(name, weighted):
    clouds, weights, y = draw(name)
    x, a = otdist.pad_clouds(clouds, weights if weighted else None)
    alone = [DISTANCES[name](c, y, w if weighted else None) for c, w in zip(clouds, weights, strict=True)]
    error = ERRORS.get(name, 100 * EPS * max(alone))
    np.testing.assert_allclose(DISTANCES[name](x, y, a), alone, rtol=0, atol=error)


@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_flow_through_the_padding(name):
    clouds, weights, y = draw(name, seed=1)
    pairs = [[torch.tensor(z, requires_grad=True) for z in side] for side in (clouds, weights)]
    y = torch.tensor(y)
    distance = DISTANCES[name]
    if name == "sliced":
        distance = partial(sliced.w2_squared, directions=torch.tensor(THETA))
    leaves = [*pairs[0], *pairs[1]]
    found = torch.autograd.grad(distance(*_swapped(*otdist.pad_clouds(*pairs), y)).sum(), leaves)
    alone = sum(distance(x, y, a) for x, a in zip(*pairs, strict=True))
    expected = torch.autograd.grad(alone, leaves)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.isfinite(ours).all()
        largest = float(theirs.abs().max())
        # The plan is right to the marginal error; so is the gradient, in units of the largest difference of points.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=ERRORS.get(name, 1000 * EPS * largest))


def _swapped(points, weights, y):
    return points, y, weights


def test_points_on_the_line_lists_and_one_cloud():
    x, a = otdist.pad_clouds([[0.0, 1.0], [3.0]])
    np.testing.assert_array_equal(x, [[0.0, 1.0], [3.0, 3.0]])
    np.testing.assert_array_equal(a, [[0.5, 0.5], [1.0, 0.0]])
    x, a = otdist.pad_clouds(np.zeros((1, 4, 2)))
    assert x.shape == (1, 4, 2)
    np.testing.assert_array_equal(a, np.full((1, 4), 0.25))
    assert otdist.pad_clouds([[[0.0, 1.0]], [[2, 3], [4, 5]]], [None, [0.25, 0.75]])[1].tolist() == [
        [1, 0],
        [0.25, 0.75],
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_are_kept_and_weights_of_half_precision_sum_to_one(dtype):
    clouds = [torch.randn(n, 2, generator=torch.Generator().manual_seed(n)).to(dtype) for n in (7, 3)]
    x, a = otdist.pad_clouds(clouds)
    assert x.dtype == dtype
    assert a.dtype == (torch.float32 if dtype.itemsize == 2 else dtype)
    assert torch.isfinite(exact.w2_squared(x, x.flip(0), a, a.flip(0))).all()
    mixed = otdist.pad_clouds([np.zeros((2, 1), np.float32), np.zeros((1, 1))])
    assert mixed[0].dtype == mixed[1].dtype == np.float64


@pytest.mark.parametrize(
    ("clouds", "weights", "error", "words"),
    [
        ([], None, ValueError, r"clouds must have at least one cloud"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], None, ValueError, r"clouds\[1\] must have at least one point"),
        ([np.zeros((2, 0))], None, ValueError, r"clouds\[0\] must have at least one coordinate"),
        ([np.zeros((2, 3)), np.zeros((2, 2))], None, ValueError, r"clouds\[0\] and clouds\[1\] must agree in"),
        ([np.zeros((2, 3)), np.zeros(2)], None, ValueError, r"clouds\[1\] must have shape \(n, d\)"),
        ([np.zeros((2, 2, 3))], None, ValueError, r"clouds\[0\] must have shape \(n, d\)"),
        ([np.zeros((2, 3))], [], ValueError, r"must agree in the number of clouds; got 1 and 0"),
        ([np.zeros((2, 3))], [np.ones(3)], ValueError, r"weights\[0\] must have shape \(2,\)"),
        ([np.zeros((2, 3)), torch.zeros(2, 3)], None, TypeError, r"clouds\[1\] is a torch\.Tensor"),
        (["a"], None, TypeError, r"clouds\[0\]"),
    ],
)
def test_what_is_refused(clouds, weights, error, words):
    with pytest.raises(error, match=words):
        otdist.pad_clouds(clouds, weights)
