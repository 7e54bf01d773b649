"""The grouped jackknife: what leaving out each part of the samples tells about bias and error."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .samples import Distance

# Parts that are left out in turn: enough for a standard error with 19 degrees of freedom.
GROUPS = 20


def pseudo_values(distance: Distance, x: Array, y: Array, groups: int = GROUPS) -> list[Any]:
    """K θ - (K - 1) θ without part k; parts interleave, so the samples' order matters only as much as it is random."""
    whole = distance(x, y)
    rest = [[_without(z, k, groups) for z in (x, y)] for k in range(groups)]
    return [groups * whole - (groups - 1) * distance(*pair) for pair in rest]


def _without(z: Array, k: int, groups: int) -> Array:
    kept = [i for i in range(len(z)) if i % groups != k]  # a compiler knows how long a list is
    return z[backend.index(np.array(kept), z)]
