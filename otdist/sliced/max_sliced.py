"""The direction along which two clouds are farthest apart.

Along θ the squared distance is ``f(θ) = min_π θᵀM_π θ``, M_π the second moment of the differences under the plan π.
Where one plan is optimal, f is smooth with gradient 2Mθ, on the sphere 2(Mθ - fθ). Where points change places along θ,
plans change, and f has a kink that points upwards: with few points most maxima are kinks, at which an ascent along
gradients gets stuck. So the search has three parts: many directions are looked at, the best ones climb along their
gradients, and the best of those finish by gradient sampling (Burke, Lewis & Overton 2005): the shortest convex
combination of the gradients around θ says where to go, or that there is nowhere to go. Its coefficients are those with
which the plans enter the derivative of the maximum. The three are repeated until several starts have reached the best
value. In the plane with few points, all arcs between kinks are gone through instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks, random
from .._core.backend import Array
from . import direction_sets
from .centred import Cloud
from .estimator import asarray, average

# A step, relative to the power iteration's, below which rounding decides.
_SHORTEST = 1e-10
# Directions looked at before any climbs, a coordinate; of many points fewer: 2^22 projections, but 32 directions.
_LOOKS, _LOOKED_AT = 128, 1 << 22
# Radii, in radians, within which gradients are sampled: from that of a local search down to where f is as good as flat.
_WIDE, _NARROW = 3e-2, 1e-7
# Angle up to which two directions are one.
_SAME = 1e-3
# Samples within the narrow radius until a point that is not flat is given up.
_TRIES = 10
# Directions that finish together, of few coordinates (samples are three a coordinate) and at least; how far below the
# best one may be, relative, when the radius has shrunk, to go on, and at the end, to count as having reached it.
_FINISHERS, _COORDINATES, _AT_LEAST, _NEAR = 12, 256, 3, 1e-3
# The search is repeated until so many starts have reached the best value, or so often.
_AGAIN, _ROUNDS = 3, 4
# Points of both clouds, in the plane, up to which all arcs are gone through: some 4000 arcs.
_FEW = 128
# Numbers in a part of that work.
_PART = 1 << 18


class Found(NamedTuple):
    """The end of a search. Gradients at `active` (k, d), weighted by `multipliers`, make that of the maximum."""

    direction: np.ndarray
    n_iter: int
    converged: bool
    active: np.ndarray
    multipliers: np.ndarray
    value: float = 0.0
    found: int = 1
    n_starts: int = 1


def search(arrays: tuple[Array, ...], starts: int, max_iter: int, tol: float, seed: int) -> list[Found]:
    """Problems of a batch x (..., n, d), y (..., m, d), weights (..., n), (..., m) or (..., 0), one after the other."""
    rng = random.generator(seed)
    plain = tuple(_plain(z) for z in arrays)
    return [_search(tuple(z[k] for z in plain), starts, max_iter, tol, rng) for k in np.ndindex(*plain[0].shape[:-2])]


def warn(failed: int, total: int, max_iter: int) -> None:
    """Say once that the search stopped early."""
    checks.warn(
        f"max_w2_squared: the best direction of {failed} of {total} problems had not converged after {max_iter} steps"
    )


class _Objective:
    """f and its gradient on the sphere, as functions of unit rows (k, d)."""

    def __init__(self, x: Array, y: Array, a: Array, b: Array) -> None:
        self.points = x
        self.clouds = Cloud(x[None], a[None]), Cloud(y[None], b[None])
        self.shift = _numpy(self.clouds[0].mean - self.clouds[1].mean)[0]
        self.resolution = max(_NARROW, 32 * float(backend.epsilon(x)))

    def values(self, theta: np.ndarray) -> np.ndarray:
        value, *_ = average(self.clouds, self._own(theta), None, (False,) * 5, 2.0)
        return _numpy(value)[0] + (theta @ self.shift) ** 2

    def __call__(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, _, _, grads = average(self.clouds, self._own(theta), None, (False,) * 4 + (True,), 2.0)
        assert grads[4] is not None
        along = theta @ self.shift
        found = _numpy(backend.namespace(value).concatenate((value[0, :, None], grads[4][0]), 1))  # a card's in one go
        slope = len(theta) * found[:, 1:] + 2 * along[:, None] * self.shift
        return found[:, 0] + along**2, _tangent(slope, theta)

    def _own(self, theta: np.ndarray) -> Array:
        return asarray(theta, self.points, backend.namespace(self.points).float64)[None]


def _search(arrays: tuple[Array, ...], starts: int, max_iter: int, tol: float, rng: np.random.Generator) -> Found:
    (n, d), m = arrays[0].shape, len(arrays[1])
    if d == 1:
        one = np.ones((1, 1))
        return Found(one[0], 0, True, one, np.ones(1))
    if d == 2 and n + m <= _FEW:
        return _go_through_arcs(*(_numpy(z).astype(float) for z in arrays))
    objective, best, ends = _Objective(*arrays), None, []
    for _ in range(_ROUNDS):
        theta, value, n_iter, settled = _climb(objective, _starts(objective, starts, rng), max_iter, tol)
        own, value = _finish(objective, theta, value, max_iter, tol, rng) if max_iter > 1 else (None, value)
        if own is None:
            k = int(value.argmax())
            own = Found(theta[k], 0, bool(settled[k]), theta[k][None], np.ones(1), value[k])
        if best is None or own.value > best.value:
            best = own._replace(n_iter=n_iter + own.n_iter)
        ends.append(value)
        found = int(sum((v >= best.value * (1 - _NEAR)).sum() for v in ends))
        if found >= min(_AGAIN, starts):
            break
    assert best is not None
    return best._replace(found=found, n_starts=starts * len(ends))


def _starts(objective: _Objective, n: int, rng: np.random.Generator) -> np.ndarray:
    """The n best of many directions: (n, d)."""
    (one, two), d = objective.clouds, len(objective.shift)
    count = max(n, 32, min(_LOOKS * d, _LOOKED_AT // (one.raw.shape[1] + two.raw.shape[1])))
    looks = [direction_sets.draw(count, d, "sobol" if d <= 3 else "orthogonal", rng)]
    length = np.linalg.norm(objective.shift)
    if length > 0:
        looks.append(objective.shift[None] / length)
    if d <= 512:  # an eigendecomposition of larger matrices would cost more than the ascent
        covariances = [_numpy(cloud.covariance())[0] for cloud in (one, two)]
        apart = covariances[0] - covariances[1] + np.outer(objective.shift, objective.shift)
        looks += [np.linalg.eigh(z)[1].T for z in (apart, covariances[0] + covariances[1])]
        looks.append(np.eye(d))
    theta = np.concatenate(looks)
    return theta[np.argsort(-objective.values(theta), kind="stable")[:n]]


def _climb(
    objective: _Objective, theta: np.ndarray, max_iter: int, tol: float
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
    """Gradient ascent from all rows of theta at once: directions, values, steps taken, and which have settled.

    A step of 1/(2f) along the gradient is one power iteration with M; steps grow where they succeed.
    """
    value, gradient = objective(theta)
    step, settled, n_iter = np.ones_like(value), value < 0, 0
    while n_iter < max_iter and not settled.all():
        n_iter += 1
        scale = np.where(value > 0, 2 * value, 1)
        slope = (gradient * gradient).sum(1) / scale  # what a unit step would gain, to first order
        trial = _unit(theta + (step / scale)[:, None] * gradient)
        new_value, new_gradient = objective(trial)
        # Armijo's rule with the usual 1e-4; a settled start stays.
        better = (new_value >= value + 1e-4 * step * slope) & ~settled
        theta, gradient = (
            np.where(better[:, None], new, old) for new, old in ((trial, theta), (new_gradient, gradient))
        )
        value = np.where(better, new_value, value)
        step = np.where(better, 2 * step, step / 4)
        flat = np.sqrt((gradient * gradient).sum(1)) <= tol * 2 * value
        short = step * np.sqrt(slope / scale) <= tol * max(tol, _SHORTEST) ** 0.5
        settled = settled | flat | (short & ~better)
    return theta, value, n_iter, settled


def _finish(
    objective: _Objective, theta: np.ndarray, value: np.ndarray, max_iter: int, tol: float, rng: np.random.Generator
) -> tuple[Found, np.ndarray]:
    """Gradient sampling from the best rows of theta (k, d) at once: the best end, and what values (k,) became."""
    d, value = theta.shape[1], value.copy()
    chosen = _different(theta, value, min(_FINISHERS, max(_AT_LEAST, _COORDINATES // d)))
    racers = [_Racer(theta[k], value[k], objective.resolution) for k in chosen]
    running, n_iter = racers, 0
    while running and n_iter < max_iter:
        n_iter += 1
        _sample(objective, running, tol, rng)
        top = max(racer.value for racer in racers)
        running = [racer for racer in running if not racer.done and (racer.radius == _WIDE or racer.near(top))]
    value[chosen] = [racer.value for racer in racers]
    best = max(racers, key=lambda racer: racer.value)
    return Found(best.theta, n_iter, best.converged, best.active, best.multipliers, best.value), value


def _different(theta: np.ndarray, value: np.ndarray, n: int) -> np.ndarray:
    """Places of the n best values whose directions are not those of better ones."""
    places: list[int] = []
    for k in np.argsort(-value):
        if len(places) < n and not any(abs(theta[k] @ theta[j]) > 1 - _SAME**2 / 2 for j in places):
            places.append(int(k))
    return np.array(places)


class _Racer:
    """A direction on its way to the end of the search."""

    def __init__(self, theta: np.ndarray, value: float, resolution: float) -> None:
        self.theta, self.value, self.resolution = theta, float(value), resolution
        self.radius, self.tries, self.converged, self.done = _WIDE, 0, False, False
        self.active, self.multipliers = theta[None], np.ones(1)
        self.samples = [np.empty((0, len(theta)))] * 2  # directions and gradients within the radius
        self.length, self.way = 0.0, np.zeros(len(theta))  # of the shortest combination of the gradients

    def near(self, top: float) -> bool:
        return self.value >= top * (1 - _NEAR)

    def trials(self, near: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Where to look next, (12, d): along the shortest convex combination of the gradients at `near`."""
        gradients = _tangent(gradients, self.theta[None])
        self.samples = [np.concatenate(pair) for pair in zip(self.samples, (near, gradients), strict=True)]
        near, gradients = self.samples
        multipliers = _shortest(gradients)
        up = multipliers @ gradients
        self.active, self.multipliers = near[multipliers > 0], multipliers[multipliers > 0]
        self.length = float(np.linalg.norm(up))
        self.way = up / self.length if self.length > 0 else up
        reach = self.radius * 2.0 ** np.arange(-4, 8)
        return _unit(self.theta + reach[:, None] * self.way)

    def move(self, theta: np.ndarray, value: float, tol: float) -> None:
        """To the best of the trials if it is better; otherwise look nearer, and in the end stop."""
        if value > self.value * (1 + 1e-2 * tol * self.radius):
            self.theta, self.value = theta, float(value)
        elif self.radius > self.resolution:
            self.radius = max(self.radius / 8, self.resolution)
        else:  # the samples may have missed a side of the kink, and stay for the next try
            flat = self.length <= max(tol, self.resolution) ** 0.5 * 2 * self.value
            self.converged = flat or self.value == 0
            self.tries += 1
            self.done = self.converged or self.tries == _TRIES
            return
        self.samples = [z[:0] for z in self.samples]


def _sample(objective: _Objective, racers: list[_Racer], tol: float, rng: np.random.Generator) -> None:
    """One step of each."""
    d = len(racers[0].theta)
    noise = rng.standard_normal((len(racers), 3 * d + 4, d))
    noise /= np.linalg.norm(noise, axis=2, keepdims=True)
    noise[:, 0] = [r.way for r in racers]  # if it did not lead upwards, the plan there is missing from the combination
    theta, radius = np.stack([r.theta for r in racers])[:, None], np.array([r.radius for r in racers])
    near = _unit(np.concatenate([theta, theta + radius[:, None, None] * noise], axis=1))
    values, gradients = objective(near.reshape(-1, d))
    values, gradients = values.reshape(len(racers), -1), gradients.reshape(near.shape)
    trials = np.stack([r.trials(z, g) for r, z, g in zip(racers, near, gradients, strict=True)])
    further = objective.values(trials.reshape(-1, d)).reshape(len(racers), -1)
    trials, values = np.concatenate([near, trials], axis=1), np.concatenate([values, further], axis=1)
    for racer, where, found in zip(racers, trials, values, strict=True):
        best = int(found.argmax())
        racer.move(where[best], found[best], tol)


def _shortest(gradients: np.ndarray) -> np.ndarray:
    """Nonnegative coefficients (k,) with sum 1 of the shortest combination of the rows of gradients (k, d)."""
    from scipy.optimize import nnls

    scale = np.abs(gradients).max() or 1.0
    # With a large weight on the sum; dividing it out afterwards makes it exact.
    system = np.concatenate([gradients.T / scale, np.full((1, len(gradients)), 1e3)])
    found = nnls(system, np.append(np.zeros(gradients.shape[1]), 1e3))[0]
    return found / found.sum()


def _go_through_arcs(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> Found:
    """The exact maximum in the plane: on each arc of directions without change of order f is one quadratic form."""
    kinks = _angles_of_change(x, y)
    middle, widths = kinks + np.diff(kinks, append=kinks[0] + np.pi) / 2, np.diff(kinks, append=kinks[0] + np.pi)
    moments = _moments(x, y, a, b, middle)
    xx, xy, yy = moments[:, 0, 0], moments[:, 0, 1], moments[:, 1, 1]
    top = np.arctan2(2 * xy, xx - yy) / 2  # the angle of the largest eigenvalue, up to half turns
    off = (top - middle + np.pi / 2) % np.pi - np.pi / 2
    angle = middle + np.clip(off, -widths / 2, widths / 2)
    values = _form(moments, angle)
    best = int(values.argmax())
    theta = _on_circle(angle[best])
    if abs(off[best]) < widths[best] / 2:
        return Found(theta, 0, True, theta[None], np.ones(1))
    # At a kink the plans of both arcs are optimal; their slopes along the circle balance.
    other = (best + (1 if off[best] > 0 else -1)) % len(kinks)
    tangent = _on_circle(angle[best] + np.pi / 2)
    own, across = (2 * tangent @ moments[k] @ theta for k in (best, other))
    share = 0.5 if own == across else float(np.clip(across / (across - own), 0, 1))
    step = np.sign(off[best]) * min(_NARROW, widths[best] / 4, widths[other] / 4)
    active = np.stack([_on_circle(angle[best] - step), _on_circle(angle[best] + step)])
    return Found(theta, 0, True, active, np.array([share, 1 - share]))


def _angles_of_change(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Angles in [0, π) at which two points of one cloud have the same projection, in ascending order; at least one."""
    angles = []
    for z in (x, y):
        one, two = np.triu_indices(len(z), 1)
        between = z[one] - z[two]
        between = between[(between != 0).any(1)]
        angles.append(np.arctan2(between[:, 0], -between[:, 1]) % np.pi)
    found = np.unique(np.concatenate([*angles, [0.0]]))
    return found[np.diff(found, prepend=-1.0) > 1e-14]


def _moments(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """M (k, 2, 2) of the plan that is optimal along each angle."""
    out, step = np.empty((len(angles), 2, 2)), max(1, _PART // (len(x) + len(y)))
    for first in range(0, len(angles), step):
        part = slice(first, first + step)
        theta = _on_circle(angles[part])
        orders = [np.argsort(theta @ z.T, axis=1, kind="stable") for z in (x, y)]
        levels = [
            np.cumsum(w[order] if len(w) else np.full(order.shape, 1 / order.shape[1]), axis=1)
            for w, order in zip((a, b), orders, strict=True)
        ]
        merged = np.concatenate(levels, axis=1)
        place = np.argsort(merged, axis=1, kind="stable")
        mass = np.diff(np.take_along_axis(merged, place, 1), axis=1, prepend=0.0)
        of_x = place < len(x)
        steps: list[Any] = [np.cumsum(hit, axis=1) - hit for hit in (of_x, ~of_x)]
        of = [np.take_along_axis(o, np.minimum(k, o.shape[1] - 1), 1) for o, k in zip(orders, steps, strict=True)]
        gaps = x[of[0]] - y[of[1]]
        out[part] = (gaps * mass[..., None]).mT @ gaps
    return out


def _form(moments: np.ndarray, angles: np.ndarray) -> np.ndarray:
    theta = _on_circle(angles)
    return np.einsum("ki,kij,kj->k", theta, moments, theta)


def _on_circle(angles: Any) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def _tangent(vectors: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return vectors - (vectors * theta).sum(1)[:, None] * theta


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _plain(x: Array) -> Array:
    """Without a gradient; a CPU tensor as an array."""
    if not backend.is_torch(x):
        return x
    return backend.as_numpy(x) if backend.on_cpu(x) else x.detach()


def _numpy(x: Array) -> np.ndarray:
    return x.cpu().numpy() if backend.is_torch(x) else x
