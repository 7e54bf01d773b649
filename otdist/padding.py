"""Clouds of different sizes as one batch: shorter ones are filled up with points that have no weight."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._core import backend, checks
from ._core.annotations import A, Numbers
from ._core.backend import Array

__all__ = ["pad_clouds"]


def pad_clouds(clouds: Sequence[A | Numbers] | A, weights: Sequence[A | Numbers | None] | None = None) -> tuple[A, A]:
    """Several clouds of different sizes as one batch of points with weights, which every distance between points takes.

    A shorter cloud is filled up by its own first point with weight 0, which changes no distance, nor any gradient:
    those of what was filled up are 0, and those of clouds and weights flow through.

    Parameters
    ----------
    clouds : sequence of (n_k, d), or of (n_k,) for `otdist.line`
        At least one, all of one library, device and d, none of them empty.
    weights : sequence of (n_k,) or None, optional
        Weights of each cloud's points; None is uniform, for one cloud or for all.

    Returns
    -------
    points : (k, n, d), or (k, n)
        With n the size of the largest cloud.
    weights : (k, n)
        In float32 for clouds in half precision, in which weights would not sum to 1.

    Raises
    ------
    TypeError
        If libraries are mixed, or something is not an array of numbers.
    ValueError
        If there is no cloud, one is empty or not of the others' d, or weights do not fit. Values are looked at by the
        distances, not here.

    Examples
    --------
    >>> import numpy as np
    >>> import otdist
    >>> clouds = [np.array([[0.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 0.0]])]
    >>> x, a = otdist.pad_clouds(clouds)
    >>> x.shape, a
    ((2, 2, 2), array([[1. , 0. ],
           [0.5, 0.5]]))
    >>> otdist.exact.w2_squared(x, np.zeros((1, 2)), a)
    array([0., 5.])
    """
    named = {f"clouds[{k}]": cloud for k, cloud in enumerate(clouds)}
    if not named:
        raise ValueError("clouds must have at least one cloud; got none")
    shares = [None] * len(named) if weights is None else list(weights)
    checks.same_size("the number of clouds", "clouds", len(named), "weights", len(shares))
    named |= {f"weights[{k}]": w for k, w in enumerate(shares) if w is not None}
    xp, found, cast_back = _arrays(named)
    points = [x for name, x in found.items() if name.startswith("clouds")]
    _check_shapes(points)
    masses = []
    for k, x in enumerate(points):
        w = found.get(f"weights[{k}]")
        if w is not None and tuple(w.shape) != (len(x),):
            raise ValueError(f"weights[{k}] must have shape ({len(x)},); got {tuple(w.shape)}")
        masses.append(xp.full_like(x.reshape(len(x), -1)[:, 0], 1 / len(x)) if w is None else w)
    n = max(map(len, points))
    padded = xp.stack([_fill(xp, x, x[:1], n) for x in points])
    return cast_back(padded), xp.stack([_fill(xp, w, xp.zeros_like(w[:1]), n) for w in masses])


def _arrays(named: dict[str, Any]) -> tuple[Any, dict[str, Array], Any]:
    """The library, arrays of one dtype (at least float32), and what casts points back."""
    jax = sys.modules.get("jax")
    if jax is not None and any(isinstance(x, jax.Array) for x in named.values()):
        for name, x in named.items():
            if isinstance(x, np.ndarray) or backend.is_torch(x):
                kind = f"{type(x).__module__}.{type(x).__qualname__}"
                raise TypeError(f"{name} is a {kind} beside a jax.Array; pass both as the same type")
        jnp = jax.numpy
        dtype = jnp.result_type(float, *(x.dtype for x in named.values() if isinstance(x, jax.Array)))
        work = jnp.promote_types(dtype, jnp.float32)
        return jnp, {k: jnp.asarray(x, work) for k, x in named.items()}, lambda x: x.astype(dtype)
    arrays, cast_back = checks.arrays(**named)
    return backend.namespace(arrays[0]), dict(zip(named, arrays, strict=True)), cast_back


def _check_shapes(points: list[Array]) -> None:
    core = 1 if points[0].ndim == 1 else 2
    for k, x in enumerate(points):
        name = f"clouds[{k}]"
        if x.ndim != core:
            raise ValueError(f"{name} must have shape ({'n' if core == 1 else 'n, d'}); got {tuple(x.shape)}")
        checks.nonempty(name, x, 0, "point")
        if core == 2:
            checks.nonempty(name, x, 1, "coordinate")
            checks.same_size("the number of coordinates", "clouds[0]", points[0].shape[1], name, x.shape[1])


def _fill(xp: Any, x: Array, row: Array, n: int) -> Array:
    """The rows of an array and repetitions of one more, (n, ...) together; the latter pass no gradient on."""
    if len(x) == n:
        return x
    row = row.detach() if backend.is_torch(row) else row
    return xp.concatenate([x, xp.broadcast_to(row, (n - len(x), *x.shape[1:]))])


def __dir__() -> list[str]:
    return __all__
