"""Kinds of arguments of kernels: numbers, and flat contiguous arrays of a dtype or of the working type."""

from typing import Any

import numpy as np

INT, FLOAT, INTS, FLOATS, WORKING = "int", "float", "int64[:]", "float64[:]", "working[:]"
# A vector of the loops: bytes, and doubles in it.
BYTES, LANES = 64, 8


def dtype_of(kind: str, working: Any) -> Any:
    """The dtype of an array of this kind."""
    return working if kind == WORKING else np.dtype(kind.removesuffix("[:]"))
