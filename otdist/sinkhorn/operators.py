"""Entropic transport as differentiable operators: the debiased divergence, and the cost at potentials that are known.

Both gradients are the envelope theorem's: the potentials solve a maximisation, so the value's derivative is that of the
objective with the potentials held fixed, and no iteration is differentiated. For the plan P of potentials f, g:

    ∂/∂x_i = 2 Σ_j P_ij (x_i - y_j),    ∂/∂a_i = f_i,    unbalanced with ρ: ∂/∂a_i = (ρ + ε) (1 - e^(-f_i/ρ))
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .._core.checks import ConvergenceWarning
from .._core.operator import Operator
from . import numpy_engine
from .numpy_engine import Limits


def damping(epsilon: float, reach: float) -> float:
    """λ = ρ/(ρ + ε) with ρ = reach²: what an update of a potential is multiplied with; 1 without a reach."""
    return 1.0 if np.isinf(reach) else 1.0 / (1.0 + (epsilon / reach) / reach)


def weight_gradient(f: Array, epsilon: float, reach: float, other_mass: Array) -> Array:
    """∂/∂a for the potential f, where the other side has this mass (k,)."""
    if np.isinf(reach):
        return f + epsilon * (other_mass[:, None] - 1)
    rho = reach**2
    expm1 = np.expm1 if isinstance(f, np.ndarray) else f.__class__.expm1
    return -(rho + epsilon) * expm1(-f / rho) + epsilon * (other_mass[:, None] - 1)


def warn(error: Any, tol: float, max_iter: int) -> None:
    """One warning for all problems of a batch that did not converge, at the line that called the library."""
    missed = int((error > tol).sum())  # NaN is not a matter of passes
    if missed:
        warn_caller(
            f"Sinkhorn stopped after max_iter={max_iter} passes in {missed} of {len(error)} problems; the largest "
            f"marginal error is {float(error.max()):.2g} and tol is {tol:.2g}"
        )


def warn_caller(message: str) -> None:
    """A `ConvergenceWarning` that names the first line outside of otdist and PyTorch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("otdist", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConvergenceWarning, stacklevel=level)


def _divergence(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    *,
    needs_input_grad: tuple[bool, ...],
    epsilon: float,
    tol: float,
    max_iter: int,
    reach: float,
) -> tuple[Array, tuple[Array | None, ...]]:
    """OT(x, y) - ½ OT(x, x) - ½ OT(y, y) and its gradients."""
    limits = Limits(epsilon, tol, max_iter, (damping(epsilon, reach),) * 2)
    batch, shapes, dtype = x.shape[:-2], [z.shape for z in (x, y, a, b)], x.dtype
    single = backend.dtype_name(x) == "float32"
    asked, needs_input_grad = needs_input_grad, _present(needs_input_grad, a, b)
    engine = engine_for(x)
    flat = engine.flatten(x, y, a, b, normalize=np.isinf(reach))
    points = needs_input_grad[0], needs_input_grad[1]
    xy, xx, yy = engine.solve(*flat, limits, single=single, points=points, debias=True)
    worst = backend.namespace(x).maximum
    warn(worst(xy.error, worst(xx.error, yy.error)), tol, max_iter)
    value, grads = _debias(xy, xx, yy, needs_input_grad, epsilon, reach, flat)
    same = _identical(*flat)
    for out in (value, *grads) if same.any() else ():
        if out is not None:
            out[same] = 0.0  # both plans have errors within the tolerance: what is known exactly is said exactly
    value = backend.astype(value.reshape(batch), dtype)
    return value, _cast(grads, asked, shapes, value)


def engine_for(x: Array) -> Any:
    """The engine for arrays of this kind: one set of functions, with kernels or with torch operators inside."""
    if isinstance(x, np.ndarray):
        return numpy_engine
    from . import torch_engine

    return torch_engine


def _present(needs_input_grad: tuple[bool, ...], a: Array, b: Array) -> tuple[bool, ...]:
    """What is needed of what was given: weights that were not have length 0."""
    return (
        needs_input_grad[0],
        needs_input_grad[1],
        needs_input_grad[2] and a.shape[-1] > 0,
        needs_input_grad[3] and b.shape[-1] > 0,
    )


def _debias(
    xy: Any, xx: Any, yy: Any, needs_input_grad: tuple[bool, ...], epsilon: float, reach: float, flat: Any
) -> tuple[Any, list[Any]]:
    """The divergence and its gradients, between the bounds that hold for it whatever the potentials are.

    A dual value is below its term's, and a term of a cloud with itself is nonnegative: so the divergence is below the
    cost of the product plan. It is above the squared distance of the means (balanced; translations come out exactly)
    or above 0 (Feydy et al. 2019). What lies outside was not converged, and has the bound's derivative.
    """
    xp, (x, y, a, b) = backend.namespace(xy.value), flat
    mass_x, mass_y = a.sum(-1), b.sum(-1)
    own_x, own_y = (xp.where(term.value < 0, 0.0, term.value) for term in (xx, yy))
    value = xy.value - 0.5 * own_x - 0.5 * own_y + 0.5 * epsilon * (mass_x - mass_y) ** 2
    center = x[:, :1]
    shift = ((a[..., None] * (x - center)).sum(1) - (b[..., None] * (y - center)).sum(1)) * bool(np.isinf(reach))
    floor = (shift**2).sum(-1)
    # Beyond the rounding of terms of order ε: there the derivative is that of the plans.
    slack = 1e-6 * (abs(xy.value) + epsilon)
    low, first, second = value < floor - slack, xx.value < 0, yy.value < 0
    grads = [
        _beyond(xy.grad_x, xx.grad_x, first, low, 2 * a[..., None] * shift[:, None]) if needs_input_grad[0] else None,
        _beyond(xy.grad_y, yy.grad_x, second, low, -2 * b[..., None] * shift[:, None]) if needs_input_grad[1] else None,
        None,
        None,
    ]
    for k, term, own, points, other, sign, near in (
        (2, xy.f, xx, x, mass_y - mass_x, 2.0, first),
        (3, xy.g, yy, y, mass_x - mass_y, -2.0, second),
    ):
        if needs_input_grad[k]:
            mass = mass_y if k == 2 else mass_x
            own_mass = mass_x if k == 2 else mass_y
            across, among = (
                weight_gradient(term, epsilon, reach, mass),
                weight_gradient(own.f, epsilon, reach, own_mass),
            )
            bound = sign * ((points - center) * shift[:, None]).sum(-1)
            grads[k] = _beyond(across, among, near, low, bound) - epsilon * (other * ~low)[:, None]
    return xp.where(value < floor, floor, value), grads


def _beyond(across: Array, own: Array, clipped: Array, low: Array, bound: Array) -> Array:
    """The derivative across minus the own one, which is 0 where that value was clipped; the bound's where it is."""
    if not (clipped.any() or low.any()):
        return across - own
    xp, wide = backend.namespace(across), (slice(None), *(None,) * (across.ndim - 1))
    return xp.where(low[wide], bound, across - xp.where(clipped[wide], 0.0, own))


def _identical(x: Array, y: Array, a: Array, b: Array) -> Array:
    if x.shape != y.shape:
        return (a[:, 0] != a[:, 0]) & False
    return (x == y).all(-1).all(-1) & (a == b).all(-1)


def _cost(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    f: Array,
    g: Array,
    value: Array,
    *,
    needs_input_grad: Any,
    epsilon: float,
    reach_x: float,
    reach_y: float,
) -> tuple[Array, tuple[Array | None, ...]]:
    """The entropic cost whose potentials f, g and value are known, and its gradients."""
    shapes = [z.shape for z in (x, y, a, b)]
    asked, needs_input_grad = needs_input_grad, _present(needs_input_grad, a, b)
    if not any(asked):
        return value, (None,) * 7
    engine = engine_for(x)
    flat = engine.flatten(x, y, a, b, normalize=np.isinf(reach_x) and np.isinf(reach_y))
    dampings = damping(epsilon, reach_x), damping(epsilon, reach_y)
    points = needs_input_grad[0], needs_input_grad[1]
    grad_x, grad_y = engine.gradients_at(flat, f, g, epsilon, dampings, points)
    f, g = f.reshape(flat[2].shape), g.reshape(flat[3].shape)
    grads = (
        grad_x,
        grad_y,
        weight_gradient(f, epsilon, reach_x, flat[3].sum(-1)) if needs_input_grad[2] else None,
        weight_gradient(g, epsilon, reach_y, flat[2].sum(-1)) if needs_input_grad[3] else None,
    )
    # The potentials and the value are not arguments: whoever asks is told that they move nothing.
    rest = tuple(z * 0 if need else None for z, need in zip((f, g, value), asked[4:], strict=True))
    return value, (*_cast(grads, asked, shapes, value), *rest)


def _cast(grads: Any, asked: tuple[bool, ...], shapes: Any, value: Array) -> tuple[Array | None, ...]:
    """Gradients in the arguments' shapes and value's type; empty ones for weights that were asked for and not given."""
    nothing = value.reshape(-1)[:0]
    return tuple(
        backend.astype((nothing if g is None else g).reshape(s), value.dtype) if need else None
        for g, need, s in zip(grads, asked, shapes, strict=False)
    )


_OPTIONS = "float epsilon, float tol, int max_iter, float reach"
_AT = "float epsilon, float reach_x, float reach_y"
divergence = Operator("sinkhorn_divergence", _divergence, core_ndims=(2, 2, 1, 1), options=_OPTIONS)
cost_at = Operator("sinkhorn_cost_at", _cost, core_ndims=(2, 2, 1, 1, 1, 1, 0), options=_AT)
