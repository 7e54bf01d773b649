"""Mixtures of Gaussians, transported component by component."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from ..exact.assignment import assignment
from .arguments import validate_gaussians
from .families import pairwise


def mixture_w2_squared(weights_x: Any, means_x: Any, covs_x: Any, weights_y: Any, means_y: Any, covs_y: Any) -> Array:
    """MW2²: the squared 2-Wasserstein distance of Gaussian mixtures, with plans restricted to Gaussian mixtures.

    ``MW2² = min over plans P of Σ P_kl W2²(N(m_k, X_k), N(n_l, Y_l))``, a linear programme over the components, solved
    exactly by POT's network simplex. An upper bound on W2² between the mixtures.

    Parameters
    ----------
    weights_x, weights_y : (..., k) and (..., l)
        Nonnegative, with sum 1; None is uniform.
    means_x, means_y : (..., k, d) and (..., l, d)
        Means of the components.
    covs_x, covs_y : (..., k, d, d) and (..., l, d, d)
        Their covariances, arrays or structured.

    Returns
    -------
    (...)
        Differentiable in everything; the gradient in the weights is the dual potentials, defined up to a constant.

    References
    ----------
    Delon & Desolneux (2020), "A Wasserstein-type distance in the space of Gaussian mixture models", arXiv:1907.05254.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> x = [0.5, 0.5], np.array([[0.0], [10.0]]), np.ones((2, 1, 1))
    >>> y = [0.5, 0.5], np.array([[1.0], [12.0]]), np.ones((2, 1, 1))
    >>> float(gaussian.mixture_w2_squared(*x, *y))
    2.5
    """
    mean_x, x, mean_y, y, cast_back = validate_gaussians(means_x, covs_x, means_y, covs_y, core=1)
    cost = pairwise(mean_x, x, mean_y, y)
    weights = []
    for name, w, n in (("weights_x", weights_x, cost.shape[-2]), ("weights_y", weights_y, cost.shape[-1])):
        if w is None:
            weights.append(backend.like(np.full(n, 1.0 / n), cost))
        else:
            (w, _), _ = checks.arrays(**{name: w, "means_x": cost})
            weights.append(checks.weights(name, w, n))
    return cast_back(assignment(cost, *weights))
