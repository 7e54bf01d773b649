"""Numbers in units of a scale: what overflows as a square is computed small and multiplied back."""

from __future__ import annotations

from typing import Any

import numpy as np


class OutOfRange(ValueError):
    """A number that its dtype can't hold."""


def power_of_two(largest: Any) -> Any:
    """The power of two at or below positive finite numbers, and 1 for all others: exact to divide by."""
    largest = np.asarray(largest, np.float64)
    usable = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return np.ldexp(1.0, np.frexp(usable)[1] - 1)


def times_power(x: Any, scale: Any, p: float) -> Any:
    """x · scaleᵖ in float64, for powers of two `scale`: infinite beyond the range, and 0 stays 0."""
    exponent = p * np.log2(scale)
    whole = np.floor(exponent)
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(x * np.exp2(exponent - whole), whole.astype(np.int64))
