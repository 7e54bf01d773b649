"""The optimal map from one Gaussian to another, and the path along it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers
from .._core.backend import Array
from ..covariance import Covariance
from .arguments import validate_gaussians
from .bures import transport_matrix
from .pairs import coarser_precision


class AffineMap(NamedTuple):
    """z ↦ matrix z + offset."""

    matrix: Array
    offset: Array

    def __call__(self, points: A | Numbers) -> A:
        """Move points (..., n, d), or one point (d,); dtypes promote as their library promotes them."""
        (z, matrix, offset), cast_back = checks.arrays(points=points, matrix=self.matrix, offset=self.offset)
        checks.shape("points", z, "(..., n, d)", 1)
        checks.finite("points", z)
        checks.same_size("the number of coordinates", "points", z.shape[-1], "the map", matrix.shape[-1])
        if z.ndim == 1:
            return cast_back((matrix @ z[..., None])[..., 0] + offset)
        return cast_back(z @ matrix.mT + offset[..., None, :])


def transport_map(
    mean_x: A | Numbers, cov_x: A | Numbers | Covariance, mean_y: A | Numbers, cov_y: A | Numbers | Covariance
) -> AffineMap:
    """The optimal transport map between Gaussians, z ↦ matrix z + offset.

    ``matrix = cov_x^-½ (cov_x^½ cov_y cov_x^½)^½ cov_x^-½``, symmetric positive semidefinite: it pushes the first
    Gaussian onto the second at the least expected squared displacement. Where cov_x is singular and cov_y is not, no
    map does that; the one returned is the best on the range of cov_x.

    Parameters and errors are those of `w2_squared`.

    Returns
    -------
    AffineMap(matrix, offset)
        (..., d, d) and (..., d); called with points (..., n, d), it moves them.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> move = gaussian.transport_map(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))
    >>> move(np.array([[1.0, -1.0]]))
    array([[ 3., -1.]])
    """
    m, x, n, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    matrix = transport_matrix(x.to_dense(), y.to_dense(), coarser_precision(x, y))
    offset: Array = n - (matrix @ m[..., None])[..., 0]
    return AffineMap(cast_back(backend.broadcast_to(matrix, (*offset.shape, x.d))), cast_back(offset))


def geodesic(
    mean_x: A | Numbers,
    cov_x: A | Numbers | Covariance,
    mean_y: A | Numbers,
    cov_y: A | Numbers | Covariance,
    t: A | Numbers,
) -> tuple[A, A]:
    """The Gaussian at time t on the shortest path from one Gaussian to another (McCann's interpolation).

    ``mean = (1 - t) mean_x + t mean_y``; ``cov = (1 - t)² X + t² Y + t (1 - t)(T X + X T)`` with T the transport map.
    W2 grows along it in proportion to t. Singular covariances are fine.

    Parameters
    ----------
    mean_x, cov_x, mean_y, cov_y
        As in `w2_squared`.
    t : (...)
        Times from 0 to 1; broadcasts with the batch.

    Returns
    -------
    mean : (..., d)
    cov : (..., d, d)

    References
    ----------
    McCann (1997), "A convexity principle for interacting gases"; Takatsu (2011).

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> gaussian.geodesic(np.zeros(1), np.eye(1), np.array([2.0]), 9 * np.eye(1), 0.5)
    (array([1.]), array([[4.]]))
    """
    m, x, n, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    time = checks.beside("t", t, m, "mean_x")
    checks.finite("t", time)
    if backend.inspectable(time) and not bool(((time >= 0) & (time <= 1)).all()):
        raise ValueError(
            f"t must be between 0 and 1; got {float(backend.as_numpy(time).min()):g} to "
            f"{float(backend.as_numpy(time).max()):g}"
        )
    start, end = x.to_dense(), y.to_dense()
    moved = transport_matrix(start, end, coarser_precision(x, y)) @ start
    s, u = time[..., None], time[..., None, None]
    mean = (1 - s) * m + s * n
    cov = (1 - u) ** 2 * start + u**2 * end + u * (1 - u) * (moved + moved.mT)
    batch: tuple[int, ...] = np.broadcast_shapes(mean.shape[:-1], cov.shape[:-2])
    wide = (backend.broadcast_to(mean, (*batch, x.d)), backend.broadcast_to(cov, (*batch, x.d, x.d)))
    return cast_back(wide[0]), cast_back(wide[1])
