"""A Triton kernel for CUDA: what lies between the sort of the projections and the gradient's matrix product.

Every direction has a row of n sorted projections of x and one of y, and knows where each comes from. The slope of the
cost by the k-th smallest is 2 (x_k - y_k) / n, and is brought to its point; tied ones share their mean. A block of the
row belongs to one program, which writes each of its slopes once: sums are taken in a fixed order, without atomics, so
that results do not change from run to run.

This module needs `triton`, which comes with PyTorch's wheels for CUDA; nothing imports it but `triton_match`.
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK, TIES, WARPS = 512, 8, 4


@triton.jit
def _shared(own, x, y, gap, first, n, BLOCK: tl.constexpr, TIES: tl.constexpr):
    """gap = x - y at the places from `first` on; where numbers of `own` tie, the mean over those that do.

    Ties that go beyond the block are followed to their ends, in steps of a block: each of a group's members adds up
    the same numbers in the same order. A group of g costs g² additions, which is much only where g is many thousands.
    """
    NAN: tl.constexpr = float("nan")
    k = first + tl.arange(0, BLOCK)
    value = tl.load(own + k, mask=k < n, other=NAN)
    left = tl.load(own + k - 1, mask=(k > 0) & (k < n), other=NAN)
    right = tl.load(own + k + 1, mask=k + 1 < n, other=NAN)
    tied = (value == left) | (value == right)
    mean = gap
    if tl.max(tied.to(tl.int32), 0) > 0:
        begin, end = first, first + BLOCK
        lowest, highest = tl.load(own + first), tl.load(own + tl.minimum(end, n) - 1)
        while tl.load(own + begin - 1, mask=begin > 0, other=NAN) == lowest:
            begin -= BLOCK
        while tl.load(own + end, mask=end < n, other=NAN) == highest:
            end += BLOCK
        total = tl.zeros((BLOCK,), tl.float64)
        count = tl.zeros((BLOCK,), tl.int32)
        for start in range(begin, tl.minimum(end, n), TIES):
            j = start + tl.arange(0, TIES)
            same = value[:, None] == tl.load(own + j, mask=j < n, other=NAN)[None, :]
            apart = tl.load(x + j, mask=j < n, other=0.0) - tl.load(y + j, mask=j < n, other=0.0)
            total += tl.sum(tl.where(same, apart[None, :].to(tl.float64), 0.0), 1)
            count += tl.sum(same.to(tl.int32), 1)
        mean = tl.where(tied, (total / tl.maximum(count, 1)).to(gap.dtype), gap)
    return mean


@triton.jit
def match(values, places, slopes, costs, n, rows, BLOCK: tl.constexpr, TIES: tl.constexpr):
    """Sorted `values` and their `places` (2, rows, n), of x and of y: `slopes` (2, rows, n) in the order of the points.

    costs (rows, blocks): Σ (x_k - y_k)² over each block, in float64.
    """
    program, blocks = tl.program_id(0), tl.cdiv(n, BLOCK)
    row, first = (program // blocks).to(tl.int64), program % blocks * BLOCK
    k = first + tl.arange(0, BLOCK)
    x, y = values + row * n, values + (rows + row) * n
    gap = tl.load(x + k, mask=k < n, other=0.0) - tl.load(y + k, mask=k < n, other=0.0)
    tl.store(costs + program, tl.sum((gap * gap).to(tl.float64), 0))
    for side in tl.static_range(2):
        at = (side * rows + row) * n
        slope = _shared(values + at, x, y, gap, first, n, BLOCK, TIES) * (2 - 4 * side) / n
        place = tl.load(places + at + k, mask=k < n, other=0)
        tl.store(slopes + at + place, slope, mask=k < n)
