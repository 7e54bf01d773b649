"""Free-support barycenters of point clouds: the points move, by the maps of entropic plans."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._core import checks
from .._core.backend import Array
from .numpy_engine import Limits
from .operators import engine_for


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


def validated_shares(shares: Any, count: int) -> np.ndarray:
    """Weights of the clouds, uniform where none are given."""
    if shares is None:
        return np.full(count, 1 / count)
    given = np.asarray(shares, np.float64)
    checks.same_size("the number of", "clouds", count, "weights", given.size)
    return checks.weights("weights", given.reshape(-1), count)
