"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator

import numpy as np

from . import w2_squared, w2_squared_and_grad, wp


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    for dtype in (np.float64, np.float32):
        x = np.linspace(0.0, 1.0, 9, dtype=dtype) ** 2
        y, weights = x[:6] + 1, np.full(9, 1 / 9, dtype)
        kind = np.dtype(dtype).name
        yield f"equal numbers of {kind}", lambda x=x: w2_squared_and_grad(x, x[::-1].copy())
        yield f"values of {kind}", lambda x=x, y=y: (w2_squared(x, x + 1), w2_squared(x, y))
        yield f"unequal numbers of {kind}", lambda x=x, y=y: w2_squared_and_grad(x, y)
        yield f"weighted {kind}", lambda x=x, y=y, a=weights: w2_squared_and_grad(x, y, a)
        yield f"another power, {kind}", lambda x=x, y=y: wp(x, y, p=3)
