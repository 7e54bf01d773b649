"""Clouds so large or so small that squares of their coordinates overflow or underflow: divided by a power of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .operator import sliced_cost


def cost(arrays: list[Array], options: dict[str, Any]) -> tuple[Array, float]:
    """SW_p^p of the clouds divided by a number, and that number: 1, unless the plain cost is out of range."""
    value = sliced_cost(*arrays, **options)
    divisor = 1.0 if is_ordinary(value) else divisor_of(arrays)
    return (value, 1.0) if divisor == 1 else (sliced_cost(*divided(arrays, divisor), **options), divisor)


def divided(arrays: list[Array], divisor: float) -> list[Array]:
    """The same with points divided."""
    return [arrays[0] / divisor, arrays[1] / divisor, *arrays[2:]]


def multiplied(value: Array, divisor: float, power: float) -> Array:
    """value · divisorᵖ; inf where that is beyond the dtype."""
    if divisor == 1:
        return value
    with np.errstate(over="ignore", under="ignore"):
        for _ in range(2):  # half of the power at a time: the whole may not be a number
            value = value * divisor ** (power / 2)
    return value


def is_ordinary(value: Array) -> bool:
    """Whether nothing has overflowed, and nothing that matters has underflowed."""
    if not backend.inspectable(value):
        return True
    found = backend.as_numpy(value)
    info = np.finfo(found.dtype)
    return bool(np.all((found > info.tiny / info.eps**2) & (found <= info.max)))


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
