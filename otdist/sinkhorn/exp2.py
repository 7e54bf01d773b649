"""2^t and log2 t in every lane: SIMD libraries for them are not something that every machine has.

Cody and Waite's reduction: t = k + r with k the nearest integer, 2^r by a polynomial on [-1/2, 1/2], and k added to the
exponent bits. The polynomials interpolate 2^r at the Chebyshev nodes; their relative errors are 2.5e-9 (degree 6,
float32) and 4e-18 (degree 11, float64), below the rounding of the type.

The logarithm, in float64 alone: t = m 2^k with √½ <= m < √2, log2 m = 2/ln 2 · artanh z with z = (m - 1)/(m + 1), whose
series is cut where z² <= 0.0295 makes the rest 1e-17.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .._core.compiled import njit
from .._core.simd import KINDS, LANES, add_exponent, choose, exponent, fill, greater, load, mantissa, store

FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}  # everything of fastmath that keeps NaN and inf


def exp2(t):
    """2^t; exactly 0 below the smallest normal number, capped at the largest power of 2, NaN for NaN."""
    return np.exp2(t)


# Not FAST in these two, and said explicitly because callees inherit the caller's flags: reassociating
# (t + shift) - shift would undo the rounding to an integer.
@njit(fastmath={"contract"}, no_cfunc_wrapper=True, no_cpython_wrapper=True)
def _exp2_single(t):
    one = np.float32
    shift, lowest, highest = fill(one(12582912.0)), fill(one(-126.0)), fill(one(127.0))
    t = choose(greater(t, highest), highest, t)
    small = greater(lowest, t)
    shifted = choose(small, lowest, t) + shift
    r = t - (shifted - shift)
    p = fill(one(1.54614447e-04))
    p = p * r + fill(one(1.34004282e-03))
    p = p * r + fill(one(9.61805668e-03))
    p = p * r + fill(one(5.55032723e-02))
    p = p * r + fill(one(2.40226509e-01))
    p = p * r + fill(one(6.93147207e-01))
    p = p * r + fill(one(1.0))
    return choose(small, fill(one(0.0)), add_exponent(p, shifted))


@njit(fastmath={"contract"}, no_cfunc_wrapper=True, no_cpython_wrapper=True)
def _exp2_double(t):
    shift, lowest, highest = fill(6755399441055744.0), fill(-1022.0), fill(1023.0)
    t = choose(greater(t, highest), highest, t)
    small = greater(lowest, t)
    shifted = choose(small, lowest, t) + shift
    r = t - (shifted - shift)
    p = fill(4.455817908336064e-10)
    p = p * r + fill(7.074194297288521e-09)
    p = p * r + fill(1.0178057087773941e-07)
    p = p * r + fill(1.3215432535912376e-06)
    p = p * r + fill(1.5252733841556773e-05)
    p = p * r + fill(1.5403530463724354e-04)
    p = p * r + fill(1.3333558146406471e-03)
    p = p * r + fill(9.618129107587257e-03)
    p = p * r + fill(5.5504108664821627e-02)
    p = p * r + fill(2.402265069591016e-01)
    p = p * r + fill(6.931471805599453e-01)
    p = p * r + fill(1.0)
    return choose(small, fill(0.0), add_exponent(p, shifted))


@overload(exp2, inline="never")
def _exp2(t):
    return (lambda t: _exp2_single(t)) if t == KINDS[types.float32] else (lambda t: _exp2_double(t))


@njit(fastmath={"contract"}, no_cfunc_wrapper=True, no_cpython_wrapper=True)
def log2(t):
    """log2 t of lanes of positive normal doubles; NaN for NaN."""
    m, k, one = mantissa(t), exponent(t), fill(1.0)
    above = greater(m, fill(1.4142135623730951))
    m, k = choose(above, m * fill(0.5), m), choose(above, k + one, k)
    z = (m - one) / (m + one)
    w = z * z
    p = fill(1.0 / 21.0)
    p = p * w + fill(1.0 / 19.0)
    p = p * w + fill(1.0 / 17.0)
    p = p * w + fill(1.0 / 15.0)
    p = p * w + fill(1.0 / 13.0)
    p = p * w + fill(1.0 / 11.0)
    p = p * w + fill(1.0 / 9.0)
    p = p * w + fill(1.0 / 7.0)
    p = p * w + fill(1.0 / 5.0)
    p = p * w + fill(1.0 / 3.0)
    p = p * w + one
    valid = greater(t, fill(0.0))
    return choose(valid, z * p * fill(2.8853900817779268) + k, t + fill(np.nan))


@njit(cache=True, nogil=True, no_cfunc_wrapper=True)
def exp2_all(x):
    """2^x in place, of a contiguous array of doubles."""
    whole, rest = len(x) // LANES, np.empty(LANES)
    for p in range(whole):
        store(x, p, exp2(load(x, p)))
    for q in range(LANES):
        rest[q] = x[whole * LANES + q] if whole * LANES + q < len(x) else 0.0
    store(rest, 0, exp2(load(rest, 0)))
    for j in range(whole * LANES, len(x)):
        x[j] = rest[j - whole * LANES]


@njit(cache=True, nogil=True, no_cfunc_wrapper=True)
def log2_all(x):
    """log2 x in place, of a contiguous array of positive normal doubles."""
    whole, rest = len(x) // LANES, np.empty(LANES)
    for p in range(whole):
        store(x, p, log2(load(x, p)))
    for q in range(LANES):
        rest[q] = x[whole * LANES + q] if whole * LANES + q < len(x) else 1.0
    store(rest, 0, log2(load(rest, 0)))
    for j in range(whole * LANES, len(x)):
        x[j] = rest[j - whole * LANES]
