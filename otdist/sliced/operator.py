"""The sliced distance of batches of clouds, as an operator with a derivative."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from . import direct, direction_sets, estimator, products
from .direction_sets import DirectionSet

# Projections of small problems that a CPU works on at once: beyond that, the time that calls take is no longer theirs.
_GROUP = 1 << 15

Arrays = tuple[Array, ...]


def _kernel(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    directions: Array,
    *,
    needs_input_grad: tuple[bool, ...],
    count: int,
    seed: int,
    p: float,
) -> tuple[Array, Any]:
    """SW_p^p (...) of x (..., n, d), y (..., m, d); `directions` (..., L, d), or (..., 0, d) to draw `count`."""
    arrays = x, y, a, b, directions
    if direct.applies(*arrays, p):
        return _solve_directly(arrays, needs_input_grad)
    needs = (
        *needs_input_grad[:2],
        needs_input_grad[2] and a.shape[-1] > 0,
        needs_input_grad[3] and b.shape[-1] > 0,
        needs_input_grad[4] and count == 0,
    )
    value, _, grads = _solve_batch(arrays, needs, count=count, seed=seed, p=p)
    with products.quiet():
        return value, tuple(
            None if not need else backend.namespace(z).zeros_like(z) if grad is None else backend.astype(grad, z.dtype)
            for grad, z, need in zip(grads, arrays, needs_input_grad, strict=True)
        )


def _solve_directly(arrays: Arrays, needs: tuple[bool, ...]) -> tuple[Array, Any]:
    """The kernel's answer for one small pair in NumPy, of given directions."""
    x, y, a, b, directions = arrays
    with products.quiet():
        value, (by_x, by_y, by_theta) = direct.value_and_gradients(x, y, directions, (needs[0], needs[1], needs[4]))
        weights = (np.zeros_like(z) if need else None for z, need in zip((a, b), needs[2:4], strict=True))
        theta = None if by_theta is None else by_theta.astype(x.dtype, copy=False)
        return np.asarray(value, x.dtype), (by_x, by_y, *weights, theta)


def _solve_batch(
    arrays: Arrays, needs: tuple[bool, ...], *, count: int, seed: int, p: float, with_error: bool = False
) -> tuple[Array, Array | None, list[Array | None]]:
    """Values and standard errors (...), gradients (..., core): several small problems at a time, or one large one."""
    x, directions, batch = arrays[0], arrays[4], arrays[0].shape[:-2]
    if 0 in batch:
        nothing = backend.namespace(x).zeros_like(x[..., 0, 0])
        return nothing, nothing, [None] * 5
    drawn = direction_sets.for_count(count, x.shape[-1], seed, controlled=p == 2) if count else None
    shared = None if count else _shared(directions)
    found = []
    for places in _groups(arrays, count or directions.shape[-2]):
        problems = [_take(z, core, places) for z, core in zip(arrays[:4], _CORES, strict=False)]
        by = drawn or DirectionSet(_take(directions, 2, places) if shared is None else shared, False)
        with products.quiet():
            found.append(estimator.estimate(tuple(problems), by, needs, p=p, with_error=with_error))
    value = _join([f.value for f in found], batch)
    error = _join([f.standard_error for f in found], batch) if with_error else None
    grads = [None if found[0].grads[k] is None else _join([f.grads[k] for f in found], batch) for k in range(5)]
    with products.quiet():
        return backend.astype(value, x.dtype), error, grads


_CORES = (2, 2, 1, 1, 2)


def _shared(directions: Array) -> Array | None:
    """Directions (1, L, d) that all problems share, if they do."""
    single = backend.without_repeats(directions, 2)
    return single.reshape(1, *single.shape[-2:]) if single.shape[:-2].count(1) == single.ndim - 2 else None


def _groups(arrays: Arrays, n_directions: int) -> list[list[tuple[int, ...]]]:
    """Which problems are worked on together: all on a GPU, on a CPU as many small ones as fit, if without weights."""
    x, y, a, b, _ = arrays
    places = list(np.ndindex(*x.shape[:-2]))
    if backend.is_torch(x):
        return [places]
    step = 1 if a.shape[-1] or b.shape[-1] else max(1, _GROUP // (n_directions * max(x.shape[-2], y.shape[-2])))
    return [places[first : first + step] for first in range(0, len(places), step)]


def _take(z: Array, core: int, places: list[tuple[int, ...]]) -> Array:
    """Those elements of a batch, with one leading dimension."""
    if backend.is_torch(z):
        return z.reshape(len(places), *z.shape[z.ndim - core :])
    return z[places[0]][None] if len(places) == 1 else np.stack([z[k] for k in places])


def _join(parts: list[Array], batch: tuple[int, ...]) -> Array:
    whole = parts[0] if len(parts) == 1 else backend.namespace(parts[0]).concatenate(parts)
    return whole.reshape((*batch, *whole.shape[1:]))


def value_and_grad(arrays: Arrays, **options: Any) -> tuple[Array, tuple[Array, ...]]:
    """Values and gradients by x, y, a, b, summed to each array's own shape; NumPy only."""
    value, grads = _kernel(*sliced_cost.broadcast(arrays), needs_input_grad=(True,) * 4 + (False,), **options)
    return value, tuple(backend.sum_to(g, z.shape) for g, z in zip(grads[:4], arrays[:4], strict=True))


def estimates(arrays: Arrays, **options: Any) -> tuple[Array, Array]:
    """Values and standard errors (...), without gradients."""
    on_cpu = backend.is_torch(arrays[0]) and backend.on_cpu(arrays[0])
    own = tuple(backend.as_numpy(z) if on_cpu else z.detach() if backend.is_torch(z) else z for z in arrays)
    value, error, _ = _solve_batch(sliced_cost.broadcast(own), (False,) * 5, with_error=True, **options)
    with backend.silent_overflow(arrays[0]):  # float32 may not hold what float64 found
        return backend.like(value, arrays[0]), backend.like(error, arrays[0])


sliced_cost = Operator("sliced_cost", _kernel, core_ndims=_CORES, options="int count, int seed, float p")
