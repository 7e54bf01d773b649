"""The optimal map from one Gaussian to another, and the path along it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .arguments import validate_gaussians
from .bures import transport_matrix


class AffineMap(NamedTuple):
    """z ↦ matrix z + offset."""

    matrix: Array
    offset: Array

    def __call__(self, points: Any) -> Array:
        """Move points (..., n, d), or one point (d,); dtypes promote as their library promotes them."""
        (points, matrix, offset), cast_back = checks.arrays(points=points, matrix=self.matrix, offset=self.offset)
        checks.shape("points", points, "(..., n, d)", 1)
        checks.same_size("the number of coordinates", "points", points.shape[-1], "the map", matrix.shape[-1])
        if points.ndim == 1:
            return cast_back((matrix @ points[..., None])[..., 0] + offset)
        return cast_back(points @ matrix.mT + offset[..., None, :])


def transport_map(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> AffineMap:
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
    mean_x, x, mean_y, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    matrix = transport_matrix(x.to_dense(), y.to_dense())
    offset = mean_y - (matrix @ mean_x[..., None])[..., 0]
    return AffineMap(cast_back(backend.broadcast_to(matrix, (*offset.shape, x.d))), cast_back(offset))


def geodesic(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any, t: Any) -> tuple[Array, Array]:
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
    mean_x, x, mean_y, y, cast_back = validate_gaussians(mean_x, cov_x, mean_y, cov_y)
    t = checks.beside("t", t, mean_x, "mean_x")
    checks.finite("t", t)
    if backend.inspectable(t) and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t must be between 0 and 1; got {float(backend.as_numpy(t).min()):g} to "
            f"{float(backend.as_numpy(t).max()):g}"
        )
    start, end = x.to_dense(), y.to_dense()
    moved = transport_matrix(start, end) @ start
    s, u = t[..., None], t[..., None, None]
    mean = (1 - s) * mean_x + s * mean_y
    cov = (1 - u) ** 2 * start + u**2 * end + u * (1 - u) * (moved + moved.mT)
    batch = np.broadcast_shapes(mean.shape[:-1], cov.shape[:-2])
    wide = (backend.broadcast_to(mean, (*batch, x.d)), backend.broadcast_to(cov, (*batch, x.d, x.d)))
    return cast_back(wide[0]), cast_back(wide[1])
