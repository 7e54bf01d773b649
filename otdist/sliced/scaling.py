"""Clouds so large or so small that squares of their coordinates overflow or underflow: divided by a power of two."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .operator import sliced_cost


def cost(arrays: list[Array], options: dict[str, Any], power: float) -> tuple[Array, float]:
    """SW_p^p of the clouds divided by a number, and that number: 1, unless the plain cost is out of range.

    What is made of it is to be `multiplied` by the number to this power.
    """
    value = sliced_cost(*arrays, **options)
    divisor = 1.0 if is_ordinary(value) else divisor_of(arrays)
    return (value, 1.0) if divisor == 1 else (sliced_cost(*divided(arrays, divisor, power), **options), divisor)


def divided(arrays: list[Array], divisor: float, power: float) -> list[Array]:
    """The same with points divided.

    The value will be `multiplied` by divisorᵖ, p the power, which may be beyond the dtype where the gradients are not:
    so their factors, divisorᵖ⁻¹ for points and divisorᵖ for weights, wait here, and `multiplied` hands on 1.
    """
    points = [_with_slope(z / divisor, z, divisor, power - 1) for z in arrays[:2]]
    return [*points, *(_with_slope(z, z, divisor, power) for z in arrays[2:])]


def multiplied(value: Array, divisor: float, power: float) -> Array:
    """value · divisorᵖ; inf where that is beyond the dtype."""
    if divisor == 1:
        return value
    return _with_slope(_times(value, divisor, power), value, divisor, 0)


def _with_slope(function: Array, z: Array, divisor: float, power: float) -> Array:
    """A function of z whose derivative by z is divisorᵖ, whatever it was; NumPy's have none."""
    if not backend.is_torch(z) or not backend.needs_gradient(z):
        return function
    return function.detach() + _times(z - z.detach(), divisor, power)


def _times(value: Array, divisor: float, power: float) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        for _ in range(2):  # half of the power at a time: the whole may not be a number
            value = value * divisor ** (power / 2)
    return value


def is_ordinary(value: Array, power: int = 1) -> bool:
    """Whether nothing has overflowed, and nothing that matters has underflowed, in valueᵖ either."""
    if not backend.inspectable(value):
        return True
    found = backend.as_numpy(value)
    low, high = range_of(found.dtype, power)
    return low < float(found) <= high if not found.ndim else bool(np.all((found > low) & (found <= high)))


@cache
def range_of(dtype: np.dtype, power: int) -> tuple[float, float]:
    """Between which numbers the power of one neither underflows by digits that matter nor overflows."""
    info = np.finfo(dtype)
    return float(info.tiny / info.eps**2) ** (1 / power), float(info.max) ** (1 / power)


def divisor_of(arrays: list[Array]) -> float:
    """A power of two that brings the largest coordinate to about 1, or 1 where its square is harmless."""
    largest = max((float(np.abs(backend.as_numpy(z)).max()) if 0 not in z.shape else 0.0) for z in arrays[:2])
    exponent = int(np.frexp(largest)[1])
    harmless = np.finfo(backend.as_numpy(arrays[0]).dtype).maxexp // 4
    return 1.0 if largest == 0 or abs(exponent) <= harmless else 2.0**exponent


def root(cost: Array, p: float) -> Array:
    """cost^(1/p), with derivative 0 where the cost is 0."""
    if p == 1:
        return cost
    if p == 2:
        return backend.root(cost)
    if not backend.is_torch(cost):
        return np.power(cost, 1 / p)
    xp, zero = backend.namespace(cost), cost == 0
    return xp.where(zero, xp.zeros_like(cost), xp.where(zero, xp.ones_like(cost), cost) ** (1 / p))
