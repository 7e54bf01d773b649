"""Exact transport between weighted point clouds, by POT's network simplex.

The cost grows like n² memory and about n³ time: up to some thousands of points. Beyond, `otdist.sinkhorn.bracket`
encloses the same number, and `otdist.sliced` is a cheaper distance.
"""

from __future__ import annotations

from typing import Any

from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import Gradients, validate_clouds, weight_gradients
from .._core.jax_operator import takes_jax
from ..line.monotone import line_cost
from .simplex import exact_squared, plans

__all__ = ["Gradients", "plan", "w2", "w2_squared", "w2_squared_and_grad"]


@takes_jax("w2_squared_and_grad", x=2, y=2, a=1, b=1)
def w2_squared(x: Any, y: Any, a: Any = None, b: Any = None) -> Array:
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
        weights (the dual potentials). Where the plan or the potentials are not unique, those of one optimal solution.
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
    return cast_back(_value(arrays))


@takes_jax("w2_squared_and_grad", root=True, x=2, y=2, a=1, b=1)
def w2(x: Any, y: Any, a: Any = None, b: Any = None) -> Array:
    """2-Wasserstein distance between weighted point clouds, the root of `w2_squared`; gradient 0 where it is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import exact
    >>> float(exact.w2(np.zeros((3, 2)), np.full((5, 2), [3.0, 4.0])))
    5.0
    """
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(backend.root(_value(arrays)))


def w2_squared_and_grad(x: Any, y: Any, a: Any = None, b: Any = None) -> tuple[Array, Gradients]:
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
    arrays, totals, cast_back = validate_clouds(x, y, a, b, core=2)
    checks.numpy_only("exact.w2_squared_and_grad", arrays[0])
    if arrays[0].shape[-1] == 1:
        flat = (arrays[0][..., 0], arrays[1][..., 0], *arrays[2:])
        value, grads = line_cost.value_and_grad(*flat, p=2.0)
        grads = (grads[0][..., None], grads[1][..., None], *grads[2:])
    else:
        value, grads = exact_squared.value_and_grad(*arrays)
    return cast_back(value), Gradients(
        *(None if g is None else cast_back(g) for g in weight_gradients(grads, arrays, totals))
    )


def plan(x: Any, y: Any, a: Any = None, b: Any = None) -> Array:
    """An optimal plan (..., n, m): entry (i, j) is the mass that goes from xᵢ to yⱼ. It carries no gradient.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `w2_squared`.
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
    if backend.in_transform():
        raise RuntimeError("exact.plan needs values, which torch.func and torch.compile hide; use w2_squared")
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(plans(*exact_squared.broadcast(tuple(arrays))))


def _value(arrays: list[Array]) -> Array:
    if arrays[0].shape[-1] == 1:
        return line_cost(arrays[0][..., 0], arrays[1][..., 0], *arrays[2:], p=2.0)
    return exact_squared(*arrays)
