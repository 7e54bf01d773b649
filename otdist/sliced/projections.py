"""Matrix products between a cloud of points and bundles of directions, in tiles that stay in registers.

A bundle is as many directions as a vector of 64 bytes has lanes, so that every product has vectors on one side and
numbers on the other: six accumulators, a vector and a number fit into the 16 registers of AVX2, too. Points are centred
on the way, block by block: no centred copy of the cloud is ever made.

Layouts: `rays` is flat, coordinate k of bundle g in vector g d + k; a bundle's `columns` are flat, point i in vector i.
Vectors of coordinates are panels: `width` of them hold the d coordinates of a point, filled up with zeros.
"""

import numpy as np
from numba.extending import overload

from .._core.compiled import njit
from .._core.simd import BYTES, LANES, fill, load, load_from, spread, store, store_to, tagged
from .bitonic_sort import INSIDE, OPTIONS

TILE = 6
# Points centred at a time, which stay in the first-level cache; float32 sums over points run so far.
BLOCK = 48


@njit(**OPTIONS)
def padded(n):
    """Columns for n points: sorts want a multiple of 8, and products write whole tiles."""
    return -(-n // 8) * 8 + 8


@njit(**OPTIONS)
def _centre(x, mean, first, pitch, block):
    """Points `first` and on, less the mean, into the flat block; those that do not exist are zero."""
    (n, d), lanes = x.shape, BYTES // x.itemsize
    flat, whole = x.reshape(-1), d // lanes * lanes
    for r in range(min(BLOCK, n - first)):
        own, at = (first + r) * d, r * pitch
        for k in range(0, whole, lanes):
            store_to(block, at + k, load_from(flat, own + k) - load_from(mean, k))
        for k in range(whole, d):
            block[at + k] = flat[own + k] - mean[k]
    for k in range(max(0, n - first) * pitch, BLOCK * pitch):
        block[k] = 0.0


@njit(**INSIDE)
def _tile(numbers, at, pitch, step, vectors, first, stride, count, start):
    """Six sums over j of numbers[at + q pitch + j step] times vector first + j stride, q = 0..5, added to `start`."""
    s0 = s1 = s2 = s3 = s4 = s5 = start
    for j in range(count):
        v, a = load(vectors, first + j * stride), at + j * step
        s0, s1 = s0 + spread(numbers, a) * v, s1 + spread(numbers, a + pitch) * v
        s2, s3 = s2 + spread(numbers, a + 2 * pitch) * v, s3 + spread(numbers, a + 3 * pitch) * v
        s4, s5 = s4 + spread(numbers, a + 4 * pitch) * v, s5 + spread(numbers, a + 5 * pitch) * v
    return s0, s1, s2, s3, s4, s5


@njit(**INSIDE)
def _put(out, at, stride, sums):
    store(out, at, sums[0])
    store(out, at + stride, sums[1])
    store(out, at + 2 * stride, sums[2])
    store(out, at + 3 * stride, sums[3])
    store(out, at + 4 * stride, sums[4])
    store(out, at + 5 * stride, sums[5])


@njit(**OPTIONS)
def project(x, mean, rays, g, columns):
    """columns = the centred points x (n, d) along the directions of bundle g and those that follow.

    columns (bundles, flat); or, of floats, (2 bundles, flat) in float64: halves of bundles with the points' numbers.
    """
    n, d = x.shape
    zero, block = fill(x.dtype.type(0)), np.empty(BLOCK * d, x.dtype)
    bundles = len(columns) * x.itemsize // columns.itemsize
    for first in range(0, n, BLOCK):
        _centre(x, mean, first, d, block)
        for b in range(bundles):
            for i in range(first, min(first + BLOCK, n), TILE):
                _write(columns, b, i, _tile(block, (i - first) * d, d, 1, rays, (g + b) * d, 1, d, zero))


def _write(columns, b, i, sums):
    """Six points of bundle b, from point i on."""


@overload(_write)
def _(columns, b, i, sums):
    if columns.dtype == sums[0].scalar:
        return lambda columns, b, i, sums: _put(columns[b], i, 1, sums)

    def write_tagged(columns, b, i, sums):
        low, high = columns[2 * b], columns[2 * b + 1]
        for q in range(TILE):  # homogeneous tuples can be indexed
            store(low, i + q, tagged(sums[q], 0, i + q))
            store(high, i + q, tagged(sums[q], 1, i + q))

    return write_tagged


@njit(**OPTIONS)
def backproject(columns, rays, width, x, mean, quadratic, pull, out, first, last, more):
    """out_i = Σ_l columns_il ray_l + quadraticᵀ (x_i - mean) + pull, for points first to last; added to, if `more`.

    columns (., flat) hold LANES directions each; rays here have their directions one after the other, each in `width`
    panels; quadratic likewise (d rows, or none) and pull (one).
    """
    (bundles, size), d, lanes = columns.shape, x.shape[1], BYTES // x.itemsize
    flat, block = columns.reshape(-1), np.empty(BLOCK * d, x.dtype)
    tile = np.empty(TILE * lanes, x.dtype)
    for start in range(first, last, BLOCK):
        if len(quadratic):
            _centre(x, mean, start, d, block)
        for i in range(start, min(start + BLOCK, last), TILE):
            for p in range(width):
                s = load(pull, p), load(pull, p), load(pull, p), load(pull, p), load(pull, p), load(pull, p)
                for g in range(bundles):
                    s = _more(flat, g * size + i * LANES, LANES, rays, g * LANES * width + p, width, LANES, s)
                if len(quadratic):
                    s = _more(block, (i - start) * d, d, quadratic, p, width, d, s)
                _put(tile, 0, 1, s)
                for q in range(min(TILE, last - i)):
                    for k in range(min(lanes, d - p * lanes)):
                        z = tile[q * lanes + k]
                        out[i + q, p * lanes + k] = out[i + q, p * lanes + k] + z if more else z


@njit(**INSIDE)
def _more(numbers, at, pitch, vectors, first, stride, count, s):
    """`_tile` with sums of its own to start from."""
    s0, s1, s2, s3, s4, s5 = s
    for j in range(count):
        v, a = load(vectors, first + j * stride), at + j
        s0, s1 = s0 + spread(numbers, a) * v, s1 + spread(numbers, a + pitch) * v
        s2, s3 = s2 + spread(numbers, a + 2 * pitch) * v, s3 + spread(numbers, a + 3 * pitch) * v
        s4, s5 = s4 + spread(numbers, a + 4 * pitch) * v, s5 + spread(numbers, a + 5 * pitch) * v
    return s0, s1, s2, s3, s4, s5


@njit(**OPTIONS)
def gram(x, mean, first, last, out):
    """out (d, d) float64 += Σ_i (x_i - mean)(x_i - mean)ᵀ over points first to last."""
    d, lanes = x.shape[1], BYTES // x.itemsize
    width = -(-d // lanes)
    pitch = width * lanes
    zero, block = fill(x.dtype.type(0)), np.zeros(BLOCK * pitch + TILE, x.dtype)
    tile = np.empty(TILE * lanes, x.dtype)
    for start in range(first, last, BLOCK):
        _centre(x[:last], mean, start, pitch, block)
        for k in range(0, d, TILE):
            for p in range(k // lanes, width):  # the upper triangle
                _put(tile, 0, 1, _tile(block, k, 1, pitch, block, p, width, BLOCK, zero))
                for q in range(min(TILE, d - k)):
                    for r in range(min(lanes, d - p * lanes)):
                        out[k + q, p * lanes + r] += tile[q * lanes + r]
    for k in range(d):
        for j in range(k):
            out[k, j] = out[j, k]


@njit(**OPTIONS)
def turn(columns, x, mean, out):
    """out (LANES, d) float64 += Σ_i columns_i (x_i - mean)ᵀ: the derivative by the LANES directions of some columns."""
    (n, d), lanes = x.shape, BYTES // x.itemsize
    width = -(-d // lanes)
    zero, block = fill(x.dtype.type(0)), np.zeros(BLOCK * width * lanes, x.dtype)
    tile = np.empty(TILE * lanes, x.dtype)
    for first in range(0, n, BLOCK):
        _centre(x, mean, first, width * lanes, block)
        for start in range(0, LANES, TILE):
            for p in range(width):
                at, count = first * LANES + start, min(BLOCK, n - first)
                _put(tile, 0, 1, _tile(columns, at, 1, LANES, block, p, width, count, zero))
                for q in range(min(TILE, LANES - start)):
                    for k in range(min(lanes, d - p * lanes)):
                        out[start + q, p * lanes + k] += tile[q * lanes + k]
