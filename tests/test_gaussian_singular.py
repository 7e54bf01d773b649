"""Singular and equal covariances: values to full digits, gradients against one-sided slopes, and their bounds."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from oracles import bures_squared, relative_error
from strategies import covariance, seeds

from otdist import gaussian
from otdist.covariance import Factor

EPS = np.finfo(float).eps
PLANE = np.array([[5.0, -2.0, 0.0], [-2.0, 1.0, -1.0], [0.0, -1.0, 5.0]])  # rank 2


def solve(x, y):
    zero = np.zeros(len(x))
    value, grads = gaussian.w2_squared_and_grad(zero, x, zero, y)
    return value, grads.cov_x, grads.cov_y


def rank(cov, eps=EPS):
    """The documented rule."""
    return int((np.linalg.eigvalsh(cov) > 10 * eps * cov.trace()).sum())


def least_positive(cov, eps=EPS):
    values = np.linalg.eigvalsh(cov)
    return values[values > 10 * eps * cov.trace()].min()


def samples_of_full_count(rng, d):
    return np.cov(rng.standard_normal((d, d)), rowvar=False)


def duplicated_column(rng, d):
    z = rng.standard_normal((5 * d, d))
    z[:, -1] = z[:, 0]
    return np.cov(z, rowvar=False)


def one_hot(rng, d):
    return np.cov(np.eye(d)[rng.integers(0, d, 20 * d)], rowvar=False)


def softmax(rng, d):
    z = np.exp(rng.standard_normal((20 * d, d)))
    return np.cov(z / z.sum(1, keepdims=True), rowvar=False)


def low_rank(rng, d):
    return covariance(d, rng, rank=d // 2 + 1)


SINGULAR = [samples_of_full_count, duplicated_column, one_hot, softmax, low_rank]
every_kind = pytest.mark.parametrize("make", SINGULAR, ids=lambda f: f.__name__)


def test_an_integer_covariance_of_rank_two():
    # Its eigenvalues are 6, 5 and 0: against I, 1 + (√6 - 1)² + (√5 - 1)², and I - X^½⁺ for a gradient.
    value, grad_x, grad_y = solve(PLANE, np.eye(3))
    with mp.workdps(40):
        exact = 1 + (mp.sqrt(6) - 1) ** 2 + (mp.sqrt(5) - 1) ** 2
    assert relative_error(value, exact) < 10 * EPS
    assert relative_error(value, bures_squared(PLANE, np.eye(3))) < 10 * EPS
    v = np.linalg.eigh(PLANE)[1][:, 1:]
    np.testing.assert_allclose(grad_x, (v * (1 - np.array([5, 6]) ** -0.5)) @ v.T, atol=100 * EPS)
    np.testing.assert_allclose(grad_y, np.eye(3) - (v * np.sqrt([5, 6])) @ v.T, atol=100 * EPS)


@every_kind
@pytest.mark.parametrize("d", [2, 3, 6, 20])
def test_gradients_at_singular_covariances_are_bounded(make, d):
    for seed in range(20):
        rng = np.random.default_rng([seed, d])
        x, other = make(rng, d), covariance(d, rng)
        for y in (np.eye(d), other):
            value, grad_x, grad_y = solve(x, y)
            assert value >= 0
            bound = 1 + np.sqrt(y.trace() / least_positive(x))
            assert np.linalg.norm(grad_x, 2) <= bound * (1 + 100 * EPS)
            assert np.isfinite(grad_y).all()
            flipped = solve(y, x)
            np.testing.assert_allclose(flipped[2], grad_x, atol=1e3 * d * EPS * bound**2)
            assert flipped[0] == pytest.approx(value, rel=1e-12)


@every_kind
@pytest.mark.parametrize("d", [2, 3, 6])
def test_values_at_singular_covariances_have_all_digits(make, d):
    # Against I the value is (1 - √λ)² over the true spectrum: √ of rounding, 1e-8, must not be in it.
    for seed in range(10):
        x = make(np.random.default_rng([seed, d]), d)
        values = np.linalg.eigvalsh(x)
        if rank(x) == d:
            continue  # a class that is always drawn: nothing is singular
        kept = values[values > 10 * EPS * x.trace()]
        exact = x.trace() + d - 2 * np.sqrt(kept).sum()
        assert solve(x, np.eye(d))[0] == pytest.approx(exact, rel=100 * d * EPS)


@every_kind
@pytest.mark.parametrize("d", [2, 3, 6, 20, 40])
def test_equal_covariances_have_no_distance_and_no_gradient(make, d):
    rng = np.random.default_rng(d)
    x = make(rng, d)
    for cov in (x, covariance(d, rng, condition=1e8)):
        value, grad_x, grad_y = solve(cov, cov.copy())
        assert value == 0
        assert not grad_x.any()
        assert not grad_y.any()


@every_kind
@given(seed=seeds)
def test_no_finite_slope_lies_below_the_gradient(make, seed):
    # Y in the range of X: then all one-sided slopes are finite, and the function is convex.
    rng = np.random.default_rng(seed)
    d = 5
    x = make(rng, d)
    values, vectors = np.linalg.eigh(x)
    basis = vectors[:, values > 10 * EPS * x.trace()]
    inner = rng.standard_normal((basis.shape[1], basis.shape[1]))
    y = basis @ inner @ inner.T @ basis.T
    y = (y + y.T) / 2
    value, grad, _ = solve(x, y)
    w = rng.standard_normal((d, 2))
    direction = w @ w.T
    step = 1e-4 * x.trace()
    along = np.sum(grad * direction)
    # Convexity: f(X + tD) >= f(X) + t <gradient, D>, at any t.
    assert solve(x + step * direction, y)[0] >= value + step * along - 1e4 * EPS * (x.trace() + y.trace() + value)


@every_kind
@given(seed=seeds)
def test_slopes_inside_the_range_are_the_gradient(make, seed):
    # Along R W with W small the rank stays: the function is smooth there, and its slope is <gradient, D>.
    rng = np.random.default_rng(seed)
    d = 4
    x, y = make(rng, d), covariance(d, rng)
    values, vectors = np.linalg.eigh(x)
    present = values > 10 * EPS * x.trace()
    root = vectors[:, present] * np.sqrt(values[present])
    turn = rng.standard_normal((d, d)) * 0.1
    h = 1e-4 * min(1.0, np.sqrt(values[present].min() / x.trace()))
    grad = solve(x, y)[1]
    sides = []
    for t in (h, -h):
        moved = root + t * turn @ root
        cov = moved @ moved.T
        sides.append(solve((cov + cov.T) / 2, y)[0])
    slope = 2 * np.sum(grad * (turn @ x + x @ turn.T) / 2)
    # Truncation h² times third derivatives, rounding eps over h.
    tolerance = 1e-4 * (1 + np.linalg.norm(grad) * x.trace())
    assert abs((sides[0] - sides[1]) / (2 * h) - slope) <= tolerance


def test_the_least_norm_where_a_slope_is_finite_and_negative():
    # X = diag(1, 0) and Y = s sᵀ with s = (e, 1): √(e² + t) grows from e along the second axis, with slope 1/(2e).
    e = 0.1
    x, s = np.diag([1.0, 0.0]), np.array([e, 1.0])
    _, grad, _ = solve(x, np.outer(s, s))
    np.testing.assert_allclose(grad, [[1 - e, -1.0], [-1.0, 1 - 1 / e]], rtol=1e-12)
    # and where it is positive, the least norm is 0: nothing is gained by what Y has not
    _, grad, _ = solve(x, np.diag([4.0, 0.0]))
    np.testing.assert_allclose(grad, np.diag([-1.0, 0.0]), atol=10 * EPS)


@pytest.mark.parametrize("rank_y", [1, 2, 4])
def test_ranges_that_do_not_meet(rank_y):
    x, y = np.diag([1.0, 2.0, 0.0, 0.0]), np.zeros((4, 4))
    y[2:, 2:] = [[2.0, 1.0], [1.0, 2.0]]
    rng = np.random.default_rng(rank_y)
    q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    x, y = (q @ c @ q.T for c in (x, y))
    value, grad_x, grad_y = solve((x + x.T) / 2, (y + y.T) / 2)
    assert value == pytest.approx(x.trace() + y.trace(), rel=1e-13)
    for grad, cov in ((grad_x, x), (grad_y, y)):  # the identity on the range, nothing elsewhere
        projector = np.linalg.pinv(cov, rcond=1e-10) @ cov
        np.testing.assert_allclose(grad, projector, atol=1e3 * EPS)


@pytest.mark.parametrize("function", [gaussian.w2_squared, gaussian.w2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (20,)])
@pytest.mark.parametrize("d", [1, 4, 12, 50])
def test_gradients_at_bitwise_equal_covariances_are_zero(function, dtype, batch, d):
    rng = np.random.default_rng(d)
    draw = rng.standard_normal((*batch, d, 2 * d))
    cov = torch.tensor(draw @ draw.swapaxes(-1, -2), dtype=dtype)
    cov = (cov + cov.mT) / 2
    mean = torch.zeros(*batch, d, dtype=dtype)
    for shift in (0.0, 1.0):
        args = [z.clone().requires_grad_() for z in (mean + shift, cov, mean, cov)]
        value = function(*args)
        value.sum().backward()
        assert torch.equal(args[1].grad, torch.zeros_like(cov))
        assert torch.equal(args[3].grad, torch.zeros_like(cov))
        squared = d * shift**2
        expected = squared if function is gaussian.w2_squared else squared**0.5
        torch.testing.assert_close(value, torch.full_like(value, expected))
        factor = 2.0 if function is gaussian.w2_squared else (1 / expected if shift else 0.0)
        torch.testing.assert_close(args[0].grad, torch.full_like(mean, factor * shift))


def test_only_the_equal_pairs_of_a_batch_are_zero():
    rng = np.random.default_rng(0)
    x = np.stack([covariance(5, rng) for _ in range(24)])
    y = x.copy()
    y[1::2] *= 1 + 1e-7
    zero = np.zeros((24, 5))
    value, grads = gaussian.w2_squared_and_grad(zero, x, zero, y)
    assert (value[::2] == 0).all()
    assert (value[1::2] > 0).all()
    assert not grads.cov_x[::2].any()
    assert all(g.any() for g in grads.cov_x[1::2])


def test_rank_is_judged_in_the_precision_of_the_arguments():
    rng = np.random.default_rng(1)
    for _ in range(20):
        samples = rng.standard_normal((6, 6)).astype(np.float32)
        cov = np.cov(samples, rowvar=False, dtype=np.float32)
        cov = (cov + cov.T) / 2
        zero, eye = np.zeros(6, np.float32), np.eye(6, dtype=np.float32)
        _, grads = gaussian.w2_squared_and_grad(zero, cov, zero, eye)
        wide = cov.astype(float)
        bound = 1 + np.sqrt(6 / least_positive(wide, np.finfo(np.float32).eps))
        assert np.linalg.norm(grads.cov_x, 2) <= bound * (1 + 1e-5)


# --- the ends of the range of floating-point numbers ---


SCALES = [1e-200, 1e-150, 1e-100, 1e100, 1e150, 1e200]


def drawn(d=4):
    rng = np.random.default_rng(7)
    m, n = rng.standard_normal((2, d))
    return m, covariance(d, rng), n, covariance(d, rng)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("batch", [(), (9,)])
def test_covariances_of_any_size(scale, batch):
    _, x, _, y = drawn()
    zero = np.zeros((*batch, 4))
    value, grads = gaussian.w2_squared_and_grad(zero, scale * x, zero, scale * y)
    same, slopes = gaussian.w2_squared_and_grad(zero, x, zero, y)
    np.testing.assert_allclose(value / scale, same, rtol=1e-12)
    np.testing.assert_allclose(grads.cov_x, slopes.cov_x, atol=1e-12)
    np.testing.assert_allclose(gaussian.w2(zero, scale * x, zero, scale * y) / scale**0.5, same**0.5, rtol=1e-12)
    tensors = [torch.tensor(z) for z in (zero, scale * x, zero, scale * y)]
    np.testing.assert_allclose(gaussian.w2_squared(*tensors).numpy() / scale, same, rtol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_the_root_of_distances_whose_square_is_out_of_range(scale):
    m, x, n, y = drawn()
    # covariances of 1e±400 do not exist: means alone
    nothing = np.zeros((4, 4))
    expected = np.linalg.norm(m - n)
    assert gaussian.w2(scale * m, nothing, scale * n, nothing) / scale == pytest.approx(expected, rel=1e-14)
    leaf = torch.tensor(scale * m, requires_grad=True)
    rest = (torch.tensor(nothing), torch.tensor(scale * n), torch.tensor(nothing))
    gaussian.w2(leaf, *rest).backward()
    np.testing.assert_allclose(leaf.grad.numpy(), (m - n) / expected, rtol=1e-13)
    if scale > 1:
        assert gaussian.w2(scale * m, x, scale * n, y) / scale == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_out_of_range_are_refused_by_name(dtype):
    far = np.full(2, np.finfo(dtype).max / 4, dtype)
    zero, eye = np.zeros(2, dtype), np.eye(2, dtype=dtype)
    for function in (gaussian.w2_squared, gaussian.w2_squared_and_grad):
        with pytest.raises(ValueError, match=rf"beyond the range of {np.dtype(dtype).name}; divide means by some c"):
            function(far, eye, zero, eye)
    with pytest.raises(ValueError, match="beyond the range"):
        gaussian.w2_squared(*(torch.tensor(z) for z in (far, eye, zero, eye)))
    with pytest.raises(ValueError, match="beyond the range"):
        gaussian.pairwise_w2_squared(far[None], eye[None], zero[None], eye[None])
    assert gaussian.w2(far, eye, zero, eye) == pytest.approx(float(far[0]) * 2**0.5, rel=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_maps_paths_and_entropic_costs_of_any_size(scale):
    _, x, _, y = drawn()
    zero = np.zeros(4)
    big_x, big_y = scale * x, scale * y
    matrix = gaussian.transport_map(zero, x, zero, y).matrix
    np.testing.assert_allclose(gaussian.transport_map(zero, big_x, zero, y).matrix * scale**0.5, matrix, rtol=1e-10)
    np.testing.assert_allclose(gaussian.transport_map(zero, x, zero, big_y).matrix / scale**0.5, matrix, rtol=1e-10)
    path = gaussian.geodesic(zero, big_x, zero, big_y, 0.3)[1]
    np.testing.assert_allclose(path / scale, gaussian.geodesic(zero, x, zero, y, 0.3)[1], rtol=1e-10)
    for function in (gaussian.entropic_cost, gaussian.sinkhorn_divergence):
        value = function(zero, big_x, zero, big_y, epsilon=0.5 * scale)
        assert value / scale == pytest.approx(function(zero, x, zero, y, epsilon=0.5), rel=1e-11)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 9, 3))
    root = scale**0.5
    found = gaussian.w2_squared_from_samples(root * a, root * b)
    assert found / scale == pytest.approx(gaussian.w2_squared_from_samples(a, b), rel=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("seed", range(5))
def test_a_float32_covariance_beside_a_float64_one_keeps_the_rank_that_float32_gives_it(seed, library):
    # Features of a network in float32 beside reference statistics in float64: rounding makes a singular covariance
    # indefinite by about eps of float32, which is no refusal, and no mass to transport either.
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((6, 10)).astype(np.float32)
    single = np.cov(points.T, dtype=np.float32)
    double, other, mean = np.cov(points.T.astype(float)), np.cov(rng.standard_normal((50, 10)).T), np.zeros(10)
    value, grads = gaussian.w2_squared_and_grad(mean, double, mean, other)
    if library == "numpy":
        found, own = gaussian.w2_squared_and_grad(mean, single, mean, other)
        own_x, own_y = own.cov_x, own.cov_y
    else:
        x, y = (torch.tensor(c, requires_grad=True) for c in (single, other))
        zero = torch.zeros(10, dtype=torch.float64)
        found = gaussian.w2_squared(zero, x, zero, y)
        found.backward()
        own_x, own_y, found = x.grad.numpy(), y.grad.numpy(), found.item()
        assert x.grad.dtype == torch.float32
    # Entries are off by eps32; the slopes' condition is that of the five eigenvalues that are there.
    levels = np.linalg.eigvalsh(double)[-5:]
    bound = 100 * 2.0**-23 * double.trace() / levels[0]
    assert found == pytest.approx(value, rel=bound)
    np.testing.assert_allclose(own_x, grads.cov_x, atol=bound)
    np.testing.assert_allclose(own_y, grads.cov_y, atol=bound)
    assert gaussian.w2(mean, single, mean, other) == pytest.approx(value**0.5, rel=bound)
    assert np.isfinite(gaussian.transport_map(mean, single, mean, other).matrix).all()
    root = Factor(np.linalg.cholesky(other)[:, :7])
    assert np.isfinite(gaussian.w2_squared(mean, root, mean, single))
    with pytest.raises(ValueError, match="computed in float32 may be passed as float32"):
        gaussian.w2_squared(mean, single.astype(np.float64), mean, other)
