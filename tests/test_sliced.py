"""The sliced distance: known answers, what variance reduction may and may not change, and its standard error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import covariance, seeds

from otdist import ConvergenceWarning, exact, line, sliced
from otdist.sliced import control_variates as controls
from otdist.sliced import direct
from otdist.sliced.direction_sets import for_count
from otdist.sliced.estimator import _refuse_too_large
from otdist.sliced.operator import _kernel

EPS = np.finfo(float).eps


def clouds(seed: int, n: int, m: int, d: int):
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    stretched = rng.standard_normal((n, d)) @ np.linalg.cholesky(covariance(d, rng)).T
    return stretched, rng.standard_normal((m, d)) + 0.3, a / a.sum(), b / b.sum()


# Values


@given(seed=seeds, n=st.integers(1, 8), m=st.integers(1, 8), d=st.integers(1, 5))
def test_given_directions_are_averaged(seed, n, m, d):
    x, y, a, b = clouds(seed, n, m, d)
    theta = sliced.directions(7, d, rng=seed)
    expected = np.mean([line.w2_squared(x @ t, y @ t, a, b) for t in theta])
    assert sliced.w2_squared(x, y, a, b, directions=theta) == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("m", [60, 37])
def test_pot_agrees_to_twelve_digits(m):
    x, y, _, _ = clouds(0, 60, m, 6)
    theta = sliced.directions(50, 6, rng=1)
    theirs = ot.sliced_wasserstein_distance(x, y, projections=theta.T) ** 2
    assert sliced.w2_squared(x, y, directions=theta) == pytest.approx(theirs, rel=1e-12)


@given(seed=seeds, n=st.integers(1, 30), d=st.integers(1, 5), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_one_pair_is_what_a_batch_of_pairs_gives(seed, n, d, dtype):
    # One small pair goes a way of its own. Duplicates tie along all directions.
    rng = np.random.default_rng(seed)
    x, y = (
        torch.tensor(rng.standard_normal((2, n, d))[:, rng.integers(n, size=n)], dtype=dtype, requires_grad=True)
        for _ in range(2)
    )
    theta = torch.tensor(sliced.directions(5, d, rng=seed), dtype=dtype, requires_grad=True)
    values = sliced.w2_squared(x, y, directions=theta)
    alone = torch.stack([sliced.w2_squared(x[k], y[k], directions=theta) for k in range(2)])
    slack = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(alone, values, rtol=slack, atol=slack)
    wanted = (torch.autograd.grad(v.sum(), (x, y, theta)) for v in (alone, values))
    for one, other in zip(*wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=slack, atol=slack)


@given(seed=seeds, d=st.integers(1, 9), count=st.integers(1, 64))
def test_translations_are_exact(seed, d, count):
    x, _, a, _ = clouds(seed, 12, 1, d)
    shift = np.random.default_rng(seed).standard_normal(d)
    value, error, n = sliced.estimate(x, x + shift, a, a, directions=count, rng=seed)
    assert value == pytest.approx(shift @ shift / d, rel=1e-12)
    assert n == count
    if count > 1 or d == 1:
        assert error <= 1e-12 * value


@pytest.mark.parametrize("d", [2, 3, 8, 40])
def test_dilations_are_exact_with_controls(d):
    # (1 - s)² θᵀΣθ is in the span of the controls; the ridge and the grid of the plane leave this much.
    x, _, _, _ = clouds(d, 50, 1, d)
    x -= x.mean(0)
    value = sliced.w2_squared(x, 3 * x, directions=100, rng=0)
    assert value == pytest.approx(4 * (x**2).sum() / 50 / d, rel=1e-6)


@given(seed=seeds, d=st.integers(2, 5))
def test_bounded_by_the_exact_distance(seed, d):
    x, y, a, b = clouds(seed, 6, 5, d)
    theta = sliced.directions(d, d, rng=seed)  # one orthonormal block: the mean of |θᵀz|² is |z|²/d
    assert sliced.w2_squared(x, y, a, b, directions=theta) <= exact.w2_squared(x, y, a, b) / d * (1 + 1e-12)


def test_metric_for_given_directions():
    x, y, _, _ = clouds(1, 9, 9, 3)
    z = clouds(2, 9, 9, 3)[0]
    theta = sliced.directions(5, 3, rng=0)
    distance = lambda u, v: sliced.w2(u, v, directions=theta)  # noqa: E731
    assert distance(x, z) <= distance(x, y) + distance(y, z)


@pytest.mark.parametrize("d", [2, 3, 10])
def test_drawn_directions_are_unbiased(d):
    x, y, a, b = clouds(3, 30, 20, d)
    truth, truth_error, _ = sliced.estimate(x, y, a, b, directions=40_000, rng=0)
    drawn = np.array([sliced.estimate(x, y, a, b, directions=64, rng=k)[:2] for k in range(200)])
    spread = drawn[:, 0].std(ddof=1)
    # The bias of fitted coefficients is of the order spread²: a third of the spread is far above it.
    assert abs(drawn[:, 0].mean() - truth) < spread / 3 + 3 * truth_error
    # The standard error is the spread, to the accuracy of 200 draws and of a jackknife, which is on the safe side.
    assert 0.8 * spread < np.sqrt(np.mean(drawn[:, 1] ** 2)) < 1.5 * spread


@pytest.mark.parametrize("count", [2, 5, 16, 24, 40])
@pytest.mark.parametrize("kind", ["lattice", "low rank", "Gaussian"])
def test_intervals_cover_at_any_count(kind, count):
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(*[np.arange(2.0)] * 5), -1).reshape(-1, 5)
    y = rng.standard_normal((32, 5))
    if kind == "low rank":
        x, y = np.outer(rng.standard_normal(40), np.eye(8)[0]), 2 * np.outer(rng.standard_normal(40), np.eye(8)[1])
    if kind == "Gaussian":
        x = rng.standard_normal((40, 5)) * np.arange(1, 6)
    truth = sliced.estimate(x, y, directions=40_000, rng=0).value
    found = [sliced.estimate(x, y, directions=count, rng=seed) for seed in range(200)]
    covered = np.mean([abs(f.value - truth) <= 1.96 * f.standard_error for f in found])
    # Of 200 draws at a coverage of 93%, fewer than this are covered once in a thousand times.
    assert covered > 0.93 - 3.1 * (0.93 * 0.07 / 200) ** 0.5


def test_variance_reduction_reduces():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 200, 8)) * np.geomspace(3, 0.3, 8) ** np.array([1.0, -1.0])[:, None, None]
    truth = sliced.w2_squared(x, y, directions=40_000, rng=0)
    plain = [sliced.w2_squared(x, y, directions=sliced.directions(64, 8, kind="random", rng=k)) for k in range(100)]
    ours = [sliced.w2_squared(x, y, directions=64, rng=k) for k in range(100)]
    assert np.std(plain) > 3 * np.sqrt(np.mean((np.array(ours) - truth) ** 2))


# Gradients


@pytest.mark.parametrize(
    ("n", "m", "d", "count"), [(6, 6, 3, 20), (6, 5, 3, 20), (5, 5, 2, 9), (5, 7, 1, 3), (6, 6, 4, 8), (7, 6, 8, 40)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(n, m, d, count, weighted):
    args = [torch.tensor(z, requires_grad=True) for z in clouds(n * m, n, m, d)][: 4 if weighted else 2]
    assert torch.autograd.gradcheck(lambda *z: sliced.w2_squared(*z, directions=count, rng=3), args)


def test_gradcheck_by_directions():
    theta = sliced.directions(4, 3, rng=0, like=torch.zeros(0, dtype=torch.float64)).requires_grad_()
    args = [torch.tensor(z, requires_grad=True) for z in clouds(5, 5, 6, 3)]
    assert torch.autograd.gradcheck(lambda *z: sliced.w2_squared(*z[:4], directions=z[4]), [*args, theta])


@pytest.mark.parametrize("directions", [32, "given"])
def test_many_rows_have_the_gradient_of_their_formula(directions):
    """Large enough for several chunks of rows, threads and pieces of products."""
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((4000, 12)).astype(np.float32), 2 * rng.standard_normal((4000, 12)).astype(np.float32)
    theta = sliced.directions(32, 12, rng=0)
    drawn = for_count(32, 12, 7) if directions == 32 else None
    value, grads = sliced.w2_squared_and_grad(
        x, y, directions=32 if drawn else theta.astype(np.float32), rng=7 if drawn else None
    )
    if drawn:
        step = 1e-2 * rng.standard_normal(x.shape)
        along = [sliced.w2_squared(x + sign * step, y.astype(float), directions=32, rng=7) for sign in (1.0, -1.0)]
        # Central differences of a function with kinks; its second derivative is of order 1 / n.
        assert (along[0] - along[1]) / 2 == pytest.approx((grads.x * step).sum(), rel=1e-2)
        return
    low, high = gradients_that_rounding_allows(x.astype(float), y.astype(float), theta.astype(np.float32).astype(float))
    assert ((low <= grads.x) & (grads.x <= high)).all()
    assert (high - low).max() < 0.1 * abs(grads.x).max()  # or this would say nothing
    px, py = x @ theta.T, y @ theta.T
    assert value == pytest.approx(((np.sort(px, 0) - np.sort(py, 0)) ** 2).mean(), rel=1e-6)


def gradients_that_rounding_allows(x: np.ndarray, y: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between what gradients by x lie if projections are made in float32: points that come near may change places.

    A sum of d products of rounded differences errs by d + 4 roundings of |x| at most, and so does one of L slopes.
    """
    (n, d), size, unit = x.shape, len(theta), 2.0**-24
    near = (d + 4) * unit * np.sqrt(max((x**2).sum(1).max(), (y**2).sum(1).max()))
    low, high, absolute = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for t in theta:
        along, others = x @ t, np.sort(y @ t)
        own = np.sort(along)
        first = np.searchsorted(own, along - 2 * near, "left")
        last = np.searchsorted(own, along + 2 * near, "right") - 1
        least, most = along - others[last] - 2 * near, along - others[first] + 2 * near
        ends = np.stack([least[:, None] * t, most[:, None] * t])
        low, high, absolute = low + ends.min(0), high + ends.max(0), absolute + abs(ends).max(0)
    slack = (size + 4) * unit * absolute
    return 2 / (n * size) * (low - slack), 2 / (n * size) * (high + slack)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_number_of_many_that_is_not_finite_is_refused(dtype):
    """Many numbers are looked at in pieces: wherever it is, and where the squares of the others overflow."""
    x = np.ones((5000, 7), dtype)
    x[0] = np.sqrt(np.finfo(dtype).max) / 2
    for where in (0, 8191, 8192, 32767, 32768, -1):
        for bad in (np.nan, np.inf, -np.inf):
            y = x.copy()
            y.flat[where] = bad
            with pytest.raises(ValueError, match="y must be finite; got 1 NaN or infinite of 35000 entries"):
                sliced.w2_squared(x, y, directions=4, rng=0)
    assert sliced.w2_squared(x, x.copy(), directions=4, rng=0) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_small_pair_is_an_ordinary_node(dtype):
    """Its gradients are computed with the value and scaled in place where nobody can ask for them again."""
    x, y = (torch.tensor(z, dtype=dtype) for z in clouds(3, 9, 9, 4)[:2])
    theta = sliced.directions(5, 4, rng=0, like=x)
    value, grads = sliced.w2_squared_and_grad(x.numpy(), y.numpy(), directions=theta.numpy())
    near = {"rtol": 100 * torch.finfo(dtype).eps, "atol": 100 * torch.finfo(dtype).eps}
    tx = x.clone().requires_grad_()
    one = sliced.w2_squared(tx, y, directions=theta)  # of one cloud alone: the other is sorted without its order
    assert one.dtype == dtype
    assert one.item() == float(value)
    for _ in range(2):
        (found,) = torch.autograd.grad(3 * one, tx, retain_graph=True)
        torch.testing.assert_close(found, 3 * torch.tensor(grads.x), **near)
    (several,) = torch.autograd.grad(one, tx, torch.tensor([1.0, 2.0], dtype=dtype), is_grads_batched=True)
    torch.testing.assert_close(several[1], 2 * torch.tensor(grads.x), **near)
    (twice,) = torch.autograd.grad(sliced.w2_squared(tx, y, directions=theta), tx, create_graph=True)
    with pytest.raises(NotImplementedError, match="sliced_cost has no second derivative"):
        twice.sum().backward()
    for needs in ((True, False, True), (False, True, False), (True, True, True)):
        arrays = [z.clone().requires_grad_(need) for z, need in zip((x, y, theta), needs, strict=True)]
        sliced.w2(arrays[0], arrays[1], directions=arrays[2]).backward()
        for z, g in zip(arrays[:2], grads, strict=False):
            if z.requires_grad:
                torch.testing.assert_close(z.grad, torch.tensor(g) / (2 * float(value) ** 0.5), **near)
    learned = torch.nn.Parameter(x.clone())
    sliced.w2_squared(learned, y, directions=theta).backward()
    torch.testing.assert_close(learned.grad, torch.tensor(grads.x), **near)
    with torch.no_grad():
        assert not sliced.w2_squared(tx, y, directions=theta).requires_grad
    assert torch.equal(tx.detach(), x)  # the arguments are as they were


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_graph_of_one_small_pair_is_used_once(dtype):
    x, y = (torch.tensor(z, dtype=dtype) for z in clouds(3, 9, 9, 4)[:2])
    x.requires_grad_()
    theta = sliced.directions(5, 4, rng=0, like=x)
    for cotangents, batched in ((None, False), (torch.ones(3, dtype=dtype), True)):
        value = sliced.w2_squared(x, y, directions=theta)
        torch.autograd.grad(value, x, cotangents, is_grads_batched=batched)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(value, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 1), (2, 3), (16, 1), (64, 3), (128, 2)])
@pytest.mark.parametrize("flush", [False, True])
def test_ties_of_one_small_pair_by_brute_force(dtype, n, d, flush):
    """On a lattice, along the axes: nearly all points tie, some at 0 and -0, and all sums are exact."""
    rng = np.random.default_rng(n)
    x, y = (rng.integers(-2, 3, (n, d)).astype(dtype) for _ in range(2))
    x[0] = -0.0
    # The mean, which is split off, is 0 and found exactly: the number of points is a power of two.
    x, y = np.concatenate([x, -x]), np.concatenate([y, -y])
    theta = np.concatenate([np.eye(d), -np.eye(d)]).astype(dtype)
    slopes, total = np.zeros((2, *x.shape)), 0.0
    for t in theta.astype(float):
        px, py = x @ t, y @ t
        gap = np.sort(px) - np.sort(py)
        total += (gap**2).mean() / len(theta)
        for side, (along, sign) in enumerate(((px, 1), (py, -1))):
            shared = np.array([gap[np.sort(along) == z].mean() for z in along])
            slopes[side] += sign * 2 / (len(theta) * len(x)) * shared[:, None] * t
    try:
        torch.set_flush_denormal(flush)
        value, grads = sliced.w2_squared_and_grad(x, y, directions=theta)
        tensors = [torch.tensor(z, requires_grad=k == 0) for k, z in enumerate((x, y))]
        (alone,) = torch.autograd.grad(sliced.w2_squared(*tensors, directions=torch.tensor(theta)), tensors[0])
    finally:
        torch.set_flush_denormal(False)
    # A group's mean, the scale and a product with it are rounded once each, and 2 d of them are added.
    few = (2 * d + 4) * float(np.finfo(dtype).eps)
    assert value == pytest.approx(total, rel=few)
    for found, expected in ((grads.x, slopes[0]), (grads.y, slopes[1]), (alone.numpy(), slopes[0])):
        np.testing.assert_allclose(found, expected, rtol=0, atol=few * max(abs(slopes).max(), np.finfo(dtype).tiny))


@pytest.mark.parametrize(("n", "d", "size"), [(256, 16, 128), (300, 20, 150), (4000, 3, 16), (40, 60, 800)])
def test_one_pair_that_takes_several_products(n, d, size):
    """The largest of those that go the short way: directions are projected on, and points pulled at, in parts."""
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d)) + 0.3
    theta = sliced.directions(size, d, rng=1)
    assert direct.is_small(x, y, theta)
    px, py = x @ theta.T, y @ theta.T
    orders = px.argsort(0), py.argsort(0)
    gap = np.take_along_axis(px, orders[0], 0) - np.take_along_axis(py, orders[1], 0)
    slopes = np.zeros((2, n, size))
    for side, sign in ((0, 1), (1, -1)):
        np.put_along_axis(slopes[side], orders[side], sign * 2 / (n * size) * gap, 0)
    value, grads = sliced.w2_squared_and_grad(x, y, directions=theta)
    # A projection is a sum of d products of points that were centred, a gradient one of `size` slopes; each of these
    # errs by so many roundings of the sum of their sizes.
    lengths = np.sqrt(max((x**2).sum(1).max(), (y**2).sum(1).max()))
    wrong = 2 * (d + 4) * EPS * 2 * lengths  # of a gap
    assert abs(value - (gap**2).mean()) <= wrong * (2 * abs(gap).mean() + wrong) + (size + n) * EPS * value
    for found, own in ((grads.x, slopes[0]), (grads.y, slopes[1])):
        near = (size + 4) * EPS * (abs(own) @ abs(theta)) + 2 / n * wrong
        assert (abs(found - own @ theta) <= near).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_small_pair_far_from_the_origin(dtype):
    """Points of few digits move exactly: with them only the centre that is split off is rounded in another way."""
    rng = np.random.default_rng(0)
    x, y = (np.round(8 * rng.standard_normal((60, 5))) / 8 for _ in range(2))
    x, y, theta = x.astype(dtype), y.astype(dtype) + 1, sliced.directions(7, 5, rng=1).astype(dtype)
    near, _ = sliced.w2_squared_and_grad(x, y, directions=theta)
    far, _ = sliced.w2_squared_and_grad(x + 2**12, y + 2**12, directions=theta)
    # A projection errs by d + 2 roundings of the longest centred point; the centre, by 60 of 2^12, which moves both
    # clouds alike. What is left is a difference of gaps, squared in the mean.
    eps = float(np.finfo(dtype).eps)
    wrong = 2 * (5 + 2) * eps * (2 * np.sqrt(max((x**2).sum(1).max(), (y**2).sum(1).max())) + 60 * 2**12 * eps)
    assert abs(float(far) - float(near)) <= 2 * wrong * (2 * float(near) ** 0.5 + wrong)


def test_directions_beyond_range_are_refused_in_silence():
    x = np.ones((4, 3), np.float32)
    for length in (1e19, 1e30):
        with pytest.raises(ValueError, match="directions must have rows of length 1"):
            sliced.w2_squared(x, 2 * x, directions=np.full((5, 3), length, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_small_pair_is_refused_as_any(bad):
    x, y, _, _ = clouds(3, 9, 9, 4)
    theta = sliced.directions(5, 4, rng=0)
    x[2, 1] = bad
    for kind in (np.asarray, torch.as_tensor):
        with pytest.raises(ValueError, match="x must be finite; got 1 NaN or infinite of 36 entries"):
            sliced.w2_squared(kind(x), kind(y), directions=kind(theta))
        with pytest.raises(ValueError, match="directions must have rows of length 1; got a row of length 2"):
            sliced.w2(kind(y), kind(y), directions=kind(2 * theta))
    assert sliced.w2_squared(y, y, directions=theta) == 0


def test_duplicated_points_share_a_gradient():
    x, y, _, _ = clouds(7, 5, 8, 3)
    twice = np.concatenate([x, x])
    grads = sliced.w2_squared_and_grad(twice, y, directions=20, rng=0)[1]
    single = sliced.w2_squared_and_grad(x, y, directions=20, rng=0)[1]
    np.testing.assert_allclose(grads.x[:5], grads.x[5:], atol=100 * EPS)
    np.testing.assert_allclose(2 * grads.x[:5], single.x, atol=1e-9)  # the ridge scales with nothing else


def test_degenerate_clouds():
    point, cloud = np.ones((4, 3)), clouds(8, 30, 4, 3)[0]
    for x, y in ((point, point), (point, cloud), (cloud, cloud), (cloud[:, :1] * np.ones(3), cloud)):
        value, grads = sliced.w2_squared_and_grad(x, y, directions=32, rng=0)
        assert value >= 0
        assert np.isfinite(np.concatenate([grads.x, grads.y])).all()
    # A point against a cloud: the mean squared distance over d, which the controls know exactly.
    expected = ((cloud - 1) ** 2).sum() / 30 / 3
    assert sliced.w2_squared(point, cloud, directions=32, rng=0) == pytest.approx(expected, rel=1e-6)
    assert sliced.w2(cloud, cloud, rng=0) == 0


@pytest.mark.parametrize("d", [1, 2, 3, 8])
@pytest.mark.parametrize("weighted", [(), (0,), (0, 1)])
@pytest.mark.parametrize("count", [1, 9, 20])
def test_torch_operators_and_kernels_agree(d, weighted, count):
    """What a GPU runs, on the CPU."""
    x, y, a, b = clouds(d, 7, 6, d)
    a, b = (w if k in weighted else np.zeros(0) for k, w in enumerate((a, b)))
    arrays = (x, y, a, b, np.zeros((0, d)))
    needs = (True, True, len(a) > 0, len(b) > 0, False)
    value, grads = _kernel(*arrays, needs_input_grad=needs, count=count, seed=1, p=2.0)
    theirs, their_grads = _kernel(
        *(torch.tensor(z) for z in arrays), needs_input_grad=needs, count=count, seed=1, p=2.0
    )
    assert float(theirs) == pytest.approx(float(value), rel=1e-9, abs=1e-12)
    for g, h in zip(grads, their_grads, strict=True):
        assert (g is None) == (h is None)
        if g is not None:
            np.testing.assert_allclose(g, h.numpy(), rtol=1e-7, atol=1e-10)


# Controls


def test_the_controls_means_are_those_of_the_sphere():
    rng = np.random.default_rng(0)
    a, b = covariance(4, rng), covariance(4, rng)
    theta = sliced.directions(200_000, 4, rng=0)
    fitted = controls.fit(theta[None], a[None], b[None], floor=1e-8)
    # Columns beyond the first have mean 0: of 2e5 directions, to 5 standard errors.
    means = fitted.columns[0, :, 1:].mean(0)
    assert (abs(means) < 5 * fitted.columns[0, :, 1:].std(0) / np.sqrt(200_000)).all()
    assert fitted.weights.sum() == pytest.approx(1, abs=1e-9)


def test_a_negative_estimate_falls_back_to_the_plain_average(monkeypatch):
    x, y, _, _ = clouds(9, 20, 20, 3)
    real = controls.fit

    def negative(*args, **kwargs):
        fitted = real(*args, **kwargs)
        return fitted._replace(weights=-fitted.weights)

    monkeypatch.setattr(controls, "fit", negative)
    drawn = for_count(20, 3, 0).directions
    shift = x.mean(0) - y.mean(0)
    centred = sliced.w2_squared(x - x.mean(0), y - y.mean(0), directions=drawn)
    value = sliced.w2_squared(x, y, directions=20, rng=0)
    assert value == pytest.approx(centred + shift @ shift / 3, rel=1e-12)


# Other costs, barycenters, the sphere


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("m", [30, 20])
@pytest.mark.parametrize("weighted", [False, True])
def test_wp_is_the_mean_over_its_directions(p, m, weighted):
    x, y, a, b = clouds(2, 30, m, 4)
    weights = (a, b) if weighted else (None, None)
    theta = sliced.directions(12, 4, rng=0)
    expected = np.mean([line.wp(x @ t, y @ t, *weights, p=p) ** p for t in theta]) ** (1 / p)
    assert sliced.wp(x, y, *weights, p=p, directions=theta) == pytest.approx(expected, rel=1e-12)
    # W_p of points on a line is its distance along that line times E|θ₁|^p, to the power 1/p; here in the plane.
    drawn = sliced.wp(np.zeros((1, 2)), np.array([[3.0, 4.0]]), p=p, directions=4000, rng=0)
    exact = 5 * np.mean(np.abs(np.cos(np.linspace(0, np.pi, 20001))) ** p) ** (1 / p)
    assert drawn == pytest.approx(exact, rel=1e-3)
    with pytest.raises(ValueError, match="p must be at least 1"):
        sliced.wp(x, y, p=0.5)


@pytest.mark.parametrize("p", [1, 1.5, 3])
@pytest.mark.parametrize("m", [6, 5])
def test_gradcheck_of_wp(p, m):
    args = [torch.tensor(z, requires_grad=True) for z in clouds(4, 6, m, 3)]
    theta = sliced.directions(5, 3, rng=0, like=args[0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda *z: sliced.wp(*z[:2], p=p, directions=z[2]), [*args[:2], theta])
    assert torch.autograd.gradcheck(lambda *z: sliced.wp(*z, p=p, directions=9, rng=3), args)


def test_a_barycenter_of_translated_clouds_is_translated():
    x = clouds(1, 60, 1, 3)[0]
    shift = np.array([2.0, -1.0, 4.0])
    found = sliced.barycenter([x, x + shift], [0.25, 0.75], init=x, rng=0, tol=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.points, x + 0.75 * shift, atol=1e-6)


@pytest.mark.parametrize("n", [25, 40])
def test_a_barycenter_is_a_minimum(n):
    rng = np.random.default_rng(0)
    y = [rng.standard_normal((k, 2)) * scale + shift for k, scale, shift in ((25, 1, 0), (30, 0.3, 3), (20, 2, -1))]
    theta, weights = sliced.directions(50, 2, rng=0), np.array([0.5, 0.3, 0.2])

    def objective(z):
        return sum(w * sliced.w2_squared(z, own, directions=theta) for w, own in zip(weights, y, strict=True))

    found = sliced.barycenter(y, weights, n=n, directions=theta, rng=0, tol=1e-5, max_iter=5000)
    assert found.converged
    assert found.points.shape == (n, 2)
    lowest = objective(found.points)
    assert all(objective(found.points + 1e-2 * rng.standard_normal((n, 2))) > lowest for _ in range(20))
    own = {"weights": torch.tensor(weights), "directions": torch.tensor(theta)}
    tensors = sliced.barycenter([torch.tensor(z) for z in y], n=n, rng=0, max_iter=3, **own)
    assert isinstance(tensors.points, torch.Tensor)
    assert not tensors.converged


def on_sphere(seed: int, n: int, d: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1)[:, None]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_circle_against_all_shifts(n):
    """In the plane every great circle is the circle itself: the least of all cyclic matchings, by shortest arcs."""
    for seed in range(20):
        x, y = on_sphere(seed, n, 2), on_sphere(seed + 100, n, 2)
        s, t = (np.sort(np.arctan2(z[:, 1], z[:, 0])) for z in (x, y))
        arcs = [(s - np.roll(t, k) + np.pi) % (2 * np.pi) - np.pi for k in range(n)]
        expected = min((arc**2).mean() for arc in arcs)
        assert sliced.spherical_w2_squared(x, y, directions=3, rng=0) == pytest.approx(expected, rel=1e-12)


def test_pot_agrees_on_the_sphere():
    x, y = on_sphere(0, 40, 5), on_sphere(1, 40, 5)
    y[:, 0] = np.abs(y[:, 0])
    circles = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 5, 2)))[0]
    theirs = ot.sliced_wasserstein_sphere(x, y, n_projections=30, p=2, projections=circles) ** 2
    ours = sliced.spherical_w2_squared(x, y, directions=np.ascontiguousarray(circles.mT))
    assert ours / (4 * np.pi**2) == pytest.approx(theirs, rel=1e-5)  # theirs is a bisection to 1e-6


def test_the_sphere_has_gradients():
    x, y = (torch.tensor(on_sphere(k, 6, 4), requires_grad=True) for k in (0, 1))
    assert torch.autograd.gradcheck(lambda *z: sliced.spherical_w2_squared(*z, directions=8, rng=0), [x, y])
    sliced.spherical_w2_squared(x, y, directions=8, rng=0).backward()
    np.testing.assert_allclose((x.grad * x.detach()).sum(1), 0, atol=100 * EPS)  # tangent
    assert sliced.spherical_w2_squared(x, x, directions=8, rng=0) == 0
    batch = sliced.spherical_w2_squared(torch.stack([x, y]), y, directions=8, rng=0)
    assert batch.shape == (2,)
    with pytest.raises(ValueError, match="x must have rows of length 1; got a row of length 2"):
        sliced.spherical_w2_squared(2 * x.detach(), y)


# Directions, randomness, the maximum


@pytest.mark.parametrize("kind", ["orthogonal", "sobol", "random"])
@pytest.mark.parametrize("d", [1, 2, 3, 5, 40])
def test_directions(kind, d):
    theta = sliced.directions(2 * d + 1, d, kind=kind, rng=0)
    assert theta.shape == (2 * d + 1, d)
    np.testing.assert_allclose(np.linalg.norm(theta, axis=1), 1, atol=10 * EPS)
    np.testing.assert_array_equal(theta, sliced.directions(2 * d + 1, d, kind=kind, rng=0))
    if kind == "orthogonal":
        np.testing.assert_allclose(theta[:d] @ theta[:d].T, np.eye(d), atol=100 * EPS)
        np.testing.assert_allclose(theta[d : 2 * d] @ theta[d : 2 * d].T, np.eye(d), atol=100 * EPS)
    many = sliced.directions(4096, d, kind=kind, rng=1)
    # The second moment of a uniform direction is 1/d, with a standard deviation below √2/d.
    np.testing.assert_allclose(many.T @ many / 4096, np.eye(d) / d, atol=6 * 1.5 / d / 64)


@given(seed=seeds)
def test_sobol_is_more_even_than_chance(seed):
    heights = np.sort(sliced.directions(256, 3, kind="sobol", rng=seed)[:, 2])  # uniform on [-1, 1]
    discrepancy = np.abs(heights - (np.arange(256) + 0.5) / 128 + 1).max()
    assert discrepancy < 2.0 / 256 + 1e-12  # one of 256 strata each; chance would give 0.17


def test_sources_of_randomness():
    x, y, _, _ = clouds(10, 9, 9, 3)
    value = sliced.w2_squared(x, y, directions=8, rng=5)
    assert sliced.w2_squared(x, y, directions=8, rng=5) == value
    assert sliced.estimate(x, y, directions=8, rng=5).value == value
    assert sliced.w2_squared(x, y, directions=8) != sliced.w2_squared(x, y, directions=8)
    for make in (lambda: np.random.default_rng(3), lambda: torch.Generator().manual_seed(3)):
        rng = make()
        first, second = (sliced.w2_squared(x, y, directions=8, rng=rng) for _ in range(2))
        assert first != second
        assert sliced.w2_squared(x, y, directions=8, rng=make()) == first
    like = torch.zeros(0, dtype=torch.float32)
    assert sliced.directions(3, 2, rng=0, like=like).dtype == torch.float32
    with pytest.raises(TypeError, match=r"rng must be an int, a numpy\.random\.Generator, a torch\.Generator or None"):
        sliced.w2_squared(x, y, rng="seed")


def test_an_estimate_is_differentiable_and_needs_values():
    x, y, _, _ = clouds(11, 9, 8, 3)
    tx, ty = torch.tensor(x, requires_grad=True), torch.tensor(y)
    found = sliced.estimate(tx, ty, directions=20, rng=0)
    found.value.backward()
    np.testing.assert_allclose(tx.grad, sliced.w2_squared_and_grad(x, y, directions=20, rng=0)[1].x, atol=1e-12)
    unseeded = sliced.estimate(tx, ty, directions=20)
    assert not unseeded.standard_error.requires_grad
    with pytest.raises(RuntimeError, match=r"sliced\.estimate needs values"):
        torch.func.vmap(lambda z: sliced.estimate(z, z).value)(torch.zeros((2, 3, 2)))


def test_batches_share_directions():
    x, y, a, _ = clouds(12, 7, 6, 3)
    xs = np.stack([x, 2 * x, x - 1])
    value, error, n = sliced.estimate(xs, y, a, directions=20, rng=0)
    assert value.shape == error.shape == (3,)
    assert n == 20
    for k in range(3):
        assert value[k] == sliced.w2_squared(xs[k], y, a, directions=20, rng=0)


def test_the_largest_direction():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((2000, 5))
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T, bias=True)), (x - x.mean(0)).T).T  # exactly white
    y = x * np.array([1.0, 1.0, 3.0, 1.0, 2.0])
    found = sliced.max_w2_squared(x, y, rng=0)
    assert found.converged
    assert found.n_iter <= 200
    assert found.value == pytest.approx(4, rel=1e-6)
    assert abs(found.direction[2]) == pytest.approx(1, abs=1e-3)
    theta = sliced.directions(200, 5, rng=0)
    assert found.value >= max(line.w2_squared(x @ t, y @ t) for t in theta)
    single = sliced.w2_squared(x, y, directions=found.direction[None])
    assert found.value == pytest.approx(single, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (3, 3), (6, 4), (25, 25)])
def test_the_maximum_in_the_plane_is_exact(n, m, weighted):
    """Against a dense net: f has slopes below 2 R² (R the largest distance), so between nodes h apart it exceeds the
    larger of its neighbours by no more than R² h."""
    angle = np.linspace(0, np.pi, 4001)[:-1]
    net = np.stack([np.cos(angle), np.sin(angle)], 1)
    for seed in range(8):
        x, y, a, b = clouds(seed, n, m, 2)
        weights = (a, b) if weighted else (None, None)
        found = sliced.max_w2_squared(x, y, *weights, rng=0)
        dense = line.w2_squared(net @ x.T, net @ y.T, *weights).max()
        largest = ((x[:, None] - y) ** 2).sum(-1).max()
        assert found.converged
        assert dense * (1 - 1e-12) <= found.value <= dense + largest * np.pi / 4000
        along = line.w2_squared(x @ found.direction, y @ found.direction, *weights)
        assert found.value == pytest.approx(along, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), [(3, 3), (6, 4), (20, 20), (150, 150)])
def test_the_maximum_in_space_is_no_less_than_a_dense_search_finds(n, m, dtype):
    net = sliced.directions(4096, 3, kind="sobol", rng=1).astype(dtype)
    for seed in range(4):
        x, y = (z.astype(dtype) for z in clouds(seed, n, m, 3)[:2])
        dense = line.w2_squared(net @ x.T, net @ y.T).max()
        assert sliced.max_w2_squared(x, y, rng=0).value >= dense * (1 - 100 * np.finfo(dtype).eps)


def dense_maximum(x: np.ndarray, y: np.ndarray) -> float:
    """The largest of many ascents θ ← Mθ / |Mθ|, M the second moment of the differences under the plan along θ."""
    d = x.shape[1]
    theta = np.concatenate([np.eye(d), sliced.directions(600, d, rng=1)])
    largest = 0.0
    for _ in range(15):
        orders = [np.argsort(theta @ z.T, axis=1) for z in (x, y)]
        apart = x[orders[0]] - y[orders[1]]
        gap = np.einsum("lni,li->ln", apart, theta)
        largest = max(largest, (gap**2).mean(1).max())
        theta = np.einsum("lni,ln->li", apart, gap) + 1e-12 * theta
        theta /= np.linalg.norm(theta, axis=1)[:, None]
    return largest


@pytest.mark.parametrize("d", [5, 10])
@pytest.mark.parametrize("kind", ["one distribution", "lattice", "few", "clusters"])
def test_the_maximum_is_no_less_than_many_ascents_find(d, kind):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((2, d if kind == "few" else 50, d))
        if kind == "lattice":
            x, y = rng.integers(0, 2, (2, 50, d)).astype(float)
        if kind == "clusters":
            x, y = (rng.normal(0, 2, (4, d))[rng.integers(4, size=50)] + 0.2 * z for z in (x, y))
        found = sliced.max_w2_squared(x, y, rng=seed)
        # It is a search, too, and takes values that are nearer than 0.1% for one.
        assert found.value >= dense_maximum(x, y) * (1 - 1e-3)
        assert found.converged
        assert 1 <= found.found <= found.n_starts
        assert len(found) == 4


def test_what_was_found_is_counted():
    x = np.random.default_rng(0).standard_normal((200, 4))
    easy = sliced.max_w2_squared(x, x + 3.0, rng=0)  # one maximum, which every start reaches
    assert easy.found == easy.n_starts == 32
    plane = sliced.max_w2_squared(x[:9, :2], x[9:20, :2], rng=0)
    assert (plane.found, plane.n_starts) == (1, 1)
    batch = sliced.max_w2_squared(np.stack([x, 2 * x]), x + 3.0, rng=0, starts=4)
    assert batch.found.shape == batch.n_starts.shape == (2,)
    # Clouds of one distribution have many maxima of nearly one height.
    hard = sliced.max_w2_squared(*np.random.default_rng(1).standard_normal((2, 200, 10)), rng=0)
    assert hard.found < hard.n_starts


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_the_maximum_is_its_slope(d, weighted):
    """Most maxima of few points are kinks, where the plan of one side alone has another slope."""
    step = 1e-5
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((5, d)), rng.standard_normal((4, d))
        weights = clouds(seed, 5, 4, d)[2:] if weighted else ()
        tx, *others = (torch.tensor(z, requires_grad=k == 0) for k, z in enumerate((x, y, *weights)))
        sliced.max_w2_squared(tx, *others, rng=0).value.backward()
        way = rng.standard_normal(x.shape)
        up, down = (sliced.max_w2_squared(x + s * step * way, y, *weights, rng=0).value for s in (1, -1))
        slope = (tx.grad.numpy() * way).sum()
        # Differences: step² and rounding over step. In space the search ends where slopes balance to √tol = 1e-3 of
        # 2f; a tenth of that is seen here.
        assert (up - down) / (2 * step) == pytest.approx(slope, abs=1e-6 if d == 2 else 1e-3 * (1 + abs(slope)))


def test_an_interrupted_search_says_so():
    x, y, _, _ = clouds(14, 40, 30, 3)
    with pytest.warns(ConvergenceWarning, match="had not converged after 1 steps"):
        assert not sliced.max_w2_squared(x, y, rng=0, max_iter=1).converged
    batch = sliced.max_w2_squared(np.stack([x, x + 1]), y, rng=0)
    assert batch.direction.shape == (2, 3)
    assert batch.converged.shape == (2,)
    tx = torch.tensor(np.stack([x, x + 1]), requires_grad=True)
    sliced.max_w2_squared(tx, torch.tensor(y), rng=0).value.sum().backward()
    alone = torch.tensor(x, requires_grad=True)
    sliced.max_w2_squared(alone, torch.tensor(y), rng=0).value.backward()
    np.testing.assert_allclose(tx.grad[0], alone.grad, atol=1e-5)  # another end of the same search


# Precision and range


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_its_own_directions(dtype):
    """The distance along float32 directions, to the rounding of points, directions and result."""
    x, y = (torch.tensor(z, dtype=dtype) for z in clouds(3, 50, 50, 8)[:2])
    theta = sliced.directions(30, 8, rng=0, like=x)
    value = sliced.w2_squared(x, y, directions=theta)
    assert value.dtype == dtype
    exact = sliced.w2_squared(x.double(), y.double(), directions=sliced.directions(30, 8, rng=0, like=x.double()))
    assert float(value) == pytest.approx(float(exact), rel=8 * torch.finfo(dtype).eps)
    assert sliced.w2_squared(x, y, directions=30, rng=0).dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "powers"), [(np.float32, (-100, -60, 60, 100)), (np.float64, (-900, -500, 500, 900))]
)
@pytest.mark.parametrize("m", [30, 20])
def test_any_scale(dtype, powers, m):
    """A power of two changes exponents only, so the distance scales exactly, whatever its square does."""
    x, y, a, b = (z.astype(dtype) for z in clouds(5, 30, m, 4))
    a, b = a / a.sum(), b / b.sum()
    for weights in ((), (a, b)):
        plain = sliced.w2(x, y, *weights, directions=20, rng=0)
        squared, grads = sliced.w2_squared_and_grad(x, y, *weights, directions=20, rng=0)
        for power in powers:
            scale = 2.0**power
            near = pytest.approx(1.0, rel=float(100 * np.finfo(dtype).eps))
            u, v = (np.ldexp(z, power) for z in (x, y))
            assert sliced.w2(u, v, *weights, directions=20, rng=0) / scale / plain == near
            if power in powers[1:3]:  # where the square still is a number; its own square is not
                error = sliced.estimate(u, v, *weights, directions=20, rng=0).standard_error
                known = sliced.estimate(x, y, *weights, directions=20, rng=0).standard_error
                assert error / scale / scale == pytest.approx(known, rel=1e-3)
            value, far = sliced.w2_squared_and_grad(u, v, *weights, directions=20, rng=0)
            with np.errstate(over="ignore", under="ignore"):
                expected = squared * dtype(scale) * dtype(scale)
            # A square beyond the range is inf, and one below it 0 or subnormal: off by no more than the smallest.
            assert value == pytest.approx(expected, rel=1e-3, abs=float(4 * np.finfo(dtype).smallest_subnormal))
            np.testing.assert_allclose(far.x / dtype(scale), grads.x, rtol=1e-2, atol=1e-4 * abs(grads.x).max())
            tensors = [torch.tensor(z, requires_grad=True) for z in (u, v, *weights)]
            sliced.w2_squared(*tensors, directions=20, rng=0).backward()
            for z, g in zip(tensors, far, strict=False):
                if np.isfinite(g).all():  # by weights it is a square; each of 30 terms may round its last bit
                    slack = 100 * np.finfo(dtype).eps * abs(g).max() + 30 * np.finfo(dtype).smallest_subnormal
                    assert abs(z.grad.numpy() - g).max() <= slack
                z.grad = None
            sliced.max_w2_squared(*tensors, rng=0).value.backward()
            assert all(torch.isfinite(z.grad).all() for z in tensors[:2])
        largest = [sliced.max_w2_squared(np.ldexp(x, k), np.ldexp(y, k), *weights, rng=0) for k in (0, powers[-1])]
        np.testing.assert_allclose(largest[0].direction, largest[1].direction, atol=1e-3)


@pytest.mark.parametrize("value", [3e38, 1e38])
def test_float32_at_the_end_of_its_range(value):
    """Values and gradients are those of float64, rounded: inf where that is too large, with no warning."""
    x = np.array([[value, value], [-value, -value], [1.0, 2.0]], np.float32) / 2
    theta = np.array([[0.6, 0.8]], np.float32)
    found, grads = sliced.w2_squared_and_grad(x, -x / 2, directions=theta)
    exact, wanted = sliced.w2_squared_and_grad(x.astype(float), -x.astype(float) / 2, directions=theta.astype(float))
    assert exact > np.finfo(np.float32).max
    assert found == np.inf
    np.testing.assert_allclose(grads.x, wanted.x, rtol=1e-5)
    assert sliced.w2(x, -x / 2, directions=theta) == pytest.approx(exact**0.5, rel=1e-5)


# Memory, refusals


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_directions():
    code = """
import numpy as np, resource
from otdist import sliced
x = np.random.default_rng(0).standard_normal((200_000, 2)).astype(np.float32)
sliced.w2_squared_and_grad(x[:1000], x[:1000] + 1, directions=2, rng=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sliced.w2_squared_and_grad(x, 2 * x, directions=400, rng=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    # All projections would be 610 MiB; a chunk is 2^21 numbers of each cloud, with keys and scratch for both threads.
    assert grown < 150 * 1024


def test_refusals():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="directions must have rows of length 1; got a row of length 2"):
        sliced.w2_squared(x, x, directions=np.array([[2.0, 0.0]]))
    with pytest.raises(ValueError, match=r"shape \(L, d\) with d = 2; got \(4, 3\)"):
        sliced.w2_squared(x, x, directions=np.ones((4, 3)))
    with pytest.raises(ValueError, match="directions must be a positive integer; got 0"):
        sliced.w2_squared(x, x, directions=0)
    with pytest.raises(ValueError, match="the number of coordinates; got 2 and 3"):
        sliced.w2_squared(x, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="kind must be one of orthogonal, sobol, random; got 'spiral'"):
        sliced.directions(3, 2, kind="spiral")
    huge = np.broadcast_to(np.float32(1), (1, 10**10, 64))  # the public door would read it all first
    with pytest.raises(MemoryError, match=r"the sliced distance of these clouds needs .* average over random subsets"):
        _refuse_too_large(huge, huge, (True,))


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_a_batch_without_problems(library):
    none, y = library(np.zeros((0, 4, 3))), library(np.eye(3)[[0, 1, 2, 0]])
    found = sliced.estimate(none, y, directions=20, rng=0)
    assert found.value.shape == found.standard_error.shape == (0,)
    largest = sliced.max_w2_squared(none, y, rng=0)
    assert largest.value.shape == largest.n_iter.shape == largest.converged.shape == (0,)
    assert largest.direction.shape == (0, 3)
    assert sliced.spherical_w2_squared(none, y, rng=0).shape == (0,)
    if library is torch.as_tensor:
        functions = (
            lambda z: sliced.estimate(none, z, directions=20, rng=0).value,
            lambda z: sliced.max_w2_squared(none, z, rng=0).value,
            lambda z: sliced.spherical_w2_squared(none, z, rng=0),
        )
        for function in functions:
            y.requires_grad_().grad = None
            function(y).sum().backward()
            assert torch.equal(y.grad, torch.zeros_like(y))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clouds": 3}, TypeError, "clouds must be a sequence of point sets; got int"),
        ({"clouds": None}, TypeError, "clouds must be a sequence of point sets; got NoneType"),
        ({"clouds": "text"}, TypeError, "clouds must be a sequence of point sets; got str"),
        ({"clouds": {"a": np.ones((4, 3))}}, TypeError, "clouds must be a sequence of point sets; got dict"),
        ({"clouds": np.float64(3)}, TypeError, "clouds must be a sequence of point sets; got float64"),
        ({"clouds": torch.tensor(3.0)}, TypeError, "clouds must be a sequence of point sets; got Tensor"),
        ({"clouds": []}, ValueError, "clouds must have at least one cloud; got none"),
        ({"clouds": [np.ones((2, 4, 3))]}, ValueError, r"clouds\[0\] must have shape \(m, d\); got \(2, 4, 3\)"),
        ({"weights": "text"}, TypeError, "weights must be an array of real numbers; got str"),
        ({"weights": [[0.5, 0.5]]}, ValueError, r"weights must have shape \(k,\); got \(1, 2\)"),
        ({"init": "text"}, TypeError, "init must be an array of real numbers; got str"),
        ({"init": np.ones((2, 2, 3))}, ValueError, r"init must have shape \(n, d\); got \(2, 2, 3\)"),
        ({"init": np.ones((2, 4))}, ValueError, r"clouds\[0\] and init must agree in the number of coordinates"),
        ({"directions": "text"}, TypeError, "directions must be an array of real numbers; got str"),
        ({"directions": 1.5}, ValueError, r"directions must be a count or have shape \(L, d\) with d = 3; got \(\)"),
        ({"directions": np.ones((2, 4))}, ValueError, r"directions must be a count or have shape \(L, d\) with d = 3"),
    ],
)
def test_a_barycenter_names_what_it_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        sliced.barycenter(**{"clouds": [np.ones((4, 3)), np.zeros((5, 3))], "rng": 0, **arguments})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("d", [3, 200])
def test_rows_normalized_in_their_own_precision_are_of_unit_length(dtype, d):
    x = torch.randn(300, d, generator=torch.Generator().manual_seed(0)).to(dtype)
    x /= torch.linalg.norm(x, dim=1, keepdim=True)
    exact = x.double() / torch.linalg.norm(x.double(), dim=1, keepdim=True)  # which has the same angles
    truth = sliced.spherical_w2_squared(exact, exact.roll(1, 1), directions=9, rng=0)
    value = sliced.spherical_w2_squared(x, x.roll(1, 1), directions=9, rng=0)
    assert value.dtype == dtype
    assert float(value) == pytest.approx(float(truth), rel=torch.finfo(dtype).eps)  # that of its own rounding
    circles = torch.linalg.qr(torch.randn(9, d, 2, generator=torch.Generator().manual_seed(1)))[0].mT.to(dtype)
    assert sliced.spherical_w2_squared(x, x, directions=circles) == 0
    with pytest.raises(ValueError, match=r"x must have rows of length 1; got a row of length 1\.1"):
        sliced.spherical_w2_squared(1.1 * x, x)


@pytest.mark.parametrize("count", [24, "given"])
def test_values_do_not_depend_on_threads(monkeypatch, count):
    from otdist._core import threads as pool

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3000, 20)).astype(np.float32)
    directions = count if count != "given" else sliced.directions(40, 20, rng=0).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(pool, "size", lambda threads=threads: threads)
        value, grads = sliced.w2_squared_and_grad(x, y, directions=directions, rng=0)
        found.append((value, grads.x, grads.y))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_estimate_beyond_the_range_of_float32_is_infinite_in_silence():
    x = np.array([[1.5e26, -1.6e26, 7.9e26]], np.float32)
    found = sliced.estimate(x, -x, directions=4, rng=0)
    assert found.value == np.inf
    assert not np.isnan(found.standard_error)
