"""Triton kernels for CUDA: sums over the rows of a Gibbs kernel that is computed tile by tile and never stored.

Points come multiplied by the root of log2(e)/ε, so that a score is G_j - |x_i - y_j|² in base 2, or, where d is large
enough for tensor cores, multiplied by √2 more and with the squares |y_j|² taken off G, so that it is G_j + ⟨x_i, y_j⟩.
One program owns a block of rows and goes over all columns: sums are taken in a fixed order, without atomics, so that
results do not change from run to run. Points lie as (problems, points, d), vectors as (problems, points); G is -inf
where a point has no weight. Work is in the type of G (float32 or float64), sums over tiles are in float64.

This module needs `triton`, which comes with PyTorch's wheels for CUDA; nothing imports it but `triton_passes`.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _products(left, right):
    """left @ right, with the digits of their type."""
    if left.dtype == tl.float64:
        return tl.dot(left, right, input_precision="ieee", out_dtype=tl.float64)
    else:
        return tl.dot(left, right, input_precision="tf32x3")


@triton.jit
def _scores(x, y, G, i, j, n, m, d, PRODUCTS: tl.constexpr, BLOCK_D: tl.constexpr):
    """G_j - |x_i - y_j|², or G_j + ⟨x_i, y_j⟩: (rows, columns); -inf beyond the last column."""
    z = tl.load(G + j, mask=j < m, other=-float("inf"))[None, :] + tl.zeros((i.shape[0], 1), G.dtype.element_ty)
    if PRODUCTS:
        for first in range(0, d, BLOCK_D):
            c = first + tl.arange(0, BLOCK_D)
            left = tl.load(x + i[:, None] * d + c[None, :], mask=(i < n)[:, None] & (c < d)[None, :], other=0.0)
            right = tl.load(y + j[None, :] * d + c[:, None], mask=(j < m)[None, :] & (c < d)[:, None], other=0.0)
            z += _products(left, right)
    else:
        for c in range(d):
            left = tl.load(x + i * d + c, mask=i < n, other=0.0)
            right = tl.load(y + j * d + c, mask=j < m, other=0.0)
            gap = left[:, None] - right[None, :]
            z -= gap * gap
    return z


@triton.jit
def softmin(
    x, y, G, out, n, m, d,
    PRODUCTS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out_i = log2 Σ_j 2^score_ij, (problems, n) in float64."""
    problem = tl.program_id(1).to(tl.int64)
    x, y, G, out = x + problem * n * d, y + problem * m * d, G + problem * m, out + problem * n
    i = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    top = tl.full((BLOCK_N,), -float("inf"), G.dtype.element_ty)
    total = tl.zeros((BLOCK_N,), tl.float64)
    for first in range(0, m, BLOCK_M):
        j = first + tl.arange(0, BLOCK_M).to(tl.int64)
        z = _scores(x, y, G, i, j, n, m, d, PRODUCTS, BLOCK_D)
        higher = tl.maximum(top, tl.max(z, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        total *= tl.exp2(top - base).to(tl.float64)
        total += tl.sum(tl.exp2(z - base[:, None]), 1).to(tl.float64)
        top = higher
    tl.store(out + i, tl.log2(total) + tl.where(total > 0, top, 0.0).to(tl.float64), mask=i < n)


@triton.jit
def plan_sums(
    x, y, E, G, mass, moved, n, m, d,
    PRODUCTS: tl.constexpr, MOVED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """With P_ij = 2^(E_i + score_ij): mass_i = Σ_j P_ij in float64 and, if MOVED, moved_i = Σ_j P_ij y_j.

    Programs of one block of rows share the coordinates of `moved` among them, BLOCK_C each.
    """
    problem = tl.program_id(1).to(tl.int64)
    x, y, G, E = x + problem * n * d, y + problem * m * d, G + problem * m, E + problem * n
    i = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    own = tl.load(E + i, mask=i < n, other=-float("inf"))
    total = tl.zeros((BLOCK_N,), tl.float64)
    sums = tl.zeros((BLOCK_N, BLOCK_C), G.dtype.element_ty)
    for first in range(0, m, BLOCK_M):
        j = first + tl.arange(0, BLOCK_M).to(tl.int64)
        plan = tl.exp2(_scores(x, y, G, i, j, n, m, d, PRODUCTS, BLOCK_D) + own[:, None])
        total += tl.sum(plan, 1).to(tl.float64)
        if MOVED:
            inside = (j < m)[:, None] & (c < d)[None, :]
            sums += _products(plan, tl.load(y + j[:, None] * d + c[None, :], mask=inside, other=0.0))
    if tl.program_id(2) == 0:
        tl.store(mass + problem * n + i, total, mask=i < n)
    if MOVED:
        where = moved + problem * n * d + i[:, None] * d + c[None, :]
        tl.store(where, sums, mask=(i < n)[:, None] & (c < d)[None, :])


@triton.jit
def scalings(
    E, a, b, apart, own, change, passes, sums, n, m, most, burst, tol, trust, farthest,
    SHARE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Plain Sinkhorn's scalings of a small kernel E (problems, n, m), one program a problem, until each is done.

    With v = 2^change: u_i = a_i / (E v)_i, and v_j is multiplied by b_j / (v_j (Eᵀu)_j), the weight over the marginal.
    Where a cloud is compared with itself (`own`), v_j is multiplied by (2^apart_j / ((E v)_j v_j))^SHARE instead. A
    program ends where the marginals' error is at most tol, where a change goes beyond `trust`, after `burst` passes, or
    where `passes`, which counts them, is `most`. `sums` (problems, n) is room for E v. All are of the type of E.
    """
    k = tl.program_id(0).to(tl.int64)
    E, a, sums = E + k * n * m, a + k * n, sums + k * n
    j = tl.arange(0, COLUMNS)
    inside = j < m
    weight = tl.load(b + k * m + j, mask=inside, other=0.0)
    mirrored, base = tl.load(own + k) != 0, tl.load(apart + k * m + j, mask=inside, other=0.0)
    live, target = weight > 0, tl.where(weight > 0, weight, 1.0)
    log_v = tl.zeros((COLUMNS,), weight.dtype)
    count = tl.load(passes + k)
    most = tl.minimum(most, count + burst)
    going = count < most
    while going:
        v = tl.where(inside, tl.exp2(log_v), 0.0)
        columns = tl.zeros((COLUMNS,), weight.dtype)
        for first in range(0, n, ROWS):
            i = first + tl.arange(0, ROWS)
            there = (i < n)[:, None] & inside[None, :]
            tile = tl.load(E + i[:, None] * m + j[None, :], mask=there, other=0.0)
            total = tl.sum(tile * v[None, :], 1)
            tl.store(sums + i, total, mask=i < n)
            mass = tl.load(a + i, mask=i < n, other=0.0)
            columns += tl.sum(tile * (mass / tl.where(mass > 0, total, 1.0))[:, None], 0)
        tl.debug_barrier()
        mirror = tl.load(sums + j, mask=inside & (j < n) & mirrored, other=1.0, volatile=True)
        tl.debug_barrier()
        marginal = tl.where(live, columns * v, 1.0)
        r = tl.where(mirrored, base - tl.log2(mirror) - log_v, tl.log2(target / marginal))
        r = tl.where(live, tl.minimum(r, farthest), 0.0)
        off = tl.where(mirrored, 2 * target * tl.abs(tl.exp2(-r) - 1), tl.abs(marginal - target))
        error = tl.sum(tl.where(live, off, 0.0), 0)
        count += 1
        going = (error > tol) & (count < most)
        log_v = tl.where(going, log_v + tl.where(mirrored, SHARE * r, r), log_v)
        going = going & (tl.max(tl.abs(log_v), 0) <= trust)
    tl.store(change + k * m + j, log_v, mask=inside)
    tl.store(passes + k, count)


def tiles(products: bool, double: bool, d: int) -> dict[str, Any]:
    """Rows, columns and coordinates of a tile, and warps: so that a tile stays in registers, not by timing."""
    if products:
        size = {"BLOCK_N": 64, "BLOCK_M": 32, "BLOCK_D": 16, "BLOCK_C": 32 if double or d <= 32 else 64}
    else:
        size = {"BLOCK_N": 16, "BLOCK_M": 128, "BLOCK_D": 16, "BLOCK_C": 16}
    return {**size, "num_warps": 4}
