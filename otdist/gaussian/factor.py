"""Factors of covariances, X = R Rᵀ, and the rank of X, which is decided here and nowhere else.

**The rank of a covariance**: an eigenvalue counts as 0 if it is at most 10 eps tr X, where eps is the precision in
which the covariance came. Rounding its entries, and summing the products that they consist of, moves eigenvalues by
about that much: what lies below is not known to be there.
"""

from __future__ import annotations

from typing import NamedTuple

from .._core import backend, checks
from .._core.backend import Array

# Multiples of eps tr X up to which an eigenvalue is rounding.
RANK = 10
# How far above that bound, times d, the pivots of Cholesky's factor must lie to make a look at the spectrum
# unnecessary: the smallest eigenvalue is below the smallest pivot, but for contrived matrices by a factor of d at most.
_MARGIN = 100


class Factor(NamedTuple):
    """cov = root rootᵀ; `inverse` is the pseudo-inverse of the root.

    `null` holds an orthonormal basis of the null space, and zeros in its other columns; None if there is none.
    """

    root: Array
    inverse: Array | None = None
    null: Array | None = None


def trace(x: Array) -> Array:
    """The traces of matrices (..., d, d)."""
    return backend.namespace(x).diagonal(x, 0, -2, -1).sum(-1)


def least_pivot(cov: Array, eps: float) -> Array:
    """What Cholesky's squared pivots are above where covariances (..., d, d) are far from singular."""
    return _MARGIN * cov.shape[-1] * RANK * eps * trace(cov)


def _cholesky(cov: Array, eps: float) -> Array | None:
    """Cholesky's factors if all covariances are far from singular, else None; a card is asked once."""
    if backend.is_torch(cov):
        root, info = backend.torch_module().linalg.cholesky_ex(cov)
        regular = info[..., None] == 0
    else:
        root, regular = backend.cholesky(cov), True
        if root is None:
            return None
    pivots = backend.namespace(cov).diagonal(root, 0, -2, -1) ** 2
    return root if bool((regular & (pivots > least_pivot(cov, eps)[..., None])).all()) else None


def factor(name: str, cov: Array, eps: float, *, with_inverse: bool = False) -> Factor:
    """Factor covariances (..., d, d) in float64, given to the precision `eps`; `name` is for the refusal.

    By Cholesky if they are far from singular, else by their eigenvectors, of which those below the rank are left out.
    """
    xp = backend.namespace(cov)
    root, threshold = _cholesky(cov, eps), RANK * eps * trace(cov)
    if root is not None:
        return Factor(root, xp.linalg.inv(root) if with_inverse else None)
    eigenvalues, vectors = xp.linalg.eigh(cov)
    if backend.on_cpu(cov):
        checks.semidefinite(name, eigenvalues, eps)
    present = (eigenvalues > threshold[..., None])[..., None, :]
    zero = xp.zeros_like(vectors)
    scale = xp.sqrt(xp.where(present[..., 0, :], eigenvalues, xp.ones_like(eigenvalues)))[..., None, :]
    root = xp.where(present, vectors * scale, zero)
    inverse = xp.where(present, vectors / scale, zero).mT if with_inverse else None
    return Factor(root, inverse, None if bool(present.all()) else xp.where(present, zero, vectors))
