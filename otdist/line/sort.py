"""Sorting many rows with their permutations, faster than argsort.

NumPy's sort of plain numbers uses SIMD instructions, its argsort costs two to five times more. So a row's values
are packed with their positions into unsigned 64-bit keys (the value's bits, made monotone, above; the position below),
and the keys are sorted. A float32 fits beside its position whole. A float64 gives up as many low bits as positions
need; rows whose values agree in all the bits that are left are put right by insertion afterwards.
"""

import numpy as np

from .._core.compiled import njit

_SIGN32, _SIGN64 = np.uint32(1 << 31), np.uint64(1 << 63)
_MOVES = 8  # insertions per element beyond which a full argsort is cheaper


@njit(cache=True, nogil=True)
def _pack32(bits, keys):
    for r in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            b = bits[r, i]
            image = b ^ np.uint32(np.uint32(-np.int32(b >> np.uint32(31))) | _SIGN32)
            keys[r, i] = (np.uint64(image) << np.uint64(32)) | np.uint64(i)


@njit(cache=True, nogil=True)
def _unpack32(keys, bits, order):
    for r in range(keys.shape[0]):
        for i in range(keys.shape[1]):
            key = keys[r, i]
            image = np.uint32(key >> np.uint64(32))
            order[r, i] = np.int32(np.uint32(key))
            bits[r, i] = image ^ np.uint32(np.uint32(np.int32(image >> np.uint32(31)) - np.int32(1)) | _SIGN32)


@njit(cache=True, nogil=True)
def _pack64(bits, keys, low):
    for r in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            b = bits[r, i]
            image = b ^ np.uint64(np.uint64(-np.int64(b >> np.uint64(63))) | _SIGN64)
            keys[r, i] = (image & ~low) | np.uint64(i)


@njit(cache=True, nogil=True)
def _unpack64(keys, values, low, ordered, order):
    """Read the order off the keys; repair it where the truncated keys tied. False where that would take too long."""
    n = keys.shape[1]
    for r in range(keys.shape[0]):
        moves = 0
        for i in range(n):
            position = np.int32(keys[r, i] & low)
            value = values[r, position]
            k = i
            while k > 0 and ordered[r, k - 1] > value:
                ordered[r, k] = ordered[r, k - 1]
                order[r, k] = order[r, k - 1]
                k -= 1
            ordered[r, k] = value
            order[r, k] = position
            moves += i - k
            if moves > _MOVES * n:
                return False
    return True


def sort_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row of `values` (r, n) in ascending order, as float64, and its permutation (r, n) int32.

    Ties keep their order of appearance. The result may take the memory of `values`.
    """
    keys, order = np.empty(values.shape, np.uint64), np.empty(values.shape, np.int32)
    if values.dtype == np.float32:
        _pack32(values.view(np.uint32), keys)
        keys.sort(axis=1)
        _unpack32(keys, values.view(np.uint32), order)
        return values.astype(np.float64), order
    low = np.uint64((1 << max(values.shape[1] - 1, 1).bit_length()) - 1)
    _pack64(values.view(np.uint64), keys, low)
    keys.sort(axis=1)
    ordered = keys.view(np.float64)  # a key is read before a value is written in its place
    if _unpack64(keys, values, low, ordered, order):
        return ordered, order
    stable = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(values, stable, axis=1), stable
