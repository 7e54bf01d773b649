"""Gaussians with any covariance.

``W2²(N(m, X), N(n, Y)) = |m - n|² + tr X + tr Y - 2 tr (X^½ Y X^½)^½``

This is also the Fréchet distance (FID, with features in place of points), and it bounds W2² from below for any two
distributions with these means and covariances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import covariance
from .._core import backend, checks
from .._core.backend import Array
from .._core.clouds import validate_points
from .._core.jax_operator import takes_jax
from ..covariance import Covariance, Dense, as_covariance, validate_covariance
from ..covariance.base import unchecked
from ..exact.assignment import assignment
from .bures import _factor as factor
from .bures import bures_squared as _bures_of_dense
from .bures import gaussian_squared
from .entropic import entropic_bures
from .moments import Moments, fit
from .pairs import bures_squared, bures_squared_and_grad

__all__ = [
    "AffineMap",
    "Barycenter",
    "Gradients",
    "Moments",
    "SampleGradients",
    "barycenter",
    "entropic_cost",
    "fit",
    "geodesic",
    "mixture_w2_squared",
    "pairwise_w2_squared",
    "sinkhorn_divergence",
    "transport_map",
    "w2",
    "w2_squared",
    "w2_squared_and_grad",
    "w2_squared_from_samples",
    "w2_squared_from_samples_and_grad",
]

# Pairs of d x d matrices that are looked at together: 2²² numbers, 32 MiB, keep a block's temporaries in bounds.
_PAIRWISE_BLOCK = 2**22


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument."""

    mean_x: Array
    cov_x: Array
    mean_y: Array
    cov_y: Array


class SampleGradients(NamedTuple):
    """The gradient of `w2_squared_from_samples` with respect to each argument."""

    x: Array
    y: Array


class AffineMap(NamedTuple):
    """z ↦ matrix z + offset."""

    matrix: Array
    offset: Array

    def __call__(self, points: Array) -> Array:
        """Move points (..., n, d), or one point (d,)."""
        if points.ndim == 1:
            return (self.matrix @ points[..., None])[..., 0] + self.offset
        return points @ self.matrix.mT + self.offset[..., None, :]


class Barycenter(NamedTuple):
    """The result of `barycenter`."""

    mean: Array
    cov: Array
    n_iter: int
    residual: Array
    converged: bool


@takes_jax("w2_squared_and_grad", mean_x=1, cov_x=2, mean_y=1, cov_y=2)
def w2_squared(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> Array:
    """Squared 2-Wasserstein distance between Gaussians.

    ``W2² = |mean_x - mean_y|² + tr cov_x + tr cov_y - 2 tr (cov_x^½ cov_y cov_x^½)^½``

    Never negative, and never NaN for valid input: singular, equal and nearly equal covariances included.

    Parameters
    ----------
    mean_x, mean_y : (..., d)
        Means. Leading dimensions are a batch; all four arguments broadcast.
    cov_x, cov_y : (..., d, d)
        Covariances: symmetric, positive semidefinite up to rounding; or any of `otdist.covariance`, mixed freely.

    Returns
    -------
    (...)
        In squared units of the mean. Differentiable in every argument; twice where both covariances are positive
        definite. At a singular covariance the gradient is the subgradient of least norm.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not fit, a value is NaN or infinite, or a covariance is asymmetric or indefinite.

    References
    ----------
    Dowson & Landau (1982), "The Fréchet distance between multivariate normal distributions"; Bhatia, Jain & Lim
    (2019), arXiv:1712.01504.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> float(gaussian.w2_squared(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), 4 * np.eye(2)))
    27.0
    """
    *arguments, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    return cast_back(_w2_squared(*arguments))


@takes_jax("w2_squared_and_grad", root=True, mean_x=1, cov_x=2, mean_y=1, cov_y=2)
def w2(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> Array:
    """2-Wasserstein distance between Gaussians, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> float(gaussian.w2(np.zeros(1), np.eye(1), np.array([3.0]), 25 * np.eye(1)))
    5.0
    """
    *arguments, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    return cast_back(backend.root(_w2_squared(*arguments).clip(0, None)))


def _w2_squared(mean_x: Array, x: Covariance, mean_y: Array, y: Covariance) -> Array:
    if isinstance(x, Dense) and isinstance(y, Dense):
        return gaussian_squared(mean_x, x.matrix, mean_y, y.matrix)
    return ((mean_x - mean_y) ** 2).sum(-1) + bures_squared(x, y)


def w2_squared_and_grad(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any) -> tuple[Array, Gradients]:
    """`w2_squared` with its gradients, for NumPy; each gradient has its argument's shape.

    The gradient of a structured covariance is that of its parameters: an array like `Diagonal.variance`,
    `Isotropic.variance`, `Factor.root` or `Circulant.spectrum`, and a pair for `Kronecker`.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> value, grads = gaussian.w2_squared_and_grad(np.zeros(2), np.eye(2), np.zeros(2), 4 * np.eye(2))
    >>> grads.cov_x.round(12) + 0.0
    array([[-1., 0.],
           [ 0., -1.]])
    """
    mean_x, x, mean_y, y, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    checks.numpy_only("gaussian.w2_squared_and_grad", mean_x, "mean_x")
    difference = mean_x - mean_y
    batch = np.broadcast_shapes(difference.shape[:-1], x.batch_shape, y.batch_shape)
    bures, (slope_x, slope_y) = bures_squared_and_grad(x, y, batch)
    shift = np.broadcast_to(2 * difference, (*batch, difference.shape[-1]))
    # Where pairs share an argument, its gradient is the sum over them.
    grad_x, grad_y = (cast_back(backend.sum_to(g, m.shape)) for g, m in ((shift, mean_x), (-shift, mean_y)))
    grads = Gradients(grad_x, _restored(slope_x, cast_back), grad_y, _restored(slope_y, cast_back))
    return cast_back((difference**2).sum(-1) + bures), grads


def pairwise_w2_squared(means_x: Any, covs_x: Any, means_y: Any, covs_y: Any) -> Array:
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
    mean_x, x, mean_y, y, cast_back = _validate(means_x, covs_x, means_y, covs_y, core=1)
    return cast_back(_pairwise(mean_x, x, mean_y, y))


def _pairwise(mean_x: Array, x: Covariance, mean_y: Array, y: Covariance) -> Array:
    rows = max(1, _PAIRWISE_BLOCK // max(1, mean_y.shape[-2] * x.d**2))
    if isinstance(x, Dense) and mean_x.ndim == 2 and x.ndim == 3 and rows < len(mean_x):
        blocks = [
            _pairwise(mean_x[i : i + rows], Dense(x.matrix[i : i + rows]), mean_y, y)
            for i in range(0, len(mean_x), rows)
        ]
        return backend.namespace(mean_x).concatenate(blocks, 0)
    difference = mean_x[..., :, None, :] - mean_y[..., None, :, :]
    return (difference**2).sum(-1) + bures_squared(x.expand(-1), y.expand(-2))


@takes_jax("w2_squared_from_samples_and_grad", x=2, y=2)
def w2_squared_from_samples(x: Any, y: Any) -> Array:
    """The Fréchet distance of two samples: `w2_squared` of the Gaussians with their means and covariances.

    With features of images in place of points this is the Fréchet inception distance, FID. Covariances are divided by
    n - 1. With fewer points than coordinates no d x d matrix is formed: the centred samples are factors.

    Parameters
    ----------
    x, y : (..., n, d) and (..., m, d)
        Points, at least 2 of each.

    Returns
    -------
    (...)
        Differentiable. The estimate is biased upwards for small samples, by about tr cov / n.

    References
    ----------
    Heusel et al. (2017), arXiv:1706.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((500, 2048))
    >>> round(float(gaussian.w2_squared_from_samples(x, x + 1.0)), 6)
    2048.0
    """
    x, y, cast_back = _clouds(x, y)
    (mean_x, cov_x), (mean_y, cov_y) = _sample_gaussian(x), _sample_gaussian(y)
    return cast_back(((mean_x - mean_y) ** 2).sum(-1) + bures_squared(cov_x, cov_y))


def w2_squared_from_samples_and_grad(x: Any, y: Any) -> tuple[Array, SampleGradients]:
    """`w2_squared_from_samples` with its gradients, for NumPy; each gradient has its argument's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> value, grads = gaussian.w2_squared_from_samples_and_grad(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    >>> value, grads.x.round(12).ravel()
    (np.float64(9.0), array([-3., -3.]))
    """
    x, y, cast_back = _clouds(x, y)
    checks.numpy_only("gaussian.w2_squared_from_samples_and_grad", x)
    (mean_x, cov_x), (mean_y, cov_y) = _sample_gaussian(x), _sample_gaussian(y)
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    bures, slopes = bures_squared_and_grad(cov_x, cov_y, batch)
    shift = np.broadcast_to(2 * (mean_x - mean_y), (*batch, x.shape[-1]))
    grads = []
    for cloud, cov, slope, towards in ((x, cov_x, slopes[0], shift), (y, cov_y, slopes[1], -shift)):
        n = cloud.shape[-2]
        if isinstance(cov, covariance.Factor):
            spread = slope.mT / (n - 1) ** 0.5
        else:
            spread = (cloud - cloud.mean(-2, keepdims=True)) @ (slope + slope.mT) / (n - 1)
        spread = spread - spread.mean(-2, keepdims=True)
        mean_part = backend.sum_to(towards, (*cloud.shape[:-2], cloud.shape[-1]))[..., None, :] / n
        grads.append(cast_back(spread + mean_part))
    return cast_back(((mean_x - mean_y) ** 2).sum(-1) + bures), SampleGradients(*grads)


def _clouds(x: Any, y: Any) -> tuple[Array, Array, Any]:
    (x, y), cast_back = checks.arrays(x=x, y=y)
    for name, cloud in (("x", x), ("y", y)):
        validate_points(name, cloud)
        if cloud.shape[-2] < 2:
            raise ValueError(f"{name} must have at least 2 points; got {cloud.shape[-2]}")
    checks.same_size("the number of coordinates", "x", x.shape[-1], "y", y.shape[-1])
    checks.batch({"x": x.shape[:-2], "y": y.shape[:-2]})
    xp = backend.namespace(x)
    return backend.astype(x, xp.float64), backend.astype(y, xp.float64), cast_back


def _sample_gaussian(x: Array) -> tuple[Array, Covariance]:
    """Mean and covariance of points; with at most d of them, the covariance as a factor."""
    n, d = x.shape[-2:]
    mean = x.mean(-2)
    centred = x - mean[..., None, :]
    if n <= d:
        return mean, unchecked(covariance.Factor, centred.mT / (n - 1) ** 0.5)
    return mean, Dense(centred.mT @ centred / (n - 1))


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
    mean_x, x, mean_y, y, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    matrix = _transport_matrix(x.to_dense(), y.to_dense())
    offset = mean_y - (matrix @ mean_x[..., None])[..., 0]
    return AffineMap(cast_back(backend.broadcast_to(matrix, (*offset.shape, x.d))), cast_back(offset))


def _transport_matrix(x: Array, y: Array) -> Array:
    """T = I - ∂B²/∂X."""
    x, y = _bures_of_dense.broadcast((x, y))
    slope, _ = _bures_of_dense.gradients(x, y)
    xp = backend.namespace(x)
    return xp.eye(x.shape[-1], dtype=x.dtype, device=x.device) - slope


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
    mean_x, x, mean_y, y, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    t = checks.beside("t", t, mean_x, "mean_x")
    checks.finite("t", t)
    if backend.inspectable(t) and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t must be between 0 and 1; got {float(backend.as_numpy(t).min()):g} to "
            f"{float(backend.as_numpy(t).max()):g}"
        )
    start, end = x.to_dense(), y.to_dense()
    moved = _transport_matrix(start, end) @ start
    s, u = t[..., None], t[..., None, None]
    mean = (1 - s) * mean_x + s * mean_y
    cov = (1 - u) ** 2 * start + u**2 * end + u * (1 - u) * (moved + moved.mT)
    batch = np.broadcast_shapes(mean.shape[:-1], cov.shape[:-2])
    wide = (backend.broadcast_to(mean, (*batch, x.d)), backend.broadcast_to(cov, (*batch, x.d, x.d)))
    return cast_back(wide[0]), cast_back(wide[1])


def barycenter(means: Any, covs: Any, weights: Any = None, *, tol: float = 1e-10, max_iter: int = 1000) -> Barycenter:
    """The Gaussian with the least weighted sum of W2² to given Gaussians.

    Its mean is the weighted mean. Its covariance is R Rᵀ at the fixed point ``R = Σ wᵢ Sᵢ Qᵢ``, where covᵢ = Sᵢ Sᵢᵀ
    and Qᵢ is the orthogonal matrix nearest to Sᵢᵀ R: each step averages the members after turning them towards the
    current R, and lowers the objective. No inverse is taken: members may be singular.

    Parameters
    ----------
    means : (..., k, d)
        Means of the members.
    covs : (..., k, d, d)
        Their covariances, an array or structured.
    weights : (..., k), optional
        Nonnegative, with sum 1; None is uniform.
    tol : float
        The relative step |R' - R| / |R| at which to stop.
    max_iter : int
        Steps after which to give up, with a `ConvergenceWarning`.

    Returns
    -------
    Barycenter(mean, cov, n_iter, residual, converged)
        (..., d), (..., d, d), the number of steps, the last relative step (...), and whether it is at most tol. With
        PyTorch the mean is differentiable and the covariance is not: covs that require a gradient are refused.

    References
    ----------
    Agueh & Carlier (2011); Álvarez-Esteban et al. (2016), arXiv:1511.05355; Masarotto et al. (2019), arXiv:1801.01990.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> result = gaussian.barycenter(np.zeros((2, 1)), np.array([[[1.0]], [[9.0]]]))
    >>> result.cov.round(12), result.converged
    (array([[4.]]), True)
    """
    cov = as_covariance(covs)
    optional = {} if weights is None else {"weights": weights}
    (means, *rest), cast_back = checks.arrays(means=means, **cov.parameters("covs"), **optional)
    cov = validate_covariance("covs", cov.with_parameters(rest[: len(rest) - len(optional)]))
    checks.shape("means", means, "(..., k, d)", 2)
    checks.nonempty("means", means, -2, "member")
    checks.same_size("the number of coordinates", "means", means.shape[-1], "covs", cov.d)
    checks.finite("means", means)
    checks.positive_number("tol", tol)
    checks.positive_integer("max_iter", max_iter)
    checks.batch({"means": means.shape[:-1], "covs": cov.batch_shape})
    matrices = cov.to_dense()
    if backend.needs_gradient(matrices):
        raise NotImplementedError("the covariance of a barycenter is not differentiable; pass covs.detach()")
    xp, k = backend.namespace(means), means.shape[-2]
    w = checks.weights("weights", rest[-1], k) if optional else xp.full_like(means[..., 0], 1.0 / k)
    mean = (w[..., None] * means).sum(-2)
    batch = np.broadcast_shapes(w.shape, matrices.shape[:-2])
    wide = backend.astype(backend.broadcast_to(matrices, (*batch, *matrices.shape[-2:])), xp.float64)
    wide_w = backend.astype(backend.broadcast_to(w, batch), xp.float64)[..., None, None]
    turned, n_iter, residual = _fixed_point(wide, wide_w, tol, max_iter, float(backend.epsilon(matrices)))
    converged = bool((residual <= tol).all())
    if not converged:
        checks.warn(
            f"barycenter stopped after {n_iter} steps; its residual is {float(residual.max()):.1e}, tol is {tol:g}"
        )
    return Barycenter(cast_back(mean), cast_back(turned @ turned.mT), n_iter, cast_back(residual), converged)


def _fixed_point(covs: Array, w: Array, tol: float, max_iter: int, eps: float) -> tuple[Array, int, Array]:
    """Iterate R ← Σ wᵢ Sᵢ Qᵢ from the factor of the mean covariance; `eps` is the precision that covs came in."""
    xp = backend.namespace(covs)
    shape = covs.shape
    roots = factor("covs", covs.reshape(-1, *shape[-2:]), eps).root.reshape(shape)
    average = (w * covs).sum(-3)
    current = factor("covs", average.reshape(-1, *shape[-2:]), eps).root.reshape(average.shape)
    n_iter, going = 0, True
    while going and n_iter < max_iter:
        u, _, vt = xp.linalg.svd(roots.mT @ current[..., None, :, :])
        new = (w * (roots @ (u @ vt))).sum(-3)
        size = ((new**2).sum((-2, -1)) + xp.finfo(xp.float64).tiny) ** 0.5
        residual = ((new - current) ** 2).sum((-2, -1)) ** 0.5 / size
        current, n_iter, going = new, n_iter + 1, bool((residual > tol).any())
    return current, n_iter, residual


def entropic_cost(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any, *, epsilon: float) -> Array:
    """Entropic transport cost between Gaussians, in closed form.

    ``OT_ε = min over plans of E|x - y|² + ε KL(plan ‖ product of the marginals)``

    Parameters
    ----------
    mean_x, cov_x, mean_y, cov_y
        As in `w2_squared`.
    epsilon : float
        Above 0, in units of squared distance.

    Returns
    -------
    (...)
        Differentiable once in all four arguments, at singular covariances too. It tends to W2² as ε falls to 0.

    References
    ----------
    Janati, Muzellec, Peyré & Cuturi (2020), arXiv:2006.02572.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> args = np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1)
    >>> round(float(gaussian.entropic_cost(*args, epsilon=1e-6)), 4)
    10.0
    """
    epsilon = checks.positive_number("epsilon", epsilon)
    mean_x, x, mean_y, y, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    shift = ((mean_x - mean_y) ** 2).sum(-1)
    return cast_back(shift + entropic_bures(x.to_dense(), y.to_dense(), epsilon=epsilon))


def sinkhorn_divergence(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any, *, epsilon: float) -> Array:
    """Debiased entropic cost between Gaussians: ``S_ε(x, y) = OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y)``.

    Zero exactly for equal Gaussians; between W2² (small ε) and the squared distance of the means (large ε).
    Parameters as in `entropic_cost`.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import gaussian
    >>> args = np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1)
    >>> round(float(gaussian.sinkhorn_divergence(*args, epsilon=1e6)), 4)
    9.0
    """
    epsilon = checks.positive_number("epsilon", epsilon)
    mean_x, x, mean_y, y, cast_back = _validate(mean_x, cov_x, mean_y, cov_y)
    a, b = x.to_dense(), y.to_dense()
    between = entropic_bures(a, b, epsilon=epsilon)
    within = entropic_bures(a, a, epsilon=epsilon) + entropic_bures(b, b, epsilon=epsilon)
    return cast_back(((mean_x - mean_y) ** 2).sum(-1) + between - within / 2)


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
    mean_x, x, mean_y, y, cast_back = _validate(means_x, covs_x, means_y, covs_y, core=1)
    cost = _pairwise(mean_x, x, mean_y, y)
    weights = []
    for name, w, n in (("weights_x", weights_x, cost.shape[-2]), ("weights_y", weights_y, cost.shape[-1])):
        if w is None:
            weights.append(backend.like(np.full(n, 1.0 / n), cost))
        else:
            weights.append(checks.weights(name, checks.beside(name, w, cost, "means_x"), n))
    return cast_back(assignment(cost, *weights))


def _restored(grad: Any, cast_back: Any) -> Any:
    """Cast a covariance's gradient back; that of a Kronecker product is a pair."""
    return tuple(_restored(g, cast_back) for g in grad) if isinstance(grad, tuple) else cast_back(grad)


def _validate(mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any, *, core: int = 0) -> tuple[Any, Any, Any, Any, Any]:
    """The arguments of one call, checked and of one type; covariances as objects, dense ones exactly symmetric.

    ``core`` counts the axes between batch and coordinates that do not broadcast: the members of a family.
    """
    if not core and checks.gaussians_pass_fast_check(mean_x, cov_x, mean_y, cov_y):
        return mean_x, Dense(cov_x), mean_y, Dense(cov_y), backend.scalar
    x, y = as_covariance(cov_x), as_covariance(cov_y)
    parts = x.parameters("cov_x")
    named = {"mean_x": mean_x, "mean_y": mean_y, **parts, **y.parameters("cov_y")}
    (mean_x, mean_y, *found), cast_back = checks.arrays(**named)
    x = validate_covariance("cov_x", x.with_parameters(found[: len(parts)]))
    y = validate_covariance("cov_y", y.with_parameters(found[len(parts) :]))
    for name, mean, cov_name, cov in (("mean_x", mean_x, "cov_x", x), ("mean_y", mean_y, "cov_y", y)):
        checks.shape(name, mean, "(..., k, d)" if core else "(..., d)", 1 + core)
        checks.nonempty(name, mean, -1, "coordinate")
        checks.same_size("the number of coordinates", name, mean.shape[-1], cov_name, cov.d)
        checks.finite(name, mean)
    checks.same_size("the number of coordinates", "mean_x", mean_x.shape[-1], "mean_y", mean_y.shape[-1])
    if not core:
        shapes = (("mean_x", mean_x.shape[:-1]), ("mean_y", mean_y.shape[:-1]))
        checks.batch(dict((*shapes, ("cov_x", x.batch_shape), ("cov_y", y.batch_shape))))
    return mean_x, x, mean_y, y, cast_back
