"""Entropic transport between point clouds: Sinkhorn's algorithm, its debiased divergence, and certified brackets.

The cost is |x - y|² (`wp`: |x - y|^p), not halved, and ``epsilon`` is in units of it. In other libraries: POT's
``reg`` on ``sqeuclidean``; OTT's ``epsilon``; GeomLoss's ``blur`` is √(epsilon/2), and its values are half of these.

Potentials are found by alternating updates, on a kernel that has absorbed them so that nothing underflows, accelerated
by Anderson's method with a safeguard, started from the closed form between Gaussians, and finished by Newton's method
where the tolerance is tight. A small problem's kernel stays in the cache; one above 256 MiB is not kept, its rows are
recomputed in each pass, so that memory is linear in n + m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers, NumPy
from .._core.backend import Array
from .._core.clouds import Gradients, cast_gradients, validate_clouds, weight_gradients
from .._core.jax_operator import takes_jax
from . import certificates, numpy_engine
from .barycenters import Barycenter, validated
from .barycenters import barycenter as nearest
from .numpy_engine import Limits
from .operators import cost_at, damping, divergence, engine_for, warn
from .result import SinkhornResult, on_device, plain, rounded_down, rounded_up

__all__ = [
    "Barycenter",
    "Bracket",
    "Gradients",
    "SinkhornResult",
    "barycenter",
    "bracket",
    "solve",
    "w2",
    "w2_squared",
    "w2_squared_and_grad",
    "wp",
]

MAX_ITER = 5000


class Bracket(NamedTuple):
    """What `bracket` found: ``lower <= W2² <= upper``. All have the batch shape."""

    lower: Array
    upper: Array
    epsilon: Array
    n_iter: Array
    converged: Array


def solve(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    init: SinkhornResult | tuple[A | Numbers, A | Numbers] | None = None,
    reach: float | tuple[float | None, float | None] | None = None,
) -> SinkhornResult:
    """Entropic transport between two point clouds.

    ``OT_ε(a, b) = min_P ⟨P, C⟩ + ε KL(P ‖ a⊗b)``, ``C_ij = |x_i - y_j|²``, over plans P with marginals a and b.

    Parameters
    ----------
    x : (..., n, d)
        Points. Leading dimensions are a batch and broadcast; every problem of a batch stops on its own.
    y : (..., m, d)
        Points.
    a : (..., n), optional
        Weights of x: nonnegative, with sum 1 (what is off by less than 1e-6 n is divided out). None is uniform. Zeros
        are allowed: pad with them to put problems of different sizes into one batch.
    b : (..., m), optional
        Weights of y.
    epsilon : float
        The regularisation, in squared units of the points.
    tol : float
        Stop when the L1 error of the marginals, ``‖P1 - a‖₁ + ‖Pᵀ1 - b‖₁``, is at most this.
    max_iter : int
        Stop after about so many passes over the matrix, with a `ConvergenceWarning`: one or two more are taken rather
        than to end on a step that will be undone.
    init : SinkhornResult, or a pair of arrays, optional
        What to start from: a former result for the same shapes, or potentials (f, g), (..., n) and (..., m). It is g
        that is iterated: f follows from it.
    reach : float, or a pair of floats, optional
        Unbalanced transport: instead of prescribed marginals, ``ρ KL(P1 ‖ a) + ρ KL(Pᵀ1 ‖ b)`` with ρ = reach², so
        that mass farther away than about `reach` is not moved; of each side, where it is a pair, and None prescribes
        that side's marginal. Weights may then have any sum and are used as they are. GeomLoss halves the cost: its
        ``reach`` is this one divided by √2.

    Returns
    -------
    SinkhornResult
        float32 input is solved in float32 where that resolves the plan to `tol`, in float64 elsewhere.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a side has no points, a value is NaN or infinite, weights are negative or do not sum to
        1, or epsilon, tol, max_iter or reach is not positive.

    References
    ----------
    Cuturi (2013), arXiv:1306.0895; Peyré & Cuturi (2019), *Computational Optimal Transport*, chapter 4;
    Séjourné et al. (2019), arXiv:1910.12958 (unbalanced).

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0], [1.0]])
    >>> result = sinkhorn.solve(x, x + 3, epsilon=0.1)
    >>> bool(result.converged), round(float(result.transport_cost), 3)
    (True, 9.0)
    >>> result.plan().round(3)
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    _refuse_transforms("solve")
    reaches = _reaches(reach)
    unbalanced = reaches != (math.inf, math.inf)
    arrays, _, cast_back = _validate(x, y, a, b, unbalanced=unbalanced)
    epsilon, tol, max_iter = _numbers(epsilon, tol, max_iter)
    first = arrays[0]
    batch: tuple[int, ...]
    wide, batch = _broadcast(arrays)
    flat: Any = _flatten(wide, normalize=not unbalanced)
    limits = Limits(epsilon, tol, max_iter, (damping(epsilon, reaches[0]), damping(epsilon, reaches[1])))
    single, start = backend.dtype_name(first) == "float32", None if init is None else _initial(init, flat)
    (found,) = engine_for(flat[0]).solve(*flat, limits, single=single, init=start)
    warn(found.error, tol, max_iter)
    f, g = found.f, found.g
    if not unbalanced:
        shift = 0.5 * ((flat[2] * f).sum(-1) - (flat[3] * g).sum(-1))[:, None]
        f, g = f - shift, g + shift
    kind = _kind(first)

    def shaped(z: Array) -> Array:
        return kind(z.reshape((*batch, *z.shape[1:])))

    def cast(z: Array) -> Array:
        return cast_back(backend.astype(z, first.dtype))

    value = cost_at(
        *arrays, shaped(f), shaped(g), shaped(_within(found, unbalanced)),
        epsilon=epsilon, reach_x=reaches[0], reach_y=reaches[1],
    )  # fmt: skip
    return SinkhornResult(
        value=cast(value),
        transport_cost=cast(shaped(_transport_costs(flat, f, g, epsilon))),
        f=cast(shaped(f)),
        g=cast(shaped(g)),
        epsilon=epsilon,
        n_iter=backend.scalar(shaped(found.n_iter)),
        marginal_error=cast(shaped(found.error)),
        converged=backend.scalar(shaped(found.error <= tol)),
        _flat=(*flat, f, g),
        _like=cast_back(first[..., :0, 0].sum(-1)),
        _batch=batch,
    )


@takes_jax("w2_squared_and_grad", x=2, y=2, a=1, b=1)
def w2_squared(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> A:
    """Debiased Sinkhorn divergence, an estimate of W2² that is 0 for equal clouds and smooth everywhere.

    ``S_ε(a, b) = OT_ε(a, b) - ½ OT_ε(a, a) - ½ OT_ε(b, b)``, which goes to W2² as ε goes to 0.

    Parameters
    ----------
    x, y, a, b, epsilon, tol, max_iter
        As in `solve`.
    reach : float, optional
        As in `solve`, and the same for both sides: with two that differ, ``S_ε`` of equal clouds is above 0, and the
        terms of each cloud with itself take nothing away that would mend it.

    Returns
    -------
    (...)
        In squared units of the points, at least 0. Differentiable once in points and weights, by the envelope
        theorem: memory does not grow with the iterations, and the gradient's error is of the order of `tol`.

    Raises
    ------
    TypeError, ValueError
        As `solve`.

    References
    ----------
    Genevay, Peyré & Cuturi (2018), arXiv:1706.00292; Feydy et al. (2019), arXiv:1810.08278.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> round(float(sinkhorn.w2_squared(x, x + 2, epsilon=0.1)), 3)
    8.0
    """
    options = _options(epsilon, tol, max_iter, reach)
    arrays, _, cast_back = _validate(x, y, a, b, unbalanced=options["reach"] != math.inf)
    return cast_back(divergence(*arrays, **options))


@takes_jax("w2_squared_and_grad", root=True, x=2, y=2, a=1, b=1)
def w2(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> A:
    """The root of the debiased divergence `w2_squared`; its gradient is 0 where it is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> float(sinkhorn.w2(x, x, epsilon=0.1))
    0.0
    """
    options = _options(epsilon, tol, max_iter, reach)
    arrays, _, cast_back = _validate(x, y, a, b, unbalanced=options["reach"] != math.inf)
    return cast_back(backend.root(divergence(*arrays, **options)))


def wp(
    x: A | Numbers,
    y: A | Numbers,
    a: A | Numbers | None = None,
    b: A | Numbers | None = None,
    *,
    p: float = 1,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> A:
    """The p-th root of the debiased divergence of the cost |x - y|^p; p = 1 is that of the Euclidean distance.

    ``(OT_ε(a, b) - ½ OT_ε(a, a) - ½ OT_ε(b, b))^(1/p)`` with ``C_ij = |x_i - y_j|^p``, which goes to W_p as ε goes to
    0; p = 2 is `w2`.

    Parameters
    ----------
    x, y, a, b, tol, max_iter
        As in `solve`.
    p : float
        From 1 to 2. Beyond, the kernel ``exp(-|x - y|^p / ε)`` is not positive and the divergence may be below 0.
    epsilon : float
        The regularisation, in units of |x - y|^p.
    reach : float, optional
        Unbalanced transport as in `solve`, with ρ = reach^p.

    Returns
    -------
    (...)
        In units of the points, at least 0. Differentiable once in points and weights. The gradient is 0 where p > 1 and
        the value is 0; a pair of points that coincide adds 0 to it, for p = 1 the subgradient of least norm. Computed
        in float64, and like `solve` streamed where the matrix is large; small problems take several times the time of
        `w2`.

    Raises
    ------
    TypeError, ValueError
        As `solve`, and if p is not between 1 and 2.

    References
    ----------
    Feydy et al. (2019), arXiv:1810.08278; Schoenberg (1938), Trans. AMS 44 (which powers give positive kernels).

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> round(float(sinkhorn.wp(x, x + np.array([3.0, 4.0]), epsilon=0.05)), 1)
    5.0
    """
    p = checks.positive_number("p", p)
    if not 1 <= p <= 2:
        raise ValueError(f"p must be between 1 and 2, where the divergence is nonnegative; got {p:g}")
    options = _options(epsilon, tol, max_iter, reach, p)
    arrays, _, cast_back = _validate(x, y, a, b, unbalanced=options["reach"] != math.inf)
    return cast_back(backend.nth_root(divergence(*arrays, **options), p))


def w2_squared_and_grad(
    x: NumPy,
    y: NumPy,
    a: NumPy | None = None,
    b: NumPy | None = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> tuple[np.ndarray, Gradients]:
    """`w2_squared` with its gradients, for NumPy; each gradient has its argument's shape.

    The gradient by weights is that of the divergence as it is computed, with weights divided by their sum: its mean
    under the weights is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0], [1.0]])
    >>> value, grads = sinkhorn.w2_squared_and_grad(x, x + 2, epsilon=0.1)
    >>> grads.x.round(3)
    array([[-2.],
           [-2.]])
    """
    options = _options(epsilon, tol, max_iter, reach)
    arrays, totals, cast_back = _validate(x, y, a, b, unbalanced=options["reach"] != math.inf)
    checks.numpy_only("sinkhorn.w2_squared_and_grad", arrays[0])
    value, grads = divergence.value_and_grad(*arrays, **options)
    if options["reach"] == math.inf:
        found = weight_gradients(grads, arrays, totals)
    else:
        given = True, True, a is not None, b is not None
        found = [g if is_given else None for g, is_given in zip(grads, given, strict=True)]
    return cast_back(value), cast_gradients(found, cast_back)


def bracket(
    x: A | Numbers, y: A | Numbers, a: A | Numbers | None = None, b: A | Numbers | None = None, *, rel_tol: float = 1e-2
) -> Bracket:
    """The exact W2² between two certified bounds, by lowering epsilon until they are close.

    Each epsilon is a quarter of the one before and starts from its potentials; the best bounds seen are kept. Memory
    is linear in n + m, so that it works where an exact solver's n x m matrix does not fit.

    Parameters
    ----------
    x, y, a, b
        As in `solve`.
    rel_tol : float
        Stop when ``upper - lower <= rel_tol * upper``. A tenth of it costs about ten times as much.

    Returns
    -------
    Bracket
        ``lower <= W2² <= upper`` whether or not ``converged``; ``epsilon`` the last one, ``n_iter`` all passes. Not
        differentiable. Equal clouds have W2² = 0, to which no relative tolerance applies: there, it stops when upper
        is rounding.

    Raises
    ------
    TypeError, ValueError
        As `solve`.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.random.default_rng(0).standard_normal((50, 2))
    >>> found = sinkhorn.bracket(x, x + 3)
    >>> bool(found.lower <= 18 <= found.upper), bool(found.converged)
    (True, True)
    """
    _refuse_transforms("bracket")
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    rel_tol = checks.positive_number("rel_tol", rel_tol)
    wide, batch = _broadcast(arrays)
    flat = _flatten(wide)
    rows = [certificates.bracket(tuple(z[k : k + 1] for z in flat), rel_tol) for k in range(len(flat[0]))]
    lower, upper, epsilon, passes, converged = (
        (np.array(z) for z in zip(*rows, strict=True)) if rows else [np.empty(0)] * 5
    )
    like = cast_back(arrays[0][..., :0, 0].sum(-1))
    lower, upper = rounded_down(lower, like), rounded_up(upper, like)
    converged = converged.astype(bool) & (upper <= float(backend.namespace(like).finfo(like.dtype).max))
    if not converged.all():
        checks.warn(
            f"the bounds of {int((~converged).sum())} of {len(converged)} problems are farther apart than "
            f"rel_tol={rel_tol:g} at the smallest epsilon that rounding allows, or beyond the range of {like.dtype}"
        )
    kind = _kind(arrays[0])
    with np.errstate(over="ignore"):  # what is beyond the range of the caller's type becomes infinite
        ends = [backend.scalar(backend.like(z.reshape(batch), like)) for z in (lower, upper, epsilon)]
    return Bracket(
        ends[0],
        ends[1],
        ends[2],
        backend.scalar(kind(passes.astype(np.int64).reshape(batch))),
        backend.scalar(kind(converged.astype(bool).reshape(batch))),
    )


def barycenter(
    clouds: Sequence[A | Numbers],
    weights: A | Numbers | None = None,
    *,
    epsilon: float,
    start: A | Numbers,
    masses: Sequence[A | Numbers | None] | None = None,
    tol: float = 1e-3,
    max_iter: int = 200,
) -> Barycenter:
    """The uniform cloud of as many points as ``start`` that is nearest to several clouds.

    ``argmin_z Σ_k weights_k S_ε(z, cloud_k)``, with the debiased divergence of `w2_squared`, by steps along the maps of
    its plans; a stationary point, for the problem is not convex in z. Not differentiable.

    Parameters
    ----------
    clouds : sequence of (n_k, d)
        Points.
    weights : (K,), optional
        Weights of the clouds, with sum 1. None is uniform.
    epsilon : float
        As in `solve`.
    start : (n, d)
        Where the points start: a sample of the clouds, say.
    masses : sequence of (n_k,), optional
        Weights of each cloud's points.
    tol : float
        Stop when a step moves the points by at most this, relative to the spread of the clouds; and the tolerance of
        each plan.
    max_iter : int
        Stop after so many steps, with a `ConvergenceWarning`.

    Returns
    -------
    Barycenter
        points (n, d), n_iter, moved, converged.

    Raises
    ------
    TypeError, ValueError
        As `solve`.

    References
    ----------
    Cuturi & Doucet (2014), arXiv:1310.4375, algorithm 2; Luise et al. (2019), arXiv:1905.13194 (debiased).

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> sinkhorn.barycenter([x, x + 4], epsilon=0.1, start=x).points.round(2)
    array([[2.],
           [3.],
           [4.]])
    """
    _refuse_transforms("barycenter")
    epsilon, tol, max_iter = _numbers(epsilon, tol, max_iter)
    given = validated(start, clouds, masses, weights)
    found = nearest(
        *(given.start, given.clouds, given.masses, given.shares), epsilon=epsilon, tol=tol, max_iter=max_iter
    )
    if not found.converged:
        checks.warn(f"the barycenter still moved by {found.moved:.2g} of its spread after max_iter={max_iter} steps")
    return found._replace(points=given.cast_back(backend.like(found.points, given.first)))


def _refuse_transforms(name: str) -> None:
    if backend.in_transform():
        raise RuntimeError(
            f"sinkhorn.{name} needs values, which torch.func and torch.compile hide; sinkhorn.w2_squared does without"
        )


def _numbers(epsilon: Any, tol: Any, max_iter: Any) -> tuple[float, float, int]:
    return (
        checks.positive_number("epsilon", epsilon),
        checks.positive_number("tol", tol),
        checks.positive_integer("max_iter", max_iter),
    )


def _reaches(reach: Any) -> tuple[float, float]:
    """Of each side; infinite where the marginal is prescribed."""
    pair = tuple(reach) if isinstance(reach, tuple | list) else (reach, reach)
    if len(pair) != 2:
        raise ValueError(f"reach must be a number or a pair (reach_x, reach_y); got {len(pair)} of them")
    of_x, of_y = (math.inf if z is None else checks.positive_number("reach", z) for z in pair)
    return of_x, of_y


def _options(epsilon: Any, tol: Any, max_iter: Any, reach: Any, p: float = 2.0) -> dict[str, Any]:
    epsilon, tol, max_iter = _numbers(epsilon, tol, max_iter)
    of_x, of_y = _reaches(reach)
    if of_x != of_y:
        raise ValueError(
            f"reach must be the same for both sides; got {of_x:g} and {of_y:g}, with which the debiased divergence of "
            "equal clouds is not 0 (sinkhorn.solve takes two)"
        )
    return {"epsilon": epsilon, "tol": tol, "max_iter": max_iter, "reach": of_x, "power": float(p)}


def _validate(x: Any, y: Any, a: Any, b: Any, *, unbalanced: bool) -> tuple[list[Array], list[Array | None], Any]:
    """`validate_clouds`, for which weights of an unbalanced problem may have any positive sum."""
    if not unbalanced or (a is None and b is None):
        return validate_clouds(x, y, a, b, core=2)
    named = {k: z for k, z in {"x": x, "y": y, "a": a, "b": b}.items() if z is not None}
    given = dict(zip(named, checks.arrays(**named)[0], strict=True))
    shares: dict[str, Any] = {}
    for name in ("a", "b"):
        z = given.get(name)
        if z is not None:
            checks.shape(name, z, f"(..., {'n' if name == 'a' else 'm'})", 1)
            checks.finite(name, z)
            total = z.sum(-1)[..., None]
            if backend.inspectable(z) and not bool((total > 0).all()):
                raise ValueError(f"{name} must have a positive sum")
            shares[name] = z / total
    arrays, totals, cast_back = validate_clouds(x, y, shares.get("a"), shares.get("b"), core=2)
    for k, name in ((2, "a"), (3, "b")):
        arrays[k] = given.get(name, arrays[k])
    return arrays, totals, cast_back


def _broadcast(arrays: list[Array]) -> tuple[tuple[Array, ...], tuple[int, ...]]:
    wide = cost_at.broadcast((*arrays, arrays[2], arrays[3], arrays[0][..., 0, 0]))[:4]
    return wide, tuple(wide[0].shape[:-2])


def _flatten(wide: tuple[Array, ...], *, normalize: bool = True) -> tuple[Array, Array, Array, Array]:
    """One batch dimension, float64: tensors on a device, NumPy arrays of all others."""
    own = tuple(plain(z) for z in wide)
    flat: tuple[Array, Array, Array, Array] = engine_for(own[0]).flatten(*own, normalize=normalize)
    return flat


def _transport_costs(flat: tuple[Array, ...], f: Array, g: Array, epsilon: float) -> Array:
    """⟨P, C⟩ (k,)."""
    if on_device(f):
        from .torch_plans import Plans

        return Plans(flat, f, g, epsilon).transport_cost()
    found = numpy_engine.at_potentials(flat, f, g, epsilon)
    return np.array([certificates.transport_cost(of) for of in found])


def _within(found: numpy_engine.Solution, unbalanced: bool) -> Array:
    """A dual value is below the solution's; nor is that below the squared distance of the means, or 0."""
    floor = found.shift_squared * (not unbalanced)
    return backend.namespace(floor).where(found.value < floor, floor, found.value)


def _kind(reference: Array) -> Any:
    """Turns a NumPy array into the reference's kind, with the array's own dtype."""
    if not backend.is_torch(reference) or on_device(reference):
        return lambda z: z
    return lambda z: backend.torch_module().as_tensor(z, device=reference.device)


def _initial(init: Any, flat: tuple[Array, ...]) -> Array:
    """The potential g (k, m) to start from."""
    if isinstance(init, SinkhornResult):
        g = init._flat[5]
    elif isinstance(init, tuple) and len(init) == 2:
        g = init[1] if backend.is_torch(init[1]) else np.asarray(init[1], np.float64)
        checks.finite("init", g)
        if g.ndim and g.shape[-1] == flat[3].shape[-1] and math.prod(g.shape) == math.prod(flat[3].shape):
            g = g.reshape(flat[3].shape)
    else:
        raise TypeError(f"init must be a SinkhornResult or a pair (f, g); got {type(init).__name__}")
    if g.shape != flat[3].shape:
        raise ValueError(f"init must have potentials of shape {tuple(flat[3].shape)}; got {tuple(g.shape)}")
    g = plain(g)
    if on_device(g) and not on_device(flat[3]):
        g = g.cpu().numpy()
    return backend.like(g, flat[3])


def __dir__() -> list[str]:
    return __all__
