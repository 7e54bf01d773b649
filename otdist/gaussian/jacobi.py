"""Squared Bures distances of many small pairs: eight at a time in the cache, by one-sided Jacobi.

With X = R Rᵀ, Y = S Sᵀ (Cholesky) and K = SᵀR, rotations of K's columns make them orthogonal: K V = U Σ. Every singular
value comes with its own relative accuracy (Demmel & Veselić 1992), so that nothing has to be solved twice.

Every step is taken by eight problems at once, one in each lane of a vector, without a branch: what a lane does not want
is chosen away, and a lane that has converged rests. So an answer does not depend on its neighbours. One round of a
tournament pairs all columns; its rotations are independent of each other, so that the divisions and roots of one pass
behind the products of another.

This file is the door; the loops are in `jacobi_loops`.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._core.kernels import Kernel, aligned
from .._core.kinds import FLOAT, FLOATS, INT, INTS, LANES

SOLVED, UNSOLVED = 0, 1


class _Pairs(NamedTuple):
    """The covariances and what is found, flat; a gradient that is not asked for is empty."""

    x: Any = FLOATS
    y: Any = FLOATS
    value: Any = FLOATS
    grad_x: Any = FLOATS
    grad_y: Any = FLOATS
    status: Any = INTS


_SOLVE = Kernel("otdist.gaussian.jacobi_loops.solve", _Pairs(), *(INTS, FLOATS, FLOAT), *(INT,) * 4)


def bures_squared(x, y, rounding, chosen, answers, with_vectors):
    """Fill in value (n,), grad_x, grad_y (n, d, d; or None) and status (n,), the `answers`, of the pairs in a range.

    x, y: (n or 1, d, d), contiguous. Where status is UNSOLVED, a covariance may have an eigenvalue as small as
    `rounding` times its trace, or is indefinite or NaN, or the traces cancelled. That happens to values without
    gradients only if singular vectors are not computed (`with_vectors`), which takes a third of the time.
    """
    d, none = x.shape[1], np.empty(0)
    pairs = _Pairs(*(none if z is None else z.reshape(-1) for z in (x, y, *answers)))
    work = aligned((6 * d * d + d) * LANES, np.float64)
    sizes = d, chosen.start, chosen.stop, int(with_vectors)
    _SOLVE(*pairs, tournament(d), work, rounding, *sizes)


@cache
def tournament(d):
    """The columns that meet, (rounds · (d // 2) · 2,) of them: every pair once."""
    m = d + d % 2
    rounds = []
    for r in range(m - 1):
        for i in range(m // 2):
            a = m - 1 if i == 0 else (r + i) % (m - 1)
            b = r if i == 0 else (r - i) % (m - 1)
            if a < d and b < d:
                rounds += [min(a, b), max(a, b)]
    return np.array(rounds, np.int64)
