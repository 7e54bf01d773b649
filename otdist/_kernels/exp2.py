"""2^t, written so that loops over it vectorise: SIMD libraries for exp are not something every machine has.

Cody and Waite's reduction: t = k + r with k the nearest integer, 2^r by a polynomial on [-1/2, 1/2], and k added to the
exponent bits. The polynomials interpolate 2^r at the Chebyshev nodes; their relative errors are 2.5e-9 (degree 6,
float32) and 4e-18 (degree 11, float64), below the rounding of the type.
"""

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic, overload

FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}  # everything of fastmath that keeps NaN and inf


@intrinsic
def _add_exponent(typing_context, mantissa, shifted):
    """The float `mantissa` · 2^k, where `shifted` is k + 1.5 · 2^(mantissa bits): its low bits are k's."""
    bits, width = (32, 23) if mantissa == types.float32 else (64, 52)

    def generate(context, builder, signature, arguments):
        integer = ir.IntType(bits)
        low = builder.shl(builder.bitcast(arguments[1], integer), ir.Constant(integer, width))
        total = builder.add(builder.bitcast(arguments[0], integer), low)
        return builder.bitcast(total, arguments[0].type)

    return mantissa(mantissa, mantissa), generate


def exp2(t):
    """2^t; exactly 0 below the smallest normal number, capped at the largest power of 2, NaN for NaN."""
    return np.exp2(t)


# Not FAST in these two, and said explicitly because callees inherit the caller's flags: reassociating
# (t + shift) - shift would undo the rounding to an integer.
@njit(fastmath={"contract"})
def _exp2_single(t):
    shift, lowest, highest = np.float32(12582912.0), np.float32(-126.0), np.float32(127.0)
    t = highest if t > highest else t
    shifted = (lowest if t < lowest else t) + shift
    r = t - (shifted - shift)
    p = np.float32(1.54614447e-04)
    p = p * r + np.float32(1.34004282e-03)
    p = p * r + np.float32(9.61805668e-03)
    p = p * r + np.float32(5.55032723e-02)
    p = p * r + np.float32(2.40226509e-01)
    p = p * r + np.float32(6.93147207e-01)
    p = p * r + np.float32(1.0)
    e = _add_exponent(p, shifted)
    return np.float32(0.0) if t < lowest else e


@njit(fastmath={"contract"})
def _exp2_double(t):
    shift, lowest, highest = 6755399441055744.0, -1022.0, 1023.0
    t = highest if t > highest else t
    shifted = (lowest if t < lowest else t) + shift
    r = t - (shifted - shift)
    p = 4.455817908336064e-10
    p = p * r + 7.074194297288521e-09
    p = p * r + 1.0178057087773941e-07
    p = p * r + 1.3215432535912376e-06
    p = p * r + 1.5252733841556773e-05
    p = p * r + 1.5403530463724354e-04
    p = p * r + 1.3333558146406471e-03
    p = p * r + 9.618129107587257e-03
    p = p * r + 5.5504108664821627e-02
    p = p * r + 2.402265069591016e-01
    p = p * r + 6.931471805599453e-01
    p = p * r + 1.0
    e = _add_exponent(p, shifted)
    return 0.0 if t < lowest else e


@overload(exp2, inline="never")
def _exp2(t):
    if t == types.float32:
        return lambda t: _exp2_single(t)
    return lambda t: _exp2_double(t)
