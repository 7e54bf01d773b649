"""The calls that compile every kernel of this folder; a new kernel needs one here."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from . import w2_squared, w2_squared_and_grad


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and call."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((128, 4, 6))
    mean, cov = np.zeros((128, 4)), z @ z.mT  # float32 is computed in float64
    yield "values of a batch", partial(w2_squared, mean, cov, mean, 2 * cov[::-1])
    yield "gradients of a batch", partial(w2_squared_and_grad, mean, cov, mean, 2 * cov[::-1])
