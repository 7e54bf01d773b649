"""The grouped jackknife: what leaving out each part of the samples tells about bias and error."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.scale import OutOfRange
from .samples import Distance

# Parts that are left out in turn: enough for a standard error with 19 degrees of freedom.
GROUPS = 20


def pseudo_values(distance: Distance, x: Array, y: Array, groups: int = GROUPS) -> list[Any]:
    """K θ - (K - 1) θ without part k; parts interleave, so the samples' order matters only as much as it is random."""
    whole = distance(x, y)
    parts = [distance(*(_without(z, k, groups) for z in (x, y))) for k in range(groups)]
    with backend.silent_overflow(whole):
        found = [groups * whole - (groups - 1) * part for part in parts]
    for pseudo in found:
        refuse_infinite(pseudo)
    return found


def refuse_infinite(x: Any) -> None:
    """Refuse distances, and multiples of them, that are beyond the range of their dtype."""
    if backend.inspectable(x) and not np.isfinite(backend.as_numpy(x)).all():
        raise OutOfRange("the distance between x and y is beyond the range of its dtype; divide x and y by some c")


def _without(z: Array, k: int, groups: int) -> Array:
    """The points whose number is not k modulo `groups`; on a card their places are computed there."""
    left = backend.namespace(z).arange(len(z) - len(range(k, len(z), groups)), device=z.device)
    return z[left + (left + (groups - 1 - k)) // (groups - 1)]
