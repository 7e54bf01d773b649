"""Hypothesis strategies: the arguments on which the laws are tried."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(1, 6)
scales = st.floats(1e-6, 1e6)
conditions = st.sampled_from([1.0, 10.0, 1e4, 1e8])


def rotation(d: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(np.diag(r))


def covariance(d: int, rng: np.random.Generator, *, condition: float = 10.0, rank: int | None = None) -> np.ndarray:
    """A random covariance whose eigenvalues fall geometrically from 1 to 1/condition; the last d - rank are 0."""
    q, values = rotation(d, rng), np.geomspace(1, 1 / condition, d)
    values[d if rank is None else rank :] = 0
    cov = (q * values) @ q.T
    return (cov + cov.T) / 2
