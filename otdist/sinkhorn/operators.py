"""Entropic transport as differentiable operators: the debiased divergence, and the cost at potentials that are known.

Both gradients are the envelope theorem's: the potentials solve a maximisation, so the value's derivative is that of the
objective with the potentials held fixed, and no iteration is differentiated. For the plan P of potentials f, g:

    ∂/∂x_i = 2 Σ_j P_ij (x_i - y_j),    ∂/∂a_i = f_i,    unbalanced with ρ: ∂/∂a_i = (ρ + ε) (1 - e^(-f_i/ρ))

with p Σ_j P_ij |x_i - y_j|^(p-2) (x_i - y_j) for the cost |x - y|^p.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.operator import Operator
from . import numpy_engine
from .numpy_engine import Limits


def damping(epsilon: float, reach: float, power: float = 2.0) -> float:
    """λ = ρ/(ρ + ε) with ρ = reach^p: what an update of a potential is multiplied with; 1 without a reach."""
    root = reach ** (0.5 * power)
    return 1.0 if np.isinf(reach) else 1.0 / (1.0 + (epsilon / root) / root)


def weight_gradient(f: Array, epsilon: float, reach: float, other_mass: Array, power: float = 2.0) -> Array:
    """∂/∂a for the potential f, where the other side has this mass (k,)."""
    if np.isinf(reach):
        return f + epsilon * (other_mass[:, None] - 1)
    # (ρ + ε) (1 - e^(-f/ρ)) = f (1 + ε/ρ) φ(f/ρ), φ(t) = (1 - e^-t)/t: right also where ρ is beyond the range.
    xp, root = backend.namespace(f), reach ** (0.5 * power)
    t = (f / root) / root
    share = xp.where(t == 0, 1.0, -xp.expm1(-t) / xp.where(t == 0, 1.0, t))
    return f * share * (1.0 + (epsilon / root) / root) + epsilon * (other_mass[:, None] - 1)


def warn(error: Any, tol: float, max_iter: int) -> None:
    """One warning for all problems of a batch that did not converge, at the line that called the library."""
    if not len(error):
        return
    missed, largest = backend.numbers((error > tol).sum(), error.max())  # NaN is not a matter of passes
    if missed:
        checks.warn(
            f"Sinkhorn stopped after max_iter={max_iter} passes in {int(missed)} of {len(error)} problems; the largest "
            f"marginal error is {largest:.2g} and tol is {tol:.2g}"
        )


def _divergence(
    *arrays: Array,
    needs_input_grad: tuple[bool, ...],
    epsilon: float,
    tol: float,
    max_iter: int,
    reach: float,
    power: float = 2.0,
) -> tuple[Array, tuple[Array | None, ...]]:
    """OT(x, y) - ½ OT(x, x) - ½ OT(y, y) of clouds x, y with weights a, b, and its gradients."""
    x, _, a, b = arrays
    limits = Limits(epsilon, tol, max_iter, (damping(epsilon, reach, power),) * 2, power)
    batch, shapes, dtype = x.shape[:-2], [z.shape for z in arrays], x.dtype
    single = backend.dtype_name(x) == "float32"
    asked, needs_input_grad = needs_input_grad, _present(needs_input_grad, a, b)
    engine = engine_for(x)
    flat = engine.flatten(*arrays, normalize=np.isinf(reach))
    points = needs_input_grad[0], needs_input_grad[1]
    xy, xx, yy = engine.solve(*flat, limits, single=single, points=points, debias=True)
    worst = backend.namespace(x).maximum
    warn(worst(xy.error, worst(xx.error, yy.error)), tol, max_iter)
    value, grads = _debias(xy, xx, yy, needs_input_grad, epsilon, reach, power, flat)
    same = _identical(*flat)
    for out in (value, *grads) if same.any() else ():
        if out is not None:
            out[same] = 0.0  # both plans have errors within the tolerance: what is known exactly is said exactly
    value = backend.astype(value.reshape(batch), dtype)
    return value, _cast(grads, asked, shapes, value.reshape(-1)[:0], dtype)


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
    xy: Any, xx: Any, yy: Any, needs_input_grad: tuple[bool, ...], epsilon: float, reach: float, power: float, flat: Any
) -> tuple[Any, list[Any]]:
    """The divergence and its gradients, between the bounds that hold for it whatever the potentials are.

    A dual value is below its term's, and a term of a cloud with itself is nonnegative: so the divergence is below the
    cost of the product plan. It is above the squared distance of the means (balanced, squared cost; translations come
    out exactly) or above 0 (Feydy et al. 2019). What lies outside was not converged, and has the bound's derivative.
    """
    xp, balanced = backend.namespace(xy.value), bool(np.isinf(reach))
    by_means = balanced and power == 2
    floor = xy.shift_squared if by_means else xp.zeros_like(xy.value)
    # What is nearer to the bounds than rounding of terms of order ε has the derivative of the plans.
    slack = 1e-6 * (abs(xy.value) + epsilon)
    clipped = xx.value < -slack, yy.value < -slack
    own_x, own_y = (xp.where(below, 0.0, own.value) for below, own in zip(clipped, (xx, yy), strict=True))
    value = xy.value - 0.5 * own_x - 0.5 * own_y
    if not balanced:
        value = value + 0.5 * epsilon * (flat[2].sum(-1) - flat[3].sum(-1)) ** 2
    low = value < floor - slack
    beyond = bool((low | clipped[0] | clipped[1]).any())
    grads: list[Any] = []
    for k, (term, own, grad) in enumerate(((xy.f, xx, xy.grad_x), (xy.g, yy, xy.grad_y)) * 2):
        if not needs_input_grad[k]:
            grads.append(None)
            continue
        side = k % 2
        if k >= 2:
            grad = _weight_gradient(term, own.f, epsilon, reach, power, flat[2 + side], flat[3 - side])
        elif not beyond:
            grad = grad - own.grad_x
        if beyond and k < 2:
            grad = grad - xp.where(clipped[side][:, None, None], 0.0, own.grad_x)
        elif beyond:
            grad = xp.where(clipped[side][:, None], _weight_gradient(term, None, epsilon, reach, power,
                                                                     flat[2 + side], flat[3 - side]), grad)  # fmt: skip
        if beyond:
            grad = xp.where(low[:, None, None] if k < 2 else low[:, None], _bound_gradient(k, flat, by_means), grad)
        grads.append(grad)
    return xp.where(value < floor, floor, value), grads


def _weight_gradient(
    f: Array, own: Array | None, epsilon: float, reach: float, power: float, a: Array, b: Array
) -> Array:
    """∂/∂a of the divergence, without the term of a with itself where there is no own potential."""
    across = weight_gradient(f, epsilon, reach, b.sum(-1), power)
    if own is not None:
        across = across - weight_gradient(own, epsilon, reach, a.sum(-1), power)
    return across if np.isinf(reach) else across + epsilon * (a.sum(-1) - b.sum(-1))[:, None]


def _bound_gradient(k: int, flat: Any, by_means: bool) -> Array:
    """The derivative of the squared distance of the means by x, y, a or b, or of 0."""
    x, y, a, b = flat
    shift = ((a[..., None] * (x - x[:, :1])).sum(1) - (b[..., None] * (y - x[:, :1])).sum(1)) * (2 * by_means)
    if k < 2:
        return (a[..., None] if k == 0 else -b[..., None]) * shift[:, None]
    points, sign = (x, 1) if k == 2 else (y, -1)
    return sign * ((points - x[:, :1]) * shift[:, None]).sum(-1)


def _identical(x: Array, y: Array, a: Array, b: Array) -> Array:
    if x.shape != y.shape:
        return (a[:, 0] != a[:, 0]) & False
    same = (x[:, 0] == y[:, 0]).all(-1)
    if not same.any():  # most clouds differ in their first point
        return same
    return (x == y).all(-1).all(-1) & (a == b).all(-1)


def _cost(
    *arrays: Array,
    needs_input_grad: Any,
    epsilon: float,
    reach_x: float,
    reach_y: float,
) -> tuple[Array, tuple[Array | None, ...]]:
    """The entropic cost of x, y, a, b whose potentials f, g and value are known, and its gradients."""
    x, y, a, b, f, g, value = arrays
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
    return value, (*_cast(grads, asked, shapes, value.reshape(-1)[:0], x.dtype), *rest)


def _cast(grads: Any, asked: tuple[bool, ...], shapes: Any, nothing: Array, dtype: Any) -> tuple[Array | None, ...]:
    """Gradients in the arguments' shapes and type; `nothing` for weights that were asked for and not given."""
    xp = backend.namespace(nothing)
    if dtype != xp.float64:
        # A weight's is a squared distance; infinite ones would be NaN after the derivative of the normalisation.
        most = float(xp.finfo(dtype).max)
        grads = [g if g is None or k < 2 else g.clip(-most, most) for k, g in enumerate(grads)]
    return tuple(
        backend.astype((nothing if g is None else g).reshape(s), dtype) if need else None
        for g, need, s in zip(grads, asked, shapes, strict=False)
    )


_OPTIONS = "float epsilon, float tol, int max_iter, float reach, float power"
_AT = "float epsilon, float reach_x, float reach_y"
divergence = Operator("sinkhorn_divergence", _divergence, core_ndims=(2, 2, 1, 1), options=_OPTIONS)
cost_at = Operator("sinkhorn_cost_at", _cost, core_ndims=(2, 2, 1, 1, 1, 1, 0), options=_AT)
