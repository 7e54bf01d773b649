"""One look at covariances, before anything is computed from them."""

from .compiled import njit


@njit(cache=True, nogil=True)
def finite(flat, largest):
    """Whether no number is NaN or greater than the ``largest`` finite one."""
    infinite = False
    for i in range(flat.size):
        infinite |= not abs(flat[i]) <= largest
    return not infinite


@njit(cache=True, nogil=True)
def clean(x, largest):
    """Whether all matrices (n, d, d) are finite and exactly symmetric."""
    n, d, _ = x.shape
    if not finite(x.ravel(), largest):
        return False
    for m in range(n):
        own, different = x[m], False
        for i in range(1, d):
            for j in range(i):
                different |= own[i, j] != own[j, i]
        if different:
            return False
    return True


@njit(cache=True, nogil=True)
def clean_gaussians(mean_x, mean_y, cov_x, cov_y, largest):
    """The same of two families of Gaussians, their means being flat."""
    means = finite(mean_x, largest) and finite(mean_y, largest)
    return means and clean(cov_x, largest) and clean(cov_y, largest)
