"""The case table: one row for each distance. Every law in test_laws.py is tried on every row.

A measure is a tuple of NumPy arrays, the arguments that describe one side; ``w2_squared(*x, *y)`` compares two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from strategies import covariance

from otdist import diagonal, exact, gaussian, line, sinkhorn, sliced

Measure = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Case:
    """A distance and how to make, move and stretch what it compares."""

    name: str
    module: Any
    draw: Callable[[np.random.Generator, int], Measure]  # rng, d
    translate: Callable[[Measure, np.ndarray], Measure]
    stretch: Callable[[Measure, float], Measure]
    options: dict[str, Any] = field(default_factory=dict)
    twice: bool = False  # has second derivatives
    metric: bool = True  # satisfies the triangle inequality

    def w2_squared(self, x: Measure, y: Measure, **changed: Any) -> Any:
        return self.module.w2_squared(*self.interleave(x, y), **{**self.options, **changed})

    def w2(self, x: Measure, y: Measure) -> Any:
        return self.module.w2(*self.interleave(x, y), **self.options)

    def w2_squared_and_grad(self, x: Measure, y: Measure) -> Any:
        return self.module.w2_squared_and_grad(*self.interleave(x, y), **self.options)

    def interleave(self, x: Measure, y: Measure) -> tuple[Any, ...]:
        return (*x, *y)

    def __str__(self) -> str:
        return self.name


def _gaussian(rng: np.random.Generator, d: int) -> Measure:
    return rng.standard_normal(d), covariance(d, rng)


def _diagonal(rng: np.random.Generator, d: int) -> Measure:
    return rng.standard_normal(d), rng.uniform(0.1, 2.0, d)


def _points(rng: np.random.Generator, d: int) -> Measure:
    return (rng.standard_normal((7, d)),)


def _numbers(rng: np.random.Generator, d: int) -> Measure:
    return (rng.standard_normal(5 + d),)


CASES = [
    Case(
        "gaussian",
        gaussian,
        _gaussian,
        translate=lambda m, v: (m[0] + v, m[1]),
        stretch=lambda m, s: (s * m[0], s**2 * m[1]),
        twice=True,
    ),
    Case(
        "diagonal",
        diagonal,
        _diagonal,
        translate=lambda m, v: (m[0] + v, m[1]),
        stretch=lambda m, s: (s * m[0], s * m[1]),
        twice=True,
    ),
    Case(
        "line",
        line,
        _numbers,
        translate=lambda m, v: (m[0] + v[0],),
        stretch=lambda m, s: (s * m[0],),
    ),
    Case(
        "sliced",
        sliced,
        _points,
        translate=lambda m, v: (m[0] + v,),
        stretch=lambda m, s: (s * m[0],),
        options={"directions": 32, "rng": 0},
        metric=False,  # the estimate from few directions is not; the mean over given ones is, see test_sliced.py
    ),
    Case(
        "exact",
        exact,
        _points,
        translate=lambda m, v: (m[0] + v,),
        stretch=lambda m, s: (s * m[0],),
    ),
    Case(
        "sinkhorn",
        sinkhorn,
        _points,
        translate=lambda m, v: (m[0] + v,),
        stretch=lambda m, s: (s * m[0],),
        options={"epsilon": 0.5, "tol": 1e-12},
        metric=False,  # the debiased divergence has no triangle inequality
    ),
]
