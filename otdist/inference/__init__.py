"""What a distance between samples says about where they came from: tests, intervals, and corrections of bias.

The distance of two samples is above the distance of their distributions, by about 1/n for smooth distances such as the
Fréchet distance and the sliced one, and by more, about n^(-2/d), for exact transport. The jackknife removes a bias of
1/n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import gaussian, sliced
from .._core import backend, checks, random
from .._core.backend import Array
from .._core.clouds import validate_points

Distance = Callable[[Any, Any], Any]

# Parts that the jackknife leaves out in turn: enough for a standard error with 19 degrees of freedom.
_GROUPS = 20
# The sliced distance's own default; drawn once, so that every resample is seen from the same directions.
_DIRECTIONS = 128


class TestResult(NamedTuple):
    """The result of `two_sample_test`."""

    statistic: float
    p_value: float


TestResult.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


class Interval(NamedTuple):
    """The result of `confidence_interval`."""

    low: float
    high: float
    estimate: float


def two_sample_test(
    x: Any, y: Any, *, distance: Distance | None = None, n_permutations: int = 999, rng: Any = None
) -> TestResult:
    """Permutation test of whether two samples come from one distribution.

    If they do, the labels x and y are exchangeable: the p-value is the share of relabellings, the given one among them,
    whose distance is at least the observed one. It is exact for every sample size: under the null hypothesis
    P(p <= α) <= α.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        Points, NumPy or PyTorch.
    distance : callable, optional
        ``distance(x, y)`` of two clouds, any function that gives a number. By default `otdist.sliced.w2_squared` over
        128 directions, the same for all relabellings.
    n_permutations : int
        How many relabellings to draw; the least p-value is 1 / (n_permutations + 1).
    rng : int, numpy.random.Generator, torch.Generator or None
        Where they come from.

    Returns
    -------
    TestResult(statistic, p_value)
        The observed distance and the p-value.

    References
    ----------
    Phipson & Smyth (2010), "Permutation p-values should never be zero", arXiv:1603.05766; Ramdas, García Trillos &
    Cuturi (2017), "On Wasserstein two-sample testing", arXiv:1509.02237.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import inference
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((50, 3)), rng.standard_normal((60, 3)) + 1.0
    >>> inference.two_sample_test(x, y, n_permutations=99, rng=0).p_value
    0.01
    """
    x, y = _samples(x, y, at_least=1)
    checks.positive_integer("n_permutations", n_permutations)
    generator = random.generator(random.seed(rng))
    distance = _default(x.shape[1], generator) if distance is None else distance
    pooled, n = backend.namespace(x).concatenate([x, y]), len(x)
    observed = float(distance(x, y))
    extreme = 1
    for _ in range(n_permutations):
        order = backend.index(generator.permutation(len(pooled)), pooled)
        extreme += float(distance(pooled[order[:n]], pooled[order[n:]])) >= observed * (1 - 1e-12)
    return TestResult(observed, extreme / (n_permutations + 1))


def confidence_interval(
    x: Any, y: Any, *, distance: Distance | None = None, level: float = 0.95, rng: Any = None
) -> Interval:
    """Confidence interval for the distance between the distributions of two samples.

    The grouped jackknife: both samples are cut at random into 20 parts, the distance is computed without each part in
    turn, and the pseudo-values 20 θ - 19 θ₍₋ₖ₎ give the estimate (their mean, free of a bias of 1/n), its standard
    error and a Student interval with 19 degrees of freedom.

    Valid for distances that are smooth in the two distributions, `otdist.gaussian.w2_squared_from_samples` (FID) and
    `otdist.sliced.w2_squared` among them, and away from equality: where the distributions agree, the distance has
    slope 0 and the interval is too wide or too narrow; `two_sample_test` answers that question. Exact transport in
    more than three dimensions has a bias that the jackknife does not remove.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        Points, NumPy or PyTorch, at least 40 of each.
    distance : callable, optional
        As in `two_sample_test`.
    level : float
        Between 0 and 1.
    rng : int, numpy.random.Generator, torch.Generator or None
        Where the parts (and default directions) come from.

    Returns
    -------
    Interval(low, high, estimate)
        In the units of ``distance``; `low` is not cut off at 0.

    References
    ----------
    Efron & Tibshirani (1993), "An introduction to the bootstrap", chapter 11.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian, inference
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((2000, 2)), rng.standard_normal((2000, 2)) + 1.0
    >>> fid = inference.confidence_interval(x, y, distance=gaussian.w2_squared_from_samples, rng=0)
    >>> fid.low < 2.0 < fid.high
    True
    """
    from scipy.stats import t as student

    x, y = _samples(x, y, at_least=2 * _GROUPS)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; got {level:g}")
    generator = random.generator(random.seed(rng))
    distance = _default(x.shape[1], generator) if distance is None else distance
    x, y = (z[backend.index(generator.permutation(len(z)), z)] for z in (x, y))
    pseudo = np.array([float(p) for p in _pseudo_values(distance, x, y, _GROUPS)])
    error = pseudo.std(ddof=1) / len(pseudo) ** 0.5
    reach = float(student.ppf((1 + level) / 2, len(pseudo) - 1) * error)
    estimate = float(pseudo.mean())
    return Interval(estimate - reach, estimate + reach, estimate)


def frechet_distance(x: Any, y: Any, *, correction: str = "none") -> Array:
    """The Fréchet distance (FID) of two samples, corrected for the bias of their finite size.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        Points, or features of images.
    correction : "none", "jackknife" or "extrapolate"
        - ``"none"``: `otdist.gaussian.w2_squared_from_samples`, biased upwards by about 1/n.
        - ``"jackknife"``: minus the bias as leaving out each of 20 interleaved parts shows it; needs 40 points.
        - ``"extrapolate"``: a straight line in 1/n through the distances of the samples, their halves and their
          quarters, read off at 1/n = 0 (FID∞). More robust than the jackknife where n is not many times d.

    Returns
    -------
    ()
        Differentiable. A corrected distance is unbiased to first order, so it may be negative.

    Raises
    ------
    ValueError
        If there are too few points for the correction, or its name is not known.

    References
    ----------
    Chong & Forsyth (2020), "Effectively unbiased FID and Inception Score and where to find them", arXiv:1911.07023.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import inference
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((500, 16)), rng.standard_normal((500, 16))
    >>> biased, corrected = (float(inference.frechet_distance(x, y, correction=c)) for c in ("none", "extrapolate"))
    >>> biased > 0.2, abs(corrected) < 0.1
    (True, True)
    """
    if correction == "none":
        x, y = _samples(x, y, at_least=2)
        return gaussian.w2_squared_from_samples(x, y)
    if correction == "jackknife":
        x, y = _samples(x, y, at_least=2 * _GROUPS)
        pseudo = _pseudo_values(gaussian.w2_squared_from_samples, x, y, _GROUPS)
        return sum(pseudo[1:], pseudo[0]) / len(pseudo)
    if correction == "extrapolate":
        x, y = _samples(x, y, at_least=8)
        return _extrapolated(x, y)
    raise ValueError(f"correction must be 'none', 'jackknife' or 'extrapolate'; got {correction!r}")


def _extrapolated(x: Array, y: Array) -> Array:
    """The intercept of the least-squares line in 1/n, each size weighted by how many points its distances saw."""
    sizes = np.array([1.0, 2.0, 4.0])  # 1/n in units of the samples' own
    means = []
    for parts in (1, 2, 4):
        values = [gaussian.w2_squared_from_samples(x[k::parts], y[k::parts]) for k in range(parts)]
        means.append(sum(values[1:], values[0]) / parts)
    centred = sizes - sizes.mean()
    weights = 1 / len(sizes) - sizes.mean() * centred / (centred**2).sum()
    return sum((float(w) * v for w, v in zip(weights[1:], means[1:], strict=True)), float(weights[0]) * means[0])


def _pseudo_values(distance: Distance, x: Array, y: Array, groups: int) -> list[Any]:
    """K θ - (K - 1) θ without part k; parts interleave, so the samples' order matters only as much as it is random."""
    whole = distance(x, y)
    rest = [[_without(z, k, groups) for z in (x, y)] for k in range(groups)]
    return [groups * whole - (groups - 1) * distance(*pair) for pair in rest]


def _without(z: Array, k: int, groups: int) -> Array:
    return z[backend.index(np.flatnonzero(np.arange(len(z)) % groups != k), z)]


def _default(d: int, generator: np.random.Generator) -> Distance:
    rows = sliced.directions(_DIRECTIONS, d, rng=generator)

    def distance(x: Array, y: Array) -> Array:
        return sliced.w2_squared(x, y, directions=backend.like(rows, x))

    return distance


def _samples(x: Any, y: Any, *, at_least: int) -> tuple[Array, Array]:
    (x, y), cast_back = checks.arrays(x=x, y=y)
    for name, z in (("x", x), ("y", y)):
        if z.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d); got {tuple(z.shape)}")
        validate_points(name, z)
        if len(z) < at_least:
            raise ValueError(f"{name} must have at least {at_least} points; got {len(z)}")
    checks.same_size("the number of coordinates", "x", x.shape[1], "y", y.shape[1])
    return cast_back(x), cast_back(y)
