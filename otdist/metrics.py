"""Distances between two streams of points, batch by batch: update, compute, reset, merge; over processes too.

Every metric has two sides, ``real`` and not, and the same methods as the metrics of torchmetrics;
`to_torchmetrics` makes one of them a ``torchmetrics.Metric``.

>>> import numpy as np
>>> from otdist import metrics
>>> rng = np.random.default_rng(0)
>>> fid = metrics.FrechetDistance()
>>> for _ in range(10):
...     fid.update(rng.standard_normal((500, 4)), real=True)
...     fid.update(2 * rng.standard_normal((500, 4)) + 1, real=False)
>>> round(float(fid.compute()), 1)  # |1|² d + (2 - 1)² d
8.0
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from . import gaussian, inference, sinkhorn, sliced
from ._core import backend, checks
from ._core.annotations import AnyArray, Seed
from ._core.backend import Array

__all__ = ["FrechetDistance", "Metric", "SinkhornDivergence", "SlicedDistance", "TwoSampleTest", "to_torchmetrics"]


class _Points:
    """The points themselves; memory grows with their number."""

    def __init__(self) -> None:
        self.batches: list[Array] = []

    def update(self, points: Array) -> None:
        self.absorb(points)

    def absorb(self, rows: Array) -> None:
        """Add what another's `rows` returned."""
        if self.batches:
            checks.same_size("the number of coordinates", "earlier batches", self.dimension, "points", rows.shape[-1])
            checks.arrays(earlier=self.batches[0], points=rows)
        self.batches.append(rows.detach().clone() if backend.is_torch(rows) else np.array(rows))

    @property
    def dimension(self) -> int:
        return int(self.batches[0].shape[-1])

    def rows(self) -> Array | None:
        """Everything seen, (n, d); None before the first batch."""
        if len(self.batches) > 1:
            self.batches = [backend.namespace(self.batches[0]).concatenate(self.batches)]
        return self.batches[0] if self.batches else None


class _Moments:
    """Number, mean and scatter of the points: O(d²), however many come."""

    def __init__(self) -> None:
        self.moments = gaussian.Moments()

    def update(self, points: Array) -> None:
        self.moments.update(points.detach() if backend.is_torch(points) else points)

    def absorb(self, rows: Array) -> None:
        """Merge what others' `rows` returned: 1 + d + d² numbers each."""
        for row in rows:
            self.moments.merge(gaussian.Moments.unpack(row))

    def rows(self) -> Array | None:
        """One row (1, 1 + d + d²); None before the first batch."""
        return self.moments.pack()[None] if self.moments.n else None


class Metric(ABC):
    """What all metrics have: two sides that grow, and a number that compares them."""

    def __init__(self, kind: type = _Points) -> None:
        self._kind = kind
        self._sides: dict[bool, Any] = {True: kind(), False: kind()}

    def update(self, points: AnyArray, real: bool) -> None:
        """Add points (n, d), or features, of one side.

        Raises
        ------
        TypeError
            If they are neither arrays nor tensors, or not of the library, device and dtype of earlier ones.
        ValueError
            If they are not (n, d), not finite, or of another d than earlier ones.
        """
        (z,), _ = checks.arrays(points=points)
        if z.ndim != 2:
            raise ValueError(f"points must have shape (n, d); got {tuple(z.shape)}")
        checks.nonempty("points", z, -1, "coordinate")
        checks.finite("points", z)
        if len(z):
            self._sides[bool(real)].update(z)

    @abstractmethod
    def compute(self) -> Any:
        """The number for everything seen so far."""

    def reset(self, *, real: bool = True, fake: bool = True) -> None:
        """Forget both sides, or only one: the real side of a training run stays as it is."""
        for side, forget in ((True, real), (False, fake)):
            if forget:
                self._sides[side] = self._kind()

    def merge(self, other: Metric) -> None:
        """Add everything that another metric of the same kind has seen."""
        if type(other) is not type(self) or other._kind is not self._kind:
            raise TypeError(f"other must be a {type(self).__name__} that keeps the same; got {type(other).__name__}")
        for side, rows in other._sides.items():
            if rows.rows() is not None:
                self._sides[side].absorb(rows.rows())

    def state_dict(self) -> dict[str, Array]:
        """The state as arrays: ``real`` and ``fake``, those that have seen points."""
        named = (("real", self._sides[True].rows()), ("fake", self._sides[False].rows()))
        return {name: rows for name, rows in named if rows is not None}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Take over a state that `state_dict` returned."""
        unknown = set(state) - {"real", "fake"}
        if unknown:
            raise ValueError(f"state must have the keys real and fake; got {', '.join(sorted(map(str, unknown)))} too")
        self.reset()
        for name, rows in state.items():
            self._sides[name == "real"].absorb(rows)

    def sync(self, group: Any = None) -> None:
        """Gather all processes' points of a ``torch.distributed`` group; afterwards every process has everything."""
        gathered = {name: _gather(self._sides[name == "real"].rows(), group) for name in ("real", "fake")}
        self.reset()
        for name, parts in gathered.items():
            for rows in parts:
                self._sides[name == "real"].absorb(rows)

    def _both(self) -> tuple[Array, Array]:
        """All points of both sides."""
        real, fake = (self._side(name) for name in ("real", "fake"))
        checks.same_size("the number of coordinates", "real", real.dimension, "fake", fake.dimension)
        return real.rows(), fake.rows()

    def _side(self, name: str) -> Any:
        side = self._sides[name == "real"]
        if side.rows() is None:
            raise ValueError(f"the {name} side has seen no points; call update(points, real={name == 'real'}) first")
        return side


class FrechetDistance(Metric):
    """The Fréchet distance (FID) between the Gaussians that fit both sides.

    Parameters
    ----------
    correction : "none", "jackknife" or "extrapolate"
        As in `otdist.inference.frechet_distance`.
    keep : "moments" or "points", optional
        Moments take O(d²) memory for any number of points; a correction or an interval needs the points. By default
        whatever the correction needs.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import metrics
    >>> rng = np.random.default_rng(0)
    >>> fid = metrics.FrechetDistance(correction="extrapolate")
    >>> fid.update(rng.standard_normal((1000, 3)), real=True)
    >>> fid.update(rng.standard_normal((1000, 3)) + 1, real=False)
    >>> low, high, estimate = fid.interval()
    >>> low < fid.compute() < high
    np.True_
    """

    def __init__(self, *, correction: str = "none", keep: str | None = None) -> None:
        if correction not in ("none", "jackknife", "extrapolate"):
            raise ValueError(f"correction must be 'none', 'jackknife' or 'extrapolate'; got {correction!r}")
        keep = ("moments" if correction == "none" else "points") if keep is None else keep
        if keep not in ("moments", "points"):
            raise ValueError(f"keep must be 'moments' or 'points'; got {keep!r}")
        if keep == "moments" and correction != "none":
            raise ValueError(f"correction={correction!r} needs keep='points'; got keep='moments'")
        self.correction = correction
        super().__init__(_Moments if keep == "moments" else _Points)

    def compute(self) -> Array:
        """The distance, in the units of the points squared; without a gradient; from moments, in float64.

        Raises
        ------
        ValueError
            If a side has seen fewer points than the estimate needs.
        """
        if self._kind is _Points:
            return inference.frechet_distance(*self._both(), correction=self.correction)
        real, fake = self._side("real").moments, self._side("fake").moments
        checks.same_size("the number of coordinates", "real", len(real.mean), "fake", len(fake.mean))
        return gaussian.w2_squared(real.mean, real.cov, fake.mean, fake.cov)

    def interval(self, level: float = 0.95) -> inference.Interval:
        """Confidence interval by the delta method, about the distance without correction; it needs the points."""
        if self._kind is not _Points:
            raise ValueError("an interval needs the points: make the metric with keep='points'")
        distance = gaussian.w2_squared_from_samples
        return inference.confidence_interval(*self._both(), distance=distance, level=level, method="delta")


class SlicedDistance(Metric):
    """The squared sliced distance, `otdist.sliced.w2_squared`, over the same directions every time.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import metrics
    >>> metric = metrics.SlicedDistance(directions=np.eye(2))
    >>> metric.update(np.zeros((5, 2)), real=True)
    >>> metric.update(np.ones((5, 2)), real=False)
    >>> float(metric.compute())
    1.0
    """

    def __init__(self, *, directions: AnyArray = 128, rng: Seed = 0) -> None:
        super().__init__()
        self.directions, self.rng = directions, rng

    def compute(self) -> Array:
        """The distance, in the units of the points squared."""
        return sliced.w2_squared(*self._both(), directions=self.directions, rng=self.rng)


class SinkhornDivergence(Metric):
    """The debiased Sinkhorn divergence, `otdist.sinkhorn.w2_squared`, at an ``epsilon`` in units of squared distance.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import metrics
    >>> metric = metrics.SinkhornDivergence(epsilon=0.1)
    >>> metric.update(np.zeros((5, 2)), real=True)
    >>> metric.update(np.ones((5, 2)), real=False)
    >>> round(float(metric.compute()), 6)
    2.0
    """

    def __init__(self, *, epsilon: float, **options: Any) -> None:
        super().__init__()
        self.epsilon, self.options = epsilon, options

    def compute(self) -> Array:
        """The divergence, in the units of the points squared."""
        return sinkhorn.w2_squared(*self._both(), epsilon=self.epsilon, **self.options)


class TwoSampleTest(Metric):
    """The permutation test `otdist.inference.two_sample_test` of whether both sides come from one distribution.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import metrics
    >>> test = metrics.TwoSampleTest(n_permutations=99)
    >>> test.update(np.random.default_rng(0).standard_normal((60, 2)), real=True)
    >>> test.update(np.random.default_rng(1).standard_normal((60, 2)) + 1, real=False)
    >>> test.compute().p_value
    0.01
    """

    __test__ = False  # pytest would take it for a test

    def __init__(
        self, *, distance: Callable[[Any, Any], Any] | None = None, n_permutations: int = 999, rng: Seed = 0
    ) -> None:
        super().__init__()
        self.distance, self.n_permutations, self.rng = distance, n_permutations, rng

    def compute(self) -> inference.TestResult:
        """The observed distance and the p-value."""
        return inference.two_sample_test(
            *self._both(), distance=self.distance, n_permutations=self.n_permutations, rng=self.rng
        )


def to_torchmetrics(metric: Metric) -> Any:
    """A ``torchmetrics.Metric`` that computes what ``metric`` does, and synchronises processes by itself.

    Its ``update`` takes tensors and ``real``; ``compute`` returns what the metric's does.

    Raises
    ------
    ImportError
        If torchmetrics is not installed.

    Examples
    --------
    >>> import torch
    >>> from otdist import metrics
    >>> fid = metrics.to_torchmetrics(metrics.SlicedDistance(directions=torch.eye(2)))
    >>> fid.update(torch.zeros(5, 2), real=True)
    >>> fid.update(torch.ones(5, 2), real=False)
    >>> fid.compute()
    tensor(1.)
    """
    try:
        import torchmetrics
    except ImportError:
        raise ImportError("to_torchmetrics needs torchmetrics: pip install torchmetrics") from None

    class Wrapped(torchmetrics.Metric):
        full_state_update = False
        higher_is_better = False

        def __init__(self) -> None:
            super().__init__()
            self.metric = metric
            for name in ("real", "fake"):
                self.add_state(name, default=[], dist_reduce_fx="cat")

        def update(self, points: Any, real: bool) -> None:
            """Add points (n, d) of one side."""
            self._load()
            self.metric.update(points, real)
            for name, rows in self.metric.state_dict().items():
                setattr(self, name, [rows])

        def compute(self) -> Any:
            """The number for everything seen so far."""
            self._load()
            return self.metric.compute()

        def _load(self) -> None:
            """What torchmetrics holds is the state: it may have reset, synchronised or moved it."""
            self.metric.reset()
            for name in ("real", "fake"):
                rows = getattr(self, name)
                for part in rows if isinstance(rows, list) else [rows]:
                    self.metric._sides[name == "real"].absorb(part)

    Wrapped.__name__ = Wrapped.__qualname__ = type(metric).__name__
    return Wrapped()


def _gather(rows: Any, group: Any) -> list[Any]:
    """Every process's rows (n, k), those of the processes that have some; n may differ between them."""
    import torch
    from torch import distributed

    device = "cuda" if distributed.get_backend(group) == "nccl" else "cpu"
    mine = None if rows is None else torch.as_tensor(rows, device=device)
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    shape = torch.zeros(3, dtype=torch.int64, device=device)
    if mine is not None:
        shape = torch.tensor([*mine.shape, kinds.index(mine.dtype)], device=device)
    shapes = [torch.empty_like(shape) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(shapes, shape, group=group)
    most = max(shapes, key=lambda s: int(s[0]))
    if int(most[0]) == 0:
        return []
    longest, width, kind = (int(s) for s in most)
    padded = torch.zeros(longest, width, dtype=kinds[kind], device=device)
    if mine is not None:
        padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in shapes]
    distributed.all_gather(parts, padded, group=group)
    found = [part[: int(s[0])] for part, s in zip(parts, shapes, strict=True) if int(s[0])]
    return found if rows is None or backend.is_torch(rows) else [part.numpy() for part in found]


def __dir__() -> list[str]:
    return __all__
