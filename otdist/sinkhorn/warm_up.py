"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator

import numpy as np

from . import bracket, solve, w2_squared_and_grad


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    for dtype in (np.float64, np.float32):
        x, y = np.random.default_rng(0).standard_normal((2, 40, 3)).astype(dtype)
        kind = np.dtype(dtype).name
        for epsilon in (1.0, 0.02):
            yield f"epsilon {epsilon}, {kind}", lambda x=x, y=y, e=epsilon: w2_squared_and_grad(x, y, epsilon=e)
        yield f"a tight tolerance, {kind}", lambda x=x, y=y: solve(x, y, epsilon=0.3, tol=1e-9).bounds()
        yield f"unbalanced {kind}", lambda x=x, y=y: w2_squared_and_grad(x, y, epsilon=0.5, reach=1.0)
        yield f"products with the plan, {kind}", lambda x=x, y=y: solve(x, y, epsilon=0.5).barycentric_map()
        yield f"bounds, {kind}", lambda x=x, y=y: bracket(x[:12], y[:9], rel_tol=0.1)
        large = np.random.default_rng(1).standard_normal((2, 700, 3)).astype(dtype)
        yield f"many points of {kind}", lambda z=large: solve(z[0], z[1], epsilon=1.0)
