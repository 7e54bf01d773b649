"""Slow, obvious, high-precision references, written from the definitions and from nothing in the library."""

from __future__ import annotations

import mpmath as mp
import numpy as np
from scipy.optimize import linprog


def matrix_root(a: mp.matrix) -> mp.matrix:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = mp.eigsy(a)
    return vectors * mp.diag([mp.sqrt(max(v, 0)) for v in values]) * vectors.T


def bures_squared(cov_x, cov_y, digits: int = 80) -> mp.mpf:
    """tr X + tr Y - 2 tr (X^½ Y X^½)^½ with ``digits`` decimal digits."""
    with mp.workdps(digits):
        x, y = mp.matrix(np.asarray(cov_x, float).tolist()), mp.matrix(np.asarray(cov_y, float).tolist())
        root = matrix_root(x)
        middle = root * y * root
        eigenvalues = mp.eigsy((middle + middle.T) / 2, eigvals_only=True)
        trace = sum(x[i, i] + y[i, i] for i in range(x.rows))
        return trace - 2 * sum(mp.sqrt(max(v, 0)) for v in eigenvalues)


def gaussian_w2_squared(mean_x, cov_x, mean_y, cov_y, digits: int = 80) -> mp.mpf:
    """The closed form of Dowson & Landau (1982)."""
    with mp.workdps(digits):
        shift = sum((mp.mpf(float(a)) - mp.mpf(float(b))) ** 2 for a, b in zip(mean_x, mean_y, strict=True))
        return shift + bures_squared(cov_x, cov_y, digits)


def transport_cost(cost, a, b) -> float:
    """min Σ P·cost over plans with marginals a and b, as the linear program that it is."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    return linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b])).fun


def relative_error(value, reference) -> float:
    """|value - reference| / |reference|, computed in the reference's precision."""
    return float(abs(mp.mpf(float(value)) - reference) / abs(reference))
