"""Permutation tests: a distance between two samples against the distances of all ways to relabel them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .._core import backend, checks, random
from .._core.annotations import A, Numbers, Seed
from .._core.backend import Array
from .samples import Distance, default_directions, validate_samples, without_gradients

# Numbers that a block of relabellings may take: their temporaries stay near the caches.
_BLOCK = 2**21


class TestResult(NamedTuple):
    """The result of `two_sample_test`: the observed distance, and the share of relabellings that reach it."""

    statistic: float
    p_value: float


TestResult.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def two_sample_test(
    x: A | Numbers, y: A | Numbers, *, distance: Distance | None = None, n_permutations: int = 999, rng: Seed = None
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
        128 directions, the same for all relabellings: then the points are projected and sorted once, and a relabelling
        costs a pass over them (999 of two samples of 1000 points in 16 dimensions: a few seconds).
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
    u, v = without_gradients(*validate_samples(x, y, at_least=1))
    checks.positive_integer("n_permutations", n_permutations)
    generator = random.generator(random.seed(rng))
    pooled = backend.namespace(u).concatenate([u, v])
    if distance is None:
        statistics = _sliced_statistics(pooled, default_directions(u.shape[1], generator), len(u))
    else:
        statistics = _any_statistics(pooled, distance, len(u))
    labels = np.arange(len(pooled)) < len(u)
    observed = float(statistics(labels[None])[0])
    extreme = 1
    for block in _relabellings(labels, n_permutations, max(1, _BLOCK // statistics.size), generator):
        extreme += int((statistics(block) >= observed * (1 - 1e-12)).sum())
    return TestResult(observed, extreme / (n_permutations + 1))


class _Statistics(NamedTuple):
    """The distance between the two parts of a pooled sample, for many relabellings at once."""

    of: Callable[[np.ndarray], np.ndarray]  # labels (k, N), True for the first part -> (k,)
    size: int  # numbers that one relabelling takes

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        return self.of(labels)


def _relabellings(labels: np.ndarray, n: int, block: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """``n`` random permutations of the labels, in blocks (k, N)."""
    for start in range(0, n, block):
        yield np.stack([rng.permutation(labels) for _ in range(min(block, n - start))])


def _any_statistics(pooled: Array, distance: Distance, n: int) -> _Statistics:
    """A distance that is only known as a function of two samples: call after call."""

    def one(labels: np.ndarray) -> float:
        first, second = (backend.index(np.flatnonzero(chosen), pooled) for chosen in (labels, ~labels))
        return float(distance(pooled[first], pooled[second]))

    return _Statistics(lambda labels: np.array([one(row) for row in labels]), _BLOCK // 16)


def _sliced_statistics(pooled: Array, directions: np.ndarray, n: int) -> _Statistics:
    """The sliced distance: a relabelling changes neither the projections nor their order.

    Along each direction the labels, brought into the order of the pooled projections, cut the sorted numbers into the
    two sorted parts; what is left is the sum over the monotone coupling, which depends on n and m alone.
    """
    xp, size = backend.namespace(pooled), len(pooled)
    points = backend.astype(pooled, xp.float64)
    points = points - points.mean(0)
    projected = backend.like(directions, points) @ points.T
    order = projected.argsort(1)
    ordered = projected[backend.index(np.arange(len(directions))[:, None], points), order]
    mass, i, j = (backend.index(z, points) for z in _coupling(n, size - n))

    def of(labels: np.ndarray) -> np.ndarray:
        chosen = backend.index(labels, points)[:, order]  # (k, L, N)
        everything = backend.broadcast_to(ordered, chosen.shape)
        first, second = _split(everything, chosen, n)
        gap = first - second if n == size - n else first[..., i] - second[..., j]
        found = ((gap * gap) @ mass).mean(1)
        return found.cpu().numpy() if backend.is_torch(found) else found

    return _Statistics(of, order.shape[0] * order.shape[1])


def _split(values: Array, chosen: Array, n: int) -> tuple[Array, Array]:
    """The n chosen values of each row (k, L, N), and the others, both in their order."""
    if backend.on_cpu(values):
        shape = values.shape[:2]
        return values[chosen].reshape(*shape, n), values[~chosen].reshape(*shape, values.shape[2] - n)
    # An index of booleans would have the host wait for their number: each value goes to its place instead.
    rank = chosen.cumsum(-1)
    others = values.new_ones(values.shape[-1]).cumsum(-1) - rank
    place = backend.namespace(values).where(chosen, rank - 1, n - 1 + others).long()
    apart = values.new_empty(values.shape).scatter_(-1, place, values)
    return apart[..., :n], apart[..., n:]


def _coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The monotone coupling of n and m equal weights: masses (s,), and the ranks on both sides that exchange them."""
    levels = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)  # in units of 1 / (n m): whole numbers
    return np.diff(levels) / (n * m), levels[:-1] // m, levels[:-1] // n
