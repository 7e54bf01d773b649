"""The distances between batches of rows, as operators: the cost ∫ |F⁻¹ - G⁻¹|^p, and its p-th root."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from .._core.scale import times_power
from .coupling import Transport, is_finite
from .monotone import transport, weight_rows

# Between these no term of a cost that matters has overflowed or underflowed.
_SMALLEST, _LARGEST = 1e-200, 1e200


def _cost_kernel(x: Array, y: Array, a: Array, b: Array, *, needs_input_grad: tuple[bool, ...], p: float) -> Any:
    """∫ |F⁻¹ - G⁻¹|^p (...) for points x (..., n), y (..., m); weights a (..., n), b (..., m) or (..., 0): uniform."""
    arrays = (x, y, a, b)
    wanted, (u, v) = _wanted(arrays, needs_input_grad), _weights(a, b)
    found = transport(_own_rows(x), _own_rows(y), u, v, p=p, needs_input_grad=wanted)
    if not (backend.is_torch(x) or _is_within_range(found, x.dtype)):
        found = _multiplied_back(*_rescaled(arrays, (u, v), p, wanted), (u, v), p)
    return _in_shape(found, arrays, needs_input_grad)


def _distance_kernel(x: Array, y: Array, a: Array, b: Array, *, needs_input_grad: tuple[bool, ...], p: float) -> Any:
    """The p-th root of the same, right where the cost itself would overflow or underflow; gradient 0 where it is 0."""
    arrays, wanted, weights = (x, y, a, b), _wanted((x, y, a, b), needs_input_grad), _weights(a, b)
    if backend.is_torch(x):
        scale = _power_of_two(x, y)
        rows = [(backend.astype(z, scale.dtype).reshape(-1, z.shape[-1]) / scale) for z in (x, y)]
        found = transport(rows[0], rows[1], *weights, p=p, needs_input_grad=wanted)
        return _in_shape(_root(found, scale[:, 0], p), arrays, needs_input_grad)
    found = transport(_own_rows(x), _own_rows(y), *weights, p=p, needs_input_grad=wanted)
    scale = np.ones(len(found.cost))
    if not (((found.cost > _SMALLEST) & (found.cost < _LARGEST)).all() and _is_within_range(found, x.dtype)):
        found, scale = _rescaled(arrays, weights, p, wanted)
    return _in_shape(_root(found, scale, p), arrays, needs_input_grad)


def _rescaled(arrays: Any, weights: Any, p: float, wanted: tuple[bool, ...]) -> tuple[Transport, np.ndarray]:
    """The cost of rows divided by W_1, with it: by Jensen's inequality the cost is then at least 1."""
    scale = _power_of_two(*arrays[:2])
    rows = [z.reshape(-1, z.shape[-1]).astype(np.float64) / scale for z in arrays[:2]]
    nearest = transport(rows[0].copy(), rows[1].copy(), *weights, p=1.0, needs_input_grad=(False,) * 4).cost
    second = np.exp2(np.floor(np.log2(np.where(nearest > 0, nearest, 1.0))))
    x, y = (z / second[:, None] for z in rows)
    found = transport(x, y, *weights, p=p, needs_input_grad=wanted)
    return found, scale[:, 0] * second


def _is_within_range(found: Transport, dtype: Any) -> bool:
    """Whether no cost has overflowed, and no potential will when it is cast."""
    if not is_finite(found.cost):
        return False
    if found.a_potentials is None and found.b_potentials is None:
        return True
    most = float(np.finfo(dtype).max) / 8  # differences of potentials must be numbers too
    return all(-most <= z.min() and z.max() <= most for z in found[3:] if z is not None and z.size)


def _multiplied_back(found: Transport, scale: np.ndarray, weights: tuple[Array, Array], p: float) -> Transport:
    """Of the costs of rows divided by `scale` (r,), the costs of the rows: infinite where they are beyond the range.

    Potentials become infinite with the sign that they have around their mean.
    """
    by_points = (None if s is None else times_power(s, scale[:, None], p - 1) for s in found[1:3])
    by_weights = []
    for potential, w in zip(found[3:], weights, strict=True):
        if potential is not None:
            mean = (w * np.where(w > 0, potential, 0.0)).sum(1, keepdims=True)
            potential = times_power(potential - mean, scale[:, None], p)
        by_weights.append(potential)
    return Transport(times_power(found.cost, scale, p), *by_points, *by_weights)


def _power_of_two(x: Array, y: Array) -> Array:
    """The largest power of two up to the largest absolute value in each pair of rows, (r, 1); 1 where all are 0."""
    xp = backend.namespace(x)
    largest = [abs(z.reshape(-1, z.shape[-1])) for z in (x, y)]
    tops = [z.max(1).values if backend.is_torch(z) else z.max(1) for z in largest]
    top = backend.astype(xp.maximum(*tops), xp.float64)
    mantissa, _ = xp.frexp(xp.where(top > 0, top, xp.ones_like(top)))
    return (xp.where(top > 0, top, xp.ones_like(top)) / (2 * mantissa))[:, None]


def _root(found: Transport, scale: Array, p: float) -> Transport:
    """Of the costs of rows divided by `scale` (r,), the distances and their derivatives."""
    xp, cost = backend.namespace(scale), found.cost
    zero = cost == 0
    nonzero = xp.where(zero, xp.ones_like(cost), cost)
    distance = xp.where(zero, cost, nonzero ** (1 / p))
    slope = xp.where(zero, cost, nonzero ** (1 / p - 1) / p)[:, None]
    by_points = (None if s is None else slope * s for s in found[1:3])
    by_weights = (None if s is None else scale[:, None] * (slope * s) for s in found[3:])
    return Transport(scale * distance, *by_points, *by_weights)


def _own_rows(x: Array) -> Array:
    """A copy (r, n), for `transport` to overwrite."""
    rows = x.reshape(-1, x.shape[-1])
    return rows.clone() if backend.is_torch(x) else np.array(rows, order="C")


def _weights(a: Array, b: Array) -> tuple[Array, Array]:
    return weight_rows(a), weight_rows(b)


def _wanted(arrays: tuple[Array, ...], needs: tuple[bool, ...]) -> tuple[bool, ...]:
    """Uniform weights, of shape (..., 0), have no derivative."""
    return tuple(need and (k < 2 or arrays[k].shape[-1] > 0) for k, need in enumerate(needs))


def _in_shape(found: Transport, arrays: tuple[Array, ...], needs: tuple[bool, ...]) -> tuple[Array, tuple[Any, ...]]:
    """Value and gradients in the shape and dtype that the caller's arrays have."""
    x, xp = arrays[0], backend.namespace(arrays[0])
    grads = (
        (xp.zeros_like(z) if g is None else _cast(g, z.shape, x.dtype)) if need else None
        for z, g, need in zip(arrays, found[1:], needs, strict=True)
    )
    return _cast(found.cost, x.shape[:-1], x.dtype), tuple(grads)


def _cast(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    with np.errstate(over="ignore"):  # a square beyond the dtype is infinite
        return backend.astype(x, dtype).reshape(shape)


line_cost = Operator("line_cost", _cost_kernel, core_ndims=(1, 1, 1, 1), options="float p")
line_distance = Operator("line_distance", _distance_kernel, core_ndims=(1, 1, 1, 1), options="float p")
