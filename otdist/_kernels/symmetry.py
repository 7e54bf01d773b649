"""One look at covariances, before anything is computed from them."""

from numba import njit

# Dimensions up to which a matrix and its mirror image stay in the cache without tiles.
LARGEST = 512


@njit(cache=True, nogil=True)
def clean(x, largest):
    """Whether all matrices (n, d, d) are exactly symmetric, with entries of at most the ``largest`` finite number."""
    n, d, _ = x.shape
    flat, infinite = x.ravel(), False
    for i in range(flat.size):
        infinite |= not abs(flat[i]) <= largest
    if infinite:
        return False
    for m in range(n):
        own, different = x[m], False
        for i in range(1, d):
            for j in range(i):
                different |= own[i, j] != own[j, i]
        if different:
            return False
    return True
