"""Sums over the points of a cloud, in float64 whatever the cloud's precision."""

from .._core.compiled import njit
from ..line.sort import FAST


@njit(cache=True, nogil=True, fastmath=FAST)
def weighted_mean(x, weights, mean):
    """mean[j] = Σᵢ weights[i] x[i, j]; weights (0,) are uniform. x (n, d), mean (d,) float64."""
    n, d = x.shape
    mean[:] = 0.0
    for i in range(n):
        weight = 1.0 if weights.shape[0] == 0 else weights[i]
        for j in range(d):
            mean[j] += weight * x[i, j]
    if weights.shape[0] == 0:
        for j in range(d):
            mean[j] /= n
