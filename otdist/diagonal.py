"""Gaussians with a diagonal covariance: a mean and a standard deviation per coordinate, O(d).

Coordinates are independent, so W2² is the squared Euclidean distance of the vectors (mean, scale).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ._core import backend, checks
from ._core.backend import Array
from ._core.jax_operator import takes_jax

__all__ = ["Gradients", "pairwise_w2_squared", "w2", "w2_squared", "w2_squared_and_grad"]


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument."""

    mean_x: Array
    scale_x: Array
    mean_y: Array
    scale_y: Array


@takes_jax("w2_squared_and_grad", mean_x=1, scale_x=1, mean_y=1, scale_y=1)
def w2_squared(mean_x: Any, scale_x: Any, mean_y: Any = 0.0, scale_y: Any = 1.0) -> Array:
    """Squared 2-Wasserstein distance between Gaussians with independent coordinates.

    ``W2² = Σᵢ (mean_xᵢ - mean_yᵢ)² + (scale_xᵢ - scale_yᵢ)²``

    A drop-in for the KL divergence of a variational auto-encoder's posterior to its prior: the second Gaussian is the
    standard normal by default.

    Parameters
    ----------
    mean_x, mean_y : (..., d)
        Means. Leading dimensions are a batch and broadcast.
    scale_x, scale_y : (..., d)
        Standard deviations (not variances), at least 0; a scale of 0 is a point mass. A network's ``log_variance``
        becomes a scale by ``exp(log_variance / 2)``, a variance by its root: given as they are, log-variances are
        refused where one is negative, and variances cannot be told from scales.

    Returns
    -------
    (...)
        One value for each pair, in squared units of the mean; infinite where that is beyond the range of the dtype.
        Differentiable in every argument, any number of times.

    Raises
    ------
    TypeError
        If NumPy and PyTorch, or two floating-point dtypes, are mixed.
    ValueError
        If shapes do not broadcast, a value is NaN or infinite, or a scale is negative.

    References
    ----------
    Dowson & Landau (1982), "The Fréchet distance between multivariate normal distributions".

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import diagonal
    >>> float(diagonal.w2_squared(np.array([3.0, 0.0]), np.array([1.0, 2.0])))
    10.0
    """
    value = _of_plain_arrays(mean_x, scale_x, mean_y, scale_y)
    if value is not None:
        return value
    (mean_x, scale_x, mean_y, scale_y), cast_back = _validate(mean_x, scale_x, mean_y, scale_y)
    with backend.silent_overflow(mean_x):
        return cast_back(((mean_x - mean_y) ** 2 + (scale_x - scale_y) ** 2).sum(-1))


@takes_jax("w2_squared_and_grad", root=True, mean_x=1, scale_x=1, mean_y=1, scale_y=1)
def w2(mean_x: Any, scale_x: Any, mean_y: Any = 0.0, scale_y: Any = 1.0) -> Array:
    """2-Wasserstein distance, the root of `w2_squared`; its gradient is 0 where the distance is 0.

    Examples
    --------
    >>> from otdist import diagonal
    >>> float(diagonal.w2([3.0], [5.0]))
    5.0
    """
    (mean_x, scale_x, mean_y, scale_y), cast_back = _validate(mean_x, scale_x, mean_y, scale_y)
    return cast_back(backend.norm(backend.concatenate(mean_x - mean_y, scale_x - scale_y)))


def w2_squared_and_grad(mean_x: Any, scale_x: Any, mean_y: Any = 0.0, scale_y: Any = 1.0) -> tuple[Array, Gradients]:
    """`w2_squared` with its gradients, for NumPy; each gradient has its argument's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import diagonal
    >>> value, grads = diagonal.w2_squared_and_grad(np.array([3.0, 0.0]), np.array([1.0, 2.0]))
    >>> grads.mean_x, grads.scale_x
    (array([6., 0.]), array([0., 2.]))
    """
    (mean_x, scale_x, mean_y, scale_y), cast_back = _validate(mean_x, scale_x, mean_y, scale_y)
    checks.numpy_only("diagonal.w2_squared_and_grad", mean_x, "mean_x")
    dm, ds = mean_x - mean_y, scale_x - scale_y
    shape = np.broadcast_shapes(dm.shape, ds.shape)
    with np.errstate(over="ignore"):
        slopes = zip((2 * dm, 2 * ds, -2 * dm, -2 * ds), (mean_x, scale_x, mean_y, scale_y), strict=True)
        grads = [backend.sum_to(backend.broadcast_to(g, shape), x.shape) for g, x in slopes]
        return cast_back((dm**2 + ds**2).sum(-1)), Gradients(*map(cast_back, grads))


def pairwise_w2_squared(mean_x: Any, scale_x: Any, mean_y: Any, scale_y: Any) -> Array:
    """`w2_squared` between every Gaussian of one family and every Gaussian of another, as one matrix product.

    Parameters
    ----------
    mean_x, scale_x : (..., k, d)
        The first family.
    mean_y, scale_y : (..., l, d)
        The second family.

    Returns
    -------
    (..., k, l)
        The absolute error is of the order of eps times the spread of the family, in float64 for float32 input: where
        two Gaussians nearly agree and every digit counts, use `w2_squared` on the pair.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import diagonal
    >>> zero, one = np.zeros((1, 2)), np.ones((1, 2))
    >>> diagonal.pairwise_w2_squared(zero, one, np.eye(2), np.ones((2, 2)))
    array([[1., 1.]])
    """
    (mean_x, scale_x, mean_y, scale_y), cast_back = _validate(mean_x, scale_x, mean_y, scale_y, core=2)
    u, v = backend.concatenate(mean_x, scale_x), backend.concatenate(mean_y, scale_y)
    return cast_back(_squared_distances(u, v))


def _of_plain_arrays(mean_x: Any, scale_x: Any, mean_y: Any, scale_y: Any) -> Array | None:
    """The value, where nothing has to be converted and nothing is to be refused; else None.

    The general checks cost more than the distance of a small batch. A look at the result finds every NaN and infinity.
    """
    kind = type(mean_x)
    if kind is np.ndarray:
        if mean_x.dtype.char not in "fd" or not _fit(mean_x, scale_x, mean_y, scale_y):
            return None
        with np.errstate(all="ignore"):  # what overflows is computed, and reported, in the ordinary way
            value = _squares(mean_x, scale_x, mean_y, scale_y)
    else:
        torch = backend.torch_module()
        if torch is None or kind is not torch.Tensor or mean_x.dtype not in (torch.float32, torch.float64):
            return None
        if not _fit(mean_x, scale_x, mean_y, scale_y):
            return None
        shift = mean_x if type(mean_y) is float and mean_y == 0 else mean_x - mean_y
        stretch = scale_x - scale_y
        value = torch.addcmul(shift * shift, stretch, stretch).sum(-1)
        if not backend.inspectable(value):
            return value
    if not math.isfinite(np.add.reduce(backend.as_numpy(value), axis=None)):
        return None
    for scale in (scale_x, scale_y):
        if not (scale if type(scale) is float else np.minimum.reduce(backend.as_numpy(scale), axis=None)) >= 0:
            return None
    return backend.scalar(value)


def _fit(x: Array, *others: Any) -> bool:
    """Whether the others are floats, or arrays like x, of its shape or of one vector's."""
    kind, dtype, shape, device = type(x), x.dtype, x.shape, x.device
    if not shape or 0 in shape:
        return False
    for other in others:
        if type(other) is float:
            continue
        if type(other) is not kind or other.dtype != dtype or other.device != device:
            return False
        if other.shape != shape and other.shape != shape[-1:]:
            return False
    return True


def _squares(mean_x: Array, scale_x: Array, mean_y: Array, scale_y: Array) -> Array:
    shift = mean_x - mean_y
    stretch = scale_x - scale_y
    shift *= shift
    stretch *= stretch
    shift += stretch
    return shift.sum(-1)


def _squared_distances(u: Array, v: Array) -> Array:
    """|uᵢ - vⱼ|² = [-2uᵢ, |uᵢ|², 1]·[vⱼ, 1, |vⱼ|²]: everything in one matrix product, in float64."""
    xp = backend.namespace(u)
    dtype = u.dtype
    u, v = backend.astype(u, xp.float64), backend.astype(v, xp.float64)
    # What both share costs digits and changes nothing.
    centre = (v / v.shape[-2]).sum(-2)[..., None, :] if v.shape[-2] else 0.0
    u, v = u - centre, v - centre
    unit = _unit(u, v)  # lest -2u·v and the squares overflow to infinities of both signs
    u, v = u / unit, v / unit
    uu, vv = (u * u).sum(-1)[..., None], (v * v).sum(-1)[..., None]
    left = backend.concatenate(-2 * u, uu, xp.ones_like(uu))
    right = backend.concatenate(v, xp.ones_like(vv), vv)
    with backend.silent_overflow(u):
        return backend.astype(backend.clip_below(left @ right.mT) * unit * unit, dtype)


def _unit(u: Array, v: Array) -> Any:
    """A power of two near the largest number of each pair of families (..., 1, 1); a constant to derivatives."""
    if 0 in u.shape or 0 in v.shape:
        return 1.0
    xp = backend.namespace(u)
    tops = (xp.amax(abs(z.detach() if backend.is_torch(z) else z), (-2, -1))[..., None, None] for z in (u, v))
    largest = xp.maximum(*tops)
    return xp.exp2(xp.floor(xp.log2(xp.where(largest > 0, largest, xp.ones_like(largest)))))


def _nonnegative(name: str, scale: Any) -> None:
    try:
        checks.nonnegative(name, scale)
    except ValueError as error:
        hint = "a scale is a standard deviation; that of a log-variance is exp(log_variance / 2)"
        raise ValueError(f"{error}; {hint}") from None


def _validate(mean_x: Any, scale_x: Any, mean_y: Any, scale_y: Any, *, core: int = 1) -> tuple[list[Array], Any]:
    """The four arguments, checked; scalars stand for every coordinate."""
    named = {"mean_x": mean_x, "scale_x": scale_x, "mean_y": mean_y, "scale_y": scale_y}
    arrays, cast_back = checks.arrays(**named)
    words = "(..., d)" if core == 1 else "(..., k, d)"
    for name, x in zip(named, arrays, strict=True):
        if x.ndim or name == "mean_x":
            checks.shape(name, x, words, core)
            checks.nonempty(name, x, -1, "coordinate")
            checks.same_size("the number of coordinates", "mean_x", arrays[0].shape[-1], name, x.shape[-1])
        given = named[name] if isinstance(named[name], float | int) else x
        checks.finite(name, given)
        if name.startswith("scale"):
            _nonnegative(name, given)
    families = (named,) if core == 1 else (("mean_x", "scale_x"), ("mean_y", "scale_y"))
    for family in families:
        checks.batch({k: x.shape[:-1] for k, x in zip(named, arrays, strict=True) if x.ndim and k in family})
    return arrays, cast_back
