"""Entropic transport as differentiable operators: the debiased divergence, and the cost at potentials that are known.

Both gradients are the envelope theorem's: the potentials solve a maximisation, so the value's derivative is that of the
objective with the potentials held fixed, and no iteration is differentiated. For the plan P of potentials f, g:

    ∂/∂x_i = 2 Σ_j P_ij (x_i - y_j),    ∂/∂a_i = f_i,    unbalanced with ρ: ∂/∂a_i = (ρ + ε) (1 - e^(-f_i/ρ))
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .. import _sinkhorn
from .._arrays import Array
from .._checks import ConvergenceWarning
from . import Operator


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


def flatten(x: Array, y: Array, a: Array, b: Array) -> tuple[Array, ...]:
    """One batch dimension, float64; weights that were not given become uniform. NumPy."""
    k = math.prod(x.shape[:-2])
    wide = [np.asarray(z, np.float64).reshape(k, *z.shape[-2:]) for z in (x, y)]
    for w, points in ((a, wide[0]), (b, wide[1])):
        n = points.shape[1]
        wide.append(np.asarray(w, np.float64).reshape(k, n) if w.shape[-1] else np.full((k, n), 1.0 / n))
    return tuple(wide)


def warn(error: Any, tol: float, max_iter: int) -> None:
    """One warning for all problems of a batch that did not converge."""
    missed = int((~(error <= tol)).sum())
    if missed:
        warnings.warn(
            f"Sinkhorn stopped after max_iter={max_iter} passes in {missed} of {np.size(error)} problems; the largest "
            f"marginal error is {float(error.max()):.2g} and tol is {tol:.2g}",
            ConvergenceWarning,
            stacklevel=2,
        )


def _divergence(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    *,
    needs: tuple[bool, ...],
    epsilon: float,
    tol: float,
    max_iter: int,
    reach: float,
) -> tuple[Array, tuple[Array | None, ...]]:
    """OT(x, y) - ½ OT(x, x) - ½ OT(y, y) and its gradients."""
    engine, batch, dtype = _sinkhorn, x.shape[:-2], x.dtype
    limits: dict[str, Any] = {
        "epsilon": epsilon,
        "tol": tol,
        "max_iter": max_iter,
        "strength": strength(epsilon, reach),
    }
    if isinstance(x, np.ndarray):
        shapes = [z.shape for z in (x, y, a, b)]
        asked, needs = needs, _present(needs, a, b)
        single = dtype == np.float32
        x, y, a, b = flatten(x, y, a, b)
        xy = engine.solve(x, y, a, b, **limits, single=single, points=(needs[0], needs[1]))
        xx = engine.solve(x, None, a, None, **limits, single=single, points=(needs[0], False))
        yy = engine.solve(y, None, b, None, **limits, single=single, points=(needs[1], False))
        warn(np.max([xy.error, xx.error, yy.error], axis=0), tol, max_iter)
        value, grads = _debias(xy, xx, yy, needs, epsilon, reach)
        same = _identical(x, y, a, b)
        if same.any():  # their plans differ by the tolerance: what is known exactly is said exactly
            for out in (value, *grads):
                if out is not None:
                    out[same] = 0.0
        return value.reshape(batch).astype(dtype), _cast(grads, asked, shapes, dtype)
    from .. import _sinkhorn_torch

    return _sinkhorn_torch.divergence(x, y, a, b, needs=needs, reach=reach, debias=_debias, **limits)


def _present(needs: tuple[bool, ...], a: Array, b: Array) -> tuple[bool, ...]:
    """What is needed of what was given: weights that were not have length 0."""
    return needs[0], needs[1], needs[2] and a.shape[-1] > 0, needs[3] and b.shape[-1] > 0


def _debias(xy: Any, xx: Any, yy: Any, needs: tuple[bool, ...], epsilon: float, reach: float) -> tuple[Any, list[Any]]:
    # The divergence is nonnegative (Feydy et al. 2019); what is below is the tolerance's.
    value = (xy.value - 0.5 * xx.value - 0.5 * yy.value).clip(0.0)
    grads = [
        xy.grad_x - xx.grad_x if needs[0] else None,
        xy.grad_y - yy.grad_x if needs[1] else None,
        weight_gradient(xy.f, epsilon, reach) - weight_gradient(xx.f, epsilon, reach) if needs[2] else None,
        weight_gradient(xy.g, epsilon, reach) - weight_gradient(yy.f, epsilon, reach) if needs[3] else None,
    ]
    return value, grads


def _identical(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if x.shape != y.shape:
        return np.zeros(len(x), bool)
    return (x == y).all((1, 2)) & (a == b).all(1)


def _cost(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    f: Array,
    g: Array,
    value: Array,
    *,
    needs: Any,
    epsilon: float,
    reach: float,
) -> tuple[Array, tuple[Array | None, ...]]:
    """The entropic cost whose potentials f, g and value are known, and its gradients."""
    shapes, dtype = [z.shape for z in (x, y, a, b)], x.dtype
    asked, needs = needs, _present(needs, a, b)
    if not any(asked):
        return value, (None,) * 7
    if isinstance(x, np.ndarray):
        flat = flatten(x, y, a, b)
        problem = _sinkhorn.at_potentials(*flat, f, g, epsilon, strength(epsilon, reach))
        grad_x, grad_y = problem.gradients((needs[0], needs[1]))
    else:
        from .. import _sinkhorn_torch

        grad_x, grad_y = _sinkhorn_torch.gradients_at(x, y, a, b, f, g, epsilon, needs)
    grads = (
        grad_x,
        grad_y,
        weight_gradient(f, epsilon, reach) if needs[2] else None,
        weight_gradient(g, epsilon, reach) if needs[3] else None,
    )
    # The potentials and the value are not arguments: whoever asks is told that they move nothing.
    rest = tuple(np.zeros_like(z) if need else None for z, need in zip((f, g, value), asked[4:], strict=True))
    return value, (*_cast(grads, asked, shapes, dtype), *rest)


def _cast(grads: Any, asked: tuple[bool, ...], shapes: Any, dtype: Any) -> tuple[Array | None, ...]:
    """Gradients in the arguments' shapes and type; empty ones for weights that were asked for and not given."""
    return tuple(
        None if not need else np.zeros(s, dtype) if g is None else g.reshape(s).astype(dtype)
        for g, need, s in zip(grads, asked, shapes, strict=False)
    )


_OPTIONS = "float epsilon, float tol, int max_iter, float reach"
divergence = Operator("sinkhorn_divergence", _divergence, core=(2, 2, 1, 1), options=_OPTIONS)
cost_at = Operator("sinkhorn_cost_at", _cost, core=(2, 2, 1, 1, 1, 1, 0), options="float epsilon, float reach")
