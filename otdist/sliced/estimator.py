"""The sliced distance: the mean of one-dimensional distances over directions, with gradients and a standard error.

With means split off, ``SW2²(x, y) = |Δm|²/d + E_θ W2²(θᵀ(x - m_x), θᵀ(y - m_y))``, exactly, and only the second part is
sampled. Its derivative by x is ``Σ_l w_l r_l θ_lᵀ``, r_l the slopes of the transport along θ_l in the order of the
points: one matrix product. w_l is 1/L, or what control variates make of it. For costs other than the square the means
stay where they are.

All arrays have a leading dimension for b problems that see the same directions.

Bonneel et al. (2015), "Sliced and Radon Wasserstein barycenters of measures"; directions in orthogonal blocks: Rowland
et al. (2019), "Orthogonal estimation of Wasserstein distances", arXiv:1903.03784.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.imports import imported
from . import control_variates, direction_sets, products
from .centred import Cloud
from .control_variates import ControlVariates
from .direction_sets import DirectionSet
from .projected import Transport, transport

# Projections held at a time: 2^21 numbers of each cloud are 16 MiB of float64, and enough for the product to be fast.
_CHUNK = 1 << 21
# On a card more: a sort of a few rows leaves most of it idle.
_CHUNK_ON_CARD = 1 << 24

# Below so many directions their own spread can't be trusted; and coordinates up to which covariances are cheap.
_FEW, _WIDEST = 16, 512
# Directions along which the distance of Gaussians is looked at, instead.
_LOOKS = 512

Needs = tuple[bool, ...]


class Estimate(NamedTuple):
    """Values (b,), their standard errors if asked for, gradients by x, y, a, b and the directions where needed."""

    value: Array
    standard_error: Any
    grads: list[Array | None]


def estimate(
    arrays: tuple[Array, Array, Array, Array],
    by: DirectionSet,
    needs_input_grad: Needs,
    *,
    p: float = 2.0,
    with_error: bool = False,
) -> Estimate:
    """Pairs of clouds x (b, n, d), y (b, m, d) with weights (b, n), (b, m) or (b, 0)."""
    x, y, a, b = arrays
    xp = backend.namespace(x)
    _refuse_too_large(x, y, needs_input_grad)
    clouds = Cloud(x, a), Cloud(y, b)
    theta = asarray(by.directions, x, xp.float64)
    theta = theta if theta.ndim == 3 else theta[None]
    variates = None
    if by.controlled:
        floor = 3 * float(backend.epsilon(x)) ** 0.5
        variates = control_variates.fit(theta, clouds[0].covariance(), clouds[1].covariance(), floor)
    values, weights, kept, grads = average(clouds, theta, variates, needs_input_grad, p)
    value = (weights * values).sum(-1)
    if variates is not None and any(needs_input_grad):
        for side, slope in enumerate(variates.slopes(values)):
            _add_quadratic(grads, side, clouds[side], slope * kept[:, None, None])
    error = None
    if with_error:
        along = (theta @ (clouds[0].mean - clouds[1].mean)[..., None])[..., 0]
        seen = values if by.drawn or p != 2 else values + along**2
        error = _standard_error(seen, by, variates, kept)
        if p == 2 and by.drawn and variates is None and theta.shape[1] < _FEW and theta.shape[2] <= _WIDEST:
            error = xp.maximum(error, _error_of_gaussians(clouds, theta.shape[1]))
        error = xp.sqrt(error**2 + (4 * float(backend.epsilon(x)) * value) ** 2)  # of rounding
    if p == 2:
        value = value + _add_means(clouds, theta, by.drawn, grads)
    return Estimate(value, error, grads)


def average(
    clouds: tuple[Cloud, Cloud], theta: Array, variates: ControlVariates | None, needs_input_grad: Needs, p: float
) -> tuple[Array, Array, Array, list[Array | None]]:
    """Values (b, L) along the directions, their weights, and the gradients of Σ weights · values.

    The directions are worked on in chunks. Weights of control variates can be negative, a distance can't: problems
    where their sum is are not `kept` (b,), and all their directions weigh the same.
    """
    x, y = clouds[0].raw, clouds[1].raw
    xp = backend.namespace(x)
    plain = xp.full_like(theta[..., 0], 1 / theta.shape[1])
    weights, kept = plain if variates is None else variates.weights, theta[:1, 0, 0] < 2
    most = _CHUNK if backend.on_cpu(x) else _CHUNK_ON_CARD
    step = max(1, most // (len(x) * max(x.shape[1], y.shape[1])))
    chunks = [slice(first, first + step) for first in range(0, theta.shape[1], step)]
    costs: list[Array] = []
    by_theta: list[Array] = []
    grads: list[Array | None] = [None] * 5
    for chunk in chunks:
        found, slopes = _along(clouds, theta[:, chunk], needs_input_grad, p)
        costs.append(found.cost)
        if variates is not None and len(chunks) == 1:
            kept = ~((weights * found.cost).sum(-1) < 0)
            weights = xp.where(kept[:, None], weights, plain)
        if not any(needs_input_grad):
            continue
        own = weights[:, chunk, None]
        scaled = backend.astype(own * theta[:, chunk], x.dtype)
        for k in (0, 1):
            if needs_input_grad[k]:
                grads[k] = _plus(grads[k], products.backproject(slopes[k], scaled))
            if needs_input_grad[2 + k]:
                grads[2 + k] = _plus(grads[2 + k], (own * found[3 + k]).sum(1))
        if needs_input_grad[4]:
            by_theta.append(own * _by_directions(clouds, slopes, p))
    values = costs[0] if len(chunks) == 1 else xp.concatenate(costs, -1)
    if by_theta:
        grads[4] = xp.concatenate(by_theta, 1)
    if variates is not None and len(chunks) > 1 and bool(((weights * values).sum(-1) < 0).any()):
        values, weights, kept, grads = average(clouds, theta, None, needs_input_grad, p)
        kept = kept & False
    return values, weights, kept, grads


def _along(
    clouds: tuple[Cloud, Cloud], theta: Array, needs_input_grad: Needs, p: float
) -> tuple[Transport, tuple[Array | None, Array | None]]:
    """What `transport` knows along some directions (b or 1, l, d), and its slopes once more."""
    x, y = clouds
    along_x, along_y = x.project(theta), y.project(theta)
    if p != 2:
        along_x += backend.astype(theta @ (x.mean - y.mean)[..., None], along_x.dtype)
    by_x, by_y, by_a, by_b, by_theta = needs_input_grad
    needs = (by_x or by_theta, by_y or by_theta, by_a, by_b)
    found = transport(along_x, along_y, x.weights, y.weights, p=p, needs_input_grad=needs)
    return found, (found.x_slopes, found.y_slopes)


def _by_directions(clouds: tuple[Cloud, Cloud], slopes: tuple[Array, Array], p: float) -> Array:
    """The gradient of each direction's value by that direction, (b, l, d)."""
    x, y = clouds
    by_theta = slopes[0] @ x.points + slopes[1] @ y.points
    if p != 2:
        by_theta = by_theta + slopes[0].sum(-1)[..., None] * (x.mean - y.mean)[:, None]
    return by_theta


def _add_means(clouds: tuple[Cloud, Cloud], theta: Array, drawn: bool, grads: list[Array | None]) -> Array:
    """What the difference of the means adds to the value, (b,); adds to the gradients, too."""
    shift, d = clouds[0].mean - clouds[1].mean, theta.shape[2]
    if drawn:  # the mean over the whole sphere
        apart, pull = (shift * shift).sum(-1) / d, 2 * shift / d
    else:
        along = (theta @ shift[..., None])[..., 0]
        apart, pull = (along * along).sum(-1) / theta.shape[1], (2 / theta.shape[1]) * (along[:, None] @ theta)[:, 0]
    if grads[4] is not None:
        grads[4] += 2 * along[..., None] * shift[:, None] / theta.shape[1]
    if any(g is not None for g in grads):
        _add_pull(grads, clouds, pull)
    return apart


def _add_quadratic(grads: list[Array | None], side: int, cloud: Cloud, slope: Array) -> None:
    """Add the gradient of a function of the cloud's covariance, `slope` (b, d, d) its derivative by it."""
    points, by_points, by_weights = cloud.points, grads[side], grads[2 + side]
    if cloud.weights.shape[1]:
        turned = points @ backend.astype(slope, points.dtype)
        if by_weights is not None:
            by_weights += (turned * points).sum(-1)
        if by_points is not None:
            by_points += turned * backend.astype(2 * cloud.share, points.dtype)
    elif by_points is not None:
        products.add_product(points, backend.astype(slope * (2 / points.shape[1]), points.dtype), by_points)


def _add_pull(grads: list[Array | None], clouds: tuple[Cloud, Cloud], pull: Array) -> None:
    """Add the gradient of a function of the difference of the means, `pull` (b, d) its derivative by it."""
    for side, sign in ((0, 1), (1, -1)):
        cloud, by_points, by_weights = clouds[side], grads[side], grads[2 + side]
        if by_points is not None:
            by_points += backend.astype(sign * pull[:, None] * cloud.share, cloud.raw.dtype)
        if by_weights is not None:
            by_weights += (cloud.points @ backend.astype(sign * pull[..., None], cloud.raw.dtype))[..., 0]


def _standard_error(values: Array, by: DirectionSet, variates: ControlVariates | None, kept: Array) -> Array:
    """The standard error of the mean over directions (b,): of what the variates leave, or of independent groups."""
    xp, (_, n) = backend.namespace(values), values.shape
    if by.directions.shape[-1] == 1:
        return xp.zeros_like(values[:, 0])
    groups = _by_group(values - values.mean(-1)[:, None], by.group) / n
    plain = xp.full_like(values[:, 0], np.inf)
    if (size := groups.shape[1]) > 1:
        plain = _as_normal(groups, size - 1) * (size / (size - 1)) ** 0.5
    if variates is None:
        return plain
    influence = variates.jackknife_influence(values, by.block)
    freedom = influence.shape[1] - variates.columns.shape[-1]
    if by.block == 1:  # directions of few blocks depend on each other unseen: half of them count
        freedom //= 2
    return xp.where(kept, _as_normal(influence, freedom), plain)


def _as_normal(influence: Array, freedom: int) -> Array:
    """The root of the sum of squared influences (b, g), so enlarged that ± 1.96 of it cover 95% (b,).

    Student's quantile stands for the normal one, for as many degrees of freedom as there are, or fewer if the fourth
    moment says so (Satterthwaite): 2 / (Σ h⁴ / (Σ h²)² - 1 / g), which is g for normal influences.
    """
    stdtrit = imported("scipy.special").stdtrit

    xp, total = backend.namespace(influence), (influence**2).sum(-1)
    safe = xp.where(total > 0, total, xp.ones_like(total))
    excess = (influence**4).sum(-1) / safe**2 - 1 / influence.shape[1]
    seen = 2 / np.maximum(np.asarray(excess.cpu() if backend.is_torch(excess) else excess), 2 / freedom)
    return xp.sqrt(total) * asarray(stdtrit(np.maximum(seen, 1), 0.975) / 1.959964, total, total.dtype)


def _error_of_gaussians(clouds: tuple[Cloud, Cloud], n: int) -> Array:
    """The standard error of n independent directions, if the clouds were Gaussian: there it costs no sort."""
    x = clouds[0].raw
    xp = backend.namespace(x)
    looks = direction_sets.draw(_LOOKS, x.shape[2], "random", np.random.default_rng(0))
    theta = asarray(looks, x, xp.float64)[None]
    deviations = [xp.sqrt((theta @ cloud.covariance() * theta).sum(-1)) for cloud in clouds]
    return ((deviations[0] - deviations[1]) ** 2).std(-1) / n**0.5


def _by_group(values: Array, group: np.ndarray | None) -> Array:
    """The sums (b, groups) of values (b, L) in each group."""
    if group is None:
        return values
    member = np.zeros((len(group), int(group.max()) + 1))
    member[np.arange(len(group)), group] = 1
    return values @ asarray(member, values, values.dtype)


def _refuse_too_large(x: Array, y: Array, needs_input_grad: Needs) -> None:
    n, d = x.shape[0] * (x.shape[1] + y.shape[1]), x.shape[2]
    if n * d < 1 << 20:
        return
    size = 4 if backend.dtype_name(x) == "float32" else 8
    needed = n * d * size * (3 if any(needs_input_grad) else 1) + 6 * size * max(_CHUNK, n)
    if needed > 1 << 30 and backend.on_cpu(x):  # smaller ones are not worth reading the machine's state for
        checks.memory(
            needed, "the sliced distance of these clouds", "average over random subsets of the points, one at a time"
        )


def _plus(total: Array | None, part: Array) -> Array:
    if total is None:
        return part
    total += part
    return total


def asarray(x: Any, reference: Array, dtype: Any) -> Array:
    """On the reference's library and device, with another dtype."""
    if backend.is_torch(reference):
        return backend.torch_module().as_tensor(x, dtype=dtype, device=reference.device)
    return np.asarray(x, dtype=dtype)
