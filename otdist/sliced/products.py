"""Matrix products between clouds and directions, for a batch of problems at once.

On a CPU large ones are done on threads of our own, in pieces that BLAS does on the caller's thread: a threaded BLAS
lets its idle threads spin for a while, to be ready for the next product. After a large product those threads would take
the cores from the sorts that follow, and slow them down twofold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._core import backend, threads
from .._core.backend import Array

# OpenBLAS starts its threads above this product of the three sizes (interface/gemm.c: 65536 times 4).
_PIECE = 1 << 18
# Multiplications from which on threads of our own are woken: some 0.1 ms.
_PARALLEL = 1 << 22
# Directions in a piece: of those in the result, and of those summed over, where longer sums save additions.
_ROWS, _DEEP = 64, 128
# With more coordinates than this, pieces would be slivers: BLAS does it all.
_WIDEST = 256


def quiet() -> np.errstate:
    """What is out of range is inf or NaN, which the value tells: no warnings from inside."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def project(theta: Array, x: Array, centre: Array | None = None) -> Array:
    """θ (x - c)ᵀ, (b, l, n), of directions (b or 1, l, d), points (b, n, d) and, if not 0, their centres (b, 1, d)."""
    (_, rows, d), n = theta.shape, x.shape[1]
    if backend.is_torch(x) or is_small(rows, n, d):
        return theta @ (x if centre is None else x - centre).mT
    out, block = np.empty((len(x), rows, n), x.dtype), _even(rows, _ROWS)
    for b in range(len(x)):
        own, points, origin = theta[b % len(theta)], x[b], None if centre is None else centre[b]

        def piece(first: int, k: int, step: int, own=own, points=points, origin=origin, target=out[b]) -> None:
            part = slice(first, first + k * step)
            centred = points[part] if origin is None else points[part] - origin
            columns = centred.reshape(k, step, d).mT
            for r in range(0, rows, block):
                place = target[r : r + block, part]
                np.matmul(own[r : r + block], columns, out=place.reshape(len(place), k, step).transpose(1, 0, 2))

        _in_pieces(n, block * d, rows * d, piece)
    return out


def project_rows(theta: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """The same (b, l, n) of few directions (l, d) and points whose coordinates are in rows (b, d, n), on one thread."""
    rows, (batch, d, n) = len(theta), coordinates.shape
    if is_small(rows, n, d):
        return theta @ coordinates
    out, step = np.empty((batch, rows, n), theta.dtype), max(1, _PIECE // (n * d))
    for first in range(0, rows, step):
        part = slice(first, first + step)
        np.matmul(theta[part], coordinates, out[:, part])
    return out


def backproject(slopes: Array, theta: Array) -> Array:
    """slopesᵀ θ, (b, n, d), of slopes (b, l, n) and directions (b or 1, l, d)."""
    (_, rows, d), n = theta.shape, slopes.shape[2]
    if backend.is_torch(slopes) or is_small(rows, n, d):
        return slopes.mT @ theta
    out, block = np.empty((len(slopes), n, d), theta.dtype), _even(rows, _DEEP)
    for b in range(len(slopes)):
        own, values = theta[b % len(theta)], slopes[b]

        def piece(first: int, k: int, step: int, own=own, values=values, target=out[b]) -> None:
            part = slice(first, first + k * step)
            for r in range(0, rows, block):
                columns = values[r : r + block, part].reshape(-1, k, step).transpose(1, 2, 0)
                if r == 0:
                    np.matmul(columns, own[:block], out=target[part].reshape(k, step, d))
                else:
                    target[part] += (columns @ own[r : r + block]).reshape(-1, d)

        _in_pieces(n, block * d, rows * d, piece)
    return out


def add_product(x: Array, matrix: Array, out: Array) -> None:
    """out += x matrix, of x, out (b, n, d) and matrices (b, d, d)."""
    _, n, d = x.shape
    if backend.is_torch(x) or is_small(d, n, d):
        out += x @ matrix
        return
    for own, points, target in zip(matrix, x, out, strict=True):

        def piece(first: int, k: int, step: int, own=own, points=points, target=target) -> None:
            part = slice(first, first + k * step)
            target[part] += (points[part].reshape(k, step, d) @ own).reshape(-1, d)

        _in_pieces(n, d * d, d * d, piece)


def gram(x: Array, y: Array) -> Array:
    """xᵀ y, (b, d, d) in float64, of x (b, n, d) and y (b or 1, n, d)."""
    if backend.is_torch(x):
        return (x.mT @ y).double()
    _, n, d = x.shape
    if is_small(d, n, d):
        return (x.mT @ y).astype(np.float64, copy=False)
    return np.stack([_long_gram(x[b], y[b % len(y)]) for b in range(len(x))])


def _long_gram(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (n, d), parts = x.shape, {}

    def piece(first: int, k: int, step: int) -> None:
        one, other = (z[first : first + k * step].reshape(k, step, d) for z in (x, y))
        parts[first] = np.matmul(one.mT, other).sum(0, dtype=np.float64)

    _in_pieces(n, d * d, d * d, piece)
    return np.sum([parts[first] for first in sorted(parts)], axis=0)  # the same sum in whatever order they ended


def is_small(rows: int, n: int, d: int) -> bool:
    """Whether BLAS is to do one product whole: it would not start threads, or has to."""
    return rows * n * d <= _PIECE or d > _WIDEST


def _even(rows: int, most: int) -> int:
    """The size of equal blocks of at most so many rows."""
    return -(-rows // -(-rows // most))


def _in_pieces(n: int, work: int, total: int, piece: Callable[[int, int, int], None]) -> None:
    """Call `piece(first, k, step)`: k ranges of `step` points each, from point `first` on.

    One point costs `work` multiplications in one product, and `total` in all of them.
    """
    step = max(1, _PIECE // work)
    share = step * max(16, -(-n // (16 * step)))  # the pieces do not depend on the number of threads

    def task(first: int) -> None:
        k, rest = divmod(min(share, n - first), step)
        if k:
            piece(first, k, step)
        if rest:
            piece(first + k * step, 1, rest)

    each(task, range(0, n, share), n * total, _PARALLEL)


def each(task: Callable[[int], None], jobs: range, work: int, least: int) -> None:
    """Call `task` with each job, on all threads where there is `least` work to do."""
    if work < least:
        for job in jobs:
            task(job)
        return

    def quietly(job: int) -> None:
        with quiet():  # NumPy's settings are a thread's own
            task(job)

    threads.map(quietly, jobs)
