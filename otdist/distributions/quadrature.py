"""∫ f(u) du over (0, 1) for functions of a quantile level, with singular ends.

Tanh-sinh (double exponential) quadrature on (0, ½) and on (½, 1): quantile functions have their singularities at 0 and
1, and Laplace's has a kink at ½. Levels come with their complements, so that both tails are known to the last digit.

Reference: Takahasi & Mori (1974), "Double exponential formulas for numerical integration".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# The step in t and its range: on the left to s = 1e-300, on the right to 1 - s = 1e-17. Half the step changes no digit
# of the tested integrals.
_STEP, _FIRST, _LAST = 1 / 12, -6.1, 3.2


class Nodes(NamedTuple):
    """Levels u, their complements 1 - u, and weights, (n,)."""

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray


def _nodes() -> Nodes:
    """The nodes of both halves."""
    t = np.arange(_FIRST, _LAST, _STEP)
    z = np.pi * np.sinh(t)
    s, rest = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    weight = _STEP * np.pi * np.cosh(t) * s * rest / 2
    small, large = s / 2, 1 - s / 2
    return Nodes(np.concatenate([small, large]), np.concatenate([large, small]), np.concatenate([weight, weight]))


NODES = _nodes()
