"""How much each point of two samples moves their distance: the influence functions of the delta method.

For a distance T(P, Q) with derivative f in P and g in Q, the error of its estimate is asymptotically normal with
variance Var f(X) / n + Var g(Y) / m. For transport distances f and g are the dual potentials. For the Fréchet distance
``f(x) = 2 (m_x - m_y)·(x - m_x) + (x - m_x)ᵀ (I - T) (x - m_x)``, up to a constant, T being the transport map between
the two Gaussians.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import exact, gaussian, sinkhorn, sliced
from .._core import backend
from .._core.backend import Array
from .samples import Distance

_BY_WEIGHTS: dict[Any, Any] = {
    exact.w2_squared: exact.w2_squared_and_grad,
    sinkhorn.w2_squared: sinkhorn.w2_squared_and_grad,
    sliced.w2_squared: sliced.w2_squared_and_grad,
}


def influences(distance: Distance, x: Array, y: Array) -> tuple[float, np.ndarray, np.ndarray]:
    """The distance of two samples (n, d) and (m, d), and the influence of each of their points, (n,) and (m,).

    Raises
    ------
    ValueError
        If nothing is known about the derivative of ``distance`` in the weights of the points.
    """
    function, options = (distance.func, distance.keywords) if isinstance(distance, partial) else (distance, {})
    x, y = _on_host(x), _on_host(y)
    options = {name: _on_host(value) for name, value in options.items()}
    if function is gaussian.w2_squared_from_samples:
        return _of_gaussians(x, y)
    if function not in _BY_WEIGHTS:
        raise ValueError(
            "the delta method needs a distance with a gradient in the weights: w2_squared of sliced, sinkhorn or exact,"
            f" or gaussian.w2_squared_from_samples; got {getattr(function, '__qualname__', function)!r};"
            " method='jackknife' takes any"
        )
    a, b = (np.full(len(z), 1 / len(z), z.dtype) for z in (x, y))
    value, grads = _BY_WEIGHTS[function](x, y, a, b, **options)
    return float(value), grads.a.astype(np.float64), grads.b.astype(np.float64)


def _on_host(value: Any) -> Any:
    """A tensor as a NumPy array; anything else as it is."""
    return value.detach().cpu().numpy() if backend.is_torch(value) else value


def _of_gaussians(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Along samples, so that no covariance is formed of fewer points than coordinates.

    The gradient in the points themselves is ``(2/n) (m_x - m_y) + (2/(n-1)) (I - T) (x - m_x)``: its mean holds the
    first part, the rest the second.
    """
    value, grads = gaussian.w2_squared_from_samples_and_grad(x.astype(np.float64), y.astype(np.float64))
    parts = []
    for z, grad in ((x, grads.x), (y, grads.y)):
        n, centred = len(z), z - z.mean(0, dtype=np.float64)
        slope = grad.mean(0)
        parts.append(n * (centred @ slope) + n / 2 * ((grad - slope) * centred).sum(1))
    return float(value), parts[0], parts[1]
