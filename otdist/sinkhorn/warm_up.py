"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from . import bracket, solve, w2_squared_and_grad, wp
from .operators import divergence


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    rng = np.random.default_rng(0)
    for dtype in (np.float64, np.float32):
        kind = np.dtype(dtype).name
        x, y = rng.standard_normal((2, 40, 3)).astype(dtype)
        for epsilon in (1.0, 0.02):
            yield f"epsilon {epsilon}, {kind}", partial(w2_squared_and_grad, x, y, epsilon=epsilon)
        yield f"unbalanced {kind}", partial(w2_squared_and_grad, x, y, epsilon=0.5, reach=1.0)
        yield f"Euclidean cost, {kind}", partial(wp, x, y, epsilon=0.5)
        yield f"its gradient, {kind}", partial(_gradient_of_euclidean, x, y)
        yield f"bounds, {kind}", partial(bracket, x[:12], y[:9], rel_tol=0.1)
        yield f"a tight tolerance and the plan, {kind}", partial(_products, x, y)
        yield f"many points of {kind}", partial(solve, *rng.standard_normal((2, 700, 3)).astype(dtype), epsilon=1.0)


def _products(x: np.ndarray, y: np.ndarray) -> None:
    result = solve(x, y, epsilon=0.3, tol=1e-9)
    result.bounds(), result.plan(), result.apply(np.ones(len(y), y.dtype)), result.barycentric_map()


def _gradient_of_euclidean(x: np.ndarray, y: np.ndarray) -> None:
    uniform = np.empty((0,), x.dtype)
    options = {"epsilon": 0.5, "tol": 1e-3, "max_iter": 100, "reach": np.inf, "power": 1.0}
    divergence.value_and_grad(x, y, uniform, uniform, **options)
