"""Means and covariances of points: at once, or batch by batch where the data does not fit in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import validate_points
from .._core.scale import OutOfRange, power_of_two


def fit(x: Any, a: Any = None, *, biased: bool = False) -> tuple[Array, Array]:
    """The Gaussian with the mean and covariance of points.

    Parameters
    ----------
    x : (..., n, d)
        Points.
    a : (..., n), optional
        Weights that sum to 1; None is uniform.
    biased : bool
        Divide the scatter by n instead of n - 1 (with weights: by 1 instead of 1 - Σ a²).

    Returns
    -------
    mean : (..., d)
    cov : (..., d, d)

    Raises
    ------
    ValueError
        If there are fewer than two points (or effectively one, by the weights) and ``biased`` is False, or the
        covariance is beyond the range of the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> mean, cov = gaussian.fit(np.array([[0.0], [2.0]]))
    >>> mean, cov
    (array([1.]), array([[2.]]))
    """
    named = {"x": x} if a is None else {"x": x, "a": a}
    (x, *given), cast_back = checks.arrays(**named)
    validate_points("x", x)
    n = x.shape[-2]
    xp = backend.namespace(x)
    x = backend.astype(x, xp.float64)
    a = backend.astype(checks.weights("a", given[0], n), xp.float64)[..., None] if given else None
    if a is None:
        left = n if biased else n - 1
        if not left:
            raise ValueError(f"x must have at least 2 points; got {n} (biased=True divides by n)")
    else:
        lost = (a * a).sum(-2)[..., None]
        left = xp.ones_like(lost) if biased else 1 - lost
        if not biased and backend.inspectable(left) and not bool((left > 0).all()):
            raise ValueError("a must spread over two points or more; all of it is in one (biased=True divides by 1)")
    with backend.silent_overflow(x):
        mean, cov = _mean_and_covariance(x, a, left)
        if not _are_finite(mean, cov):
            unit = float(power_of_two(np.abs(backend.as_numpy(x)).max()))
            mean, cov = _mean_and_covariance(x / unit, a, left)
            mean, cov = mean * unit, cov * unit * unit
        mean, cov = cast_back(mean), cast_back(cov)
    if not _are_finite(mean, cov):
        raise OutOfRange(f"the covariance of x is beyond the range of {backend.dtype_name(cov)}; divide x by some c")
    return mean, cov


def _mean_and_covariance(x: Array, a: Array | None, left: Any) -> tuple[Array, Array]:
    """Of points x (..., n, d) with weights a (..., n, 1) or none; the scatter is divided by ``left``."""
    mean = x.mean(-2) if a is None else (a * x).sum(-2)
    centred = x - mean[..., None, :]
    return mean, (centred if a is None else a * centred).mT @ centred / left


def _are_finite(*arrays: Array) -> bool:
    """Whether nothing that can be looked at has overflowed."""
    return all(not backend.inspectable(z) or bool(np.isfinite(backend.as_numpy(z)).all()) for z in arrays)


class Moments:
    """Mean and covariance of points that arrive in batches, in any order and on any number of machines.

    The batches' means and scatters are combined by the update of Chan, Golub & LeVeque (1979), in float64: no sum of
    squares is formed from which a squared mean would be subtracted. Memory is O(d²), however many points come.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> x = np.arange(12.0).reshape(6, 2)
    >>> left, right = gaussian.Moments().update(x[:4]), gaussian.Moments().update(x[4:])
    >>> left.merge(right).cov
    array([[14., 14.],
           [14., 14.]])
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean: Array = None
        self._scatter: Array = None

    def update(self, batch: Any) -> Moments:
        """Add points (n, d), NumPy or PyTorch; returns self."""
        (x,), _ = checks.arrays(batch=batch)
        if x.ndim != 2:
            raise ValueError(f"batch must have shape (n, d); got {tuple(x.shape)}")
        checks.nonempty("batch", x, -1, "coordinate")
        checks.finite("batch", x)
        if x.shape[0]:
            x = backend.astype(x, backend.namespace(x).float64)
            with backend.silent_overflow(x):
                mean = x.mean(0)
                scatter = (x - mean).mT @ (x - mean)
            if not _are_finite(mean, scatter):
                raise OutOfRange("the scatter of batch is beyond the range of float64; divide it by some c")
            self._combine(x.shape[0], mean, scatter)
        return self

    def merge(self, other: Moments) -> Moments:
        """Add everything that ``other`` has seen; returns self."""
        if not isinstance(other, Moments):
            raise TypeError(f"other must be Moments; got {type(other).__name__}")
        if other.n:
            self._combine(other.n, other._mean, other._scatter)
        return self

    def _combine(self, n: int, mean: Array, scatter: Array) -> None:
        if self.n == 0:
            self.n, self._mean, self._scatter = n, mean, scatter
            return
        checks.arrays(moments=self._mean, batch=mean)
        checks.same_size("the number of coordinates", "the moments", self._mean.shape[0], "batch", mean.shape[0])
        total = self.n + n
        with backend.silent_overflow(mean):
            shift = mean - self._mean
            scatter = self._scatter + scatter + shift[:, None] * shift * (self.n * n / total)
        if not _are_finite(scatter):
            raise OutOfRange("the scatter of all batches is beyond the range of float64; divide them by some c")
        self._scatter, self._mean, self.n = scatter, self._mean + shift * (n / total), total

    def pack(self) -> Array:
        """n, the mean and the scatter in one vector of 1 + d + d² numbers, for files and for other processes."""
        if self.n == 0:
            raise ValueError("there is nothing to pack before the first point")
        xp, one = backend.namespace(self._mean), backend.like(np.ones(1), self._mean)
        return xp.concatenate([self.n * one, self._mean, self._scatter.reshape(-1)])

    @classmethod
    def unpack(cls, packed: Array) -> Moments:
        """What `pack` put into a vector."""
        (packed,), _ = checks.arrays(packed=packed)
        d = round((4 * len(packed) - 3) ** 0.5 - 1) // 2 if packed.ndim == 1 else 0
        if d < 1 or len(packed) != 1 + d + d * d:
            raise ValueError(f"packed must have shape (1 + d + d²,); got {tuple(packed.shape)}")
        checks.finite("packed", packed)
        packed = backend.astype(packed, backend.namespace(packed).float64)
        new = cls()
        new.n, new._mean, new._scatter = int(packed[0]), packed[1 : 1 + d], packed[1 + d :].reshape(d, d)
        return new

    @property
    def mean(self) -> Array:
        """The mean so far, (d,), in float64."""
        if self.n < 1:
            raise ValueError("the mean needs at least 1 point; got 0")
        return self._mean

    @property
    def cov(self) -> Array:
        """The covariance so far, (d, d), in float64, divided by n - 1."""
        if self.n < 2:
            raise ValueError(f"the covariance needs at least 2 points; got {self.n}")
        return self._scatter / (self.n - 1)

    def __repr__(self) -> str:
        return f"Moments(n={self.n})"
