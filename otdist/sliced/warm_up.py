"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator

import numpy as np

from . import directions, estimate, w2_squared, w2_squared_and_grad


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    for dtype in (np.float64, np.float32):
        x, y = np.random.default_rng(0).standard_normal((2, 300, 4)).astype(dtype)
        weights = np.full(300, 1 / 300, dtype)
        theta = directions(16, 4, rng=0, like=x)
        kind = np.dtype(dtype).name
        for n, many in ((300, y), (200, y[:200])):
            yield f"{n} points of {kind}", lambda x=x, y=many: w2_squared(x, y, directions=32, rng=0)
            yield (
                f"gradients, {n} points of {kind}",
                lambda x=x, y=many: w2_squared_and_grad(x, y, directions=32, rng=0),
            )
        yield f"weighted {kind}", lambda x=x, y=y, a=weights: w2_squared_and_grad(x, y, a, directions=32, rng=0)
        yield f"given directions, {kind}", lambda x=x, y=y, t=theta: w2_squared_and_grad(x, y, directions=t)
        yield f"an estimate, {kind}", lambda x=x, y=y: estimate(x, y, directions=128, rng=0)
        few, plane = x[:20], x[:, :2]
        yield f"few points of {kind}", lambda x=few: w2_squared_and_grad(x, x + 1, directions=32, rng=0)
        yield f"the plane, {kind}", lambda x=plane: w2_squared_and_grad(x, x + 1, directions=32, rng=0)
