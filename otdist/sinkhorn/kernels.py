"""The compiled kernels of Sinkhorn's method as Python calls them; what they do is said where they are written."""

from typing import Any, NamedTuple

import numpy as np

from .._core.kernels import Kernel
from .._core.kinds import FLOAT, FLOATS, INT, INTS, WORKING

_PASSES, _LOOP = "otdist.sinkhorn.passes", "otdist.sinkhorn.loop"


class Part(NamedTuple):
    """Rows of a matrix: what computes them, where they are, and by what they are multiplied.

    E holds the part's rows or, where they are computed whenever they are needed, fewer; `stale`: 1 if they have to be
    computed, by the function at `absorb_at`. Arrays are in the working type.
    """

    absorb_at: Any = INT
    groups: Any = WORKING
    panels: Any = WORKING
    d: Any = INT
    scale: Any = FLOAT
    power: Any = FLOAT
    G: Any = WORKING
    stale: Any = INT
    E: Any = WORKING
    v: Any = WORKING
    shift: Any = WORKING
    a: Any = WORKING


_ABSORB = WORKING, WORKING, INT, FLOAT, FLOAT, WORKING, WORKING, WORKING
absorb = Kernel(f"{_PASSES}.absorb", *_ABSORB)
absorb_power = Kernel(f"{_PASSES}.absorb_power", *_ABSORB, dtypes=(np.float64,))
c_transform = Kernel(
    f"{_PASSES}.c_transform", WORKING, WORKING, INT, FLOAT, WORKING, FLOATS, WORKING, dtypes=(np.float64,)
)
sweep = Kernel(f"{_PASSES}.sweep", Part(), FLOAT, INT, FLOATS, FLOATS, WORKING)
products = Kernel(f"{_PASSES}.products", Part(), FLOATS, WORKING, FLOATS, FLOATS, WORKING, WORKING)
plan_rows = Kernel(f"{_PASSES}.plan_rows", Part(), FLOATS, FLOATS, dtypes=(np.float64,))
power_gradients = Kernel(f"{_PASSES}.power_gradients", *(FLOATS,) * 3, INT, FLOAT, *(FLOATS,) * 3)
box = Kernel(f"{_LOOP}.box", FLOATS, FLOATS, INTS, FLOAT, *(FLOATS,) * 4)
solve_small = Kernel(
    f"{_LOOP}.solve_small",
    *(INT, INTS, INTS, INTS, FLOATS),
    (FLOATS,) * 6,
    (FLOATS,) * 3,
    (WORKING, WORKING, FLOATS),
)
