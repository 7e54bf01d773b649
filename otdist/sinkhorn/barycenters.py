"""Free-support barycenters of point clouds: the points move, by the maps of entropic plans."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import validate_points
from .numpy_engine import Limits
from .operators import engine_for
from .result import plain


class Barycenter(NamedTuple):
    """A uniform cloud, and how it was found: steps, how far (relatively) the last one moved it, whether it settled."""

    points: Array
    n_iter: int
    moved: float
    converged: bool


def barycenter(
    start: Array,
    clouds: list[Array],
    masses: list[Array],
    shares: np.ndarray,
    *,
    epsilon: float,
    tol: float,
    max_iter: int,
) -> Barycenter:
    """The fixed point of z ↦ z + Σ_k share_k T_zk(z) - T_zz(z), from `start`.

    The gradient by z_i of Σ_k share_k S_ε(z, cloud_k) is (2/n) Σ_k share_k (T_zz(z_i) - T_zk(z_i)), with T the
    barycentric maps: a step against it, of length n/2, is z + Σ_k share_k T_zk(z) - T_zz(z). Each step starts from the
    potentials of the one before.
    """
    z, n = start, len(start)
    weights = start[None, :, 0] * 0 + 1 / n
    limits = Limits(epsilon, tol, 5000, (1.0, 1.0))
    known: list[Array | None] = [None] * (len(clouds) + 1)
    spreads = [m @ (c**2).sum(1) - ((m @ c) ** 2).sum() for c, m in zip(clouds, masses, strict=True)]
    scale = math.sqrt(max(float(sum(float(s) * v for s, v in zip(shares, spreads, strict=True))), 0.0))
    moved, steps = np.inf, 0
    while moved > tol and steps < max_iter:
        drift = z * 0
        targets = [*zip(shares, clouds, masses, strict=True), (-1.0, z, weights[0])]
        for k, (share, cloud, mass) in enumerate(targets):
            (found,) = engine_for(z).solve(
                z[None], cloud[None], weights, mass[None], limits, single=False, init=known[k], points=(True, False)
            )
            known[k] = found.g
            assert found.grad_x is not None
            drift -= float(share) * (0.5 * n) * found.grad_x[0]
        z = z + drift
        moved = math.sqrt(float((drift**2).sum(1).mean())) / scale if scale > 0 else 0.0
        steps += 1
    return Barycenter(z, steps, moved, moved <= tol)


class Validated(NamedTuple):
    """Arguments of `barycenter`, in float64 but for the first: where it starts, as it came; and how to cast back."""

    first: Array
    start: Array
    clouds: list[Array]
    masses: list[Array]
    shares: np.ndarray
    cast_back: Any


def validated(start: Any, clouds: Any, masses: Any, shares: Any) -> Validated:
    """Clouds (n_k, d) of one library beside `start` (n, d); masses and shares with sum 1, uniform where not given."""
    listed = _listed("clouds", clouds)
    of_each = [None] * len(listed) if masses is None else _listed("masses", masses)
    checks.same_size("the number of", "clouds", len(listed), "masses", len(of_each))
    named = {"start": start, **{f"clouds[{k}]": z for k, z in enumerate(listed)}}
    named |= {f"masses[{k}]": z for k, z in enumerate(of_each) if z is not None}
    named |= {} if shares is None else {"weights": shares}
    arrays, cast_back = checks.arrays(**named)
    found = dict(zip(named, arrays, strict=True))
    if shares is not None:
        count = found["weights"].shape[-1] if found["weights"].ndim else 0
        checks.same_size("the number of", "clouds", len(listed), "weights", count)
    points = arrays[: 1 + len(listed)]
    for name, z in zip(named, points, strict=False):
        if z.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d), without a batch; got {tuple(z.shape)}")
        validate_points(name, z)
        checks.same_size("the number of coordinates", "start", points[0].shape[1], name, z.shape[1])
    weights = [_weights(f"masses[{k}]", found.get(f"masses[{k}]"), z) for k, z in enumerate(points[1:])]
    begin, *others = (_double(z) for z in points)
    of_clouds = np.full(len(listed), 1 / len(listed))
    if shares is not None:
        of_clouds = np.array(_weights("weights", found["weights"], of_clouds).tolist())
    return Validated(points[0], begin, others, weights, of_clouds, cast_back)


def _listed(name: str, given: Any) -> list[Any]:
    """The members of a sequence; an array is one of its rows."""
    if isinstance(given, str) or not hasattr(given, "__len__") or getattr(given, "ndim", 1) == 0 or not len(given):
        raise ValueError(f"{name} must be a sequence of at least one array; got {type(given).__name__}")
    return list(given)


def _weights(name: str, given: Array | None, of: Array) -> Array:
    """Of the members of an array, uniform where none are given."""
    n = len(of)
    if given is None:
        return _double(of).reshape(n, -1)[:, 0] * 0 + 1 / n
    if given.ndim != 1:
        raise ValueError(f"{name} must have shape (n,); got {tuple(given.shape)}")
    found = _double(checks.weights(name, given, n))
    return found / found.sum()


def _double(z: Array) -> Array:
    """A copy in float64, of NumPy or, on a device, a tensor."""
    z = plain(z)
    return z.double() if backend.is_torch(z) else np.array(z, np.float64)
