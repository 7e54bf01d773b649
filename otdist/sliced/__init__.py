"""The sliced Wasserstein distance: the mean, over directions, of the distance between projections.

``SW2²(x, y) = E_θ W2²(θᵀx, θᵀy)``, θ uniform on the sphere. It costs a matrix product and a sort, is a metric, and
bounds W2² from below.

A count of directions is drawn from `rng` and used with every variance reduction there is: means are split off exactly,
directions are orthogonal in blocks (equally spaced in the plane), and a quadratic in θᵀΣ_xθ and θᵀΣ_yθ, whose mean is
known, is fitted as a control variate. An array of directions gives the plain average over exactly those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks, random
from .._core.annotations import A, Numbers, NumPy, Seed
from .._core.backend import Array
from .._core.clouds import Gradients, cast_gradients, validate_clouds, validate_points, weight_gradients
from .._core.jax_operator import takes_jax
from . import barycenters, direction_sets, max_sliced, products, scaling, small_pair, spherical
from .operator import estimates, sliced_cost, value_and_grad

__all__ = [
    "Barycenter",
    "Estimate",
    "Gradients",
    "MaxSliced",
    "barycenter",
    "directions",
    "estimate",
    "max_w2_squared",
    "spherical_w2_squared",
    "w2",
    "w2_squared",
    "w2_squared_and_grad",
    "wp",
]


class Estimate(NamedTuple):
    """A value of the sliced distance with its sampling error."""

    value: Array
    standard_error: Array
    n_directions: int


class _Search(NamedTuple):
    value: Array
    direction: Array
    n_iter: Any
    converged: Any


class MaxSliced(_Search):
    """The largest distance along a direction, and how the search for it ended.

    A tuple ``(value, direction, n_iter, converged)``. `found` and `n_starts` are attributes beside it: of the
    `n_starts` directions that climbed, so many ended within 0.1% of the value.
    """

    found: Any
    n_starts: Any

    def __new__(
        cls, value: Array, direction: Array, n_iter: Any, converged: Any, found: Any = 1, n_starts: Any = 1
    ) -> MaxSliced:
        self = super().__new__(cls, value, direction, n_iter, converged)
        self.found, self.n_starts = found, n_starts
        return self


class Barycenter(NamedTuple):
    """Points that are nearest to several clouds, and how the search for them ended."""

    points: Array
    n_iter: int
    converged: bool


@takes_jax("w2_squared_and_grad", x=2, y=2, a=1, b=1)
def w2_squared(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    directions: A | Numbers = 128,
    rng: Seed = None,
) -> A:
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
        In squared units of the points; inf where that is beyond the dtype (`w2` still is not). Projections are sorted
        in the points' own precision, sums run in float64. Differentiable once, in points and weights (and in given
        directions), exactly as computed: the control variates are differentiated too. Where projections tie, the
        gradient is the mean over the ways to match them.

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
    if (small := small_pair.value_of(x, y, a, b, directions)) is not None:
        return small
    arrays, _, cast_back, options = _validate(x, y, a, b, directions, rng)
    value, divisor = scaling.cost(arrays, options, 2)
    return cast_back(scaling.multiplied(value, divisor, 2))


@takes_jax("w2_squared_and_grad", root=True, x=2, y=2, a=1, b=1)
def w2(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    directions: A | Numbers = 128,
    rng: Seed = None,
) -> A:
    """Sliced 2-Wasserstein distance, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.random.default_rng(0).standard_normal((500, 4))
    >>> round(float(sliced.w2(x, x + 1.0, rng=1)), 12)
    1.0
    """
    if (small := small_pair.value_of(x, y, a, b, directions)) is not None:
        return backend.root(small)
    arrays, _, cast_back, options = _validate(x, y, a, b, directions, rng)
    value, divisor = scaling.cost(arrays, options, 1)
    return cast_back(scaling.multiplied(backend.root(value), divisor, 1))


@takes_jax("_wp_and_grad", x=2, y=2, a=1, b=1)
def wp(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    p: float = 1,
    directions: A | Numbers = 128,
    rng: Seed = None,
) -> A:
    """Sliced p-Wasserstein distance, ``(E_θ W_p^p(θᵀx, θᵀy))^(1/p)``.

    Parameters
    ----------
    x, y, a, b, directions, rng
        As in `w2_squared`. Means are split off and control variates used for p = 2 only: other costs have neither.
    p : float
        At least 1.

    Returns
    -------
    (...)
        In units of the points. The gradient is 0 where the distance is 0.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `w2_squared`, and if p is below 1 or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> float(sliced.wp(x, x + 3.0, p=1, directions=np.array([[1.0, 0.0], [0.0, -1.0]])))
    3.0
    """
    p = checks.exponent(p)
    arrays, _, cast_back, options = _validate(x, y, a, b, directions, rng, p)
    value, divisor = scaling.cost(arrays, options, 1)
    return cast_back(scaling.multiplied(scaling.root(value, p), divisor, 1))


def w2_squared_and_grad(
    x: NumPy, y: NumPy, a: NumPy | None = None, b: NumPy | None = None, *, directions: NumPy = 128, rng: Seed = None
) -> tuple[np.ndarray, Gradients]:
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
    small = small_pair.attempt(x, y, a, b, directions, (True, True, False)) if type(x) is np.ndarray else None
    if small is not None:
        value, (by_x, by_y, _), _ = small
        return value, Gradients(by_x, by_y, None, None)
    arrays, totals, cast_back, options = _validate(x, y, a, b, directions, rng)
    value, by_weights, divisor = _with_gradients(arrays, totals, options)
    powers = (1, 1, 2, 2)
    found = (None if g is None else scaling.multiplied(g, divisor, k) for g, k in zip(by_weights, powers, strict=True))
    value = scaling.multiplied(value, divisor, 2)
    return cast_back(value), cast_gradients(found, cast_back)


def _wp_and_grad(
    x: NumPy,
    y: NumPy,
    a: NumPy | None = None,
    b: NumPy | None = None,
    *,
    p: float = 1,
    directions: Any = 128,
    rng: Any = None,
) -> Any:
    """`wp` with its gradients, for JAX."""
    p = checks.exponent(p)
    arrays, totals, cast_back, options = _validate(x, y, a, b, directions, rng, p)
    value, by_weights, divisor = _with_gradients(arrays, totals, options)
    distance = scaling.root(value, p)
    slope = np.divide(distance, p * value, out=np.zeros_like(np.asarray(value)), where=np.asarray(value) > 0)
    found = []
    for g, k in zip(by_weights, (0, 0, 1, 1), strict=True):
        wide = None if g is None else slope.reshape(slope.shape + (1,) * (g.ndim - slope.ndim)) * g
        found.append(None if wide is None else scaling.multiplied(wide, divisor, k))
    return cast_back(scaling.multiplied(distance, divisor, 1)), cast_gradients(found, cast_back)


def _with_gradients(
    arrays: list[Array], totals: list[Array | None], options: dict[str, Any]
) -> tuple[Array, list[Array | None], float]:
    """SW_p^p of the points over a divisor, its gradients, and the divisor."""
    checks.numpy_only("sliced.w2_squared_and_grad", arrays[0])
    value, grads = value_and_grad(tuple(arrays), **options)
    divisor = 1.0 if scaling.is_ordinary(value) else scaling.divisor_of(arrays)
    if divisor != 1:
        value, grads = value_and_grad(tuple(scaling.divided(arrays, divisor, 2)), **options)
    return value, weight_gradients(grads, arrays, totals), divisor


def estimate(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    directions: A | Numbers = 128,
    rng: Seed = None,
) -> Estimate:
    """`w2_squared` with the standard error that comes from looking along finitely many directions.

    The value is that of `w2_squared` with the same arguments, and differentiable like it. The standard error is a
    jackknife of what the control variates leave, over orthogonal blocks where there are 12 or more and over directions
    otherwise; in the plane it is that of 20 groups of equally spaced directions. It is enlarged by Student's quantile
    over the normal one, so that value ± 1.96 standard errors covers the sliced distance *of these two clouds* in about
    95% of draws at any count. With fewer than 16 drawn directions it is the plain one or, if that is larger, what it
    would be for Gaussians with these covariances, which errs on the safe side. An array of directions is taken for
    independent ones; a single one of them has none (inf).

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
    value, error = estimates(tuple(arrays), **options)
    divisor = 1.0 if scaling.is_ordinary(value, 2) else scaling.divisor_of(arrays)  # errors are squared
    if divisor != 1:
        arrays = scaling.divided(arrays, divisor, 2)
        value, error = estimates(tuple(arrays), **options)
    if any(backend.needs_gradient(z) for z in arrays):
        value = sliced_cost(*arrays, **options)
    value, error = (scaling.multiplied(z, divisor, 2) for z in (value, error))
    return Estimate(cast_back(value), cast_back(error), options["count"] or arrays[4].shape[-2])


def directions(n: int, d: int, *, kind: str = "orthogonal", rng: Seed = None, like: A | Numbers | None = None) -> A:
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
    found: Any = direction_sets.draw(n, d, kind, random.generator(random.seed(rng)))
    return found if like is None else backend.like(found, like)


def max_w2_squared(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    starts: int = 32,
    max_iter: int = 200,
    tol: float = 1e-6,
    rng: Seed = None,
) -> MaxSliced:
    """The largest squared distance along any direction, ``max_θ W2²(θᵀx, θᵀy)``.

    In the plane with up to 128 points in both clouds the maximum is exact. Elsewhere it is a search: the best of some
    hundred directions climb along their gradients, and the best of those finish by gradient sampling, which gets along
    the kinks that the function has where points change places. That is repeated, up to four times, until three starts
    have reached the best value. The function has many local maxima, and nothing proves that the best one found is the
    highest: the value is a lower bound on the true maximum, and `found` says how often it was reached.

    Parameters
    ----------
    x, y, a, b
        As in `w2_squared`.
    starts : int
        How many directions climb, each time.
    max_iter : int
        Steps at most, of the ascent and of the finish.
    tol : float
        The ascent ends where the gradient on the sphere, or the step that still improves, is below tol, relative.
        `converged` says that no direction nearby is better, and that a convex combination of the gradients there is
        below the root of tol, relative: that this is a *local* maximum, and nothing more.
    rng : int, numpy.random.Generator, torch.Generator or None
        Where the directions to start from come from.

    Returns
    -------
    MaxSliced
        ``(value, direction, n_iter, converged)``, with the attributes `found` and `n_starts`: so many of the directions
        that climbed ended within 0.1% of the value. If most did, there is hardly a higher maximum; if it was one of a
        hundred, another search (more starts, another rng) may well find one. Both are 1 where the maximum is exact. The
        value is differentiable: at a kink, the plans on its sides enter the gradient in the proportion in which they
        hold each other at the maximum. The direction is not.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `w2_squared`.
    RuntimeError
        Under ``torch.func`` or ``torch.compile``: the search needs values.

    References
    ----------
    Deshpande et al. (2019), "Max-sliced Wasserstein distance and its use for GANs", arXiv:1904.05877; Burke, Lewis &
    Overton (2005), "A robust gradient sampling algorithm for nonsmooth, nonconvex optimization".

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
    divisor = scaling.divisor_of(arrays) if backend.on_cpu(arrays[0]) else 1.0
    if divisor != 1:
        arrays = scaling.divided(arrays, divisor, 2)
    found = max_sliced.search(tuple(sliced_cost.broadcast(tuple(arrays))[:4]), starts, max_iter, tol, options["seed"])
    batch: tuple[int, ...] = np.broadcast_shapes(
        *(z.shape[: z.ndim - k] for z, k in zip(arrays[:4], (2, 2, 1, 1), strict=True))
    )
    n_iter, converged, reached, n_starts = (
        np.array([getattr(end, name) for end in found], kind).reshape(batch) if batch else getattr(found[0], name)
        for name, kind in (("n_iter", int), ("converged", bool), ("found", int), ("n_starts", int))
    )
    if not np.all(converged):
        max_sliced.warn(int(np.sum(~np.asarray(converged))), np.size(converged), max_iter)
    direction = backend.like(np.reshape([end.direction for end in found], (*batch, arrays[0].shape[-1])), arrays[0])
    value = sliced_cost(*arrays[:4], direction[..., None, :], count=0, seed=-1, p=2.0)
    if any(backend.needs_gradient(z) for z in arrays[:4]):
        value = _with_gradient_of_maximum(value, arrays, found, batch)
    value = cast_back(scaling.multiplied(value, divisor, 2))
    return MaxSliced(value, cast_back(direction), n_iter, converged, reached, n_starts)


def barycenter(
    clouds: Sequence[A | Numbers] | A,
    weights: A | Numbers | None = None,
    *,
    n: int | None = None,
    init: A | Numbers | None = None,
    directions: A | Numbers = 128,
    rng: Seed = None,
    max_iter: int = 500,
    tol: float = 1e-3,
) -> Barycenter:
    """The free-support barycenter in the sliced distance: points X that minimise ``Σ_k w_k SW2²(X, Y_k)``.

    Each step matches X with every cloud along fixed directions, and solves for X exactly: the sum never rises. It has
    local minima, and which one is found depends on the start.

    Parameters
    ----------
    clouds : sequence of (m_k, d)
        The clouds, of equal or different sizes.
    weights : (k,), optional
        Nonnegative, with sum 1. None is uniform.
    n : int, optional
        How many points; those of the first cloud by default.
    init : (n, d), optional
        Where to start; by default a Gaussian sample with the mean and covariance that the clouds have on average.
    directions : int or (L, d)
        How many directions to draw (at least d are), or unit rows.
    rng : int, numpy.random.Generator, torch.Generator or None
        Where directions and the start come from.
    max_iter, tol
        Stop after so many steps, or when a step is shorter than tol, relative to the spread of the points.

    Returns
    -------
    Barycenter
        ``(points, n_iter, converged)``; the points are not differentiable.

    Raises
    ------
    TypeError, ValueError
        As `w2_squared`, and if there is no cloud.

    References
    ----------
    Bonneel, Rabin, Peyré & Pfister (2015), "Sliced and Radon Wasserstein barycenters of measures", section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.random.default_rng(0).standard_normal((50, 2))
    >>> found = sliced.barycenter([x, x + 4.0], init=x, rng=0)
    >>> bool(abs(found.points - (x + 2.0)).max() < 1e-2), bool(found.converged)
    (True, True)
    """
    given, cast_back = _validate_several(clouds)
    max_iter, tol = checks.positive_integer("max_iter", max_iter), checks.positive_number("tol", tol)
    own, first = [_as_double(y) for y in given], given[0]
    unit = max((scaling.divisor_of([y]) for y in own), key=lambda z: abs(np.log2(z)))  # squares out of range
    own = [y / unit for y in own]
    d, shares = first.shape[-1], np.full(len(own), 1 / len(own))
    if weights is not None:
        shares = _as_double(checks.beside("weights", weights, first, "clouds[0]"))
        if shares.ndim != 1:
            raise ValueError(f"weights must have shape (k,); got {shares.shape}")
        shares = checks.weights("weights", shares, len(own))
    source = random.generator(random.seed(rng))
    if isinstance(directions, int | np.integer):
        count = max(d, checks.positive_integer("directions", directions))
        theta = direction_sets.draw(count, d, "orthogonal", source)
    else:
        theta = _as_double(_validate_directions(directions, first, "clouds[0]"))
    if init is None:
        size = len(own[0]) if n is None else checks.positive_integer("n", n)
        x = barycenters.start(own, shares, size, source)
    else:
        x = _as_double(checks.beside("init", init, first, "clouds[0]")) / unit
        _validate_one("init", x, "(n, d)")
        checks.same_size("the number of coordinates", "clouds[0]", d, "init", x.shape[-1])

    def distance_to(y: np.ndarray) -> barycenters.Distance:
        def distance(points: np.ndarray) -> tuple[Any, np.ndarray]:
            value, grads = w2_squared_and_grad(points, y, directions=theta)
            return value, grads.x

        return distance

    points, n_iter, converged = barycenters.minimise(x, [distance_to(y) for y in own], shares, theta, max_iter, tol)
    return Barycenter(cast_back(backend.like(points * unit, first)), n_iter, converged)


def _validate_several(clouds: Any) -> tuple[list[Array], Any]:
    """Clouds (m_k, d) of one kind, and what brings a result back to their dtype."""
    try:
        several = None if isinstance(clouds, str | bytes | dict) else list(clouds)
    except TypeError:  # of what has a length of 0 dimensions, or none
        several = None
    if several is None:
        raise TypeError(f"clouds must be a sequence of point sets; got {type(clouds).__name__}")
    if not several:
        raise ValueError("clouds must have at least one cloud; got none")
    given, cast_back = checks.arrays(**{f"clouds[{k}]": y for k, y in enumerate(several)})
    for k, y in enumerate(given):
        _validate_one(f"clouds[{k}]", y, "(m, d)")
        checks.same_size("the number of coordinates", "clouds[0]", given[0].shape[-1], f"clouds[{k}]", y.shape[-1])
    return given, cast_back


def _validate_one(name: str, x: Array, shape: str) -> None:
    """Refuse anything but one cloud."""
    if x.ndim != 2:
        raise ValueError(f"{name} must have shape {shape}; got {tuple(x.shape)}")
    validate_points(name, x)


def _as_double(x: Any) -> np.ndarray:
    """A copy on the CPU in float64, without a gradient."""
    return np.array(x.detach().cpu().double().numpy() if backend.is_torch(x) else x, dtype=np.float64)


@takes_jax("_spherical_w2_squared_and_grad", x=2, y=2)
def spherical_w2_squared(x: A | Numbers, y: A | Numbers, *, directions: A | Numbers = 128, rng: Seed = None) -> A:
    """Squared spherical sliced 2-Wasserstein distance between points on the unit sphere.

    ``SSW2² = E_(u,v) W2²(P x, P y)``, (u, v) a uniform orthonormal pair, ``P x = atan2(v·x, u·x)`` the projection on
    the great circle through u and v, and W2 that of the circle, whose distance is the arc. For latents on a
    hypersphere, against uniform or von Mises-Fisher samples.

    Parameters
    ----------
    x, y : (..., n, d)
        Points of length 1, as many in both; d at least 2. Leading dimensions are a batch and broadcast.
    directions : int or (L, 2, d)
        How many great circles to draw, or orthonormal pairs.
    rng : int, numpy.random.Generator, torch.Generator or None
        Where drawn circles come from; None is fresh entropy.

    Returns
    -------
    (...)
        In squared radians; divided by 4π² it is POT's, whose circle has length 1. Differentiable once, in x and y; the
        gradient is tangent to the sphere.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes or sizes do not fit, a cloud is empty, or rows are not finite or not of length 1.
    RuntimeError
        Under ``torch.func`` or ``torch.compile``: the cuts of the circles need values.

    References
    ----------
    Bonet et al. (2023), "Spherical sliced-Wasserstein", arXiv:2206.08780.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sliced
    >>> x = np.array([[1.0, 0.0]])
    >>> y = np.array([[0.0, 1.0]])
    >>> round(float(sliced.spherical_w2_squared(x, y, rng=0) / np.pi**2), 12)
    0.25
    """
    arrays, cast_back = _validate_spherical(x, y, directions, rng)
    return cast_back(spherical.spherical_cost(*arrays))


def _spherical_w2_squared_and_grad(x: NumPy, y: NumPy, *, directions: Any = 128, rng: Any = None) -> Any:
    """`spherical_w2_squared` with its gradients, for JAX."""
    arrays, cast_back = _validate_spherical(x, y, directions, rng)
    by_x, by_y, _ = spherical.spherical_cost.gradients(*arrays)
    return cast_back(spherical.spherical_cost(*arrays)), cast_gradients((by_x, by_y, None, None), cast_back)


def _validate_spherical(x: Any, y: Any, directions: Any, rng: Any) -> tuple[tuple[Array, Array, Array], Any]:
    given = x, y
    (x, y), cast_back = checks.arrays(x=x, y=y)
    if backend.in_transform():
        raise RuntimeError("sliced.spherical_w2_squared needs values, which torch.func and torch.compile hide")
    for name, z, own in (("x", x, given[0]), ("y", y, given[1])):
        validate_points(name, z)
        spherical.validate(name, z, direction_sets.length_tolerance(own))
    checks.same_size("the number of points", "x", x.shape[-2], "y", y.shape[-2])
    checks.same_size("the number of coordinates", "x", x.shape[-1], "y", y.shape[-1])
    checks.batch({"x": x.shape[:-2], "y": y.shape[:-2]})
    if isinstance(directions, int | np.integer):
        count = checks.positive_integer("directions", directions)
        drawn = spherical.draw(count, x.shape[-1], random.generator(random.seed(rng)))
        circles = backend.like(drawn, x)
    else:
        circles = checks.beside("directions", directions, x)
        spherical.validate_circles(circles, x.shape[-1], direction_sets.length_tolerance(directions))
    return (x, y, circles), cast_back


def _with_gradient_of_maximum(value: Array, arrays: list[Array], found: list[Any], batch: tuple[int, ...]) -> Array:
    """The value with the gradient that the active plans have together."""
    most = max((len(end.active) for end in found), default=1)
    active, weights = np.zeros((len(found), most, arrays[0].shape[-1])), np.zeros((len(found), most))
    active[:, :, 0] = 1.0
    for k, end in enumerate(found):
        active[k, : len(end.active)], weights[k, : len(end.active)] = end.active, end.multipliers
    active, weights = (backend.like(z.reshape(*batch, *z.shape[1:]), arrays[0]) for z in (active, weights))
    x, y, a, b = (z.unsqueeze(-1 - core) for z, core in zip(arrays[:4], (2, 2, 1, 1), strict=True))
    around = (weights * sliced_cost(x, y, a, b, active[..., None, :], count=0, seed=-1, p=2.0)).sum(-1)
    return value.detach() + (around - around.detach())


def _validate(
    x: Any, y: Any, a: Any, b: Any, directions: Any, rng: Any, p: float = 2.0
) -> tuple[list[Array], list[Array | None], Any, dict[str, Any]]:
    """The arguments of one call, checked: x, y, a, b and directions (0, d where they are to be drawn), and options."""
    arrays, totals, cast_back = validate_clouds(x, y, a, b, core=2)
    d = arrays[0].shape[-1]
    if isinstance(directions, int | np.integer):
        count = checks.positive_integer("directions", directions)
        nothing = arrays[0].new_zeros((0, d)) if backend.is_torch(arrays[0]) else np.zeros((0, d), arrays[0].dtype)
        return [*arrays, nothing], totals, cast_back, {"count": count, "seed": random.seed(rng), "p": p}
    return (
        [*arrays, _validate_directions(directions, arrays[0])],
        totals,
        cast_back,
        {"count": 0, "seed": -1, "p": p},
    )


def _validate_directions(directions: Any, points: Array, name: str = "x") -> Array:
    """Directions (L, d) of length 1, of the library and dtype of the points, which are called `name`."""
    alike = type(directions) is type(points) and directions.dtype == points.dtype
    theta = directions if alike else checks.beside("directions", directions, points, name)
    tolerance = 2e-3 if alike else direction_sets.length_tolerance(directions)
    d = points.shape[-1]
    if theta.ndim != 2 or theta.shape[-1] != d or not len(theta):
        raise ValueError(f"directions must be a count or have shape (L, d) with d = {d}; got {tuple(theta.shape)}")
    if not backend.inspectable(theta):
        return theta
    values = backend.as_numpy(theta)
    with products.quiet():
        excess = np.vecdot(values, values) - 1
    if not (np.abs(excess) <= tolerance).all():
        checks.finite("directions", theta)
        worst = 1 + excess[np.abs(excess).argmax()]
        raise ValueError(f"directions must have rows of length 1; got a row of length {worst**0.5:.6g}")
    half = tolerance > 2e-3  # where rounding alone is of that order
    return theta / backend.namespace(theta).linalg.norm(theta, axis=1, keepdims=True) if half else theta


def __dir__() -> list[str]:
    return __all__
