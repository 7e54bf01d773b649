"""Where Sinkhorn's method starts: the entropic potential of the Gaussians that fit the clouds, which is quadratic.

Janati et al. (2020), arXiv:2006.02572.
"""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array
from .constants import LOG2E, MOST_LEFT

# From this size on (and 128 d³) eigendecompositions for a start with correlations cost less than the passes they save.
CORRELATED = 2**22


def start(x: Array, y: Array, a: Array, b: Array, scale: Array, dampings: tuple[float, float]) -> Array:
    """`gaussian_potential`, and 0 for problems where mass may be left behind and that would not be a number.

    Unbalanced marginals are a 2^(-κ f), κ = 1/λ - 1. The potentials that balance far clouds may be any size below 0,
    those of unbalanced transport may not: where the latter are small, 0 is near them.
    """
    h, kappa = gaussian_potential(x, y, a, b, scale), 1.0 / min(dampings) - 1.0
    if not kappa:
        return h
    return backend.namespace(h).where((kappa * abs(h) > MOST_LEFT).any(-1)[:, None], 0.0, h)


def gaussian_potential(x: Array, y: Array, a: Array, b: Array, scale: Array) -> Array:
    """Of clouds x (k, n, d), y (k, m, d) with weights: (k, m), in base 2 and units of ε = log2(e)/scale (k,)."""
    xp, (n, d), m = backend.namespace(x), x.shape[1:], y.shape[1]
    a, b = a / a.sum(-1)[:, None], b / b.sum(-1)[:, None]
    # Not by BLAS, which does not promise to add up in the same order every time.
    mean_x, mean_y = ((w[..., None] * z).sum(1)[:, None] for w, z in ((a, x), (b, y)))
    xc, yc = x - mean_x, y - mean_y
    half = 0.5 * LOG2E / scale.clip(1e-150)  # σ² = ε/2
    shift = 2 * (mean_y - mean_x)
    if d == 1 or n * m <= CORRELATED + 128 * d**3:
        yy = yc * yc
        xx = yy if x is y else xc * xc
        u, v = (a[..., None] * xx).sum(1), (b[..., None] * yy).sum(1)
        slope = 2 * u / (xp.sqrt(4 * u * v + half[:, None] ** 2) + half[:, None])
        return scale[:, None] * (yy * (1 - slope)[:, None] + yc * shift).sum(-1)
    A, B = ((z * w[..., None]).mT @ z for z, w in ((xc, a), (yc, b)))
    # NaN in one problem must not stop the others: eigensolvers refuse it.
    A, B = (xp.where(xp.isfinite(C), C, 0.0) for C in (A, B))
    mapped = yc @ gaussian_map(A, B, half[:, None, None])
    return scale[:, None] * (yc * (yc - mapped + shift)).sum(-1)


def gaussian_map(A: Array, B: Array, half: Array) -> Array:
    """2 A^½ [(4 A^½ B A^½ + σ⁴)^½ + σ²]⁻¹ A^½: the slope of the entropic map from N(0, B) to N(0, A), σ² = ε/2.

    Regular also where A or B is singular.
    """
    xp = backend.namespace(A)
    w, V = xp.linalg.eigh(A)
    root = (V * xp.sqrt(w.clip(0.0))[..., None, :]) @ V.mT
    w, V = xp.linalg.eigh(root @ B @ root)
    inner = (V / (xp.sqrt(4 * w.clip(0.0)[..., None, :] + half**2) + half)) @ V.mT
    return 2 * root @ inner @ root
