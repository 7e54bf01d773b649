"""Matrix products with a cloud of points, on threads of our own, in pieces that BLAS does on the caller's thread.

A threaded BLAS lets its idle threads spin for a while, to be ready for the next product. After a large product those
threads would take the cores from the sorts that follow, and slow them down twofold.
"""

import numpy as np

from .._core import threads

# OpenBLAS starts its threads above this product of the three sizes (interface/gemm.c: 65536 times 4).
_PIECE = 1 << 18
# Directions in a piece: of those in the result, and of those summed over, where longer sums save additions.
_ROWS, _DEEP = 64, 128
# With more coordinates than this, pieces would be slivers: BLAS does it all.
_WIDEST = 256


def project(theta, x):
    """θ xᵀ, (l, n), of theta (l, d) and x (n, d)."""
    (rows, d), n = theta.shape, len(x)
    if _whole(rows * d * n, d):
        return theta @ x.T
    out, block = np.empty((rows, n), x.dtype), _even(rows, _ROWS)

    def pieces(first, k, step):
        points = slice(first, first + k * step)
        turned = x[points].reshape(k, step, d).mT
        for r in range(0, rows, block):
            part = out[r : r + block, points]
            np.matmul(theta[r : r + block], turned, out=part.reshape(len(part), k, step).transpose(1, 0, 2))

    _over(n, block * d, pieces)
    return out


def backproject(slopes, theta):
    """slopesᵀ θ, (n, d), of slopes (l, n) and theta (l, d)."""
    (rows, d), n = theta.shape, slopes.shape[1]
    if _whole(rows * d * n, d):
        return slopes.T @ theta
    out, block = np.empty((n, d), theta.dtype), _even(rows, _DEEP)

    def pieces(first, k, step):
        points = slice(first, first + k * step)
        for r in range(0, rows, block):
            turned = slopes[r : r + block, points].reshape(-1, k, step).transpose(1, 2, 0)
            if r == 0:
                np.matmul(turned, theta[:block], out=out[points].reshape(k, step, d))
            else:
                out[points] += (turned @ theta[r : r + block]).reshape(-1, d)

    _over(n, block * d, pieces)
    return out


def add_turned(x, matrix, out):
    """out += x matrix, of x, out (n, d) and matrix (d, d)."""
    n, d = x.shape
    if _whole(n * d * d, d):
        out += x @ matrix
        return

    def pieces(first, k, step):
        points = slice(first, first + k * step)
        out[points] += (x[points].reshape(k, step, d) @ matrix).reshape(-1, d)

    _over(n, d * d, pieces)


def gram(x, y):
    """xᵀ y, (d, d) in float64, of x, y (n, d)."""
    n, d = x.shape
    if _whole(n * d * d, d):
        return (x.T @ y).astype(np.float64)
    parts = []

    def pieces(first, k, step):
        points = slice(first, first + k * step)
        stacks = (z[points].reshape(k, step, d) for z in (x, y))
        parts.append(np.matmul(next(stacks).mT, next(stacks)).sum(0, dtype=np.float64))  # appending is atomic

    _over(n, d * d, pieces)
    return np.sum(parts, axis=0)


def _even(rows, most):
    """The size of equal blocks of at most so many rows."""
    return -(-rows // -(-rows // most))


def _whole(work, d):
    return work <= _PIECE or d > _WIDEST


def _over(n, work, pieces):
    """Call `pieces(first, k, step)`, k ranges of `step` points, on all threads; `work` is what one point costs."""
    step = max(1, _PIECE // work)
    share = step * max(16, -(-n // (8 * step * threads.size())))  # a task: 0.1 ms or more

    def task(first):
        k, rest = divmod(min(share, n - first), step)
        if k:
            pieces(first, k, step)
        if rest:
            pieces(first + k * step, 1, rest)

    threads.map(task, range(0, n, share))
