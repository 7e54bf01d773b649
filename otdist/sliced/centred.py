"""Clouds with their means split off."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from . import products

# Points of one cloud that a task centres: 64 KiB to 1 MiB of coordinates.
_POINTS = 1 << 12
# Points summed in their own precision, before float64 goes on: their sums err by less than the points do.
_SUMMED = 32
# Coordinates from which on threads are woken.
_PARALLEL = 1 << 18


class Cloud:
    """A batch of clouds less their means, which are summed in float64."""

    def __init__(self, x: Array, weights: Array) -> None:
        """Points x (b, n, d) with weights (b, n), or (b, 0) where they are uniform."""
        xp = backend.namespace(x)
        self.raw, self.weights = x, backend.astype(weights, xp.float64)
        if self.weights.shape[1]:
            self.mean = (self.weights[:, None] @ backend.astype(x, xp.float64))[:, 0]  # (b, d), float64
        elif backend.is_torch(x) or x.size < _PARALLEL:
            self.mean = x.mean(1, dtype=xp.float64)
        else:
            self.mean = _mean_in_parts(x)
        self.centre = backend.astype(self.mean, x.dtype)[:, None]

    @cached_property
    def points(self) -> Array:
        """The centred points, (b, n, d)."""
        return self.raw - self.centre

    @property
    def share(self) -> Any:
        """The weight of each point, (b, n, 1), or one number."""
        return self.weights[..., None] if self.weights.shape[1] else 1.0 / self.raw.shape[1]

    def project(self, theta: Array) -> Array:
        """The centred points along directions (b or 1, l, d) in their own precision: (b, l, n)."""
        theta = backend.astype(theta, self.raw.dtype)
        if "points" in self.__dict__:
            return products.project(theta, self.points)
        return products.project(theta, self.raw, self.centre)

    def covariance(self) -> Array:
        """Σ w (x - m)(x - m)ᵀ, (b, d, d), float64."""
        if self.weights.shape[1]:
            return products.gram(self.points, self.points * backend.astype(self.share, self.raw.dtype))
        return products.gram(self.points, self.points) / self.raw.shape[1]


def _mean_in_parts(x: np.ndarray) -> np.ndarray:
    """Means (b, d) of large clouds (b, n, d)."""
    batch, n, d = x.shape
    parts = [(b, slice(first, first + _POINTS)) for b in range(batch) for first in range(0, n, _POINTS)]
    sums = np.empty((len(parts), d))

    def add(k: int) -> None:
        part = x[parts[k]]
        whole = len(part) // _SUMMED * _SUMMED
        np.einsum("kij->kj", part[:whole].reshape(-1, _SUMMED, d)).sum(0, dtype=np.float64, out=sums[k])
        sums[k] += part[whole:].sum(0, dtype=np.float64)

    products.each(add, range(len(parts)), x.size, _PARALLEL)
    return sums.reshape(batch, -1, d).sum(1) / n
