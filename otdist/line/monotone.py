"""Transport between rows of numbers: sort both, then match quantile with quantile.

Short rows and tensors on a device take the array operations of `coupling`, many or long rows on the CPU the compiled
loops of `walk`: which of them depends on the sizes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from .coupling import Side, Transport, couple, cumulate, equal_cost, point_slopes, power_slope, sorted_rows, take
from .sort import sort_rows
from .walk import couple_rows, cumulate_rows

# Numbers in a task: two rows of float32 keys, values and positions then stay in a core's second-level cache (1 MiB).
_BLOCK = 1 << 15
# Numbers up to which array operations are as fast as compiled loops, and need no compiler.
_FEW = 1 << 13


def transport(x: Array, y: Array, a: Array, b: Array, *, p: float, needs_input_grad: tuple[bool, ...]) -> Transport:
    """Solve every pair of rows x (r, n), y (r, m).

    Weights a (1 or r, n), b (1 or r, m) are float64 with sum 1; those of shape (0, .) are uniform. `needs_input_grad`
    says which derivatives are wanted: by x, y, a, b. The rows of x and y are overwritten.
    """
    if not backend.is_torch(x) and x.size + y.size > _FEW:
        return _in_blocks(x, y, a, b, p, needs_input_grad)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # what is beyond the numbers is infinite
        return _solve(x, y, a, b, p, needs_input_grad)


def monotone_coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The steps of the coupling of n and m sorted points of equal weights: mass[k] goes from i[k] to j[k]."""
    merged = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # n m times the cdf: whole numbers
    i, j = (merged - 1) // m, (merged - 1) // n
    return i.astype(np.int32), j.astype(np.int32), np.diff(merged, prepend=0) / (n * m)


def weight_rows(weights: Array) -> Array:
    """Weights (..., n) as rows of float64 (1 or r, n); those that a whole batch shares are one row; none are (0, 0)."""
    xp = backend.namespace(weights)
    if weights.shape[-1] == 0:
        return xp.zeros((0, 0), dtype=xp.float64, **({"device": weights.device} if backend.is_torch(weights) else {}))
    shared = backend.without_repeats(weights, 1)
    rows = shared if shared.shape[:-1].count(1) == shared.ndim - 1 else weights
    rows = backend.astype(rows.reshape(-1, weights.shape[-1]) if rows.size else rows[:0], xp.float64)
    return rows if backend.is_torch(rows) else np.ascontiguousarray(rows)


def _solve(x: Array, y: Array, a: Array, b: Array, p: float, wanted: tuple[bool, ...]) -> Transport:
    """All rows at once, by array operations."""
    equal = _are_equal(x, y, a, b)
    if not len(x):
        return _nothing(x, y, wanted)
    if equal and not any(wanted):
        return Transport(equal_cost(sorted_rows(x), sorted_rows(y), p), None, None, None, None)
    one, other = _side(x, a), _side(y, b)
    found = (_couple_equal if equal else couple)(one, other, p, wanted)
    by_x, by_y = (None if s is None else backend.astype(s, x.dtype) for s in found[1:3])
    return found._replace(x_slopes=by_x, y_slopes=by_y)


def _side(z: Array, weights: Array) -> Side:
    order = z.argsort(1)
    return Side(_double(take(z, order)), order, cumulate(weights, order))


def _are_equal(x: Array, y: Array, a: Array, b: Array) -> bool:
    """Whether the k-th point of x simply meets the k-th of y."""
    return not len(a) and not len(b) and x.shape[1] == y.shape[1]


def _couple_equal(x: Side, y: Side, p: float, wanted: tuple[bool, ...]) -> Transport:
    slopes = power_slope(x.points - y.points, p) / x.points.shape[1]
    by_x = point_slopes(x, slopes) if wanted[0] else None
    by_y = point_slopes(y, -slopes) if wanted[1] else None
    return Transport(equal_cost(x.points, y.points, p), by_x, by_y, None, None)


def _double(x: Array) -> Array:
    return x.double() if backend.is_torch(x) else x.astype(np.float64, copy=False)


def _nothing(x: Array, y: Array, wanted: tuple[bool, ...]) -> Transport:
    """The answer for no rows."""
    cost = _double(x).sum(1)
    slopes = (z if need else None for z, need in zip((x, y), wanted[:2], strict=True))
    return Transport(cost, *slopes, *(_double(z) if need else None for z, need in zip((x, y), wanted[2:], strict=True)))


# Many or long rows on the CPU: blocks of rows, in threads, by compiled loops.


def _in_blocks(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, p: float, wanted: Any) -> Transport:
    from .._core import threads

    r, n, m = len(x), x.shape[1], y.shape[1]
    out = Transport(
        np.empty(r),
        x if wanted[0] else None,
        y if wanted[1] else None,
        np.empty((r, n)) if wanted[2] else None,
        np.empty((r, m)) if wanted[3] else None,
    )
    step = max(1, min(r, _BLOCK // max(n, m)))
    if r * (n + m) <= 2 * _BLOCK:
        step = max(1, r)
    blocks = [slice(k, min(k + step, r)) for k in range(0, r, step)]
    if len(blocks) == 1 and n + m > 2 * _BLOCK:  # few long rows: the two sides are prepared at the same time
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            _couple_block((x, y), (a, b), p, wanted, out, blocks[0], threads.map)
        return out

    def couple(block: slice) -> None:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # each thread has its own
            _couple_block((x, y), (a, b), p, wanted, out, block, _in_turn)

    threads.map(couple, blocks)
    return out


def _in_turn(function: Any, tasks: Any) -> None:
    for task in tasks:
        function(task)


def _couple_block(
    rows: tuple[np.ndarray, ...],
    weights: tuple[np.ndarray, ...],
    p: float,
    wanted: tuple[bool, ...],
    out: Transport,
    block: slice,
    each: Any,
) -> None:
    """Fill one block of `out`; `each` calls a function for both sides."""
    equal = _are_equal(*rows, *weights)
    sides: list[Any] = [None, None]

    def prepare(k: int) -> None:
        ordered = not equal or any(wanted)
        sides[k] = _sorted_side(rows[k][block], _of_block(weights[k], block), ordered, equal)

    each(prepare, (0, 1))
    if equal and not any(wanted):
        found = Transport(equal_cost(sides[0].points, sides[1].points, p), None, None, None, None)
    elif equal:
        found = _couple_equal(sides[0], sides[1], p, wanted)
    else:
        found = couple_rows(sides[0], sides[1], p, wanted, each)
    for place, value in zip(out, found, strict=True):
        if place is not None:
            place[block] = value


def _sorted_side(rows: np.ndarray, weights: np.ndarray, ordered: bool, equal: bool) -> Side:
    """A block of rows in ascending order; with their permutation and cdf where the coupling needs them."""
    if not ordered:
        rows.sort(axis=1)
        return Side(rows, None, None)
    points, order = sort_rows(rows)
    if equal or not len(weights):
        return Side(points, order, cumulate(weights[:0], order))
    return Side(points, order, cumulate_rows(weights, order))


def _of_block(weights: np.ndarray, block: slice) -> np.ndarray:
    return weights if len(weights) <= 1 else weights[block]
