"""Optimal transport between projections: along every direction the k-th quantile goes to the k-th quantile.

With uniform weights the monotone coupling is the same along all directions: point k to point k where the sizes are
equal, otherwise what merging the levels k / n and k / m gives. So it costs a sort of each row and a few operations on
whole arrays, written here for NumPy and PyTorch alike. Clouds with weights go through `line`.

Where projections tie, the cost has a (concave) kink: each tied point may be matched with any of its group's partners.
The slope given is the group's mean, the element of least norm; duplicated points thus get what one heavier point would.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array
from ..line import monotone
from . import products

# Numbers in a task: values, keys and positions of both clouds then stay in a core's second-level cache.
_BLOCK = 1 << 16
# Numbers to sort from which on threads are woken.
_PARALLEL = 1 << 16
# Doubles that come from floats have 29 bits to spare; with 28 of them a float is still what is nearest.
_SPARE = 28
# The smallest double. A position by the side of a zero is such a number, too.
_SUBNORMAL = 5e-324


class Transport(NamedTuple):
    """Costs of the projections of b problems along l directions, and slopes; None where they were not asked for."""

    cost: Array  # (b, l), float64
    x_slopes: Array | None  # (b, l, n), in the order of the points
    y_slopes: Array | None  # (b, l, m)
    a_potentials: Array | None  # (b, l, n), float64
    b_potentials: Array | None  # (b, l, m), float64


class Coupling(NamedTuple):
    """The monotone coupling of uniform levels k / n and k / m: mass_k goes from the i_k-th to the j_k-th smallest."""

    i: Array
    j: Array
    mass: Array
    x_first: np.ndarray  # (n,): where the steps of each i begin
    y_first: np.ndarray  # (m,)


def transport(x: Array, y: Array, a: Array, b: Array, *, p: float, needs_input_grad: tuple[bool, ...]) -> Transport:
    """Solve every pair of rows x (b, l, n), y (b, l, m) for the cost |x - y|^p; both are overwritten.

    Weights a (b, n), b (b, m) are float64 with sum 1; those of shape (b, 0) are uniform. `needs_input_grad` says which
    derivatives are wanted: by x, y, a, b.
    """
    if a.shape[1] or b.shape[1] or any(needs_input_grad[2:]):
        return _weighted(x, y, a, b, p, needs_input_grad)
    n, m = x.shape[2], y.shape[2]
    coupling = None if n == m else _coupling(n, m)
    if backend.is_torch(x):
        return _tensors(x, y, coupling, p, needs_input_grad)
    rows = x.reshape(-1, n), y.reshape(-1, m)
    cost, step = np.empty(len(rows[0])), max(1, _BLOCK // max(n, m))
    if is_small(work := rows[0].size + rows[1].size):
        step = len(cost)

    def task(first: int) -> None:
        part = slice(first, first + step)
        cost[part] = _match(rows[0][part], rows[1][part], coupling, p, needs_input_grad)[0]

    products.each(task, range(0, len(cost), step), work, _PARALLEL)
    by_x, by_y = (z if need else None for z, need in zip((x, y), needs_input_grad[:2], strict=True))
    return Transport(cost.reshape(x.shape[:2]), by_x, by_y, None, None)


def _tensors(x: Array, y: Array, coupling: Coupling | None, p: float, needs_input_grad: tuple[bool, ...]) -> Transport:
    """PyTorch's; slopes nobody asked for may come along."""
    from . import triton_match

    if coupling is not None:  # to the device, once
        steps, mass = (backend.index(z, x) for z in (np.stack(coupling[:2]), coupling.mass))
        coupling = coupling._replace(i=steps[0], j=steps[1], mass=mass)
    if coupling is None and p == 2 and any(needs_input_grad) and triton_match.usable(x):
        cost, by_x, by_y = triton_match.match(x, y)
    else:
        cost, by_x, by_y = _match(x, y, coupling, p, needs_input_grad)
    return Transport(cost, by_x, by_y, None, None)


def _weighted(x: Array, y: Array, a: Array, b: Array, p: float, needs_input_grad: tuple[bool, ...]) -> Transport:
    """The same where each direction has a coupling of its own."""
    batch, size, _ = x.shape
    xp = backend.namespace(x)
    rows = []
    for w in (a, b):
        if batch == 1 or not w.shape[1]:
            rows.append(w[:, :] if w.shape[1] else w[:0])
        else:
            rows.append(xp.broadcast_to(w[:, None], (batch, size, w.shape[1])).reshape(-1, w.shape[1]))
    flat = (z.reshape(-1, z.shape[2]) for z in (x, y))
    found = monotone.transport(*flat, *rows, p=p, needs_input_grad=needs_input_grad)
    return Transport(*(None if z is None else z.reshape(batch, size, *z.shape[1:]) for z in found))


@lru_cache(maxsize=16)
def _coupling(n: int, m: int) -> Coupling:
    ends_x, ends_y = np.arange(1, n + 1) * m, np.arange(1, m + 1) * n  # of the levels, in units of 1 / (n m)
    ends = np.union1d(ends_x, ends_y)
    mass = np.diff(ends, prepend=0) / (n * m)
    first = (np.concatenate([[0], np.searchsorted(ends, z[:-1]) + 1]) for z in (ends_x, ends_y))
    return Coupling(np.searchsorted(ends_x, ends), np.searchsorted(ends_y, ends), mass, *first)


def is_small(numbers: int) -> bool:
    """Whether so many numbers are sorted at once, on the caller's thread."""
    return numbers < _PARALLEL


def _match(x: Array, y: Array, coupling: Coupling | None, p: float, needs_input_grad: Any) -> tuple[Any, Any, Any]:
    """Costs (...) and slopes of rows x (..., n), y (..., m). NumPy's are overwritten, with the slopes where needed."""
    xp, n = backend.namespace(x), x.shape[-1]
    sides = [sort(z, need) for z, need in zip((x, y), needs_input_grad, strict=False)]
    (low, _), (high, _) = sides
    if coupling is None:
        gap, mass = low - high, 1 / n
    else:
        i, j, mass = coupling[:3]
        gap, mass = low[..., i] - high[..., j], backend.astype(mass, x.dtype)
    out: list[Array | None] = [None, None]
    if any(needs_input_grad[:2]):
        slope = 2 * mass * gap if p == 2 else p * mass * xp.sign(gap) * abs(gap) ** (p - 1)
    if p == 2:
        gap *= gap
    else:
        gap = abs(gap) ** p
    cost = gap.sum(-1, dtype=xp.float64) / n if coupling is None else (gap * mass).sum(-1, dtype=xp.float64)
    for k, (values, order) in reversed(list(enumerate(sides))):
        if order is not None:
            own = slope if coupling is None else _sum_steps(slope, coupling, k)
            out[k] = to_points(-own if k else own, values, order, (x, y)[k])
            _forget_infinite(out[k], cost)
    return cost, out[0], out[1]


def _sum_steps(steps: Array, coupling: Coupling, side: int) -> Array:
    """What the steps of the coupling (..., k) bring to each sorted point."""
    if not backend.is_torch(steps):
        return np.add.reduceat(steps, coupling[3 + side], axis=-1)
    return steps.new_zeros((*steps.shape[:-1], len(coupling[3 + side]))).index_add(-1, coupling[side], steps)


def to_points(slopes: Array, values: Array, order: Array, out: Array) -> Array:
    """Slopes (..., n) in sorted order: tied ones shared, and brought back to the order of the points.

    NumPy's go to their places in `out`, which `order` counts from its first number, all rows together.
    """
    if backend.is_torch(slopes):
        shared = _share_ties_everywhere(slopes, values)
        return backend.torch_module().empty_like(slopes).scatter_(-1, order, shared)
    out.reshape(-1)[order.reshape(-1)] = _share_ties(slopes.reshape(-1), values)
    return out


def _forget_infinite(slopes: Array, cost: Array) -> None:
    """In place, NaN for slopes along a direction whose cost is not finite."""
    if backend.is_torch(slopes):
        slopes += (0 * cost)[..., None].to(slopes.dtype)
    elif not np.isfinite(cost).all():
        slopes[~np.isfinite(cost)] = np.nan


def _share_ties(slopes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Slopes of all sorted rows, one after the other; those of points with the same value (r, n) get their mean."""
    sorted_ = values.reshape(-1)
    same = sorted_[1:] == sorted_[:-1]
    if not same.any():
        return slopes
    place = np.flatnonzero(same)  # this number is equal to the next
    place = place[(place + 1) % values.shape[-1] > 0]  # which is not in the next row
    if not len(place):
        return slopes
    flat = slopes.copy()
    if len(place) == 1 or (np.diff(place) > 1).all():  # pairs
        flat[place] = flat[place + 1] = (flat[place] + flat[place + 1]) / 2
        return flat
    begins = np.diff(place, prepend=-2) > 1
    first = place[begins]
    counts = np.diff(np.append(np.flatnonzero(begins), len(place))) + 1
    group = np.repeat(np.arange(len(first)), counts)
    members = np.arange(len(group)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    flat[members] = (np.bincount(group, weights=flat[members]) / counts)[group]
    return flat


def _share_ties_everywhere(slopes: Array, values: Array) -> Array:
    """The same without a look at the values: on a GPU there are no host round trips."""
    torch = backend.torch_module()
    begins = torch.ones_like(values, dtype=torch.int64)
    begins[..., 1:] = values[..., 1:] != values[..., :-1]
    group = begins.cumsum(-1) - 1
    zeros = torch.zeros_like(slopes)
    total, count = (zeros.scatter_add(-1, group, z) for z in (slopes, torch.ones_like(slopes)))
    return (total / count.clamp(min=1)).gather(-1, group)


def sort(x: Array, ordered: bool) -> tuple[Array, Array | None]:
    """The rows (..., r, n) in ascending order (NumPy's in place) and, if wanted, where they come from.

    PyTorch's places are within a row; NumPy's are within r rows, one after the other.
    """
    if backend.is_torch(x):
        found = x.sort(dim=-1)
        return found.values, found.indices if ordered else None
    if not ordered:
        x.sort(axis=-1)
        return x, None
    if _SUBNORMAL == 0:  # so it is for a thread that flushes them (torch.set_flush_denormal): it would mix positions up
        return _by_argsort(x)
    if x.dtype == np.float32 and x.shape[-2] * x.shape[-1] <= 1 << _SPARE:
        return _tagged_floats(x)
    return _tagged_doubles(x)


# NumPy's sort of plain numbers uses SIMD instructions, its argsort costs two to five times more. So positions travel
# with the values, in the last bits of doubles: those of floats are free; doubles give up as many as it takes, and where
# that hides their order it is put right afterwards. Infinities become NaN on the way: their direction's cost is not
# finite.


def _tagged_floats(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keys = x.astype(np.float64)
    bits = keys.view(np.int64)
    rows, n = x.shape[-2:]
    bits |= _places(rows, n) if rows * n <= _BLOCK else np.arange(rows * n).reshape(rows, n)
    keys.sort(axis=-1)
    x[...] = keys
    bits &= (1 << _SPARE) - 1
    return x, bits


@lru_cache(maxsize=4)
def _places(rows: int, n: int) -> np.ndarray:
    """0, 1, 2, …, (rows, n), for blocks of one size: as large as their keys, and as slow to make."""
    found = np.arange(rows * n).reshape(rows, n)
    found.flags.writeable = False
    return found


def _tagged_doubles(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = x.shape[-1]
    low = (1 << max(n - 1, 1).bit_length()) - 1
    bits = x.view(np.int64) & ~low
    bits |= np.arange(n)
    bits.view(np.float64).sort(axis=-1)
    bits &= low
    bits.clip(max=n - 1, out=bits)  # what NaN leaves there
    bits += np.arange(0, x.size, n).reshape(*x.shape[:-1], 1)
    values = x.take(bits)
    wrong = (values[..., 1:] < values[..., :-1]).any(axis=-1)
    for k in zip(*np.nonzero(wrong), strict=True):
        again = values[k].argsort(kind="stable")
        bits[k], values[k] = bits[k][again], values[k][again]
    if x.ndim == 3:
        bits -= np.arange(0, x.size, x[0].size)[:, None, None]
    return values, bits


def _by_argsort(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (rows, n), order = x.shape[-2:], x.argsort(axis=-1, kind="stable")
    return np.take_along_axis(x, order, -1), order + np.arange(0, rows * n, n)[:, None]
