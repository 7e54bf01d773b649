"""The sliced Wasserstein distance: the mean, over directions, of the distance between projections.

``SW2²(x, y) = E_θ W2²(θᵀx, θᵀy)``, θ uniform on the sphere. It costs a matrix product and a sort, is a metric, and
bounds W2² from below.

A count of directions is drawn from `rng` and used with every variance reduction there is: means are split off exactly,
directions are orthogonal in blocks (equally spaced in the plane), and a quadratic in θᵀΣ_xθ and θᵀΣ_yθ, whose mean is
known, is fitted as a control variate. An array of directions gives the plain average over exactly those.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks, random
from .._core.backend import Array
from .._core.clouds import Gradients, validate_clouds, weight_gradients
from .._core.jax_operator import takes_jax
from . import max_sliced, sphere
from .estimator import estimates, sliced_squared, value_and_grad

__all__ = [
    "Estimate",
    "Gradients",
    "MaxSliced",
    "directions",
    "estimate",
    "max_w2_squared",
    "w2",
    "w2_squared",
    "w2_squared_and_grad",
]


class Estimate(NamedTuple):
    """A value of the sliced distance with its sampling error."""

    value: Array
    standard_error: Array
    n_directions: int


class MaxSliced(NamedTuple):
    """The largest distance along a direction, and how the search for it ended."""

    value: Array
    direction: Array
    n_iter: Any
    converged: Any


@takes_jax("w2_squared_and_grad", x=2, y=2, a=1, b=1)
def w2_squared(x: Any, y: Any, a: Any = None, b: Any = None, *, directions: Any = 128, rng: Any = None) -> Array:
    """Squared sliced 2-Wasserstein distance.

    ``SW2² = E_θ W2²(θᵀx, θᵀy)``, θ uniform on the unit sphere; ``SW2² <= W2² / d``, with equality for translations.

    Parameters
    ----------
    x : (..., n, d)
        Points. Leading dimensions are a batch and broadcast; all pairs of a batch see the same directions.
    y : (..., m, d)
        Points; m need not be n.
    a : (..., n), optional
        Weights of x: nonnegative, with sum 1. None is uniform.
    b : (..., m), optional
        Weights of y.
    directions : int or (L, d)
        How many directions to draw, or unit rows to average over, unweighted.
    rng : int, numpy.random.Generator, torch.Generator or None
        Where drawn directions come from; None is fresh entropy.

    Returns
    -------
    (...)
        In squared units of the points. Projections are sorted in the points' own precision, sums run in float64.
        Differentiable once, in points and weights (and in given directions), exactly as computed: the control variates
        are differentiated too. Where projections tie, the gradient is the mean over the ways to match them.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a cloud is empty, a value is NaN or infinite, weights are negative or do not sum to 1, or
        directions are not of unit length.
    MemoryError
        If the clouds and their gradients would not fit. Directions are worked on in chunks, so that their number does
        not matter.

    References
    ----------
    Bonneel, Rabin, Peyré & Pfister (2015), "Sliced and Radon Wasserstein barycenters of measures".

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.random.default_rng(0).standard_normal((500, 3))
    >>> round(float(sliced.w2_squared(x, x + np.array([3.0, 0.0, 0.0]), rng=1)), 12)
    3.0
    """
    arrays, _, cast_back, options = _validate(x, y, a, b, directions, rng)
    return cast_back(sliced_squared(*arrays, **options))


@takes_jax("w2_squared_and_grad", root=True, x=2, y=2, a=1, b=1)
def w2(x: Any, y: Any, a: Any = None, b: Any = None, *, directions: Any = 128, rng: Any = None) -> Array:
    """Sliced 2-Wasserstein distance, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.random.default_rng(0).standard_normal((500, 4))
    >>> round(float(sliced.w2(x, x + 1.0, rng=1)), 12)
    1.0
    """
    arrays, _, cast_back, options = _validate(x, y, a, b, directions, rng)
    return cast_back(backend.root(sliced_squared(*arrays, **options)))


def w2_squared_and_grad(
    x: Any, y: Any, a: Any = None, b: Any = None, *, directions: Any = 128, rng: Any = None
) -> tuple[Array, Gradients]:
    """`w2_squared` with its gradients by x, y, a and b, for NumPy; None for weights that were not given.

    The gradient by weights is that of the distance as it is computed, with weights divided by their sum.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> value, grads = sliced.w2_squared_and_grad(np.array([[0.0, 0.0]]), np.array([[2.0, 4.0]]))
    >>> float(value), grads.x
    (10.0, array([[-2., -4.]]))
    """
    arrays, totals, cast_back, options = _validate(x, y, a, b, directions, rng)
    checks.numpy_only("sliced.w2_squared_and_grad", arrays[0])
    value, grads = value_and_grad(tuple(arrays), **options)
    return cast_back(value), Gradients(
        *(None if g is None else cast_back(g) for g in weight_gradients(grads, arrays, totals))
    )


def estimate(x: Any, y: Any, a: Any = None, b: Any = None, *, directions: Any = 128, rng: Any = None) -> Estimate:
    """`w2_squared` with the standard error that comes from looking along finitely many directions.

    The value is that of `w2_squared` with the same arguments, and differentiable like it. The standard error is a
    jackknife of what the control variates leave, over orthogonal blocks where there are 12 or more and over directions
    otherwise; in the plane it is that of 20 groups of equally spaced directions. Value ± 1.96 standard errors covers
    the sliced distance *of these two clouds* in about 95% of draws. With fewer than 16 directions, or an array of them,
    it is the plain one, for independent directions; a single one has none (inf).

    Returns
    -------
    Estimate
        ``(value, standard_error, n_directions)``; the first two have the batch shape.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `w2_squared`.
    RuntimeError
        Under ``torch.func`` or ``torch.compile``, where there are no values to look at.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((2, 400, 5))
    >>> value, error, n = sliced.estimate(x, 2 * y, directions=64, rng=0)
    >>> bool(error < 0.02 * value), n
    (True, 64)
    """
    if backend.in_transform():
        raise RuntimeError("sliced.estimate needs values, which torch.func and torch.compile hide; use w2_squared")
    arrays, _, cast_back, options = _validate(x, y, a, b, directions, rng)
    if options["count"] and options["seed"] < 0:  # both passes below must see the same directions
        options["seed"] = int(np.random.default_rng().integers(2**63))
    value, error = estimates(*sliced_squared.broadcast(tuple(arrays)), **options)
    if any(backend.needs_gradient(z) for z in arrays):
        value = sliced_squared(*arrays, **options)
    return Estimate(cast_back(value), cast_back(error), options["count"] or arrays[4].shape[-2])


def directions(n: int, d: int, *, kind: str = "orthogonal", rng: Any = None, like: Any = None) -> Array:
    """Random directions: unit rows (n, d), each uniform on the sphere.

    Parameters
    ----------
    n, d : int
        How many, and in how many dimensions.
    kind : {"orthogonal", "sobol", "random"}
        Orthonormal in blocks of d rows; a scrambled Sobol net carried to the sphere, for low dimensions; independent.
    rng : int, numpy.random.Generator, torch.Generator or None
        None is fresh entropy. No global generator is touched.
    like : array, optional
        The library, dtype and device of the result; NumPy's float64 by default.

    Raises
    ------
    ValueError, TypeError
        If n or d is not a positive integer, or `kind` or `rng` is none of the above.
    MemoryError
        If they would not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> theta = sliced.directions(3, 3, rng=0)
    >>> bool(abs(theta @ theta.T - np.eye(3)).max() < 1e-14)
    True
    """
    n, d = checks.positive_integer("n", n), checks.positive_integer("d", d)
    found = sphere.draw(n, d, kind, random.generator(random.seed(rng)))
    return found if like is None else backend.like(found, like)


def max_w2_squared(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    starts: int = 8,
    max_iter: int = 200,
    tol: float = 1e-6,
    rng: Any = None,
) -> MaxSliced:
    """The largest squared distance along any direction, ``max_θ W2²(θᵀx, θᵀy)``, by ascent on the sphere.

    Gradient ascent with step control from several starting points (the difference of the means, the directions in
    which the covariances differ most, random ones); the best end point wins. The function has many local maxima and
    (few points) kinks: the value is a lower bound on the true maximum.

    Parameters
    ----------
    x, y, a, b
        As in `w2_squared`.
    starts : int
        How many starting points.
    max_iter : int
        Steps at most.
    tol : float
        A start has converged where its gradient on the sphere, or the step that still improves, is below tol, relative.
    rng : int, numpy.random.Generator, torch.Generator or None
        Where random starting points come from.

    Returns
    -------
    MaxSliced
        ``(value, direction, n_iter, converged)``. The value is differentiable, at the direction found (which is where
        the derivative of the maximum is); the direction is not.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `w2_squared`.
    RuntimeError
        Under ``torch.func`` or ``torch.compile``: the search needs values.

    References
    ----------
    Deshpande et al. (2019), "Max-sliced Wasserstein distance and its use for GANs", arXiv:1904.05877.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.random.default_rng(0).standard_normal((300, 3))
    >>> found = sliced.max_w2_squared(x, x + np.array([0.0, 2.0, 0.0]), rng=0)
    >>> round(float(found.value), 9), abs(found.direction).round(6)
    (4.0, array([0., 1., 0.]))
    """
    if backend.in_transform():
        raise RuntimeError("sliced.max_w2_squared needs values, which torch.func and torch.compile hide")
    starts, max_iter = checks.positive_integer("starts", starts), checks.positive_integer("max_iter", max_iter)
    tol = checks.positive_number("tol", tol)
    arrays, _, cast_back, options = _validate(x, y, a, b, starts, rng)
    x, y, a, b, _ = sliced_squared.broadcast(tuple(arrays))
    direction, n_iter, converged = max_sliced.ascend(x, y, a, b, starts, max_iter, tol, options["seed"])
    if not np.all(converged):
        max_sliced.warn(int(np.sum(~np.asarray(converged))), np.size(converged), max_iter)
    value = sliced_squared(*arrays[:4], direction[..., None, :], count=0, seed=-1)
    return MaxSliced(cast_back(value), cast_back(direction), n_iter, converged)


def _validate(
    x: Any, y: Any, a: Any, b: Any, directions: Any, rng: Any
) -> tuple[list[Array], list[Array | None], Any, dict[str, int]]:
    """The arguments of one call, checked: x, y, a, b and directions (0, d where they are to be drawn), and options."""
    arrays, totals, cast_back = validate_clouds(x, y, a, b, core=2)
    d = arrays[0].shape[-1]
    if isinstance(directions, int | np.integer):
        count = checks.positive_integer("directions", directions)
        nothing = arrays[0].new_zeros((0, d)) if backend.is_torch(arrays[0]) else np.zeros((0, d), arrays[0].dtype)
        return [*arrays, nothing], totals, cast_back, {"count": count, "seed": random.seed(rng)}
    theta = checks.beside("directions", directions, arrays[0])
    if theta.ndim != 2 or theta.shape[-1] != d or not len(theta):
        raise ValueError(f"directions must be a count or have shape (L, d) with d = {d}; got {tuple(theta.shape)}")
    checks.finite("directions", theta)
    if backend.inspectable(theta):
        lengths = np.linalg.norm(backend.as_numpy(theta), axis=1)
        # Generous beside rounding, so that finite differences can be taken.
        if (worst := lengths[np.abs(lengths - 1).argmax()]) and abs(worst - 1) > 1e-3:
            raise ValueError(f"directions must have rows of length 1; got a row of length {worst:.6g}")
    return [*arrays, theta], totals, cast_back, {"count": 0, "seed": -1}
