"""A solution of the entropic problem, and what can be done with its plan without forming it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from . import certificates, numpy_engine
from .numpy_passes import NumpyPasses


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
        if on_device(x):  # whose allocator has the last word
            return self._shaped(self._plans().dense())
        checks.memory(8 * len(x) * x.shape[1] * y.shape[1], "the dense plan", "use apply(v) or barycentric_map()")
        P = np.empty((*x.shape[:2], y.shape[1]))
        for k, of in enumerate(self._problems()):
            for rows, block in of.passes.plan_blocks(of.F):
                P[k, rows] = block
        return self._shaped(P)

    def apply(self, v: Any, *, transpose: bool = False) -> Array:
        """``P v`` for v (..., m) or (..., m, r), without forming P; with ``transpose``, ``Pᵀ v`` for v (..., n[, r]).

        One dimension more than (..., m) has means r columns, r results a point.
        """
        v = plain_like("v", v, self._like)
        columns = v.ndim > len(self._batch) + 1
        inner = v.shape[-2:] if columns else (v.shape[-1], 1)
        side = 0 if transpose else 1
        checks.same_size("the number of points", "yx"[transpose], self._flat[side].shape[1], "v", inner[0])
        wide = backend.broadcast_to(v.reshape(*v.shape[: v.ndim - 1 - columns], *inner), (*self._batch, *inner))
        if on_device(v):
            plans, wide = self._plans(), wide.reshape(-1, *inner)
            moved = plans.apply_transposed(wide) if transpose else plans.apply(wide)
            return self._shaped(moved if columns else moved[..., 0])
        out = np.empty((*self._flat[1 - side].shape[:2], inner[1]))
        for k, (of, u) in enumerate(zip(self._problems(), wide.reshape(-1, *inner), strict=True)):
            none = np.empty((self._flat[1 - side].shape[1], 0))
            out[k] = of.passes.products(of.F, none, u)[1].T if transpose else of.passes.products(of.F, u, none)[0]
        return self._shaped(out if columns else out[..., 0])

    def barycentric_map(self) -> Array:
        """Where each x_i goes on average, ``Σ_j P_ij y_j / Σ_j P_ij``: (..., n, d), without forming P."""
        if on_device(self._flat[0]):
            return self._shaped(self._plans().map())
        return self._shaped(
            np.stack([_map(of, of.passes.x) for of in self._problems()])
            if len(self._flat[0])
            else np.empty(self._flat[0].shape)
        )

    def map(self, points: Any) -> Array:
        """Where new points z (..., p, d) go on average: ``Σ_j w_j y_j / Σ_j w_j``.

        ``w_j = b_j exp((g_j - |z - y_j|²)/ε)``.
        The entropic map, continued to all of space by the potential g (Pooladian & Niles-Weed 2021, arXiv:2109.12004);
        at the points x it is `barycentric_map`.
        """
        z = plain_like("points", points, self._like)
        checks.shape("points", z, "(..., p, d)", 2)
        checks.same_size("the number of coordinates", "y", self._flat[1].shape[2], "points", z.shape[-1])
        wide = backend.broadcast_to(z, (*self._batch, *z.shape[-2:])).reshape(-1, *z.shape[-2:])
        if on_device(z):
            return self._shaped(self._plans().map(wide))
        moved = [_map(of, (u - of.center) / of.unit) for of, u in zip(self._problems(), wide, strict=True)]
        return self._shaped(np.stack(moved) if moved else np.empty(wide.shape))

    def bounds(self) -> tuple[Array, Array]:
        """``lower <= W2² <= upper``: a certificate for the exact, unregularised distance.

        Lower: the dual value of the c-transformed potentials. Upper: the cost of the plan, rounded onto the marginals
        a and b. Both hold also before convergence, for any potentials; O(n m), memory linear in n + m.

        References
        ----------
        Altschuler, Weed & Rigollet (2017), arXiv:1705.09634, algorithm 2.
        """
        *flat, _, g = self._flat
        on_card = on_device(g)
        lower, upper = self._plans().bounds() if on_card else certificates.bounds(tuple(flat), g, self.epsilon)
        return self._shaped(rounded_down(lower, self._like)), self._shaped(rounded_up(upper, self._like))

    def _problems(self) -> list[numpy_engine.Potentials]:
        *flat, f, g = self._flat
        return numpy_engine.at_potentials(tuple(flat), f, g, self.epsilon)

    def _plans(self) -> Any:
        from .torch_plans import Plans

        *flat, f, g = self._flat
        return Plans(tuple(flat), f, g, self.epsilon)

    def _shaped(self, flat: Array) -> Array:
        return backend.scalar(backend.like(flat.reshape((*self._batch, *flat.shape[1:])), self._like))


def _map(of: numpy_engine.Potentials, z: np.ndarray) -> np.ndarray:
    """Σ_j w_j y_j / Σ_j w_j at points z inside: the shares of the targets, also where no mass moves."""
    problem = of.passes
    shares = NumpyPasses(z, problem.y, np.ones(len(z)), problem.b[0], problem.scale, (1.0, 1.0))
    F, _ = shares.sweep(of.h)
    moved, _ = shares.products(F, problem.y, np.empty((len(z), 0)))
    return moved * of.unit + of.center


def on_device(x: Array) -> bool:
    """Whether x is a tensor that stays where it is: on a card."""
    return not backend.on_cpu(x)


def plain(x: Array) -> Array:
    """What the engines take: a NumPy array, or a tensor on a device without its graph."""
    return x.detach() if on_device(x) else backend.as_numpy(x)


def plain_like(name: str, v: Any, like: Array) -> Array:
    """An argument of the kind of `like`, checked, in float64."""
    (v, _), _ = checks.arrays(**{name: v, "x": like})
    checks.shape(name, v, "(..., m)", 1)
    checks.finite(name, v)
    v = plain(v)
    return backend.astype(v, backend.namespace(v).float64)


def rounded_down(value: Array, like: Array) -> Array:
    """So far below that casting to the type of `like` does not pass the value, and finite."""
    if backend.dtype_name(like) == "float64":
        return value.clip(max=np.finfo(np.float64).max)
    largest = float(backend.namespace(like).finfo(like.dtype).max)
    return (value * (1 - 2 * float(backend.epsilon(like)))).clip(max=largest)


def rounded_up(value: Array, like: Array) -> Array:
    """So far above that casting to the type of `like` does not pass the value: infinite beyond that type's range."""
    if backend.dtype_name(like) == "float64":
        return value
    largest = float(backend.namespace(like).finfo(like.dtype).max)
    value = value * (1 + 2 * float(backend.epsilon(like)))
    return backend.namespace(value).where(value > largest, np.inf, value)
