"""Sorting every lane of a column of vectors at once: a network of comparisons that no value can divert.

Each comparison is one minimum and one maximum of whole vectors, so sixteen rows of floats are sorted without a jump or
a gather. A network needs ½ n log₂² n / 2 of them where a sort by jumps needs n log₂ n steps; up to some 10⁵ numbers
that is the smaller evil. This is Batcher's bitonic network (1968, "Sorting networks and their applications") in the
form where all comparisons point upwards, so that a last block may be incomplete: what is missing counts as +∞.

A stage merges sorted halves of blocks of 2^q: first each number meets its mirror image in the block, then distances
are halved. Three such steps at a time run in registers, on eight vectors. What is sorted are cells: vectors, or pairs
of vectors of which the second is carried along (the bits of the positions).
"""

from numba import types
from numba.extending import overload
from numpy import intp

from .._core import simd
from .._core.compiled import njit
from .._core.simd import choose, greater, maximum, minimum

OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
INSIDE = {**OPTIONS, "forceinline": True}  # whether a block is cut short is then decided outside the loops
# Blocks of 2^NEAR, then of 2^FAR cells are merged to the end one by one: 32 KiB of vectors, which a first-level cache
# holds, and 512 KiB of pairs, which a second-level cache does.
NEAR, FAR = 9, 12


def _load(cells, at):
    """Cell number `at`."""


def _store(cells, at, cell):
    """Write it."""


def _order(low, high):
    """The two cells in ascending order, lane by lane."""


@overload(_load)
def _(cells, at):
    if isinstance(cells, types.BaseTuple):
        return lambda cells, at: (simd.load(cells[0], at), simd.load(cells[1], at))
    return lambda cells, at: simd.load(cells, at)


@overload(_store)
def _(cells, at, cell):
    def store_pair(cells, at, cell):
        simd.store(cells[0], at, cell[0])
        simd.store(cells[1], at, cell[1])

    return store_pair if isinstance(cells, types.BaseTuple) else lambda cells, at, cell: simd.store(cells, at, cell)


@overload(_order)
def _(low, high):
    def order_pairs(low, high):  # nothing gets lost, even where a value is NaN
        wrong = greater(low[0], high[0])
        return (
            (choose(wrong, high[0], low[0]), choose(wrong, high[1], low[1])),
            (choose(wrong, low[0], high[0]), choose(wrong, low[1], high[1])),
        )

    return (
        order_pairs if isinstance(low, types.BaseTuple) else lambda low, high: (minimum(low, high), maximum(low, high))
    )


@njit(**OPTIONS)
def sort(cells, n, top):
    """Sort n cells, n a multiple of 8, in every lane; `top` is a cell of +∞."""
    for far in range(0, n, 1 << FAR):
        far_end = min(far + (1 << FAR), n)
        for near in range(far, far_end, 1 << NEAR):
            end = min(near + (1 << NEAR), far_end)
            _eights(cells, near, end)
            _stages(cells, near, end, intp(4), intp(NEAR), top)  # of a literal numba would make a kernel of its own
        _stages(cells, far, far_end, intp(NEAR + 1), intp(FAR), top)
    _stages(cells, intp(0), n, intp(FAR + 1), intp(63), top)


@njit(**OPTIONS)
def _stages(cells, first, last, q, final, top):
    """Merge blocks of 2^q, then of twice that, up to 2^final or to a single block."""
    while q <= final and 1 << (q - 1) < last - first:
        _merge(cells, first, last, q, top)
        q += 1


@njit(**OPTIONS)
def _eights(cells, first, last):
    """Sort each eight: 19 comparisons (Knuth, *The Art of Computer Programming*, 5.3.4)."""
    for e in range(first, last, 8):
        a, b, c, d = _load(cells, e), _load(cells, e + 1), _load(cells, e + 2), _load(cells, e + 3)
        p, q, r, s = _load(cells, e + 4), _load(cells, e + 5), _load(cells, e + 6), _load(cells, e + 7)
        (a, c), (b, d), (p, r), (q, s) = _order(a, c), _order(b, d), _order(p, r), _order(q, s)
        (a, p), (b, q), (c, r), (d, s) = _order(a, p), _order(b, q), _order(c, r), _order(d, s)
        (a, b), (c, d), (p, q), (r, s) = _order(a, b), _order(c, d), _order(p, q), _order(r, s)
        (c, p), (d, q) = _order(c, p), _order(d, q)
        (b, p), (d, r) = _order(b, p), _order(d, r)
        (b, c), (d, p), (q, r) = _order(b, c), _order(d, p), _order(q, r)
        _store(cells, e, a)
        _store(cells, e + 1, b)
        _store(cells, e + 2, c)
        _store(cells, e + 3, d)
        _store(cells, e + 4, p)
        _store(cells, e + 5, q)
        _store(cells, e + 6, r)
        _store(cells, e + 7, s)


@njit(**OPTIONS)
def _merge(cells, first, last, q, top):
    """Stage q on cells first to last: so many steps with the mirroring one that a multiple of three are left."""
    size, steps = 1 << q, (q - 1) % 3 + 1
    for b in range(first, last, size):
        cut = b + size > last
        if steps == 3 and not cut:
            _mirror(cells, b, size >> 3, 3, last, top, False)
        elif steps == 2 and not cut:
            _mirror(cells, b, size >> 2, 2, last, top, False)
        elif steps == 1 and not cut:
            _mirror(cells, b, size >> 1, 1, last, top, False)
        elif b + size // 2 < last:
            _mirror(cells, b, size >> steps, steps, last, top, True)
    size >>= steps
    while size > 1 << FAR:
        _halve(cells, first, last, size, top)
        size >>= 3
    for far in range(first, last, 1 << FAR):
        far_end, block = min(far + (1 << FAR), last), size
        while block > 1 << NEAR:
            _halve(cells, far, far_end, block, top)
            block >>= 3
        for near in range(far, far_end, 1 << NEAR):
            inner = block
            while inner > 1:
                _halve(cells, near, min(near + (1 << NEAR), far_end), inner, top)
                inner >>= 3


@njit(**INSIDE)
def _get(cells, at, last, top, cut):
    if cut and at >= last:
        return top
    return _load(cells, at)


@njit(**INSIDE)
def _put(cells, at, last, cell, cut):
    if cut and at >= last:
        return
    _store(cells, at, cell)


@njit(**INSIDE)
def _mirror(cells, first, s, steps, last, top, cut):
    """A block of s 2^steps: each number against its mirror image, then at `steps` - 1 halved distances."""
    end = first + (s << steps) - 1
    for i in range(s):
        lo, hi = first + i, end - i
        a, h = _order(_get(cells, lo, last, top, cut), _get(cells, hi, last, top, cut))
        if steps > 1:
            b, g = _order(_get(cells, lo + s, last, top, cut), _get(cells, hi - s, last, top, cut))
            if steps > 2:
                c, f = _order(_get(cells, lo + 2 * s, last, top, cut), _get(cells, hi - 2 * s, last, top, cut))
                d, e = _order(_get(cells, lo + 3 * s, last, top, cut), _get(cells, hi - 3 * s, last, top, cut))
                (a, c), (b, d), (e, g), (f, h) = _order(a, c), _order(b, d), _order(e, g), _order(f, h)
                (c, d), (e, f) = _order(c, d), _order(e, f)
                _put(cells, lo + 2 * s, last, c, cut)
                _put(cells, lo + 3 * s, last, d, cut)
                _put(cells, hi - 2 * s, last, f, cut)
                _put(cells, hi - 3 * s, last, e, cut)
            (a, b), (g, h) = _order(a, b), _order(g, h)
            _put(cells, lo + s, last, b, cut)
            _put(cells, hi - s, last, g, cut)
        _put(cells, lo, last, a, cut)
        _put(cells, hi, last, h, cut)


@njit(**OPTIONS)
def _halve(cells, first, last, size, top):
    """In blocks of `size`, the three steps at its half, quarter and eighth."""
    s = size >> 3
    if s == 1:
        for b in range(first, last, 8):
            _eighths(cells, b, b + 1, 1, last, top, False)
        return
    for b in range(first, last, size):
        if b + size <= last:
            _eighths(cells, b, b + s, s, last, top, False)
        else:
            _eighths(cells, b, min(b + s, last), s, last, top, True)


@njit(**INSIDE)
def _eighths(cells, first, end, s, last, top, cut):
    for i in range(first, end):
        a, b = _get(cells, i, last, top, cut), _get(cells, i + s, last, top, cut)
        c, d = _get(cells, i + 2 * s, last, top, cut), _get(cells, i + 3 * s, last, top, cut)
        e, f = _get(cells, i + 4 * s, last, top, cut), _get(cells, i + 5 * s, last, top, cut)
        g, h = _get(cells, i + 6 * s, last, top, cut), _get(cells, i + 7 * s, last, top, cut)
        (a, e), (b, f), (c, g), (d, h) = _order(a, e), _order(b, f), _order(c, g), _order(d, h)
        (a, c), (b, d), (e, g), (f, h) = _order(a, c), _order(b, d), _order(e, g), _order(f, h)
        (a, b), (c, d), (e, f), (g, h) = _order(a, b), _order(c, d), _order(e, f), _order(g, h)
        _put(cells, i, last, a, cut)
        _put(cells, i + s, last, b, cut)
        _put(cells, i + 2 * s, last, c, cut)
        _put(cells, i + 3 * s, last, d, cut)
        _put(cells, i + 4 * s, last, e, cut)
        _put(cells, i + 5 * s, last, f, cut)
        _put(cells, i + 6 * s, last, g, cut)
        _put(cells, i + 7 * s, last, h, cut)
