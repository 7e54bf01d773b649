"""The sliced distance: the mean of one-dimensional distances over directions, with gradients and a standard error.

With means split off, ``SW2²(x, y) = |Δm|²/d + E_θ W2²(θᵀ(x - m_x), θᵀ(y - m_y))``, exactly, and only the second part is
sampled. Its derivative by x is ``Σ_l w_l r_l θ_lᵀ``, r_l the slopes of the transport along θ_l in the order of the
points: one matrix product. w_l is 1/L, or what control variates make of it.

Bonneel et al. (2015), "Sliced and Radon Wasserstein barycenters of measures"; directions in orthogonal blocks: Rowland
et al. (2019), "Orthogonal estimation of Wasserstein distances", arXiv:1903.03784.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks, random
from .._core.backend import Array
from .._core.operator import Operator
from ..line.monotone import transport, weight_rows
from . import control_variates, products, simd_blocks, sphere
from .simd_blocks import Bundles

# Projections held at a time: 2^21 numbers of each cloud are 16 MiB of float64, and enough for the product to be fast.
_CHUNK = 1 << 21
# Six coefficients are fitted to the values: with fewer directions than this they would fit noise.
_FEWEST_FOR_CONTROLS = 16
# Independent groups: enough for a normal quantile to stand for Student's (1.96 for 2.09).
_GROUPS = 20
# In the plane equal spacing beats orthogonal pairs with controls from groups of about five on (bench/directions.py).
_FEWEST_FOR_GRID = 5 * _GROUPS
# Orthogonal blocks from which on their own spread is used: with the six coefficients fewer leave too little to measure.
_FEWEST_BLOCKS = 12


class Rule(NamedTuple):
    """Directions and how their values are averaged."""

    directions: np.ndarray  # (L, d), float64 if drawn here
    drawn: bool  # from the uniform distribution: means are split off
    controlled: bool = False
    group: np.ndarray | None = None  # (L,): directions of one group depend on each other
    block: int = 1  # with controls: so many consecutive ones do


class Cloud(NamedTuple):
    """Centred points."""

    points: Array  # (n, d)
    mean: Array  # (d,), float64
    levels: Array  # (1, n) float64, (0, 0) where uniform

    @property
    def share(self) -> Any:
        """The weight of each point, (n, 1), or one number."""
        return self.levels[0][:, None] if len(self.levels) else 1.0 / len(self.points)

    def covariance(self) -> Array:
        """Σ w (x - m)(x - m)ᵀ, (d, d), float64."""
        weighted = self.points * backend.astype(self.share, self.points.dtype) if len(self.levels) else self.points
        cov = products.gram(self.points, weighted)
        return cov if len(self.levels) else cov / len(self.points)


class Estimate(NamedTuple):
    """A value, its standard error if asked for, the gradients by x, y, a, b and the directions where needed."""

    value: Any
    standard_error: Any
    grads: list[Array | None]


def rule(count: int, d: int, seed: int) -> Rule:
    """The directions that a count stands for: equally spaced in the plane, orthogonal blocks beyond."""
    rng = random.generator(seed)
    if d == 1:
        return Rule(np.ones((1, 1)), True)
    if d == 2 and count >= _FEWEST_FOR_GRID:
        directions, group = sphere.grid(count, _GROUPS, rng)
        return Rule(directions, True, group=group)
    # The controls need two covariances, d² n: no more than four times the projections.
    controlled = count >= _FEWEST_FOR_CONTROLS and d <= 2 * count
    # Directions of one block depend on each other; of few blocks that would be too hard to see.
    block = d if count >= _FEWEST_BLOCKS * d else 1
    return Rule(sphere.draw(count, d, "orthogonal", rng), True, controlled, block=block)


def solve(
    x: Array, y: Array, a: Array, b: Array, by: Rule, needs_input_grad: tuple[bool, ...], with_error: bool = False
) -> Estimate:
    """One pair of clouds x (n, d), y (m, d), weights (n,), (m,) or (0,)."""
    xp = backend.namespace(x)
    _refuse_too_large(x, y, needs_input_grad)
    pair = Bundles(x, y) if simd_blocks.fit(x, y, a, b, len(by.directions)) else Rows(x, y, a, b)
    theta = _asarray(by.directions, x, xp.float64)
    fitted = None
    if by.controlled:
        floor = 3 * float(backend.epsilon(x)) ** 0.5
        cov_x, cov_y = pair.covariances()
        fitted = control_variates.fit(theta, cov_x, cov_y, floor)
    weights = xp.full_like(theta[:, 0], 1 / len(theta)) if fitted is None else fitted.weights
    values = pair.values(theta, weights, needs_input_grad)
    total = weights @ values
    if fitted is not None and total < 0:  # a weight can be negative; a distance can't
        return solve(x, y, a, b, by._replace(controlled=False), needs_input_grad, with_error)
    shift = pair.means[0] - pair.means[1]
    along = theta @ shift
    apart = shift @ shift / x.shape[1] if by.drawn else along @ along / len(theta)
    pull = 2 * shift / x.shape[1] if by.drawn else 2 * (along @ theta) / len(theta)
    grads = pair.gradients(fitted.slopes(values) if fitted is not None and any(needs_input_grad) else None, pull)
    if grads[4] is not None:
        grads[4] += 2 * along[:, None] * shift / len(theta)
    error = _standard_error(values if by.drawn else values + along**2, by, fitted) if with_error else None
    return Estimate(total + apart, error, grads)


class Rows:
    """Two clouds along directions one row of projections each: with weights, of any size, on any device."""

    def __init__(self, x: Array, y: Array, a: Array, b: Array) -> None:
        self.clouds = _centred(x, a), _centred(y, b)
        self.means = self.clouds[0].mean, self.clouds[1].mean

    def covariances(self) -> list[Array]:
        """Those of the clouds, (d, d), float64."""
        return [cloud.covariance() for cloud in self.clouds]

    def values(self, theta: Array, weights: Array, needs_input_grad: tuple[bool, ...]) -> Array:
        """The distance along each of theta (L, d); keeps the gradients of Σ weights · values."""
        values, self.grads = _along(self.clouds, theta, weights, needs_input_grad)
        return values

    def gradients(self, quadratics: Any, pull: Array) -> list[Array | None]:
        """Those by x, y, a, b, theta, with that of a function of the covariances and of the difference of the means."""
        for k, slope in enumerate(quadratics or ()):
            _add_quadratic(self.grads, k, self.clouds[k], slope)
        _add_shift(self.grads, self.clouds, pull)
        return self.grads


def _along(
    clouds: tuple[Cloud, Cloud], theta: Array, weights: Array, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, list[Array | None]]:
    """Values (L,) along the directions, and the gradients of Σ weights · values, in chunks of directions."""
    (x, _, a), (y, _, b) = clouds
    xp, dtype = backend.namespace(x), x.dtype
    values = xp.empty_like(weights)
    grads: list[Array | None] = [None, None, None, None, xp.zeros_like(theta) if needs_input_grad[4] else None]
    inner = (
        needs_input_grad[0] or needs_input_grad[4],
        needs_input_grad[1] or needs_input_grad[4],
        needs_input_grad[2],
        needs_input_grad[3],
    )
    step = max(1, _CHUNK // max(len(x), len(y)))
    for start in range(0, len(theta), step):
        chunk = slice(start, start + step)
        rays = backend.astype(theta[chunk], dtype)
        found = transport(products.project(rays, x), products.project(rays, y), a, b, p=2.0, needs_input_grad=inner)
        values[chunk] = found.cost
        scaled = backend.astype(weights[chunk, None] * theta[chunk], dtype)
        for k, slopes in ((0, found.x_slopes), (1, found.y_slopes)):
            if needs_input_grad[k] and slopes is not None:
                grads[k] = _plus(grads[k], products.backproject(slopes, scaled))
        for k, potentials in ((2, found.a_potentials), (3, found.b_potentials)):
            if needs_input_grad[k]:
                grads[k] = _plus(grads[k], weights[chunk] @ potentials)
        if grads[4] is not None:
            grads[4][chunk] = weights[chunk, None] * (found.x_slopes @ x + found.y_slopes @ y)
    return values, grads


def _centred(x: Array, weights: Array) -> Cloud:
    levels = weight_rows(weights)
    if backend.is_torch(x):
        exact = x.double()
        mean = levels[0] @ exact if len(levels) else exact.mean(0)
    else:
        from .means import weighted_mean

        x = np.ascontiguousarray(x)
        mean = np.empty(x.shape[1])
        weighted_mean(x, levels.reshape(-1), mean)
    return Cloud(x - backend.astype(mean, x.dtype), mean, levels)


def _add_quadratic(grads: list[Array | None], side: int, cloud: Cloud, slope: Array) -> None:
    """Add the gradient of a function of the cloud's covariance, `slope` its derivative by it."""
    points, levels = cloud.points, cloud.levels
    by_points, by_weights = grads[side], grads[2 + side]
    matrix = backend.astype(slope if len(levels) else slope * (2 / len(points)), points.dtype)
    if len(levels):
        turned = points @ matrix
        if by_weights is not None:
            by_weights += (turned * points).sum(1)
        if by_points is not None:
            by_points += turned * backend.astype(2 * cloud.share, points.dtype)
    elif by_points is not None:
        products.add_turned(points, matrix, by_points)


def _add_shift(grads: list[Array | None], clouds: tuple[Cloud, Cloud], pull: Array) -> None:
    """Add the gradient of a function of the difference of the means, `pull` its derivative by it."""
    for side, sign in ((0, 1), (1, -1)):
        points = clouds[side].points
        if grads[side] is not None:
            grads[side] += backend.astype(sign * pull * clouds[side].share, points.dtype)
        if grads[2 + side] is not None:
            grads[2 + side] += points @ backend.astype(sign * pull, points.dtype)


def _standard_error(values: Array, by: Rule, fitted: control_variates.Controls | None) -> Any:
    """The standard error of the mean over directions: of what the controls leave, or of independent groups."""
    xp, n = backend.namespace(values), len(values)
    if values.shape and by.directions.shape[1] == 1:
        return xp.zeros_like(values[0])
    if fitted is not None:
        return (fitted.left_out(values, by.block) ** 2).sum() ** 0.5
    sums = _by_group(values - values.mean(), by.group)
    groups = len(sums)
    if groups == 1:
        return xp.full_like(values[0], np.inf)
    return ((sums**2).sum() * groups / (groups - 1)) ** 0.5 / n


def _by_group(values: Array, group: np.ndarray | None) -> Array:
    """The sum of values (L,) in each group."""
    if group is None:
        return values
    if not backend.is_torch(values):
        return np.bincount(group, weights=values)
    index = backend.torch_module().as_tensor(group, device=values.device)
    return values.new_zeros(int(group.max()) + 1).index_add(0, index, values)


def _kernel(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    directions: Array,
    *,
    needs_input_grad: tuple[bool, ...],
    count: int,
    seed: int,
) -> tuple[Array, Any]:
    """SW2² (...) of clouds x (..., n, d), y (..., m, d); `directions` (..., L, d), or (..., 0, d) to draw `count`."""
    arrays, xp, batch = (x, y, a, b, directions), backend.namespace(x), x.shape[:-2]
    wanted = (
        *needs_input_grad[:2],
        needs_input_grad[2] and a.shape[-1] > 0,
        needs_input_grad[3] and b.shape[-1] > 0,
        needs_input_grad[4] and count == 0,
    )
    drawn = rule(count, x.shape[-1], seed) if count else None
    if not batch:
        found = solve(*arrays[:4], drawn or Rule(directions, False), wanted)
        value = backend.astype(xp.asarray(found.value), x.dtype)
        return value, tuple(_finished(g, z, n) for g, z, n in zip(found.grads, arrays, needs_input_grad, strict=True))
    value = xp.empty_like(x[..., 0, 0])
    grads = [xp.zeros_like(z) if need else None for z, need in zip(arrays, needs_input_grad, strict=True)]
    for k in np.ndindex(*batch):
        found = solve(x[k], y[k], a[k], b[k], drawn or Rule(directions[k], False), wanted)
        value[k] = found.value
        for grad, g in zip(grads, found.grads, strict=True):
            if grad is not None and g is not None:
                grad[k] = g
    return value, tuple(grads)


def value_and_grad(arrays: tuple[Array, ...], **options: int) -> tuple[Array, tuple[Array, ...]]:
    """Values and gradients by x, y, a, b, summed to each array's own shape; NumPy only."""
    value, grads = _kernel(*sliced_squared.broadcast(arrays), needs_input_grad=(True,) * 4 + (False,), **options)
    return value, tuple(backend.sum_to(g, z.shape) for g, z in zip(grads[:4], arrays[:4], strict=True))


def estimates(x: Array, y: Array, a: Array, b: Array, directions: Array, *, count: int, seed: int) -> tuple[Any, Any]:
    """Values and standard errors (...), without gradients."""
    arrays = tuple(
        z if not backend.is_torch(z) else backend.as_numpy(z) if backend.on_cpu(z) else z.detach()
        for z in (x, y, a, b, directions)
    )
    first, batch = arrays[0], x.shape[:-2]
    drawn = rule(count, first.shape[-1], seed) if count else None
    out = [backend.namespace(first).empty_like(first[..., 0, 0]) for _ in range(2)]
    for k in np.ndindex(*batch):
        clouds = (arrays[0][k], arrays[1][k], arrays[2][k], arrays[3][k])
        found = solve(*clouds, drawn or Rule(arrays[4][k], False), (False,) * 5, with_error=True)
        out[0][k], out[1][k] = found.value, found.standard_error
    return tuple(backend.like(z, x) for z in out)


def _finished(grad: Array | None, like: Array, need: bool) -> Array | None:
    if not need:
        return None
    return backend.namespace(like).zeros_like(like) if grad is None else backend.astype(grad, like.dtype)


def _refuse_too_large(x: Array, y: Array, needs_input_grad: tuple[bool, ...]) -> None:
    n, d = len(x) + len(y), x.shape[1]
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


def _asarray(x: Any, reference: Array, dtype: Any) -> Array:
    """On the reference's library and device, with another dtype."""
    if backend.is_torch(reference):
        return backend.torch_module().as_tensor(x, dtype=dtype, device=reference.device)
    return np.asarray(x, dtype=dtype)


sliced_squared = Operator("sliced_squared", _kernel, core_ndims=(2, 2, 1, 1, 2), options="int count, int seed")
