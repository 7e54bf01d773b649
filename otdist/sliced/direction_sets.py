"""Directions on the unit sphere: random ones, and which ones a count stands for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks, random
from .._core.imports import imported

# Six coefficients are fitted to the values: with fewer directions than this they would fit noise.
_FEWEST_FOR_CONTROLS = 16
# Independent groups: enough for a normal quantile to stand for Student's (1.96 for 2.09).
_GROUPS = 20
# In the plane equal spacing beats orthogonal pairs with controls from groups of about five on (bench/directions.py).
_FEWEST_FOR_GRID = 5 * _GROUPS
# Orthogonal blocks from which on their own spread is used: with the six coefficients fewer leave too little to measure.
_FEWEST_BLOCKS = 12

KINDS = ("orthogonal", "sobol", "random")


class DirectionSet(NamedTuple):
    """Directions and how their values are averaged."""

    directions: np.ndarray  # (L, d), or (b or 1, L, d); float64 if drawn here
    drawn: bool  # from the uniform distribution: means are split off
    controlled: bool = False  # by control variates
    group: np.ndarray | None = None  # (L,): directions of one group depend on each other
    block: int = 1  # with control variates: so many consecutive ones do


def for_count(count: int, d: int, seed: int, controlled: bool = True) -> DirectionSet:
    """The directions that a count stands for: equally spaced in the plane, orthogonal blocks beyond."""
    rng = random.generator(seed)
    if d == 1:
        return DirectionSet(np.ones((1, 1)), True)
    if d == 2 and count >= _FEWEST_FOR_GRID:
        directions, group = grid(count, _GROUPS, rng)
        return DirectionSet(directions, True, group=group)
    # The control variates need two covariances, d² n: no more than four times the projections.
    controlled = controlled and count >= _FEWEST_FOR_CONTROLS and d <= 2 * count
    # Directions of one block depend on each other; of few blocks that would be too hard to see.
    block = d if count >= _FEWEST_BLOCKS * d else 1
    return DirectionSet(draw(count, d, "orthogonal", rng), True, controlled, block=block)


def draw(n: int, d: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Directions (n, d), float64 unit rows; see `otdist.sliced.directions`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if n * d > 1 << 26:  # smaller ones are not worth reading the machine's state for
        checks.memory(16 * n * d, f"{n} directions in {d} dimensions", "draw fewer at a time")
    if d == 1:
        return np.where(rng.random((n, 1)) < 0.5, -1.0, 1.0)
    if kind == "sobol":
        return _sobol(n, d, rng)
    return _orthogonal(n, d, rng) if kind == "orthogonal" else _unit(rng.standard_normal((n, d)))


def length_tolerance(given: Any) -> float:
    """By how much the squared length of a unit row may differ from 1, as the caller gave it.

    Generous beside rounding, so that finite differences can be taken. A row normalized in its own precision is off by
    half an eps from its norm and half an eps from the quotient, which makes 2 eps in the square: twice that is allowed.
    """
    half = hasattr(given, "dtype") and backend.dtype_name(given) in ("float16", "bfloat16")
    return 2e-3 + 4 * backend.epsilon(given) if half else 2e-3


def grid(n: int, groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Directions (n, 2) in independent groups, each equally spaced on the half circle; and each one's group."""
    group = np.arange(n) % groups
    sizes = np.bincount(group, minlength=groups)
    angle = np.pi * (np.arange(n) // groups + rng.random(groups)[group]) / sizes[group]
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), group


def _orthogonal(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks of d orthonormal rows, each uniform on the orthogonal group (Mezzadri 2007, arXiv:math-ph/0609050)."""
    blocks = -(-n // d)
    normal = rng.standard_normal((blocks, d, d) if blocks > 1 else (1, d, n))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
    return np.ascontiguousarray(q.mT.reshape(-1, d)[:n])


def _sobol(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """A scrambled Sobol net carried to the sphere; in 2 and 3 dimensions by the maps that keep area."""
    ndtri, qmc = imported("scipy.special").ndtri, imported("scipy.stats").qmc

    coordinates = d - 1 if d <= 3 else d
    seed = np.random.default_rng(rng.integers(2**63))  # SciPy's engine keeps its generator
    net = qmc.Sobol(coordinates, scramble=True, rng=seed).random_base2(max(n - 1, 0).bit_length())[:n]
    angle = 2 * np.pi * net[:, 0]
    if d == 2:
        return np.stack([np.cos(angle / 2), np.sin(angle / 2)], axis=1)  # a half circle: θ and -θ are one direction
    if d == 3:
        height = 2 * net[:, 1] - 1
        radius = np.sqrt(1 - height**2)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return _unit(ndtri(np.clip(net, 2.0**-53, 1 - 2.0**-53)))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
