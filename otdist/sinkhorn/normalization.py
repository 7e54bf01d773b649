"""Coordinates in which squares neither overflow nor lose their digits, and the precision that a problem needs.

x = center + unit · (x inside), with the middle of the box around both clouds and a power of two, so that dividing by it
is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array

EPS32 = 2.0**-23


class Normalization(NamedTuple):
    """Of each problem of a batch."""

    center: Array  # (k, d)
    unit: Array  # (k,)
    largest: Array  # (k,): no cost is larger, inside


def normalization(x: Array, y: Array) -> Normalization:
    """The box around clouds x (k, n, d) and y (k, m, d): its middle, and the power of two next to its half width."""
    xp = backend.namespace(x)
    low, high = xp.minimum(xp.amin(x, 1), xp.amin(y, 1)), xp.maximum(xp.amax(x, 1), xp.amax(y, 1))
    half = 0.5 * high - 0.5 * low
    size = xp.amax(half, -1)
    finite = (size > 0) & (size < np.inf)
    power = xp.round(xp.log2(xp.where(finite, size, xp.ones_like(size))))
    power = power.clip(-1021.0)  # whose inverse is a number
    unit = np.ldexp(1.0, power.astype(np.int64)) if xp is np else xp.exp2(power)
    return Normalization(low + half, unit, ((2.0 * half / unit[:, None]) ** 2).sum(-1))


def float32_resolves(of: Normalization, epsilon: float, tol: float) -> Array:
    """Whether float32 resolves the plan of each problem to well below tol.

    The entries of the plan have relative errors of about eps times their exponents, which go up to the largest cost
    over ε; and where ε exceeds the costs, the value is a small difference of order cost in numbers of order ε.
    """
    exponent = (of.unit / epsilon) * of.unit * of.largest
    return (4.0 * EPS32 * exponent <= tol) & (1e-5 * exponent >= EPS32) & (tol > 1e-5)
