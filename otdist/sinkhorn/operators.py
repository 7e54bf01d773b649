"""Entropic transport as differentiable operators: the debiased divergence, and the cost at potentials that are known.

Both gradients are the envelope theorem's: the potentials solve a maximisation, so the value's derivative is that of the
objective with the potentials held fixed, and no iteration is differentiated. For the plan P of potentials f, g:

    ∂/∂x_i = 2 Σ_j P_ij (x_i - y_j),    ∂/∂a_i = f_i,    unbalanced with ρ: ∂/∂a_i = (ρ + ε) (1 - e^(-f_i/ρ))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.operator import Operator
from . import numpy_engine


def strength(epsilon: float, reach: float) -> float:
    """λ = ρ/(ρ + ε) with ρ = reach²: what an update of a potential is multiplied with; 1 without a reach."""
    return 1.0 if np.isinf(reach) else 1.0 / (1.0 + (epsilon / reach) / reach)


def weight_gradient(f: Array, epsilon: float, reach: float) -> Array:
    """∂/∂a for the potential f."""
    if np.isinf(reach):
        return f
    rho = reach**2
    expm1 = np.expm1 if isinstance(f, np.ndarray) else f.__class__.expm1
    return -(rho + epsilon) * expm1(-f / rho)


def warn(error: Any, tol: float, max_iter: int) -> None:
    """One warning for all problems of a batch that did not converge."""
    missed = int((error > tol).sum())  # NaN is not a matter of passes
    if missed:
        checks.warn(
            f"Sinkhorn stopped after max_iter={max_iter} passes in {missed} of {len(error)} problems; the largest "
            f"marginal error is {float(error.max()):.2g} and tol is {tol:.2g}"
        )


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
    limits: dict[str, Any] = {
        "epsilon": epsilon,
        "tol": tol,
        "max_iter": max_iter,
        "strength": strength(epsilon, reach),
    }
    limits["single"] = backend.dtype_name(x) == "float32"
    batch, shapes, dtype = x.shape[:-2], [z.shape for z in (x, y, a, b)], x.dtype
    asked, needs_input_grad = needs_input_grad, _present(needs_input_grad, a, b)
    engine = engine_for(x)
    x, y, a, b = engine.flatten(x, y, a, b)
    xy, xx, yy = engine.solve(x, y, a, b, **limits, points=(needs_input_grad[0], needs_input_grad[1]), debias=True)
    worst = backend.namespace(x).maximum
    warn(worst(xy.error, worst(xx.error, yy.error)), tol, max_iter)
    value, grads = _debias(xy, xx, yy, needs_input_grad, epsilon, reach)
    same = _identical(x, y, a, b)
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
    xy: Any, xx: Any, yy: Any, needs_input_grad: tuple[bool, ...], epsilon: float, reach: float
) -> tuple[Any, list[Any]]:
    # The divergence is nonnegative (Feydy et al. 2019); what is below is the tolerance's.
    value = (xy.value - 0.5 * xx.value - 0.5 * yy.value).clip(0.0)
    grads = [
        xy.grad_x - xx.grad_x if needs_input_grad[0] else None,
        xy.grad_y - yy.grad_x if needs_input_grad[1] else None,
        weight_gradient(xy.f, epsilon, reach) - weight_gradient(xx.f, epsilon, reach) if needs_input_grad[2] else None,
        weight_gradient(xy.g, epsilon, reach) - weight_gradient(yy.f, epsilon, reach) if needs_input_grad[3] else None,
    ]
    return value, grads


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
    reach: float,
) -> tuple[Array, tuple[Array | None, ...]]:
    """The entropic cost whose potentials f, g and value are known, and its gradients."""
    shapes = [z.shape for z in (x, y, a, b)]
    asked, needs_input_grad = needs_input_grad, _present(needs_input_grad, a, b)
    if not any(asked):
        return value, (None,) * 7
    engine = engine_for(x)
    flat = engine.flatten(x, y, a, b)
    grad_x, grad_y = engine.gradients_at(
        *flat, f, g, epsilon, strength(epsilon, reach), (needs_input_grad[0], needs_input_grad[1])
    )
    grads = (
        grad_x,
        grad_y,
        weight_gradient(f, epsilon, reach) if needs_input_grad[2] else None,
        weight_gradient(g, epsilon, reach) if needs_input_grad[3] else None,
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
divergence = Operator("sinkhorn_divergence", _divergence, core_ndims=(2, 2, 1, 1), options=_OPTIONS)
cost_at = Operator("sinkhorn_cost_at", _cost, core_ndims=(2, 2, 1, 1, 1, 1, 0), options="float epsilon, float reach")
