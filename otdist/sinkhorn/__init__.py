"""Entropic transport between point clouds: Sinkhorn's algorithm, its debiased divergence, and certified brackets.

The cost is |x - y|², not halved, and ``epsilon`` is in units of it. In other libraries: POT's ``reg`` on
``sqeuclidean``; OTT's ``epsilon``; GeomLoss's ``blur`` is √(epsilon/2), and its values are half of these.

Potentials are found by alternating updates, on a kernel that has absorbed them so that nothing underflows, accelerated
by Anderson's method with a safeguard, started from the closed form between Gaussians, and finished by Newton's method
where the tolerance is tight. A small problem's kernel stays in the cache; one above 256 MiB is not kept, its rows are
recomputed in each pass, so that memory is linear in n + m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import validate_clouds, weight_gradients
from .._core.jax_operator import takes_jax
from . import numpy_engine
from .operators import cost_at, divergence, engine_for, strength, warn

__all__ = ["Bracket", "Gradients", "SinkhornResult", "bracket", "solve", "w2", "w2_squared", "w2_squared_and_grad"]

MAX_ITER = 5000


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument; None for weights that were not given."""

    x: Array
    y: Array
    a: Array | None
    b: Array | None


class Bracket(NamedTuple):
    """What `bracket` found: ``lower <= W2² <= upper``. All have the batch shape."""

    lower: Array
    upper: Array
    epsilon: Array
    n_iter: Array
    converged: Array


@dataclass(frozen=True)
class SinkhornResult:
    """A solution of the entropic problem, with what it takes to trust and to use it.

    Attributes
    ----------
    value : (...)
        ``OT_ε = ⟨P, C⟩ + ε KL(P ‖ a⊗b)``, from the dual: its error is of second order in that of the potentials.
        Unbalanced, plus ``ρ KL(P1 ‖ a) + ρ KL(Pᵀ1 ‖ b)``. For PyTorch, differentiable in points and weights; it alone
        is, what follows from the plan is not.
    transport_cost : (...)
        ``⟨P, C⟩`` alone.
    f, g : (..., n), (..., m)
        Dual potentials: ``P_ij = a_i b_j exp((f_i + g_j - |x_i - y_j|²)/ε)``. Balanced, their free constant is chosen
        so that ``⟨a, f⟩ = ⟨b, g⟩``. At points without weight they are continued by the same formula.
    epsilon : float
        As given.
    n_iter : (...)
        Passes over the matrix, each of them a full Sinkhorn iteration.
    marginal_error : (...)
        ``‖P1 - a‖₁ + ‖Pᵀ1 - b‖₁``; unbalanced, the same against ``a e^(-f/ρ)`` and ``b e^(-g/ρ)``, which are the
        marginals at the solution.
    converged : (...)
        Whether ``marginal_error <= tol``.
    """

    value: Array
    transport_cost: Array
    f: Array
    g: Array
    epsilon: float
    n_iter: Array
    marginal_error: Array
    converged: Array
    _flat: tuple[Array, Array, Array, Array, Array, Array] = field(
        repr=False
    )  # x, y, a, b, f, g with one batch dimension, float64
    _like: Array = field(repr=False)  # a zero of the caller's kind
    _batch: tuple[int, ...] = field(repr=False)

    def plan(self) -> Array:
        """The plan P (..., n, m), dense; n · m numbers, refused with a MemoryError where they would not fit."""
        x, y = self._flat[:2]
        checks.memory(8 * len(x) * x.shape[1] * y.shape[1], "the dense plan", "use apply(v) or barycentric_map()")
        P = np.empty((*x.shape[:2], y.shape[1]))
        for k, problem in enumerate(self._problems()):
            for rows, block in problem.plan_blocks():
                P[k, rows] = block
        return self._shaped(P)

    def apply(self, v: Any) -> Array:
        """``P v`` for v (..., m) or (..., m, r), without forming P.

        One dimension more than (..., m) has means r columns, r results a point.
        """
        v = _given_like("v", v, self._like)
        columns = v.ndim > len(self._batch) + 1
        inner = v.shape[-2:] if columns else (v.shape[-1], 1)
        checks.same_size("the number of points", "y", self._flat[1].shape[1], "v", inner[0])
        wide = np.broadcast_to(v.reshape(*v.shape[: v.ndim - 1 - columns], *inner), (*self._batch, *inner))
        out = np.empty((*self._flat[0].shape[:2], inner[1]))
        for k, (problem, u) in enumerate(zip(self._problems(), wide.reshape(-1, *inner), strict=True)):
            out[k], _ = problem.moments(np.ascontiguousarray(u), np.empty((len(problem.x), 0)))
        return self._shaped(out if columns else out[..., 0])

    def barycentric_map(self) -> Array:
        """Where each x_i goes on average, ``Σ_j P_ij y_j / Σ_j P_ij``: (..., n, d), without forming P."""
        out = np.empty(self._flat[0].shape)
        for k, problem in enumerate(self._problems()):
            # The share of each target: defined without weight, and where no mass moves, too.
            problem.a_work[:], problem.strength = 1.0, 1.0
            problem.sweep()
            moved, _ = problem.moments(problem.y, np.empty((len(problem.x), 0)))
            out[k] = moved * problem.unit + problem.center
        return self._shaped(out)

    def bounds(self) -> tuple[Array, Array]:
        """``lower <= W2² <= upper``: a certificate for the exact, unregularised distance.

        Lower: the dual value of the c-transformed potentials. Upper: the cost of the plan, rounded onto the marginals
        a and b. Both hold also before convergence, for any potentials; O(n m), memory linear in n + m.

        References
        ----------
        Altschuler, Weed & Rigollet (2017), arXiv:1705.09634, algorithm 2.
        """
        x, y, a, b, _, g = self._flat
        lower, upper = numpy_engine.bounds(x, y, a, b, g, self.epsilon)
        return self._shaped(_below(lower, self._like)), self._shaped(_above(upper, self._like))

    def _problems(self) -> list[numpy_engine.Problem]:
        return numpy_engine.at_potentials(*self._flat, self.epsilon, 1.0)

    def _shaped(self, flat: np.ndarray) -> Array:
        return backend.scalar(backend.like(flat.reshape((*self._batch, *flat.shape[1:])), self._like))


def solve(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    init: SinkhornResult | None = None,
    reach: float | None = None,
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
    init : SinkhornResult, optional
        A former result for the same shapes, to start from its g.
    reach : float, optional
        Unbalanced transport: instead of prescribed marginals, ``ρ KL(P1 ‖ a) + ρ KL(Pᵀ1 ‖ b)`` with ρ = reach², so
        that mass farther away than about `reach` is not moved.

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
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    epsilon, tol, max_iter, reach = _numbers(epsilon, tol, max_iter, reach)
    first = arrays[0]
    wide, batch = _broadcast(arrays)
    flat = numpy_engine.flatten(_host(wide[0]), _host(wide[1]), _host(wide[2]), _host(wide[3]))
    warm = None if init is None else _former(init, flat)
    found = _solve_flat(flat, warm, first, epsilon=epsilon, tol=tol, max_iter=max_iter, reach=reach)
    warn(found.error, tol, max_iter)
    f, g = found.f, found.g
    if math.isinf(reach):
        shift = 0.5 * ((flat[2] * f).sum(-1) - (flat[3] * g).sum(-1))[:, None]
        f, g = f - shift, g + shift
    problems = numpy_engine.at_potentials(*flat, f, g, epsilon, 1.0)
    device = _kind(first)

    def shaped(z: np.ndarray) -> Array:
        return device(z.reshape((*batch, *z.shape[1:])))

    def cast(z: Array) -> Array:
        return cast_back(backend.astype(z, first.dtype))

    value = cost_at(*arrays, shaped(f), shaped(g), shaped(found.value), epsilon=epsilon, reach=reach)
    return SinkhornResult(
        value=cast(value),
        transport_cost=cast(shaped(np.array([_transport_cost(problem) for problem in problems]))),
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
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> Array:
    """Debiased Sinkhorn divergence, an estimate of W2² that is 0 for equal clouds and smooth everywhere.

    ``S_ε(a, b) = OT_ε(a, b) - ½ OT_ε(a, a) - ½ OT_ε(b, b)``, which goes to W2² as ε goes to 0.

    Parameters
    ----------
    x, y, a, b, epsilon, tol, max_iter, reach
        As in `solve`.

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
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(divergence(*arrays, **_options(epsilon, tol, max_iter, reach)))


@takes_jax("w2_squared_and_grad", root=True, x=2, y=2, a=1, b=1)
def w2(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> Array:
    """The root of the debiased divergence `w2_squared`; its gradient is 0 where it is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import sinkhorn
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> float(sinkhorn.w2(x, x, epsilon=0.1))
    0.0
    """
    arrays, _, cast_back = validate_clouds(x, y, a, b, core=2)
    return cast_back(backend.root(divergence(*arrays, **_options(epsilon, tol, max_iter, reach))))


def w2_squared_and_grad(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: float,
    tol: float = 1e-3,
    max_iter: int = MAX_ITER,
    reach: float | None = None,
) -> tuple[Array, Gradients]:
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
    arrays, totals, cast_back = validate_clouds(x, y, a, b, core=2)
    checks.numpy_only("sinkhorn.w2_squared_and_grad", arrays[0])
    value, grads = divergence.value_and_grad(*arrays, **_options(epsilon, tol, max_iter, reach))
    found = weight_gradients(grads, arrays, totals)
    return cast_back(value), Gradients(*(None if g is None else cast_back(g) for g in found))


def bracket(x: Any, y: Any, a: Any = None, b: Any = None, *, rel_tol: float = 1e-2) -> Bracket:
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
    flat = numpy_engine.flatten(_host(wide[0]), _host(wide[1]), _host(wide[2]), _host(wide[3]))
    x, y, a, b = flat
    each = [slice(k, k + 1) for k in range(len(x))]
    rows = [numpy_engine.bracket(x[k], y[k], a[k], b[k], rel_tol) for k in each]
    lower, upper, epsilon, passes, converged = (
        (np.array(z) for z in zip(*rows, strict=True)) if rows else [np.empty(0)] * 5
    )
    if not converged.all():
        checks.warn(
            f"the bounds of {int((converged == 0).sum())} of {len(converged)} problems are farther apart than "
            f"rel_tol={rel_tol:g} at the smallest epsilon that rounding allows"
        )
    like, kind = cast_back(arrays[0][..., :0, 0].sum(-1)), _kind(arrays[0])
    ends = [
        backend.scalar(backend.like(z.reshape(batch), like))
        for z in (_below(lower, like), _above(upper, like), epsilon)
    ]
    return Bracket(
        ends[0],
        ends[1],
        ends[2],
        backend.scalar(kind(passes.astype(np.int64).reshape(batch))),
        backend.scalar(kind(converged.astype(bool).reshape(batch))),
    )


def _refuse_transforms(name: str) -> None:
    if backend.in_transform():
        raise RuntimeError(
            f"sinkhorn.{name} needs values, which torch.func and torch.compile hide; sinkhorn.w2_squared does without"
        )


def _numbers(epsilon: Any, tol: Any, max_iter: Any, reach: Any) -> tuple[float, float, int, float]:
    return (
        checks.positive_number("epsilon", epsilon),
        checks.positive_number("tol", tol),
        checks.positive_integer("max_iter", max_iter),
        math.inf if reach is None else checks.positive_number("reach", reach),
    )


def _options(epsilon: Any, tol: Any, max_iter: Any, reach: Any) -> dict[str, Any]:
    return dict(zip(("epsilon", "tol", "max_iter", "reach"), _numbers(epsilon, tol, max_iter, reach), strict=True))


def _broadcast(arrays: list[Array]) -> tuple[tuple[Array, ...], tuple[int, ...]]:
    wide = cost_at.broadcast((*arrays, arrays[2], arrays[3], arrays[0][..., 0, 0]))[:4]
    return wide, tuple(wide[0].shape[:-2])


def _host(x: Array) -> np.ndarray:
    return backend.as_numpy(x) if backend.on_cpu(x) else x.detach().cpu().numpy()


def _kind(reference: Array) -> Any:
    """Turns a NumPy array into the reference's kind, with the array's own dtype."""
    if not backend.is_torch(reference):
        return lambda z: z
    return lambda z: backend.torch_module().as_tensor(z, device=reference.device)


def _given_like(name: str, v: Any, like: Array) -> np.ndarray:
    v = checks.beside(name, v, like)
    checks.shape(name, v, "(..., m)", 1)
    checks.finite(name, v)
    return np.asarray(_host(v), np.float64)


def _former(init: SinkhornResult, flat: tuple[np.ndarray, ...]) -> np.ndarray:
    if not isinstance(init, SinkhornResult):
        raise TypeError(f"init must be a SinkhornResult; got {type(init).__name__}")
    g = init._flat[5]
    if g.shape != flat[3].shape:
        raise ValueError(f"init must have potentials of shape {flat[3].shape}; got {g.shape}")
    return g


def _solve_flat(
    flat: tuple[Array, Array, Array, Array],
    warm: np.ndarray | None,
    first: Array,
    *,
    epsilon: float,
    tol: float,
    max_iter: int,
    reach: float,
) -> numpy_engine.Solution:
    limits: dict[str, Any] = {
        "epsilon": epsilon,
        "tol": tol,
        "max_iter": max_iter,
        "strength": strength(epsilon, reach),
    }
    single = backend.dtype_name(first) == "float32"
    if backend.on_cpu(first):
        return numpy_engine.solve(*flat, **limits, single=single, warm=warm)[0]
    device = _kind(first)
    engine, start = engine_for(first), None if warm is None else device(warm)
    (found,) = engine.solve(*map(device, flat), **limits, single=single, warm=start)
    return numpy_engine.Solution._make(None if z is None else _host(z) for z in found)


def _transport_cost(problem: numpy_engine.Problem) -> float:
    """Σ P_ij |x_i - y_j|², from P's products with the points, inside; in the caller's units."""
    x, y, m = problem.x, problem.y, len(problem.y)
    Py, Ptx = problem.moments(_with_ones(y), np.ones((len(x), 1)))
    squares = Py[:, -1] @ (x**2).sum(1) + (Ptx[0, :m] * problem.v[:m]) @ (y**2).sum(1)
    return max(float(squares - 2 * (x * Py[:, :-1]).sum()), 0.0) * problem.unit**2


def _with_ones(x: np.ndarray) -> np.ndarray:
    return np.concatenate((x, np.ones((len(x), 1))), axis=1)


def _below(value: np.ndarray, like: Array) -> np.ndarray:
    """So far below that casting to the type of `like` does not pass the value."""
    return value if backend.dtype_name(like) == "float64" else value * (1 - 2 * float(backend.epsilon(like)))


def _above(value: np.ndarray, like: Array) -> np.ndarray:
    return value if backend.dtype_name(like) == "float64" else value * (1 + 2 * float(backend.epsilon(like)))
