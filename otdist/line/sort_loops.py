"""The compiled loops of `sort`: one row of n after the other, all arrays flat."""

import numpy as np

from .._core.compiled import compiled

_SIGN32, _SIGN64 = np.uint32(1 << 31), np.uint64(1 << 63)
_MOVES = 8  # insertions per element beyond which a full argsort is cheaper


@compiled
def pack32(bits, n, keys):
    """Keys of float32 numbers: their bits, made monotone, above their positions."""
    for start in range(0, len(keys), n):
        for i in range(n):
            b = bits[start + i]
            image = b ^ np.uint32(np.uint32(-np.int32(b >> np.uint32(31))) | _SIGN32)
            keys[start + i] = (np.uint64(image) << np.uint64(32)) | np.uint64(i)


@compiled
def unpack32(keys, bits, order):
    """The numbers and positions of sorted keys."""
    for i in range(len(keys)):
        key = keys[i]
        image = np.uint32(key >> np.uint64(32))
        order[i] = np.int32(np.uint32(key))
        bits[i] = image ^ np.uint32(np.uint32(np.int32(image >> np.uint32(31)) - np.int32(1)) | _SIGN32)


@compiled
def pack64(bits, n, keys, low):
    """Keys of float64 numbers: their bits, made monotone, but for the low ones, which are their positions."""
    kept = ~np.uint64(low)
    for start in range(0, len(keys), n):
        for i in range(n):
            b = bits[start + i]
            image = b ^ np.uint64(np.uint64(-np.int64(b >> np.uint64(63))) | _SIGN64)
            keys[start + i] = (image & kept) | np.uint64(i)


@compiled
def unpack64(keys, values, n, low, ordered, order):
    """Read the order off the keys; repair it where the truncated keys tied. 0 where that would take too long."""
    for start in range(0, len(keys), n):
        moves = 0
        for i in range(n):
            position = np.int32(keys[start + i] & np.uint64(low))
            value = values[start + position]
            k = start + i
            while k > start and ordered[k - 1] > value:
                ordered[k] = ordered[k - 1]
                order[k] = order[k - 1]
                k -= 1
            ordered[k] = value
            order[k] = position
            moves += start + i - k
            if moves > _MOVES * n:
                return 0
    return 1
