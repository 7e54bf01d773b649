"""Weighted clouds in the coordinates that Sinkhorn's kernels work in: centred, scaled by a power of two, packed."""

import numpy as np

from .._core.compiled import njit
from .softmin import OPTIONS, pack

LOG2E = 1.4426950408889634
EPS32 = 2.0**-23


@njit(**OPTIONS)
def frame(x, y, epsilon, tol, center, unit, single):
    """Frames of problems x (k, n, d), y (k, m, d): the middle of the box around both clouds and the power of two next
    to its half width, 1 for a point; and whether float32 resolves the plan to well below tol.

    The entries of the plan have relative errors of about eps times their exponents, which go up to the largest cost
    over ε; and where ε exceeds the costs, the value is a small difference of order cost in numbers of order ε.
    """
    low, high = np.empty(x.shape[2]), np.empty(x.shape[2])
    for k in range(x.shape[0]):
        for c in range(x.shape[2]):
            low[c] = high[c] = x[k, 0, c]
        for points in (x[k], y[k]):
            for i in range(points.shape[0]):
                for c in range(points.shape[1]):
                    low[c] = min(low[c], points[i, c])
                    high[c] = max(high[c], points[i, c])
        half, square = 0.0, 0.0
        for c in range(x.shape[2]):
            center[k, c] = low[c] + 0.5 * (high[c] - low[c])
            half = max(half, 0.5 * (high[c] - low[c]))
        unit[k] = 2.0 ** np.round(np.log2(half)) if half > 0.0 else 1.0
        for c in range(x.shape[2]):
            square += ((high[c] - low[c]) / unit[k]) ** 2
        largest = (unit[k] / epsilon) * unit[k] * square
        single[k] = 4.0 * EPS32 * largest <= tol and EPS32 / largest <= 1e-5 and tol > 1e-5


@njit(**OPTIONS)
def settle(x, a, center, unit, inside, mean, variance, rows, panels):
    """One cloud x (n, d) inside its frame, its mean and variances there, (d,), and itself packed (see `softmin`)."""
    for c in range(x.shape[1]):
        mean[c] = variance[c] = 0.0
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            inside[i, c] = (x[i, c] - center[c]) / unit
            mean[c] += a[i] * inside[i, c]
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            variance[c] += a[i] * (inside[i, c] - mean[c]) ** 2
    pack(inside, rows.shape[2], rows)
    pack(inside, panels.shape[2], panels)


@njit(**OPTIONS)
def gaussian_start(y, mean_x, variance_x, mean_y, variance_y, scale, h):
    """h (m,): the entropic potential, at y, between Gaussians with these means and variances of the coordinates.

    Janati et al. (2020), arXiv:2006.02572, for diagonal covariances.
    """
    half = 0.5 * LOG2E / max(scale, 1e-150)  # σ² = ε/2
    for j in range(len(h)):
        h[j] = 0.0
    for c in range(y.shape[1]):
        u, v = variance_x[c], variance_y[c]
        slope = 1.0 - 2.0 * u / (np.sqrt(4.0 * u * v + half * half) + half)
        shift = 2.0 * (mean_y[c] - mean_x[c])
        for j in range(y.shape[0]):
            t = y[j, c] - mean_y[c]
            h[j] += scale * t * (t * slope + shift)
