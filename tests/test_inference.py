"""Inference: levels and coverages that were promised, measured; corrections against known answers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from otdist import exact, gaussian, inference, sinkhorn, sliced
from otdist.inference.influence import influences


def samples(seed, n=40, m=50, d=2, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((m, d)) + shift


def squared_means(x, y):
    return ((x.mean(0) - y.mean(0)) ** 2).sum()


def test_under_the_null_hypothesis_p_values_are_uniform():
    p = [
        inference.two_sample_test(*samples(s), distance=squared_means, n_permutations=19, rng=s).p_value
        for s in range(400)
    ]
    # Twenty equally likely values: a chi-squared test that fails by chance once in 10⁴ seeds (and the seeds are fixed).
    counts = np.bincount(np.round(np.array(p) * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("distance", [None, gaussian.w2_squared_from_samples])
def test_a_difference_is_found(distance):
    result = inference.two_sample_test(*samples(0, shift=1.5), distance=distance, n_permutations=39, rng=0)
    assert result.p_value == 1 / 40
    assert result.statistic > 1


def test_tests_are_reproducible_and_take_tensors():
    x, y = samples(1)
    first, again = (inference.two_sample_test(x, y, n_permutations=49, rng=3) for _ in range(2))
    assert first == again
    tensors = inference.two_sample_test(torch.tensor(x), torch.tensor(y), n_permutations=49, rng=3)
    assert tensors.p_value == first.p_value
    assert tensors.statistic == pytest.approx(first.statistic, rel=1e-12)


def test_equal_samples_are_never_significant():
    x = np.zeros((10, 2))
    assert inference.two_sample_test(x, x, n_permutations=19, rng=0).p_value == 1.0


def test_intervals_cover_the_true_frechet_distance():
    covered, trials = 0, 300
    for s in range(trials):
        x, y = samples(s, n=200, m=300, shift=1.0)
        low, high, estimate = inference.confidence_interval(x, y, distance=gaussian.w2_squared_from_samples, rng=s)
        assert low < estimate < high
        covered += low <= 2.0 <= high
    # 95% ± four standard errors of a share of 300
    assert abs(covered / trials - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)


def test_intervals_narrow_with_the_level_and_with_n():
    x, y = samples(5, 400, 400, shift=1.0)
    wide, narrow = (inference.confidence_interval(x, y, level=level, rng=0) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    few = inference.confidence_interval(x[:50], y[:50], level=0.99, rng=0)
    assert few.high - few.low > wide.high - wide.low


def test_corrections_remove_the_bias_of_the_frechet_distance():
    d, n, trials = 8, 100, 60
    out = {c: [] for c in ("none", "jackknife", "extrapolate")}
    for s in range(trials):
        x, y = samples(s, n, n, d)
        for c, values in out.items():
            values.append(float(inference.frechet_distance(x, y, correction=c)))
    mean = {c: np.mean(v) for c, v in out.items()}
    error = {c: np.std(v) / np.sqrt(trials) for c, v in out.items()}
    assert mean["none"] > 20 * error["none"]  # the truth is 0
    for c in ("jackknife", "extrapolate"):
        assert abs(mean[c]) < 0.2 * mean["none"] + 4 * error[c]


@pytest.mark.parametrize("correction", ["none", "jackknife", "extrapolate"])
def test_corrected_distances_are_differentiable(correction):
    x, y = (torch.tensor(z, requires_grad=True) for z in samples(2, 40, 41, 2))
    assert torch.autograd.gradcheck(lambda x, y: inference.frechet_distance(x, y, correction=correction), (x, y))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x, y: inference.two_sample_test(x, y[:, :1]),
            ValueError,
            "x and y must agree in the number of coordinates",
        ),
        (
            lambda x, y: inference.two_sample_test(x, y, n_permutations=0),
            ValueError,
            "n_permutations must be a positive",
        ),
        (
            lambda x, y: inference.two_sample_test(x, torch.tensor(y)),
            TypeError,
            r"y is a torch\.Tensor and x is a numpy",
        ),
        (
            lambda x, y: inference.confidence_interval(x, y, level=95),
            ValueError,
            "level must be between 0 and 1; got 95",
        ),
        (lambda x, y: inference.confidence_interval(x[:9], y), ValueError, "x must have at least 40 points; got 9"),
        (
            lambda x, y: inference.frechet_distance(x, y, correction="magic"),
            ValueError,
            "correction must be .* 'magic'",
        ),
        (
            lambda x, y: inference.frechet_distance(x[None], y),
            ValueError,
            r"x must have shape \(n, d\); got \(1, 40, 2\)",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(*samples(3))


def test_the_default_distance_is_the_sliced_one():
    x, y = samples(4, shift=1.0)
    result = inference.two_sample_test(x, y, n_permutations=1, rng=0)
    assert result.statistic == pytest.approx(sliced.w2_squared(x, y, directions=4096, rng=0), rel=0.05)


@pytest.mark.parametrize(("n", "m"), [(12, 12), (12, 7), (1, 5), (6, 9)])
@pytest.mark.parametrize("library", [np.asarray, torch.tensor])
def test_relabellings_see_the_sliced_distance_of_their_parts(n, m, library):
    # With all labels moved, the observed statistic is what `sliced` says of the same points; ties must not disturb it.
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, 4, (n, 3)).astype(float), rng.integers(0, 4, (m, 3)).astype(float)
    statistic = inference.two_sample_test(library(x), library(y), n_permutations=1, rng=5).statistic
    directions = sliced.directions(128, 3, rng=np.random.default_rng(5))
    assert statistic == pytest.approx(sliced.w2_squared(x, y, directions=directions), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 21)])
def test_the_shortcut_finds_the_p_value_of_the_long_way(n, m):
    x, y = samples(7, n, m, 3, shift=0.3)
    directions = sliced.directions(128, 3, rng=np.random.default_rng(2))

    def distance(x, y):
        return sliced.w2_squared(x, y, directions=directions)

    short = inference.two_sample_test(x, y, n_permutations=99, rng=2)
    assert 1 / 100 < short.p_value < 1
    p = 1 + sum(
        float(distance(*np.split(np.concatenate([x, y])[np.argsort(~labels, kind="stable")], [n])))
        >= short.statistic * (1 - 1e-12)
        for labels in relabellings(2, n, m, 99)
    )
    assert short.p_value == p / 100


def relabellings(seed, n, m, count):
    """The labels that `two_sample_test` draws after its directions: part of what a seed promises."""
    rng = np.random.default_rng(seed)
    sliced.directions(128, 3, rng=rng)
    labels = np.arange(n + m) < n
    return [rng.permutation(labels) for _ in range(count)]


@pytest.mark.parametrize(
    "distance",
    [
        gaussian.w2_squared_from_samples,
        partial(sliced.w2_squared, directions=np.eye(2)),
        partial(sinkhorn.w2_squared, epsilon=0.5, tol=1e-10),
        exact.w2_squared,
    ],
    ids=["frechet", "sliced", "sinkhorn", "exact"],
)
def test_influences_are_the_derivative_in_the_weights(distance):
    # Move mass t from all points to the first half: dT/dt is the mean influence there, minus that of all points.
    # 11 and 14 have no common factor: no cumulative weights meet, so the distances are smooth in the weights.
    x, y = samples(3, 11, 14, 2, shift=0.7)
    value, f, g = influences(distance, x, y)
    assert value == pytest.approx(float(distance(x, y)), rel=1e-9)
    t = 1e-4
    for k, influence in ((0, f), (1, g)):
        n = (11, 14)[k]
        towards = np.where(np.arange(n) < n // 2, 1 / (n // 2), 0.0)
        ends = []
        for step in (t, -t):
            weights = [np.full(11, 1 / 11), np.full(14, 1 / 14)]
            weights[k] = (1 - step) * weights[k] + step * towards
            ends.append(weighted(distance, x, y, *weights))
        slope = (ends[0] - ends[1]) / (2 * t)
        # Central differences are off by t² times a third derivative of order one, and by rounding over t.
        assert slope == pytest.approx(influence @ towards - influence.mean(), rel=1e-5, abs=1e-7)


def weighted(distance, x, y, a, b):
    if distance is not gaussian.w2_squared_from_samples:
        return float(distance(x, y, a, b))
    # Weights scale the scatter; its factor n / (n - 1) is that of the sample.
    (m, A), (n, B) = (gaussian.fit(z, w, biased=True) for z, w in ((x, a), (y, b)))
    return float(gaussian.w2_squared(m, A * len(x) / (len(x) - 1), n, B * len(y) / (len(y) - 1)))


@pytest.mark.parametrize("distance", [None, gaussian.w2_squared_from_samples])
def test_the_delta_method_agrees_with_the_jackknife(distance):
    x, y = samples(11, 2000, 1500, shift=1.0)
    short, long = (
        inference.confidence_interval(x, y, distance=distance, method=method, rng=0)
        for method in ("delta", "jackknife")
    )
    # A standard error from 19 degrees of freedom is known to 1/√38; three times that.
    assert abs((short.high - short.low) / (long.high - long.low) - 1) < 3 / np.sqrt(38)
    assert abs(short.estimate - long.estimate) < (long.high - long.low) / 2


def test_intervals_by_the_delta_method_cover_the_true_frechet_distance():
    covered, trials = 0, 300
    for s in range(trials):
        x, y = samples(s, n=1000, m=1200, shift=1.0)
        low, high, _ = inference.confidence_interval(
            x, y, distance=gaussian.w2_squared_from_samples, method="delta", rng=s
        )
        covered += low <= 2.0 <= high
    assert abs(covered / trials - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)


def test_the_delta_method_says_which_distances_it_takes():
    x, y = samples(3)
    with pytest.raises(ValueError, match=r"needs a distance with a gradient in the weights: .* got 'squared_means'"):
        inference.confidence_interval(x, y, distance=squared_means, method="delta")
    with pytest.raises(ValueError, match="method must be one of jackknife, delta; got 'bootstrap'"):
        inference.confidence_interval(x, y, method="bootstrap")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["jackknife", "delta"])
def test_tests_and_intervals_take_tensors_of_any_precision_that_want_gradients(dtype, method):
    x, y = (torch.tensor(z, dtype=dtype, requires_grad=True) for z in samples(8, 60, 60, shift=1.0))
    low, high, estimate = inference.confidence_interval(x, y, method=method, rng=0)
    theirs = inference.confidence_interval(*(z.detach().double().numpy() for z in (x, y)), method=method, rng=0)
    # Half precision rounds each of some twenty squared distances near 1 to 2^-8, and pseudo-values multiply that by 20.
    bound = {"jackknife": 20, "delta": 1}[method] * {2: 2**-7, 4: 1e-5, 8: 1e-12}[dtype.itemsize]
    assert (low, high, estimate) == pytest.approx(tuple(theirs), abs=bound)
    assert 0 < inference.two_sample_test(x, y, n_permutations=9, rng=0).p_value <= 1


@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_samples_of_any_size(as_given):
    """The p-value has degree 0, intervals degree 2; what is beyond the range is refused by name, without a warning."""
    x, y = np.random.default_rng(5).standard_normal((2, 60, 2))
    y = y + 0.5
    test = inference.two_sample_test(as_given(x), as_given(y), n_permutations=19, rng=0)
    far = inference.two_sample_test(as_given(x * 2.0**600), as_given(y * 2.0**600), n_permutations=19, rng=0)
    assert (far.statistic, far.p_value) == (np.inf, test.p_value)
    for method in ("jackknife", "delta"):
        near = inference.confidence_interval(as_given(x), as_given(y), method=method, rng=0)
        large = inference.confidence_interval(as_given(x * 2.0**500), as_given(y * 2.0**500), method=method, rng=0)
        np.testing.assert_allclose(np.array(large) / 2.0**1000, near, rtol=1e-9)
        with pytest.raises(ValueError, match="is beyond the range of"):
            inference.confidence_interval(as_given(x * 2.0**600), as_given(y * 2.0**600), method=method, rng=0)
    for correction in ("none", "jackknife", "extrapolate"):
        with pytest.raises(ValueError, match="is beyond the range of"):
            inference.frechet_distance(as_given(x * 2.0**600), as_given(y * 2.0**600), correction=correction)
