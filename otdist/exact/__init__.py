"""Exact transport between weighted point clouds, by POT's network simplex.

The cost grows like n² memory and about n³ time: up to some thousands of points. Beyond, `otdist.sinkhorn.bracket`
encloses the same number, and `otdist.sliced` is a cheaper distance. It is computed on the host, on one core, whatever
device the arrays are on, and the simplex is not interrupted: Ctrl-C takes effect when it has ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers, NumPy
from .._core.backend import Array
from .._core.clouds import Gradients, cast_gradients, validate_clouds, weight_gradients
from .._core.jax_operator import takes_jax
from ..line.distance import line_cost, line_distance
from .transport import ExactTransport, SparsePlan, exact_cost, plans, solution

__all__ = [
    "ExactTransport",
    "Gradients",
    "SparsePlan",
    "plan",
    "solve",
    "w2",
    "w2_squared",
    "w2_squared_and_grad",
    "wp",
]


@takes_jax("w2_squared_and_grad", x=2, y=2, a=1, b=1)
def w2_squared(x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None) -> A:
    """Squared 2-Wasserstein distance between weighted point clouds, exact.

    ``W2² = min_P Σᵢⱼ Pᵢⱼ |xᵢ - yⱼ|²`` over plans P >= 0 with P1 = a and Pᵀ1 = b.

    Parameters
    ----------
    x : (..., n, d)
        Points. Leading dimensions are a batch and broadcast.
    y : (..., m, d)
        Points; m need not be n.
    a : (..., n), optional
        Weights of x: nonnegative, with sum 1. None is uniform.
    b : (..., m), optional
        Weights of y.

    Returns
    -------
    (...)
        In squared units of the points, computed in float64. Differentiable once, in points (``2 Σⱼ Pᵢⱼ (xᵢ - yⱼ)``) and
        weights (the dual potentials). Where the plan or the potentials are not unique, those of one optimal solution;
        by the weight of a point that has none, what moving weight to it would cost, all else held.
        A cloud in one dimension is sorted instead, see `otdist.line`.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a cloud is empty, a value is NaN or infinite, or weights are negative or do not sum to 1.
    MemoryError
        If n m pairs would not fit; `otdist.sinkhorn.bracket` streams.

    References
    ----------
    Bonneel et al. (2011), "Displacement interpolation using Lagrangian mass transport" (the simplex);
    Peyré & Cuturi (2019), arXiv:1803.00567.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> float(exact.w2_squared(x, x[::-1] + np.array([0.0, 2.0])))
    4.0
    """
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(_value(arrays, 2.0, root=False))


@takes_jax("w2_squared_and_grad", root=True, x=2, y=2, a=1, b=1)
def w2(x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None) -> A:
    """2-Wasserstein distance between weighted point clouds, the root of `w2_squared`; gradient 0 where it is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> float(exact.w2(np.zeros((3, 2)), np.full((5, 2), [3.0, 4.0])))
    5.0
    """
    return wp(x, y, a, b, p=2)


@takes_jax("_wp_and_grad", x=2, y=2, a=1, b=1)
def wp(
    x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None, *, p: float = 1
) -> A:
    """p-Wasserstein distance between weighted point clouds, exact; p = 1 is the earth mover's distance.

    ``W_p = (min_P Σᵢⱼ Pᵢⱼ |xᵢ - yⱼ|^p)^(1/p)``, |·| the Euclidean norm.

    Parameters
    ----------
    x, y, a, b
        As in `w2_squared`.
    p : float
        At least 1.

    Returns
    -------
    (...)
        In units of the points. The gradient is 0 where the distance is 0; of a pair of points that coincide, it is 0.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `w2_squared`, and if p is below 1 or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> float(exact.wp(np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 1.0]])))
    3.0
    """
    p = checks.exponent(p)
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(_value(arrays, p, root=p != 1))


def w2_squared_and_grad(
    x: NumPy, y: NumPy, a: NumPy | None = None, b: NumPy | None = None
) -> tuple[np.ndarray, Gradients]:
    """`w2_squared` with its gradients, for NumPy; None for weights that were not given.

    The gradient by weights is that of the distance as it is computed, with weights divided by their sum.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> value, grads = exact.w2_squared_and_grad(np.zeros((1, 2)), np.array([[3.0, 4.0]]))
    >>> grads.x
    array([[-6., -8.]])
    """
    return _with_gradients(x, y, a, b, p=2.0, root=False)


def _wp_and_grad(x: NumPy, y: NumPy, a: NumPy | None = None, b: NumPy | None = None, *, p: float = 1) -> Any:
    """`wp` with its gradients, for JAX."""
    return _with_gradients(x, y, a, b, p=checks.exponent(p), root=p != 1)


def _with_gradients(x: Any, y: Any, a: Any, b: Any, *, p: float, root: bool) -> tuple[np.ndarray, Gradients]:
    arrays, totals, cast_back = validate_clouds(x, y, a, b, core=2)
    checks.numpy_only("exact.w2_squared_and_grad", arrays[0])
    if arrays[0].shape[-1] == 1:
        flat = (arrays[0][..., 0], arrays[1][..., 0], *arrays[2:])
        value, grads = (line_distance if root else line_cost).value_and_grad(*flat, p=p)
        grads = (grads[0][..., None], grads[1][..., None], *grads[2:])
    else:
        value, grads = exact_cost.value_and_grad(*arrays, p=p, root=root)
    return cast_back(value), cast_gradients(weight_gradients(grads, arrays, totals), cast_back)


def solve(
    x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None, *, p: float = 2
) -> ExactTransport:
    """An optimal plan of one pair of clouds by its nonzero entries, and potentials that prove it optimal.

    ``max Σᵢ fᵢ aᵢ + Σⱼ gⱼ bⱼ`` subject to ``fᵢ + gⱼ <= |xᵢ - yⱼ|^p`` has the same value as the least cost of a plan.

    Parameters
    ----------
    x : (n, d)
        Points.
    y : (m, d)
        Points.
    a : (n,), optional
        Weights of x. None is uniform.
    b : (m,), optional
        Weights of y.
    p : float
        At least 1. The cost of a pair is |x - y|^p.

    Returns
    -------
    ExactTransport
        ``cost``, ``plan`` (a `SparsePlan` of ``rows``, ``columns`` and ``mass``, at most n + m - 1 entries), ``f`` (n,)
        and ``g`` (m,). Nothing of it carries a gradient. The potentials are feasible between points without weight too.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `wp`, and if there is a batch.
    RuntimeError
        Under ``torch.func`` or ``torch.compile``, where there are no values to look at.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> found = exact.solve(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 1.0]]))
    >>> found.plan.columns
    array([1, 0])
    >>> float(found.cost), float((found.f + found.g).mean())
    (1.0, 1.0)
    """
    _refuse_transforms("exact.solve")
    p = checks.exponent(p)
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    if arrays[0].ndim > 2 or arrays[1].ndim > 2 or arrays[2].ndim > 1 or arrays[3].ndim > 1:
        shapes = ", ".join(f"{k} {tuple(z.shape)}" for k, z in zip("xyab", arrays, strict=True) if z.shape[-1])
        raise ValueError(f"exact.solve takes one pair of clouds (n, d), (m, d); got {shapes}")
    cost, plan, f, g = solution(tuple(arrays), p)
    return ExactTransport(cast_back(cost), plan._replace(mass=cast_back(plan.mass)), cast_back(f), cast_back(g))


def plan(
    x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None, *, p: float = 2
) -> A:
    """An optimal plan (..., n, m): entry (i, j) is the mass that goes from xᵢ to yⱼ. It carries no gradient.

    `solve` returns the same plan, of one pair of clouds, by its nonzero entries.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `wp`.
    RuntimeError
        Under ``torch.func`` or ``torch.compile``, where there are no values to look at.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> exact.plan(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 1.0]]))
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    _refuse_transforms("exact.plan")
    p = checks.exponent(p)
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(plans(exact_cost.broadcast(tuple(arrays)), p))


def _value(arrays: list[Array], p: float, *, root: bool) -> Array:
    if arrays[0].shape[-1] == 1:
        flat = (arrays[0][..., 0], arrays[1][..., 0], *arrays[2:])
        return line_distance(*flat, p=p) if root else line_cost(*flat, p=p)
    return exact_cost(*arrays, p=p, root=root)


def _refuse_transforms(function: str) -> None:
    if backend.in_transform():
        raise RuntimeError(f"{function} needs values, which torch.func and torch.compile hide; use w2_squared")


def __dir__() -> list[str]:
    return __all__
