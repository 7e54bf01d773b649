"""Two samples and a distance between them: the arguments that tests and intervals share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import sliced
from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import validate_points

Distance = Callable[[Any, Any], Any]

# The sliced distance's own default; drawn once, so that every resample is seen from the same directions.
DIRECTIONS = 128


def validate_samples(x: Any, y: Any, *, at_least: int) -> tuple[Array, Array]:
    """Two samples (n, d) and (m, d) of one library, dtype and dimension, of so many points or more."""
    (x, y), cast_back = checks.arrays(x=x, y=y)
    for name, z in (("x", x), ("y", y)):
        if z.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d); got {tuple(z.shape)}")
        validate_points(name, z)
        if len(z) < at_least:
            raise ValueError(f"{name} must have at least {at_least} points; got {len(z)}")
    checks.same_size("the number of coordinates", "x", x.shape[1], "y", y.shape[1])
    return cast_back(x), cast_back(y)


def without_gradients(*arrays: Array) -> tuple[Array, ...]:
    """Tests and intervals are plain numbers: tensors leave their graph, and half precision becomes single."""
    plain = (z.detach() if backend.is_torch(z) else z for z in arrays)
    return tuple(backend.astype(z, backend.namespace(z).float32) if z.itemsize < 4 else z for z in plain)


def default_directions(d: int, rng: np.random.Generator) -> np.ndarray:
    """The directions of the default distance."""
    return sliced.directions(DIRECTIONS, d, rng=rng)


def sliced_along(directions: np.ndarray, like: Array) -> Distance:
    """The sliced distance over fixed directions, for samples that are arrays as ``like`` is."""
    return partial(sliced.w2_squared, directions=backend.like(directions, like))
