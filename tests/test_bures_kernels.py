"""The three ways to the Bures distance on a CPU, by the public functions: each against 50 digits, and with each other.

A single pair goes to LAPACK, NumPy's or, if it is large, SciPy's; pairs that lose digits there go on to singular
values; eight small pairs or more are solved side by side by compiled rotations.
"""

from __future__ import annotations

import numpy as np
import pytest
from oracles import bures_squared, relative_error
from strategies import covariance, rotation

from otdist import gaussian
from otdist.gaussian import jacobi

EPS = np.finfo(float).eps
LARGE = 500  # coordinates that only SciPy's LAPACK takes


def alone(x, y):
    """Value and gradients of one pair."""
    zero = np.zeros(x.shape[-1], x.dtype)
    value, grads = gaussian.w2_squared_and_grad(zero, x, zero, y)
    return value, (grads.cov_x, grads.cov_y)


def value_alone(x, y):
    zero = np.zeros(x.shape[-1], x.dtype)
    return gaussian.w2_squared(zero, x, zero, y)


def side_by_side(x, y):
    """Values and gradients of a batch."""
    zero = np.zeros(x.shape[:-1], x.dtype)
    value, grads = gaussian.w2_squared_and_grad(zero, x, zero, y)
    return value, (grads.cov_x, grads.cov_y)


def pairs(n, d, condition=10.0):
    rng = np.random.default_rng(d)
    return np.stack([[covariance(d, rng, condition=condition) for _ in range(n)] for _ in range(2)])


def manufactured(d, spread, rng):
    """Y = T X T has the gradients I - T and I - T⁻¹ whatever X is; X's condition is 1/spread."""
    x, q = covariance(d, rng, condition=1 / spread), rotation(d, rng)
    stretch = np.linspace(0.5, 2.0, d)
    t, inverse = (q * stretch) @ q.T, (q / stretch) @ q.T
    y = t @ x @ t
    return x, (y + y.T) / 2, np.eye(d) - t, np.eye(d) - inverse


@pytest.mark.parametrize("d", [1, 2, 3, 8, 9, 16, 25])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e12])
def test_values_have_all_digits(d, condition):
    x, y = pairs(2, d, condition) * np.array([1.0, 2.0])[:, None, None, None]
    batch = gaussian.w2_squared(np.zeros(d), np.repeat(x, 4, 0), np.zeros(d), np.repeat(y, 4, 0))[::4]
    for i in range(2):
        # Factors are exact for matrices that are d eps away, whose small eigenvalues move by that much.
        bound = 10 * d * EPS * (1 + np.sqrt(d * EPS * condition)) * x[i].trace()
        reference = bures_squared(x[i], y[i], 50)
        for value in (value_alone(x[i], y[i]), alone(x[i], y[i])[0], batch[i]):
            assert abs(value - reference) <= bound


# Twelve digits while both conditions are at most 1e4, nine beyond: both are promised.
@pytest.mark.parametrize(("condition", "bound"), [(1e2, 1e-12), (1e4, 1e-12), (1e6, 1e-9), (1e10, 1e-9), (1e12, 1e-9)])
def test_values_against_condition(condition, bound):
    rng = np.random.default_rng(5)
    d = 20
    x, y, well = covariance(d, rng, condition=condition), covariance(d, rng, condition=condition), covariance(d, rng)
    for a, b in ((x, 2 * y), (x, well), (well, x), (x, 2 * x)):
        assert relative_error(value_alone(a, b), bures_squared(a, b, 50)) < bound


@pytest.mark.parametrize("t", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("d", [3, 8, 20])
@pytest.mark.parametrize("condition", [10.0, 1e6])
def test_both_ways_keep_the_digits_of_a_tiny_distance(t, d, condition):
    x, e = pairs(1, d, condition)
    y = x + t * e
    reference = bures_squared(x[0], y[0], 50)
    zero = np.zeros(d)
    batch = gaussian.w2_squared(zero, np.repeat(x, 9, 0), zero, np.repeat(y, 9, 0))
    for value in (value_alone(x[0], y[0]), alone(x[0], y[0])[0], batch[0], batch[8]):
        assert relative_error(value, reference) < 1e-6


@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-7])
@pytest.mark.parametrize("d", [8, 30, 150])
def test_gradients_of_a_manufactured_pair(d, spread):
    x, y, slope_x, slope_y = manufactured(d, spread, np.random.default_rng(d))
    batch = side_by_side(*(np.repeat(c[None], 8, 0) for c in (x, y)))[1] if d <= 40 else ()
    for grads in (alone(x, y)[1], *([(batch[0][3], batch[1][3])] if batch else [])):
        # Rounding y moves it by d eps, seen through X⁻¹.
        for ours, exact in zip(grads, (slope_x, slope_y), strict=True):
            np.testing.assert_allclose(ours, exact, rtol=0, atol=100 * d * EPS / spread)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-7])
def test_large_pairs(spread):
    # Whatever takes large matrices has to stand by what NumPy's LAPACK and the manufactured answer say.
    rng = np.random.default_rng(0)
    x, y, slope_x, slope_y = manufactured(LARGE, spread, rng)
    value, grads = alone(x, y)
    # B² = tr X + tr Y - 2 tr T X, for T X T = Y
    exact = x.trace() + y.trace() - 2 * ((np.eye(LARGE) - slope_x) * x).sum()
    bound = 10 * LARGE * EPS * (1 + np.sqrt(LARGE * EPS / spread)) * (x.trace() + y.trace())
    assert abs(value - exact) <= bound
    assert abs(value_alone(x, y) - exact) <= bound
    for ours, expected in zip(grads, (slope_x, slope_y), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=100 * LARGE * EPS / spread)
        np.testing.assert_array_equal(ours, ours.T)


@pytest.mark.parametrize("d", [2, 7, 16, 32])
def test_all_ways_agree(d):
    x, y = pairs(8, d, 100.0)
    value, slopes = side_by_side(x, y)
    np.testing.assert_allclose(gaussian.w2_squared(np.zeros(d), x, np.zeros(d), y), value, rtol=1e-12)
    for i in range(8):
        v, its = alone(x[i], y[i])
        assert value[i] == pytest.approx(v, rel=1e-12)
        assert value_alone(x[i], y[i]) == pytest.approx(v, rel=1e-12)
        # T is bounded by the root of the condition of X times that of Y, and divides by it once more.
        for ours, theirs in zip(slopes, its, strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=0, atol=100 * d * EPS * 100)


def test_one_singular_member_leaves_the_others_alone():
    x, y = pairs(40, 4)
    expected = gaussian.w2_squared(np.zeros(4), x, np.zeros(4), y)
    x[3] = np.diag([1.0, 1.0, 1.0, 0.0])
    out = gaussian.w2_squared(np.zeros(4), x, np.zeros(4), y)
    np.testing.assert_array_equal(np.delete(out, 3), np.delete(expected, 3))
    assert out[3] == pytest.approx(float(bures_squared(x[3], y[3])), rel=1e-12)


@pytest.mark.parametrize("d", [3, 20, 50])
@pytest.mark.parametrize("name", ["cov_x", "cov_y"])
def test_an_indefinite_member_is_refused_by_name(d, name):
    covs = {"cov_x": np.stack([np.eye(d)] * 20), "cov_y": np.stack([2 * np.eye(d)] * 20)}
    covs[name][7, 0, 0] = -0.5
    with pytest.raises(ValueError, match=f"{name} must be positive semidefinite; its smallest eigenvalue is -0.5"):
        gaussian.w2_squared(np.zeros(d), covs["cov_x"], np.zeros(d), covs["cov_y"])


@pytest.mark.parametrize("d", [2, 6, 9, 16, 40])
def test_a_tournament_pairs_everybody_once(d):
    met = jacobi.tournament(d).reshape(-1, 2).tolist()
    assert len({tuple(p) for p in met}) == len(met) == d * (d - 1) // 2
    rounds = np.reshape(met, (-1, d // 2 * 2))
    assert all(len(set(r.tolist())) == r.size for r in rounds)


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("n", [8, 9, 19])
def test_an_answer_does_not_depend_on_its_neighbours(n, with_gradient):
    # Lanes share their instructions, even with easy, equal, singular and slow problems: none of it may be seen.
    d = 6
    x, y = pairs(n, d, 1e6)
    x[::5] = np.eye(d)
    y[2::7] = x[2::7] * (1 + 1e-6)
    x[3::7, -1] = x[3::7, :, -1] = 0.0

    def solve(x, y):
        if with_gradient:
            return side_by_side(x, y)
        return gaussian.w2_squared(np.zeros(d), x, np.zeros(d), y), ()

    value, grads = solve(x, y)
    for i in range(n):
        alike, slopes = solve(*(np.repeat(c[i : i + 1], 8, 0) for c in (x, y)))
        assert value[i] == alike[0]
        for ours, theirs in zip(grads, slopes, strict=True):
            np.testing.assert_array_equal(ours[i], theirs[0])


def test_one_covariance_is_shared_by_all():
    x, y = pairs(11, 5)
    zero = np.zeros(5)
    shared = gaussian.w2_squared(zero, x, zero, y[0])
    np.testing.assert_array_equal(shared, gaussian.w2_squared(zero, x, zero, np.repeat(y[:1], 11, 0)))


@pytest.mark.parametrize("d", [6, 20, 45])
def test_a_batch_of_easy_near_and_singular_pairs(d):
    # Each kind takes another way, and their answers meet in one array.
    x, y = pairs(12, d)
    y[::3] = x[::3] * (1 + 1e-6)
    x[1:3] = 0.0
    x[2, 0, 0] = 1.0
    value, slopes = side_by_side(x, y)
    for i in range(12):
        v, its = alone(x[i], y[i])
        assert value[i] == pytest.approx(v, rel=1e-9)
        for a, b in zip(slopes, its, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-9)
