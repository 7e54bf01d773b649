"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from . import w2_squared, w2_squared_and_grad


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    rng = np.random.default_rng(0)
    for dtype in (np.float64, np.float32):
        kind = np.dtype(dtype).name
        for n, d in ((128, 4), (128, 12), (1, 4), (1, 12), (1, 40), (3, 300)):
            z = rng.standard_normal((n, d, d + 2))
            mean, cov = np.zeros((n, d)).astype(dtype), np.matmul(z, z.mT).astype(dtype)
            cov = (cov + cov.mT) / 2
            yield f"{n} of {d} x {d}, {kind}", partial(w2_squared, mean, cov, mean, 2 * cov[::-1].copy())
            yield f"gradients, {n} of {d} x {d}, {kind}", partial(w2_squared_and_grad, mean, cov, mean, 2 * cov)
