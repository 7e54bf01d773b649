"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from . import w2_squared, w2_squared_and_grad, wp


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    for dtype in (np.float64, np.float32):
        kind = np.dtype(dtype).name
        n = 9000  # array operations do for fewer
        x = (np.linspace(0.0, 1.0, n) ** 2).astype(dtype)
        y, weights = x[:6000] + 1, np.full(n, 1 / n, dtype)
        yield f"values of {kind}", partial(w2_squared, x, x + 1)
        yield f"unequal numbers, values of {kind}", partial(w2_squared, x, y)
        yield f"equal numbers of {kind}", partial(w2_squared_and_grad, x, x[::-1].copy())
        yield f"unequal numbers of {kind}", partial(w2_squared_and_grad, x, y)
        yield f"weighted {kind}", partial(w2_squared_and_grad, x, y, weights)
        yield f"another power, {kind}", partial(wp, x, y, p=3)
