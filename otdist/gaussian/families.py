"""Every Gaussian of one family against every Gaussian of another."""

from __future__ import annotations

from .._core import backend
from .._core.annotations import A, Numbers
from .._core.backend import Array
from ..covariance import Covariance, Dense
from .arguments import validate_gaussians
from .pairs import bures_squared
from .size import OutOfRange, returned, squared_distance

# Pairs of d x d matrices that are looked at together: 2²² numbers, 32 MiB, keep a block's temporaries in bounds.
_BLOCK = 2**22


def pairwise_w2_squared(
    means_x: A | Numbers, covs_x: A | Numbers | Covariance, means_y: A | Numbers, covs_y: A | Numbers | Covariance
) -> A:
    """`w2_squared` between every Gaussian of one family and every Gaussian of another.

    Parameters
    ----------
    means_x, means_y : (..., k, d) and (..., l, d)
        Means of the two families.
    covs_x, covs_y : (..., k, d, d) and (..., l, d, d)
        Covariances, arrays or structured.

    Returns
    -------
    (..., k, l)

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> means, covs = np.array([[0.0], [3.0]]), np.array([[[1.0]], [[4.0]]])
    >>> gaussian.pairwise_w2_squared(means, covs, means, covs)
    array([[ 0., 10.],
           [10.,  0.]])
    """
    mean_x, x, mean_y, y, cast_back = validate_gaussians(means_x, covs_x, means_y, covs_y, core=1)
    return returned(pairwise(mean_x, x, mean_y, y), cast_back)


def pairwise(mean_x: Array, x: Covariance, mean_y: Array, y: Covariance) -> Array:
    """The squared distances (..., k, l) of checked families."""
    try:
        return _pairwise(mean_x, x, mean_y, y)
    except OutOfRange:
        raise
    except ValueError as error:  # indefinite, which is found when a matrix is factored, by the names of a pair
        raise ValueError(str(error).replace("cov_x", "covs_x").replace("cov_y", "covs_y")) from None


def _pairwise(mean_x: Array, x: Covariance, mean_y: Array, y: Covariance) -> Array:
    rows = max(1, _BLOCK // max(1, mean_y.shape[-2] * x.d**2))
    if isinstance(x, Dense) and mean_x.ndim == 2 and x.ndim == 3 and rows < len(mean_x):
        blocks = [
            _pairwise(mean_x[i : i + rows], Dense(x.matrix[i : i + rows], x.precision), mean_y, y)
            for i in range(0, len(mean_x), rows)
        ]
        return backend.namespace(mean_x).concatenate(blocks, 0)
    difference = mean_x[..., :, None, :] - mean_y[..., None, :, :]
    return squared_distance(difference, bures_squared(x.expand(-1), y.expand(-2)), mean_x.dtype)
