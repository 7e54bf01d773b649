"""One dimension: the exact Wasserstein distance between weighted points on the line, by sorting.

The plan that sends quantile to quantile is optimal for every p >= 1, so the distance costs a sort and a merge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import checks
from .._core.annotations import A, Numbers, NumPy
from .._core.clouds import Gradients, cast_gradients, validate_clouds, weight_gradients
from .._core.jax_operator import takes_jax
from .._core.operator import Operator
from .distance import line_cost, line_distance

__all__ = ["Gradients", "w2", "w2_squared", "w2_squared_and_grad", "wp"]


@takes_jax("w2_squared_and_grad", x=1, y=1, a=1, b=1)
def w2_squared(x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None) -> A:
    """Squared 2-Wasserstein distance between points on the line.

    ``W2² = ∫₀¹ (F⁻¹(t) - G⁻¹(t))² dt``, F⁻¹ and G⁻¹ the quantile functions of the two weighted point sets. For n = m
    and no weights that is the mean of (x₍ₖ₎ - y₍ₖ₎)² over the sorted points.

    Parameters
    ----------
    x : (..., n)
        Points, along the last axis. Leading dimensions are a batch and broadcast.
    y : (..., m)
        Points; m need not be n.
    a : (..., n), optional
        Weights of x: nonnegative, with sum 1 (what is off by less than 1e-6 n is divided out). None is uniform.
    b : (..., m), optional
        Weights of y.

    Returns
    -------
    (...)
        In squared units of the points; sums run in float64, and a square beyond the dtype is infinite. Differentiable
        once, in points and weights. Where points tie, the gradient is the mean over the ways to match them: the
        subgradient of least norm. Where a cumulative weight of x equals one of y, the gradient by the weights is the
        mean of the two one-sided ones; by the weight of a point that has none, it is what moving weight to it would
        cost, all else held.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a side has no points, a value is NaN or infinite, or weights are negative or do not sum
        to 1.

    References
    ----------
    Santambrogio (2015), *Optimal Transport for Applied Mathematicians*, proposition 2.17.

    Examples
    --------
    >>> from otdist import line
    >>> float(line.w2_squared([0.0, 1.0], [5.0, 4.0]))
    16.0
    >>> float(line.w2_squared([0.0, 1.0], [0.0], a=[0.25, 0.75]))
    0.75
    """
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=1)
    return cast_back(line_cost(*arrays, p=2.0))


@takes_jax("w2_squared_and_grad", root=True, x=1, y=1, a=1, b=1)
def w2(x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None) -> A:
    """2-Wasserstein distance between points on the line, the root of `w2_squared`; gradient 0 where it is 0.

    Examples
    --------
    >>> from otdist import line
    >>> float(line.w2([0.0, 1.0], [4.0, 5.0]))
    4.0
    """
    return wp(x, y, a, b, p=2)


@takes_jax("_wp_and_grad", x=1, y=1, a=1, b=1)
def wp(
    x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None, *, p: float = 1
) -> A:
    """p-Wasserstein distance between points on the line.

    ``W_p = (∫₀¹ |F⁻¹(t) - G⁻¹(t)|^p dt)^(1/p)``; p = 1 is the area between the two distribution functions.

    Parameters
    ----------
    x, y, a, b
        As in `w2_squared`.
    p : float
        At least 1.

    Returns
    -------
    (...)
        In units of the points; right also where |x - y|^p would overflow or underflow. The gradient is 0 where the
        distance is 0.

    Raises
    ------
    TypeError, ValueError
        As `w2_squared`, and if p is below 1 or not finite.

    Examples
    --------
    >>> from otdist import line
    >>> float(line.wp([0.0, 1.0, 3.0], [5.0, 6.0, 8.0]))
    5.0
    """
    p = checks.exponent(p)
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=1)
    return cast_back(line_cost(*arrays, p=p) if p == 1 else line_distance(*arrays, p=p))


def w2_squared_and_grad(
    x: NumPy, y: NumPy, a: NumPy | None = None, b: NumPy | None = None
) -> tuple[np.ndarray, Gradients]:
    """`w2_squared` with its gradients, for NumPy; each gradient has its argument's shape.

    The gradient by weights is that of the distance as it is computed, with weights divided by their sum: its mean
    under the weights is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import line
    >>> value, grads = line.w2_squared_and_grad(np.array([0.0, 1.0]), np.array([4.0, 5.0]))
    >>> grads.x
    array([-4., -4.])
    """
    return _with_gradients(line_cost, x, y, a, b, p=2.0)


def _wp_and_grad(x: NumPy, y: NumPy, a: NumPy | None = None, b: NumPy | None = None, *, p: float = 1) -> Any:
    """`wp` with its gradients, for JAX."""
    return _with_gradients(line_cost if p == 1 else line_distance, x, y, a, b, p=checks.exponent(p))


def _with_gradients(operator: Operator, x: Any, y: Any, a: Any, b: Any, *, p: float) -> tuple[np.ndarray, Gradients]:
    arrays, totals, cast_back = validate_clouds(x, y, a, b, core=1)
    checks.numpy_only("line.w2_squared_and_grad", arrays[0])
    value, grads = operator.value_and_grad(*arrays, p=p)
    return cast_back(value), cast_gradients(weight_gradients(grads, arrays, totals), cast_back)


def __dir__() -> list[str]:
    return __all__
