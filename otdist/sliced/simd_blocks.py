"""Two clouds of equal weights along bundles of directions, on a CPU: as many directions as a vector has lanes at once.

A task takes one cloud along two bundles: it projects and sorts, and whoever has sorted the second cloud goes on to the
cost and the slopes while both are in the cache. The gradient, a sum over directions for each point, comes last, in one
pass over the points that adds everything else that is linear in them.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array

# Up to here a network sorts faster than jumps do, and a bundle's columns fit into the caches of a core or nearly so.
_LARGEST = 1 << 16
# With few directions lanes idle, and of few numbers rows are sorted as fast.
_FEWEST, _LEAST = 16, 1 << 15
# Slopes held at a time, of each cloud: 16 MiB of float32.
_CHUNK = 1 << 22
# Numbers to sort from which on threads are woken, and points whose gradients make a task.
_PARALLEL, _POINTS = 1 << 16, 1 << 10


def fit(x: Array, y: Array, a: Array, b: Array, n_directions: int) -> bool:
    """Whether this is the way for these clouds."""
    if backend.is_torch(x) or len(a) or len(b) or n_directions < _FEWEST:
        return False
    return min(len(x), len(y)) * n_directions >= _LEAST and max(len(x), len(y)) <= _LARGEST


class Bundles:
    """Two clouds x (n, d), y (m, d), NumPy arrays; see `sliced.Rows`, which does the same for everything else."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        from .means import weighted_mean

        self.points = tuple(np.ascontiguousarray(z) for z in (x, y))
        self.means = np.empty((2, x.shape[1]))
        for z, mean in zip(self.points, self.means, strict=True):
            weighted_mean(z, np.empty(0), mean)
        self.centres = self.means.astype(x.dtype)
        self.dtype, self.lanes = x.dtype, 64 // x.itemsize
        self.grads: list[Any] = [None] * 5

    def covariances(self) -> list[np.ndarray]:
        """Those of the clouds, (d, d), float64."""
        from .projections import gram

        step = 8 * _POINTS
        parts = [(k, i, min(i + step, len(z))) for k, z in enumerate(self.points) for i in range(0, len(z), step)]
        grams = np.zeros((len(parts), *2 * self.points[0].shape[1:]))

        def task(part: int) -> None:
            k, first, last = parts[part]
            gram(self.points[k], self.centres[k], first, last, grams[part])

        _each(task, range(len(parts)), sum(z.size for z in self.points))
        side = np.array([k for k, _, _ in parts])
        return [grams[side == k].sum(0) / len(z) for k, z in enumerate(self.points)]

    def values(self, theta: np.ndarray, weights: np.ndarray, needs_input_grad: tuple[bool, ...]) -> np.ndarray:
        """The distance along each of theta (L, d); keeps what the gradient of Σ weights · values will need."""
        from .columns import walk

        self.needs_input_grad, self.theta, self.weights = needs_input_grad, theta, weights
        self.slopes: list[Any] = [None, None]
        if needs_input_grad[4]:
            self.grads[4] = np.zeros(theta.shape)
        self.walk = walk(len(self.points[0]), len(self.points[1]), np.float64 if any(needs_input_grad) else self.dtype)
        values, step = np.empty(len(theta)), len(theta)
        if any(needs_input_grad):
            step = self.lanes * max(2, _CHUNK // (self.lanes * max(map(len, self.points))))
        for first in range(0, len(theta), step):
            if first:
                self._backproject(None, np.zeros_like(self.means))
            self.chunk = slice(first, first + step)
            self._transport(values[self.chunk])
        return values

    def gradients(self, quadratics: Any, pull: np.ndarray) -> list[Any]:
        """Those by x, y, a, b, theta, with that of a function of the covariances and of the difference of the means."""
        if any(self.needs_input_grad):
            self._backproject(quadratics, np.stack([pull / len(self.points[0]), -pull / len(self.points[1])]))
        return self.grads

    def _transport(self, values: np.ndarray) -> None:
        """One chunk of directions: costs, and slopes where they are needed."""
        from .projections import padded

        theta, turns = self.theta[self.chunk], any(self.needs_input_grad)
        self.kind = np.dtype(np.float64) if turns else self.dtype  # what is sorted: numbers, or floats with tags
        self.tags, self.width = self.kind != self.dtype, 64 // self.kind.itemsize
        bundles, used = -(-len(theta) // self.lanes), -(-len(theta) // self.width)
        rays = np.zeros((bundles * self.lanes, theta.shape[1]), self.dtype)
        rays[: len(theta)] = theta
        rays = rays.reshape(bundles, self.lanes, -1).transpose(0, 2, 1).ravel()
        sizes = [padded(len(z)) * self.width for z in self.points]
        for k in (0, 1):
            if self.needs_input_grad[k] or self.needs_input_grad[4]:
                self.slopes[k] = _aligned(used, sizes[k], self.dtype)
        step = 1 if turns else 2  # bundles in a task: a second one saves a centring, but its columns take space
        ratio = self.lanes // self.width
        found: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}
        met = {g: count() for g in range(0, bundles, step)}
        spare: list[list[tuple[np.ndarray, ...]]] = [[], []]

        def task(which: tuple[int, int]) -> None:
            g, k = which
            first, last = g * ratio, min((g + step) * ratio, used)
            held = spare[k].pop() if spare[k] else self._space(step * ratio, sizes[k])
            self._sort(k, rays, g, last - first, [z[: (bundles - g) * ratio] for z in held])
            found[which] = held
            if next(met[g]) == 1:  # the other cloud was here before
                for c in range(first, last):
                    self._meet(found[g, 0], found[g, 1], c, c - first, values[c * self.width : (c + 1) * self.width])
                for side in (0, 1):
                    spare[side].append(found.pop((g, side)))

        tasks = [(g, k) for g in range(0, bundles, step) for k in (0, 1)]
        _each(task, tasks, used * sum(sizes))

    def _space(self, columns: int, size: int) -> tuple[np.ndarray, ...]:
        """Columns to sort, and the points' numbers where those do not travel as tags."""
        own = _aligned(columns, size, self.kind)
        return (own, _aligned(columns, size, np.int64)) if any(self.needs_input_grad) and not self.tags else (own,)

    def _sort(self, k: int, rays: np.ndarray, g: int, used: int, held: list[np.ndarray]) -> None:
        from .columns import sorted_points, sorted_values

        sort = sorted_values if len(held) == 1 else sorted_points
        sort(self.points[k], self.centres[k], rays, g, used, *held)

    def _meet(self, x: tuple[np.ndarray, ...], y: tuple[np.ndarray, ...], column: int, c: int, values: Any) -> None:
        """Costs and slopes of the directions of one column, both sides sorted and in place c."""
        from . import columns

        if any(self.needs_input_grad):
            numbers = [z[0][c].view(np.int64) if self.tags else z[1][c] for z in (x, y)]
            outs = [np.empty(0, self.dtype) if own is None else own[column] for own in self.slopes]
            n, m = map(len, self.points)
            columns.slopes(x[0][c], numbers[0], n, y[0][c], numbers[1], m, self.tags, *self.walk, values, *outs)
        else:
            columns.costs(x[0][c], y[0][c], *self.walk, values)
        if self.needs_input_grad[4]:
            self._turn(column)

    def _turn(self, column: int) -> None:
        """The gradient by one column's directions."""
        from .projections import turn

        mine = slice(self.chunk.start + column * self.width, self.chunk.start + (column + 1) * self.width)
        total = np.zeros((self.width, self.theta.shape[1]))
        for k in (0, 1):
            turn(self.slopes[k][column], self.points[k], self.centres[k], total)
        grad = self.grads[4][mine]
        grad += self.weights[mine, None] * total[: len(grad)]

    def _backproject(self, quadratics: Any, pulls: np.ndarray) -> None:
        """Add what a chunk of directions says to the gradients by the points."""
        from .projections import backproject

        theta = self.weights[self.chunk, None] * self.theta[self.chunk]
        (used, d), lanes = theta.shape, self.lanes
        width, more = -(-d // lanes), self.chunk.start > 0
        panels = np.zeros((-(-used // lanes) * lanes + 2 * (d + 1), width * lanes), self.dtype)
        panels[:used, :d] = theta
        jobs = []
        for k in (0, 1):
            if not self.needs_input_grad[k]:
                continue
            n, first = len(self.points[k]), len(panels) - (2 - k) * (d + 1)
            own = panels[first : first + d + 1]
            own[d, :d] = pulls[k]
            if quadratics is not None:
                own[:d, :d] = quadratics[k] * (2 / n)
            if self.grads[k] is None:
                self.grads[k] = np.empty_like(self.points[k])
            quadratic = own[:d].reshape(-1) if quadratics is not None else own[:0].reshape(-1)
            jobs += [(k, quadratic, own[d], i, min(i + _POINTS, n)) for i in range(0, n, _POINTS)]
        rays = panels[: -2 * (d + 1)].reshape(-1)

        def task(job: Any) -> None:
            k, quadratic, pull, first, last = job
            x, mean, out = self.points[k], self.centres[k], self.grads[k]
            backproject(self.slopes[k], rays, width, x, mean, quadratic, pull, out, first, last, more)

        _each(task, jobs, sum(z.size for z in self.points))


def _each(task: Any, jobs: Any, work: int) -> None:
    """Call task with each job: on all threads, where there is enough to do."""
    from .._core import threads

    if work < _PARALLEL:
        for job in jobs:
            task(job)
    else:
        threads.map(task, jobs)


def _aligned(rows: int, columns: int, dtype: Any) -> np.ndarray:
    """An array (rows, columns), uninitialised, of vectors none of which straddles two lines of the cache."""
    dtype = np.dtype(dtype)
    raw = np.empty(rows * columns * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + rows * columns * dtype.itemsize].view(dtype).reshape(rows, columns)
