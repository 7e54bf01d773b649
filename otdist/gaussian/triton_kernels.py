"""A Triton kernel for CUDA: the squared Bures distance of small covariances and its gradients, one program a pair.

All that `polar` does in some hundred operators for a batch: Cholesky factors, the polar factor of K = SᵀR by the fixed
schedule of products, and what follows from it, in the registers of one block of threads.

This module needs `triton`, which comes with PyTorch's wheels for CUDA; nothing imports it but `triton_pairs`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _dot(left, right):
    return tl.dot(left, right, input_precision="ieee", out_dtype=tl.float64)


@triton.jit
def _square(x):
    """The sum of the squares of the entries."""
    return tl.sum(tl.sum(x * x, 1), 0)


@triton.jit
def _factor(cov, d, least, most, pivot, D: tl.constexpr):
    """Cholesky's factor R and R⁻¹ of a covariance, both 0 beyond d, and whether it is far from singular.

    Columns are eliminated one after the other, in the covariance and in a matrix that was the identity.
    """
    i, j = tl.arange(0, D)[:, None], tl.arange(0, D)[None, :]
    rest = tl.load(cov + i * d + j, mask=(i < d) & (j < d), other=0.0)
    trace = tl.sum(tl.sum(tl.where(i == j, rest, 0.0), 1), 0)
    regular = (trace > least) & (trace < most)
    root = tl.zeros((D, D), tl.float64)
    inverse = tl.where((i == j) & (i < d), 1.0, root)
    for c in range(d):
        column = tl.sum(tl.where(j == c, rest, 0.0), 1)[:, None]
        row = tl.sum(tl.where(i == c, rest, 0.0), 0)[None, :]
        square = tl.sum(tl.sum(tl.where((i == c) & (j == c), rest, 0.0), 1), 0)
        regular = regular & (square > pivot * trace)
        scale = 1.0 / tl.sqrt(tl.where(square > 0, square, 1.0))
        column = tl.where(i >= c, column * scale, 0.0)
        root += tl.where(j == c, column, 0.0)
        rest -= column * tl.where(j >= c, row * scale, 0.0)
        own = tl.sum(tl.where(i == c, inverse, 0.0), 0)[None, :] * scale
        inverse = tl.where(i == c, own, inverse - tl.where(i > c, column, 0.0) * own)
    return root, inverse, regular


@triton.jit
def pairs(
    x, y, value, slope_x, slope_y, good, table, d, stride_x, stride_y,
    WELL: tl.constexpr, LEAST: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """B² (n,) of covariances x and y, `stride` numbers apart, its gradients (n, d, d), and whether these are `good`.

    `table` has the least and the largest trace, the least pivot in units of the trace, the conditions up to which the
    schedules serve, and the schedules: of WELL steps for the one and of LEAST for the other, three numbers each.
    """
    k = tl.program_id(0).to(tl.int64)
    least, most, pivot = tl.load(table), tl.load(table + 1), tl.load(table + 2)
    r, r_inverse, regular_x = _factor(x + k * stride_x, d, least, most, pivot, D)
    s, s_inverse, regular_y = _factor(y + k * stride_y, d, least, most, pivot, D)
    cross = _dot(tl.trans(s), r)
    sizes = tl.abs(cross)
    largest = tl.minimum(tl.max(tl.sum(sizes, 0), 0) * tl.max(tl.sum(sizes, 1), 0), _square(cross))
    smallest = 1.0 / tl.sqrt(_square(_dot(r_inverse, tl.trans(s_inverse))) * largest)
    fit = regular_x & regular_y & (smallest > tl.load(table + 4))
    begin = tl.where(smallest > tl.load(table + 3), 0, WELL)
    end = tl.where(fit, tl.where(begin == 0, WELL, WELL + LEAST), begin)
    q = cross / tl.sqrt(largest)
    for step in range(begin, end):
        a, b, c = tl.load(table + 5 + 3 * step), tl.load(table + 6 + 3 * step), tl.load(table + 7 + 3 * step)
        gram = _dot(tl.trans(q), q)
        q = a * q + _dot(q, b * gram + c * _dot(gram, gram))
    residual = r - _dot(s, q)
    by_x, by_y = _dot(residual, r_inverse), _dot(s - _dot(r, tl.trans(q)), s_inverse)
    tl.store(value + k, _square(residual))
    tl.store(good + k, fit.to(tl.int8))
    i, j = tl.arange(0, D)[:, None], tl.arange(0, D)[None, :]
    at, inside = k * d * d + i * d + j, (i < d) & (j < d)
    tl.store(slope_x + at, (by_x + tl.trans(by_x)) / 2, mask=inside)
    tl.store(slope_y + at, (by_y + tl.trans(by_y)) / 2, mask=inside)
