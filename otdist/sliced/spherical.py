"""The sliced distance on the sphere: the mean, over great circles, of the distance between projections on them.

A great circle is spanned by an orthonormal pair u, v; a point x of the sphere goes to the angle ``atan2(v·x, u·x)``. On
the circle the plan that sends quantile to quantile is optimal after one of them is shifted; between n and n points the
shift is by a whole number j of places, and the cost is convex in j (Delon, Salomon & Sobolevski 2010), so j is found by
bisection, along all circles at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.operator import Operator

# Angles held at a time, of each cloud: 8 MiB of doubles.
_CHUNK = 1 << 20


def draw(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal pairs (n, 2, d), uniform on the Stiefel manifold."""
    q, r = np.linalg.qr(rng.standard_normal((n, d, 2)))
    return np.ascontiguousarray((q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None, :]).mT)


def validate(name: str, x: Array, tolerance: float) -> None:
    """Refuse points that are not on the unit sphere, to a tolerance of squares, and spheres without great circles."""
    if x.shape[-1] < 2:
        raise ValueError(f"{name} must have at least 2 coordinates; got shape {tuple(x.shape)}")
    if backend.inspectable(x):
        v = backend.as_numpy(x)
        squares = np.einsum("...i,...i->...", v, v)
        if not (np.abs(squares - 1) <= tolerance).all():
            worst = squares.flat[np.abs(squares - 1).argmax()] ** 0.5
            raise ValueError(f"{name} must have rows of length 1; got a row of length {worst:.6g}")


def validate_circles(circles: Array, d: int, tolerance: float) -> None:
    """Refuse anything but orthonormal pairs (L, 2, d), to a tolerance of inner products."""
    if circles.ndim != 3 or circles.shape[1:] != (2, d) or not len(circles):
        raise ValueError(f"directions must be a count or have shape (L, 2, d), d = {d}; got {tuple(circles.shape)}")
    checks.finite("directions", circles)
    if backend.inspectable(circles):
        v = backend.as_numpy(circles)
        if not (np.abs(v @ v.mT - np.eye(2)) <= tolerance).all():
            raise ValueError("directions must be orthonormal pairs; got some that are not")


def _kernel(x: Array, y: Array, circles: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, Any]:
    """SSW2² (...) of x, y (..., n, d) on the circles (..., L, 2, d)."""
    batch, xp = x.shape[:-2], backend.namespace(x)
    if 0 in batch:
        nothing = (xp.zeros_like(z) if need else None for need, z in zip(needs_input_grad, (x, y), strict=False))
        return xp.zeros_like(x[..., 0, 0]), (*nothing, None)
    found = [_solve(x[k], y[k], circles[k], needs_input_grad) for k in np.ndindex(*batch)]
    value, *grads = (
        None if parts[0] is None else xp.stack(parts).reshape((*batch, *parts[0].shape))
        for parts in zip(*found, strict=True)
    )
    return backend.astype(value, x.dtype), (*(None if g is None else backend.astype(g, x.dtype) for g in grads), None)


def _solve(x: Array, y: Array, circles: Array, needs_input_grad: tuple[bool, ...]) -> tuple[Any, Any, Any]:
    """One pair of clouds: the value and the gradients by x and y."""
    xp, n = backend.namespace(x), len(x)
    x, y, circles = (backend.astype(z, xp.float64) for z in (x, y, circles))
    values, grads = (
        [],
        [None if not need else xp.zeros_like(z) for need, z in zip(needs_input_grad, (x, y), strict=False)],
    )
    share = 1 / (n * len(circles))
    step = max(1, _CHUNK // n)
    for first in range(0, len(circles), step):
        part = circles[first : first + step]
        pairs = [part @ z.T for z in (x, y)]  # (l, 2, n)
        angles = [xp.arctan2(z[:, 1], z[:, 0]) for z in pairs]
        orders = [z.argsort(-1) for z in angles]
        gap, place = _match(*(_take(z, order) for z, order in zip(angles, orders, strict=True)))
        values.append((gap * gap).sum(-1) * share)
        orders[1] = _take(orders[1], place)
        for k, grad in enumerate(grads):
            if grad is not None:
                grad += _by_points(_unsorted(gap * ((1 - 2 * k) * 2 * share), orders[k]), pairs[k], part)
    return xp.concatenate(values).sum(), grads[0], grads[1]


def _match(x: Array, y: Array) -> tuple[Array, Array]:
    """Sorted angles x (l, n) go to the sorted angles y[place] (l, n): the signed arcs, and the places."""
    xp, (_, n) = backend.namespace(x), x.shape
    numbers = xp.arange(n, device=x.device)
    low = xp.zeros_like(x[:, :1], dtype=xp.int64) - n
    high = low + 2 * n

    def shifted(j: Array) -> tuple[Array, Array]:
        place = (numbers + j) % n
        turns = backend.astype((numbers + j - place) // n, xp.float64)  # a tensor of integers would become float32
        return x - _take(y, place) - 2 * np.pi * turns, place

    for _ in range((2 * n).bit_length()):
        middle = (low + high) // 2
        here, there = ((shifted(j)[0] ** 2).sum(-1)[:, None] for j in (middle, middle + 1))
        rises = there >= here
        low, high = xp.where(rises | (low >= high), low, middle + 1), xp.where(rises, middle, high)
    return shifted(low)


def _take(x: Array, place: Array) -> Array:
    return x.gather(-1, place) if backend.is_torch(x) else np.take_along_axis(x, place, -1)


def _unsorted(values: Array, order: Array) -> Array:
    if backend.is_torch(values):
        return backend.torch_module().empty_like(values).scatter_(-1, order, values)
    out = np.empty_like(values)
    np.put_along_axis(out, order, values, -1)
    return out


def _by_points(slopes: Array, pairs: Array, circles: Array) -> Array:
    """Chain from angles (l, n) to points (n, d): an angle's gradient is (u·x v - v·x u) / ((u·x)² + (v·x)²)."""
    xp, (count, _, n) = backend.namespace(slopes), pairs.shape
    squared = (pairs * pairs).sum(1)
    scaled = slopes / xp.where(squared > 0, squared, xp.ones_like(squared))
    by_pair = xp.stack([-scaled * pairs[:, 1], scaled * pairs[:, 0]], 1)
    return by_pair.reshape(2 * count, n).T @ circles.reshape(2 * count, -1)


spherical_cost = Operator("spherical_cost", _kernel, core_ndims=(2, 2, 3))
