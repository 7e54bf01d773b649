"""The three ways to the Bures distance on a CPU: every branch against 50 digits, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import bures_squared, relative_error
from strategies import covariance, rotation

from otdist import gaussian
from otdist.gaussian import bures, bures_large, bures_single, bures_small

EPS = np.finfo(float).eps


def small(x, y, with_gradient=True):
    n, d = x.shape[:2]
    value, status = np.empty(n), np.empty(n, np.int8)
    grads = np.empty((2, n if with_gradient else 0, d, d))
    bures_small.solve(x, y, 0, n, value, *grads, status)
    return value, grads, status


def single(x, y, with_gradient=False):
    n, d = x.shape[:2]
    value, status = np.empty(n), np.empty(n, np.int8)
    grads = np.empty((2, n if with_gradient else 0, d, d))
    bures_single.solve(x, y, 0, n, value, *grads, status)
    return value, grads, status


def pairs(n, d, condition=10.0):
    rng = np.random.default_rng(d)
    return np.stack([[covariance(d, rng, condition=condition) for _ in range(n)] for _ in range(2)])


@pytest.mark.parametrize("d", [1, 2, 3, 8, 9, 16])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_jacobi_has_all_digits(d, with_gradient):
    x, y = pairs(3, d, 1e4) * np.array([1.0, 2.0])[:, None, None, None]  # covariances of one coordinate are all 1
    value, _, status = small(x, y, with_gradient)
    assert not status.any()
    for v, a, b in zip(value, x, y, strict=True):
        assert relative_error(v, bures_squared(a, b, 50)) < 1e-12


@pytest.mark.parametrize("d", [1, 2, 7, 8, 9, 16, 25, 40])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e12])
def test_reflections_have_all_digits(d, condition):
    x, y = pairs(2, d, condition) * np.array([1.0, 2.0])[:, None, None, None]
    value, _, status = single(x, y)
    assert not status.any()
    for v, a, b in zip(value, x, y, strict=True):
        # Cholesky's factors are exact for matrices that are d eps away, whose small eigenvalues move by that much.
        assert abs(v - bures_squared(a, b, 50)) <= 10 * d * EPS * (1 + np.sqrt(d * EPS * condition)) * a.trace()


@pytest.mark.parametrize("d", [63, 64, 65, 128, 200])
def test_reflections_and_lapack_agree(d):
    x, y = pairs(1, d, 100.0)
    value, _, status = single(x, 3 * y)
    assert not status.any()
    assert value[0] == pytest.approx(bures._solve_pair(x[0], 3 * y[0], (False, False))[0], rel=1e-12)


@pytest.mark.parametrize("spread", [1.0, 3.0, 1e2, 1e8, 1e18])
def test_the_quadrature_is_a_root(spread):
    squares, weights = np.zeros((2, 8 * bures_single._MOST_NODES))
    n = 8 * bures_single._nodes(1 / spread, max(1.0, 2 / spread), squares, weights)
    x = np.geomspace(1 / spread, 1.0, 200)
    sums = (weights[:n] / (x[:, None] ** 2 + squares[:n])).sum(-1) * x**2
    np.testing.assert_allclose(sums, x, rtol=n * EPS)


@pytest.mark.parametrize("sigma", [np.geomspace(1, 1e-300, 16), [3.0] * 5, [1.0, 0.0, 2.0], [1e-60]])
def test_singular_values_of_any_size_are_summed(sigma):
    sigma, d = np.array(sigma), len(sigma)  # of a bidiagonal matrix that is diagonal
    above, (squares, weights) = np.zeros(d), np.zeros((2, 8 * bures_single._MOST_NODES))
    vectors = bures_single._nodes(*bures_single._bounds(d, sigma, above), squares, weights)
    found = bures_single._sum_of_singular_values(d, sigma, above, vectors, squares, weights)
    assert found == pytest.approx(sigma.sum(), rel=100 * EPS)


@pytest.mark.parametrize("d", [1, 2, 5, 8, 11])
def test_the_inverse_root_of_a_bidiagonal_matrix(d):
    rng = np.random.default_rng(d)
    diagonal, above = rng.standard_normal(d), np.append(rng.standard_normal(d - 1), 0.0)
    b = np.diag(diagonal) + np.diag(above[:-1], 1)
    most, width = bures_single._MOST_NODES, 8 * -(-d // 8)
    squares, weights, scratch = np.zeros(8 * most), np.zeros(8 * most), np.zeros(8 * most * (2 * d + 1))
    vectors = bures_single._nodes(*bures_single._bounds(d, diagonal, above), squares, weights)
    out = np.zeros(width * width)
    bures_single._inverse_root(d, diagonal, above, vectors, squares, weights, scratch, out)
    root = out.reshape(width, width)[:d, :d]
    np.testing.assert_array_equal(root, root.T)
    condition = np.linalg.cond(b)
    np.testing.assert_allclose(root @ root @ (b.T @ b), np.eye(d), atol=100 * d * EPS * condition**2)


@pytest.mark.parametrize("d", [1, 5, 17])
def test_reflections_leave_what_is_not_theirs(d):
    x, y = pairs(6, d)
    x[0] = 0.0
    x[1, -1] = x[1, :, -1] = 0.0
    y[2] -= 2 * np.eye(d)
    y[3] = np.nan
    y[4] = x[4]
    value, grads, status = single(x, 4 * y, with_gradient=True)
    assert status.tolist() == [1, 1, 1, 1, 0, 0]
    assert single(x[4:5], y[4:5])[2] == 1
    alone, slopes, _ = single(x[5:], 4 * y[5:], with_gradient=True)
    assert value[5] == alone
    np.testing.assert_array_equal(grads[:, 5], slopes[:, 0])


@pytest.mark.parametrize("t", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("d", [3, 8, 20])
@pytest.mark.parametrize("condition", [10.0, 1e6])
def test_both_ways_keep_the_digits_of_a_tiny_distance(t, d, condition):
    x, e = pairs(1, d, condition)
    y = x + t * e
    reference = bures_squared(x[0], y[0], 50)
    value, _, status = small(x, y, with_gradient=False)
    assert not status.any()
    assert relative_error(value[0], reference) < 1e-6
    assert relative_error(bures._solve_pair(x[0], y[0], (False, False))[0], reference) < 1e-6


# Twelve digits while both conditions are at most 1e4, nine beyond: both are promised.
@pytest.mark.parametrize(("condition", "bound"), [(1e2, 1e-12), (1e4, 1e-12), (1e6, 1e-9), (1e10, 1e-9), (1e12, 1e-9)])
def test_lapack_way_against_condition(condition, bound):
    rng = np.random.default_rng(5)
    d = 20
    x, y, well = covariance(d, rng, condition=condition), covariance(d, rng, condition=condition), covariance(d, rng)
    for a, b in ((x, 2 * y), (x, well), (well, x), (x, 2 * x)):
        assert relative_error(bures._solve_pair(a, b, (False, False))[0], bures_squared(a, b, 50)) < bound


@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-7])
@pytest.mark.parametrize("d", [8, 30, 150])
def test_gradients_of_a_manufactured_pair(d, spread):
    # Y = T X T has the gradients I - T and I - T⁻¹ whatever X is. X's condition is 1/spread.
    rng = np.random.default_rng(d)
    x, q = covariance(d, rng, condition=1 / spread), rotation(d, rng)
    stretch = np.linspace(0.5, 2.0, d)
    t, inverse = (q * stretch) @ q.T, (q / stretch) @ q.T
    y = t @ x @ t
    y = (y + y.T) / 2
    _, (its_x, its_y), status = single(x[None], y[None], with_gradient=True)
    assert status[0] == (spread < 1e-6)  # too ill-conditioned for it
    for grads in [bures._solve_pair(x, y, (True, True))[1]] + [(its_x[0], its_y[0])] * (not status[0]):
        # Rounding y moves it by d eps, seen through X⁻¹.
        for ours, exact in zip(grads, (np.eye(d) - t, np.eye(d) - inverse), strict=True):
            np.testing.assert_allclose(ours, exact, rtol=0, atol=100 * d * EPS / spread)
            np.testing.assert_array_equal(ours, ours.T)


@pytest.mark.parametrize("d", [2, 7, 16, 32])
def test_all_ways_agree(d):
    x, y = pairs(4, d, 100.0)
    compiled = small(x, y), single(x, y, with_gradient=True)
    for i in range(4):
        v, slopes = bures._solve_pair(x[i], y[i], (True, True))
        for value, grads, status in compiled:
            assert not status[i]
            assert value[i] == pytest.approx(v, rel=1e-12)
            # T is bounded by the root of the condition of X times that of Y, and divides by it once more.
            np.testing.assert_allclose(grads[:, i], slopes, rtol=0, atol=100 * d * EPS * 100)


def test_polar_finds_small_singular_values_in_what_is_left():
    # Singular values over 14 decades: KᵀK holds those above 1e-8 only, so the block left over is solved three times.
    rng = np.random.default_rng(0)
    d = 40
    left, right, sigma = rotation(d, rng), rotation(d, rng), np.geomspace(1, 1e-14, d)
    k = np.asfortranarray((left * sigma) @ right.T)
    gram = np.asfortranarray(k.T @ k)
    for exactly in (False, True):
        u, v = bures_large.polar(k, bures_large.eigenvectors(gram), exactly)
        np.testing.assert_allclose(u.T @ u, np.eye(d), atol=100 * d * EPS)
        np.testing.assert_allclose(v.T @ v, np.eye(d), atol=100 * d * EPS)
        nuclear = np.einsum("ij,ij->", u, k @ v)
        assert abs(nuclear - np.linalg.svd(k, compute_uv=False).sum()) <= 100 * d * EPS


def test_one_singular_member_leaves_the_others_alone():
    x, y = pairs(40, 4)
    expected = gaussian.w2_squared(np.zeros(4), x, np.zeros(4), y)
    x[3] = np.diag([1.0, 1.0, 1.0, 0.0])
    out = gaussian.w2_squared(np.zeros(4), x, np.zeros(4), y)
    np.testing.assert_array_equal(np.delete(out, 3), np.delete(expected, 3))
    assert out[3] == pytest.approx(float(bures_squared(x[3], y[3])), rel=1e-12)


@pytest.mark.parametrize("d", [3, 20, 40])
@pytest.mark.parametrize("name", ["cov_x", "cov_y"])
def test_an_indefinite_member_is_refused_by_name(d, name):
    covs = {"cov_x": np.stack([np.eye(d)] * 20), "cov_y": np.stack([np.eye(d)] * 20)}
    covs[name][7, 0, 0] = -0.5
    with pytest.raises(ValueError, match=f"{name} must be positive semidefinite; its smallest eigenvalue is -0.5"):
        gaussian.w2_squared(np.zeros(d), covs["cov_x"], np.zeros(d), covs["cov_y"])


@pytest.mark.parametrize("d", [2, 12, 40])
def test_equal_covariances_have_no_distance_and_no_gradient(d):
    x, _ = pairs(2, d, 1e3)
    value, grads = bures._solve(x, x, (True, True))
    assert (value >= 0).all()
    assert (value <= (100 * d * EPS) ** 2 * d).all()
    for g in grads:
        np.testing.assert_allclose(g, 0, atol=100 * d * EPS * 1e3**0.5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("d", [4, 40])
def test_scales(scale, d):
    x, y = pairs(1, d)
    for needs in ((False, False), (True, True)):
        value, grads = bures._solve(x, y, needs)
        scaled, same = bures._solve(scale * x, scale * y, needs)
        np.testing.assert_allclose(scaled, scale * value, rtol=1e-12)
        if needs[0]:
            np.testing.assert_allclose(same[0], grads[0], atol=1e-12)


def test_a_tournament_pairs_everybody_once():
    for d in (1, 2, 5, 8):
        rounds = bures_small._tournament(d)
        met = {tuple(pair) for pair in rounds.reshape(-1, 2).tolist()}
        assert len(met) == rounds[..., 0].size == d * (d - 1) // 2
        assert all(len(set(r.ravel().tolist())) == r.size for r in rounds)


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 19])
def test_an_answer_does_not_depend_on_its_neighbours(n, with_gradient):
    # Lanes share their instructions, even with easy, broken and slow problems: none of it may be seen.
    d = 6
    x, y = pairs(n, d, 1e6)
    x[::5] = np.eye(d)
    y[2::7] = np.nan
    x[3::7, -1] = x[3::7, :, -1] = 0.0
    value, grads, status = small(x, y, with_gradient)
    for i in range(n):
        alone, slopes, its = small(x[i : i + 1], y[i : i + 1], with_gradient)
        assert status[i] == its[0] == (np.isnan(y[i]).any() or x[i, -1, -1] == 0)
        if not status[i]:
            assert value[i] == alone[0]
            np.testing.assert_array_equal(grads[:, i : i + 1] if with_gradient else 0, slopes if with_gradient else 0)


def test_one_covariance_is_shared_by_all():
    x, y = pairs(11, 5)
    value, status, none = np.empty(11), np.empty(11, np.int8), np.empty((0, 5, 5))
    bures_small.solve(x, y[:1], 0, 11, value, none, none, status)
    assert not status.any()
    np.testing.assert_array_equal(value, small(x, np.repeat(y[:1], 11, 0), with_gradient=False)[0])


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_variances_whose_powers_overflow_are_left_to_lapack(scale):
    x, y = pairs(2, 4)
    assert small(scale * x, scale * y)[2].all()
    assert single(scale * x, scale * y)[2].all()


@pytest.mark.parametrize("d", [6, 20, 45])
def test_a_batch_of_easy_near_and_singular_pairs(d):
    # Each kind takes another way, and their answers meet in one array.
    x, y = pairs(12, d)
    y[::3] = x[::3] * (1 + 1e-6)
    x[1:3] = 0.0
    x[2, 0, 0] = 1.0
    zero = np.zeros((12, d))
    value, grads = gaussian.w2_squared_and_grad(zero, x, zero, y)
    for i in range(12):
        alone, its = gaussian.w2_squared_and_grad(zero[i], x[i], zero[i], y[i])
        assert value[i] == pytest.approx(alone, rel=1e-9)
        for a, b in ((grads.cov_x[i], its.cov_x), (grads.cov_y[i], its.cov_y)):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
