"""Free-support barycenters of point clouds: the points move, by the maps of entropic plans."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import checks
from .._core.backend import Array
from .._core.clouds import validate_points
from . import numpy_engine
from .numpy_engine import Limits
from .result import host


class Barycenter(NamedTuple):
    """A uniform cloud, and how it was found: steps, how far (relatively) the last one moved it, whether it settled."""

    points: Array
    n_iter: int
    moved: float
    converged: bool


def barycenter(
    start: np.ndarray,
    clouds: list[np.ndarray],
    masses: list[np.ndarray],
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
    weights = np.full((1, n), 1 / n)
    limits = Limits(epsilon, tol, 5000, (1.0, 1.0))
    known: list[np.ndarray | None] = [None] * (len(clouds) + 1)
    scale = np.sqrt(
        sum(s * (m @ (c**2).sum(1) - ((m @ c) ** 2).sum()) for s, c, m in zip(shares, clouds, masses, strict=True))
    )
    moved, steps = np.inf, 0
    while moved > tol and steps < max_iter:
        drift = np.zeros_like(z)
        targets = [*zip(shares, clouds, masses, strict=True), (-1.0, z, weights[0])]
        for k, (share, cloud, mass) in enumerate(targets):
            (found,) = numpy_engine.solve(
                z[None], cloud[None], weights, mass[None], limits, single=False, init=known[k], points=(True, False)
            )
            known[k] = found.g
            assert found.grad_x is not None
            drift -= share * (0.5 * n) * found.grad_x[0]
        z = z + drift
        moved = float(np.sqrt((drift**2).sum(1).mean()) / scale) if scale > 0 else 0.0
        steps += 1
    return Barycenter(z, steps, moved, moved <= tol)


class Validated(NamedTuple):
    """Arguments of `barycenter`, in float64 but for the first: where it starts, as it came, and how to cast back."""

    first: Array
    start: np.ndarray
    clouds: list[np.ndarray]
    masses: list[np.ndarray]
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
    sizes = {f"masses[{k}]": len(z) for k, z in enumerate(points[1:])} | {"weights": len(listed)}
    weights = [_weights(name, found.get(name), n) for name, n in sizes.items()]
    begin, *others = (np.array(host(z), np.float64) for z in points)
    return Validated(points[0], begin, others, weights[:-1], weights[-1], cast_back)


def _listed(name: str, given: Any) -> list[Any]:
    """The members of a sequence; an array is one of its rows."""
    if isinstance(given, str) or not hasattr(given, "__len__") or getattr(given, "ndim", 1) == 0 or not len(given):
        raise ValueError(f"{name} must be a sequence of at least one array; got {type(given).__name__}")
    return list(given)


def _weights(name: str, given: Array | None, n: int) -> np.ndarray:
    if given is None:
        return np.full(n, 1 / n)
    if given.ndim != 1:
        raise ValueError(f"{name} must have shape (n,); got {tuple(given.shape)}")
    found = np.array(host(checks.weights(name, given, n)), np.float64)
    return found / found.sum()
