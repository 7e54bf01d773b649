"""Hostile calls of every public function: a right answer or a documented error, and nothing else touched.

25 calls of each function here; ``make fuzz`` makes 1e5 in all. What is drawn is in `fuzz_arguments`, what no call may
do in `fuzz_laws`; what the answers must be is here: those of the same numbers as plain float64 arrays in units
(rounded to the dtype, scaled as the result scales), which must be those of an oracle wherever there is a cheap one.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import fuzz_arguments as fa
import numpy as np
import oracles
import pytest
import scipy.stats
import torch
from fuzz_arguments import Arg, Recipe
from fuzz_known import known
from fuzz_laws import Broken, undocumented, watched
from hypothesis import event, given
from scipy.optimize import linear_sum_assignment

import otdist
from otdist import covariance, diagonal, exact, gaussian, inference, line, metrics, sinkhorn, sliced

Args = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A public function, how to call it, and what is known about its result."""

    call: Callable[..., Any]
    draw: Callable[[np.random.Generator, Recipe], Args]
    degree: dict[str, int | None] | int  # result in units of the points to this power, by field; None: not compared
    oracle: Callable[..., Iterator[tuple[str, Any, Any, float]]] | None = None
    degenerate: bool = False  # where the result jumps with the last bit: ties, singular covariances
    loose: float = 0.0  # the relative error that the function's own tolerance allows
    names: tuple[str, ...] = field(default=())  # that its errors may use, beside the arguments'
    numpy_only: bool = False
    own_dtype: bool = False  # the result's dtype is not the arguments'
    sound: bool = False  # faults are for another library to refuse, from whose objects it is called
    euler: bool = False  # (value, gradients), value homogeneous of degree 2 in the points


# How arguments are drawn.


def clouds(rng: np.random.Generator, r: Recipe, *, batch: bool = True, weighted: bool = True) -> Args:
    n, m, d = r.sizes
    before = r.batches if batch else ((), ())
    x, y = fa.points(rng, r, (*before[0], n, d)), fa.points(rng, r, (*before[1], m, d))
    if r.kind == "equal":
        y = x.copy()
    args: Args = {"x": Arg(x), "y": Arg(y)}
    if weighted:
        args["a"] = fa.weights(rng, r, x.shape[:-1], 0)
        args["b"] = fa.weights(rng, r, y.shape[:-1], 1)
    return {k: v for k, v in args.items() if v is not None}


def numbers(rng: np.random.Generator, r: Recipe) -> Args:
    found = clouds(rng, replace(r, sizes=(*r.sizes[:2], 1)))
    return {k: Arg(v.value[..., 0]) if k in "xy" else v for k, v in found.items()}


def samples(rng: np.random.Generator, r: Recipe, least: int = 2) -> Args:
    n, m, d = r.sizes
    return clouds(rng, replace(r, sizes=(least + n, least + m, d)), batch=False, weighted=False)


def batched_samples(rng: np.random.Generator, r: Recipe) -> Args:
    n, m, d = r.sizes
    return clouds(rng, replace(r, sizes=(1 + n, 1 + m, d)), weighted=False)


def gaussians(rng: np.random.Generator, r: Recipe, structured: bool = True) -> Args:
    d, args = r.sizes[2], {}
    for side, batch in zip("xy", r.batches, strict=True):
        args[f"mean_{side}"] = Arg(fa.points(rng, r, (*batch, d)))
        args[f"cov_{side}"] = _covariance(rng, r, batch, d, int(rng.integers(12)) if structured else 9)
    if r.kind == "equal":
        args["mean_y"], args["cov_y"] = (replace(args[k]) for k in ("mean_x", "cov_x"))
    return args


def _covariance(rng: np.random.Generator, r: Recipe, batch: tuple[int, ...], d: int, structure: int) -> Arg:
    if structure == 0:
        return Arg(rng.uniform(0, 2, (*batch, d)), 2, covariance.Diagonal)
    if structure == 1:
        return Arg(rng.uniform(0, 2, batch), 2, lambda v: covariance.Isotropic(v, d), scalars=True)
    if structure == 2:
        return Arg(rng.standard_normal((*batch, d, 2)), 1, covariance.Factor, scalars=True)
    if structure == 3:
        return Arg(rng.uniform(0, 2, (*batch, d // 2 + 1)), 2, lambda v: covariance.Circulant(v, d))
    return Arg(fa.covariance(rng, r, batch, d), 2)


def diagonals(rng: np.random.Generator, r: Recipe) -> Args:
    d, args = r.sizes[2], {}
    for side, batch in zip("xy", r.batches, strict=True):
        args[f"mean_{side}"] = Arg(fa.points(rng, r, (*batch, d)))
        args[f"scale_{side}"] = Arg(abs(fa.points(rng, r, (*batch, d))))
    return args


def families(rng: np.random.Generator, r: Recipe) -> Args:
    k, m, d = r.sizes
    b = r.batches[0]
    args: Args = {}
    for side, n in (("x", k), ("y", m)):
        args[f"means_{side}"], args[f"covs_{side}"] = (
            Arg(fa.points(rng, r, (*b, n, d))),
            Arg(fa.covariance(rng, r, (*b, n), d), 2),
        )
    return args


def diagonal_families(rng: np.random.Generator, r: Recipe) -> Args:
    k, m, d = r.sizes
    b = r.batches[0]
    return {
        name: Arg(z if name.startswith("mean") else abs(z))
        for name, n in (("mean_x", k), ("scale_x", k), ("mean_y", m), ("scale_y", m))
        for z in [fa.points(rng, r, (*b, n, d))]
    }


def members(rng: np.random.Generator, r: Recipe) -> Args:
    k, _, d = r.sizes
    b = r.batches[0]
    args: Args = {"means": Arg(fa.points(rng, r, (*b, k, d))), "covs": Arg(fa.covariance(rng, r, (*b, k), d), 2)}
    w = fa.weights(rng, r, (*b, k), 0)
    return args if w is None else {**args, "weights": w}


def mixtures(rng: np.random.Generator, r: Recipe) -> Args:
    found = families(rng, replace(r, batches=((), ())))
    for side, n in zip("xy", r.sizes, strict=False):
        w = rng.uniform(0.1, 1, n)
        found[f"weights_{side}"] = Arg(w / w.sum(), 0, weight=True)
    return found


def with_options(draw: Callable[..., Args], **options: Any) -> Callable[..., Args]:
    """Options too: values, or functions of the generator and the recipe."""

    def drawn(rng: np.random.Generator, r: Recipe) -> Args:
        args = draw(rng, r)
        return {**args, **{k: v(rng, r) if callable(v) else v for k, v in options.items()}}

    return drawn


def some(*values: Any, power: int = 0) -> Callable[..., Any]:
    """One of the values; a number with `power` scales with the points."""

    def choose(rng: np.random.Generator, r: Recipe) -> Any:
        v = values[rng.integers(len(values))]
        return v if power == 0 or v is None else Number(v, power)

    return choose


@dataclass(frozen=True)
class Number:
    """A Python number in units of the points to a power."""

    value: float
    power: int


def given_directions(rng: np.random.Generator, r: Recipe) -> Any:
    return Arg(fa.unit_rows(rng, 5, r.sizes[2]), 0) if rng.integers(2) else int(rng.integers(1, 20))


def on_sphere(rng: np.random.Generator, r: Recipe) -> Args:
    n, _, d = r.sizes
    out = {}
    for name, batch in zip("xy", r.batches, strict=True):
        z = rng.standard_normal((*batch, n, d + 1))
        out[name] = Arg(z / np.linalg.norm(z, axis=-1, keepdims=True), 0)
    return out


# Oracles: (what, got, right, error allowed relative to the squared size of the arguments). They see float64 units.


def quantile_cost(x, y, a, b, p):
    """Σ mass |x - y|^p over the monotone coupling, by the union of both distribution functions."""
    i, j = np.argsort(x), np.argsort(y)
    u, v = np.cumsum(a[i]) / a.sum(), np.cumsum(b[j]) / b.sum()
    levels = np.concatenate([[0], np.sort(np.concatenate([u, v]))])
    middle, mass = (levels[1:] + levels[:-1]) / 2, np.diff(levels)
    left = x[i][np.minimum(np.searchsorted(u, middle), len(x) - 1)]
    right = y[j][np.minimum(np.searchsorted(v, middle), len(y) - 1)]
    return (mass * abs(left - right) ** p).sum()


def problems(args: Args, core: int):
    """The pairs of a batch, one after the other, with weights."""
    x, y = args["x"].value, args["y"].value
    a = args["a"].value if "a" in args else np.full(x.shape[: x.ndim - core + 1], 1 / x.shape[-core])
    b = args["b"].value if "b" in args else np.full(y.shape[: y.ndim - core + 1], 1 / y.shape[-core])
    batch = np.broadcast_shapes(x.shape[: x.ndim - core], y.shape[: y.ndim - core], a.shape[:-1], b.shape[:-1])
    wide = [np.broadcast_to(z, (*batch, *z.shape[z.ndim - c :])) for z, c in ((x, core), (y, core), (a, 1), (b, 1))]
    return batch, ([z[k] for z in wide] for k in np.ndindex(*batch))


def transport(x, y, a, b, p=2.0):
    """The least cost over plans."""
    if x.shape[1] == 1:
        return quantile_cost(x[:, 0], y[:, 0], a, b, p)
    cost = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    if len(x) == len(y) and np.ptp(a) == np.ptp(b) == 0:
        i, j = linear_sum_assignment(cost)
        return cost[i, j].mean()
    return oracles.transport_cost(cost, a / a.sum(), b / b.sum())


def on_line(power: float | None):
    def oracle(result, args):
        p = args.get("p", 2.0)
        batch, pairs = problems(args, 1)
        right = np.array([quantile_cost(*pair, p) for pair in pairs]).reshape(batch)
        yield "value", result, right ** (1 / p if power is None else power), 1e-12

    return oracle


def by_programme(power: float | None, pick: Callable[[Any], Any] = lambda z: z):
    def oracle(result, args):
        p = args.get("p", 2.0)
        batch, pairs = problems(args, 2)
        right = np.array([transport(*pair, p) for pair in pairs]).reshape(batch)
        yield "value", pick(result), right ** (1 / p if power is None else power), 1e-6  # that of the linear programme

    return oracle


def plan_is_feasible(result, args):
    _, pairs = problems(args, 2)
    wide = result.reshape(-1, *result.shape[-2:])
    for P, (x, y, a, b) in zip(wide, pairs, strict=True):
        yield "rows of the plan", P.sum(1), a / a.sum(), 1e-12
        yield "columns of the plan", P.sum(0), b / b.sum(), 1e-12
        cost = np.linalg.norm(x[:, None] - y, axis=-1) ** args.get("p", 2.0)
        yield "cost of the plan", (P * cost).sum(), transport(x, y, a, b, args.get("p", 2.0)), 1e-6


def along_directions(power: float | None):
    """The mean over given directions; drawn ones are not looked at."""

    def oracle(result, args):
        theta = args["directions"]
        if isinstance(theta, Arg):
            p = args.get("p", 2.0)
            batch, pairs = problems(args, 2)
            right = [np.mean([quantile_cost(x @ t, y @ t, a, b, p) for t in theta.value]) for x, y, a, b in pairs]
            yield "value", result, np.array(right).reshape(batch) ** (1 / p if power is None else power), 1e-12

    return oracle


def encloses(result, args):
    batch, pairs = problems(args, 2)
    right = np.array([transport(*pair) for pair in pairs]).reshape(batch)
    yield "lower bound", np.maximum(result.lower - right, 0), np.zeros(batch), 1e-6
    yield "upper bound", np.minimum(result.upper - right, 0), np.zeros(batch), 1e-6


def dowson_landau(power: float):
    def oracle(result, args):
        dense = {k: np.asarray(args[k].wrap(args[k].value).to_dense() if args[k].wrap is not _SAME else args[k].value)
                 for k in ("cov_x", "cov_y")}  # fmt: skip
        means = [args[k].value for k in ("mean_x", "mean_y")]
        batch = np.broadcast_shapes(*(m.shape[:-1] for m in means), *(c.shape[:-2] for c in dense.values()))
        d = means[0].shape[-1]
        mx, my = (np.broadcast_to(m, (*batch, d)) for m in means)
        cx, cy = (np.broadcast_to(c, (*batch, d, d)) for c in dense.values())
        right = [oracles.gaussian_w2_squared(mx[k], cx[k], my[k], cy[k], 40) for k in np.ndindex(*batch)]
        # Covariances that are singular only in exact arithmetic are only known to √eps.
        yield "value", result, np.array([max(float(v), 0.0) for v in right]).reshape(batch) ** power, 1e-6

    return oracle


_SAME = Arg.__dataclass_fields__["wrap"].default


def straight(power: float):
    def oracle(result, args):
        mx, sx, my, sy = (args[k].value for k in ("mean_x", "scale_x", "mean_y", "scale_y"))
        yield "value", result, ((mx - my) ** 2 + (sx - sy) ** 2).sum(-1) ** power, 1e-13

    return oracle


def feed(metric: Any, x: Any, y: Any) -> Any:
    metric.update(x, real=True)
    metric.update(y, real=False)
    return metric.compute()


def moments(batch: Any) -> Any:
    found = gaussian.Moments().update(batch)
    return found.mean, found.cov


def moved_by_mixture(weights_x, means_x, covs_x, weights_y, means_y, covs_y, points):
    return gaussian.mixture_map(weights_x, means_x, covs_x, weights_y, means_y, covs_y)(points)


def mixtures_and_points(rng: np.random.Generator, r: Recipe) -> Args:
    return {**mixtures(rng, r), "points": Arg(fa.points(rng, r, (r.sizes[0], r.sizes[2])))}


class NotACase(Exception):
    """Something other than the library refuses what was drawn."""


torch.distributions.Gumbel(torch.zeros(1), torch.ones(1))  # whose first use imports SymPy, which adds a filter

# name -> (the two libraries' distributions of loc and scale, mean and variance of the standard one)
LOCATION_SCALE = {
    "norm": ("Normal", 0.0, 1.0),
    "laplace": ("Laplace", 0.0, 2.0),
    "uniform": ("Uniform", 0.5, 1 / 12),
    "gumbel_r": ("Gumbel", np.euler_gamma, math.pi**2 / 6),
}


def of_distributions(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(loc_x, scale_x, loc_y, scale_y, family):
        try:
            p, q = _distribution(family, loc_x, scale_x), _distribution(family, loc_y, scale_y)
        except Exception as error:
            raise NotACase from error
        return function(p, q)

    return call


def _distribution(family: str, loc: Any, scale: Any) -> Any:
    if isinstance(loc, torch.Tensor):
        kind = getattr(torch.distributions, LOCATION_SCALE[family][0])
        return kind(loc, loc + scale) if family == "uniform" else kind(loc, scale)
    loc, scale = np.asarray(loc), np.asarray(scale)
    if not (loc.dtype.kind in "fiub" and loc.dtype.itemsize <= 8 and np.isfinite(loc).all() and (scale > 0).all()):
        raise ValueError("SciPy takes it and answers with NaN")
    return getattr(scipy.stats, family)(loc, scale)


def locations(rng: np.random.Generator, r: Recipe) -> Args:
    d, args = r.sizes[2], {}
    for side, batch in zip("xy", r.batches, strict=True):
        args[f"loc_{side}"] = Arg(fa.points(rng, r, (*batch, d)))
        args[f"scale_{side}"] = Arg(rng.uniform(0.25, 2, (*batch, d)))
    family = list(LOCATION_SCALE)[rng.integers(len(LOCATION_SCALE))]
    return {**args, "family": family}


def of_location_and_scale(power: float):
    def oracle(result, args):
        mx, sx, my, sy = (args[k].value for k in ("loc_x", "scale_x", "loc_y", "scale_y"))
        _, mean, variance = LOCATION_SCALE[args["family"]]
        squared = (mx - my + mean * (sx - sy)) ** 2 + variance * (sx - sy) ** 2
        yield "value", result, squared**power, 1e-9  # that of the quadrature

    return oracle


EPSILON = with_options(clouds, epsilon=some(0.5, 5.0, power=2), tol=some(1e-3, 1e-6))
DIRECTED = with_options(clouds, directions=given_directions, rng=0)
P = some(1, 1.5, 2, 3.0)
CONFIDENT = {"low": 2, "high": 2, "estimate": 2}


def between_padded(x: Any, y: Any) -> Any:
    """The distance of two clouds that were made one batch."""
    points, weights = otdist.pad_clouds([x, y])
    return exact.w2_squared(points[0], points[1], weights[0], weights[1])


ROWS = {
    "diagonal.w2_squared": Row(diagonal.w2_squared, diagonals, 2, straight(1)),
    "diagonal.w2": Row(diagonal.w2, diagonals, 1, straight(0.5)),
    "diagonal.w2_squared_and_grad": Row(
        diagonal.w2_squared_and_grad, diagonals, {"0": 2, "1": 1}, numpy_only=True, euler=True
    ),
    "diagonal.pairwise_w2_squared": Row(diagonal.pairwise_w2_squared, diagonal_families, 2),
    "line.w2_squared": Row(line.w2_squared, numbers, 2, on_line(1)),
    "line.w2": Row(line.w2, numbers, 1, on_line(0.5)),
    "line.wp": Row(line.wp, with_options(numbers, p=P), 1, on_line(None)),
    "line.w2_squared_and_grad": Row(
        line.w2_squared_and_grad,
        numbers,
        {"0": 2, "x": 1, "y": 1, "a": 2, "b": 2},
        degenerate=True,
        numpy_only=True,
        euler=True,
    ),
    "exact.w2_squared": Row(exact.w2_squared, clouds, 2, by_programme(1)),
    "exact.w2": Row(exact.w2, clouds, 1, by_programme(0.5)),
    "exact.wp": Row(getattr(exact, "wp", None), with_options(clouds, p=P), 1, by_programme(None)),
    "exact.w2_squared_and_grad": Row(
        exact.w2_squared_and_grad,
        clouds,
        {"0": 2, "x": 1, "y": 1, "a": 2, "b": 2},
        degenerate=True,
        numpy_only=True,
        euler=True,
    ),
    "exact.plan": Row(exact.plan, clouds, 0, plan_is_feasible, degenerate=True),
    "exact.solve": Row(
        getattr(exact, "solve", None),
        with_options(lambda g, r: clouds(g, r, batch=False), p=2),
        {"cost": 2, "f": None, "g": None, "rows": None, "columns": None, "mass": None},
        by_programme(1, lambda z: z.cost),
        degenerate=True,
        names=("exact.solve",),
    ),
    "sliced.w2_squared": Row(sliced.w2_squared, DIRECTED, 2, along_directions(1)),
    "sliced.w2": Row(sliced.w2, DIRECTED, 1, along_directions(0.5)),
    "sliced.wp": Row(getattr(sliced, "wp", None), with_options(DIRECTED, p=P), 1, along_directions(None)),
    "sliced.w2_squared_and_grad": Row(
        sliced.w2_squared_and_grad,
        DIRECTED,
        {"0": 2, "x": 1, "y": 1, "a": 2, "b": 2},
        degenerate=True,
        numpy_only=True,
        euler=True,
    ),
    "sliced.estimate": Row(
        sliced.estimate,
        DIRECTED,
        {"value": 2, "standard_error": 2, "n_directions": None},
        loose=8 * 2**-52 / 1e-6,  # a regression with a ridge of 1e-6: that is its condition
    ),
    "sliced.directions": Row(
        sliced.directions,
        lambda g, r: {
            "n": int(g.integers(1, 9)),
            "d": r.sizes[2],
            "kind": some("orthogonal", "sobol", "random")(g, r),
            "rng": 0,
        },
        0,
    ),
    "sliced.max_w2_squared": Row(
        sliced.max_w2_squared,
        with_options(clouds, rng=0, starts=some(1, 4), max_iter=20),
        {"value": 2, "direction": None, "n_iter": None, "converged": None},
        degenerate=True,
    ),
    "sliced.barycenter": Row(
        getattr(sliced, "barycenter", None),
        lambda g, r: {
            "clouds": Arg(fa.points(g, r, (2, r.sizes[0], r.sizes[2]))),
            "directions": 8,
            "rng": 0,
            "max_iter": 20,
        },
        {"points": 1, "n_iter": None, "converged": None},
        degenerate=True,
    ),
    "sliced.spherical_w2_squared": Row(
        getattr(sliced, "spherical_w2_squared", None),
        with_options(on_sphere, directions=some(1, 7), rng=0),
        0,
        degenerate=True,
    ),
    "sinkhorn.w2_squared": Row(
        sinkhorn.w2_squared, with_options(EPSILON, reach=some(None, None, 1.0, power=1)), 2, loose=4e-3
    ),
    "sinkhorn.w2": Row(sinkhorn.w2, EPSILON, 1, loose=4e-3),
    "sinkhorn.wp": Row(
        sinkhorn.wp,
        with_options(clouds, epsilon=some(0.5, 5.0, power=1), tol=some(1e-3, 1e-6), reach=some(None, 1.0, power=1)),
        1,
        loose=4e-3,
    ),
    "sinkhorn.w2_squared_and_grad": Row(
        sinkhorn.w2_squared_and_grad, EPSILON, {"0": 2, "1": None}, loose=4e-3, numpy_only=True
    ),
    "sinkhorn.solve": Row(
        sinkhorn.solve,
        EPSILON,
        {
            "value": 2,
            "transport_cost": 2,
            "f": None,
            "g": None,
            "epsilon": None,
            "n_iter": None,
            "marginal_error": None,
            "converged": None,
        },
        loose=4e-3,
    ),
    "sinkhorn.barycenter": Row(
        sinkhorn.barycenter,
        with_options(
            lambda g, r: {
                "clouds": Arg(fa.points(g, r, (2, r.sizes[0], r.sizes[2]))),
                "start": Arg(fa.points(g, r, (r.sizes[1], r.sizes[2]))),
                "max_iter": 20,
            },
            epsilon=some(0.5, 5.0, power=2),
        ),
        {"points": 1, "n_iter": None, "moved": None, "converged": None},
        degenerate=True,  # steps stop at a tolerance
    ),
    "sinkhorn.bracket": Row(
        sinkhorn.bracket,
        with_options(clouds, rel_tol=some(0.1, 0.01)),
        {"lower": 2, "upper": 2, "epsilon": None, "n_iter": None, "converged": None},
        encloses,
        loose=0.25,
    ),
    "gaussian.w2_squared": Row(gaussian.w2_squared, gaussians, 2, dowson_landau(1), degenerate=True),
    "gaussian.w2": Row(gaussian.w2, gaussians, 1, dowson_landau(0.5), degenerate=True),
    "gaussian.w2_squared_and_grad": Row(
        gaussian.w2_squared_and_grad, gaussians, {"0": 2, "1": None}, degenerate=True, numpy_only=True, euler=True
    ),
    "gaussian.pairwise_w2_squared": Row(gaussian.pairwise_w2_squared, families, 2, degenerate=True),
    "gaussian.fit": Row(
        gaussian.fit,
        with_options(
            lambda g, r: {
                k: v for k, v in clouds(g, replace(r, sizes=(r.sizes[0] + 2, *r.sizes[1:]))).items() if k in "xa"
            },
            biased=some(True, False),
        ),
        {"0": 1, "1": 2},
    ),
    "gaussian.w2_squared_from_samples": Row(gaussian.w2_squared_from_samples, batched_samples, 2, degenerate=True),
    "gaussian.w2_squared_from_samples_and_grad": Row(
        gaussian.w2_squared_from_samples_and_grad,
        batched_samples,
        {"0": 2, "1": None},
        degenerate=True,
        numpy_only=True,
        euler=True,
    ),
    "gaussian.transport_map": Row(gaussian.transport_map, gaussians, {"matrix": 0, "offset": 1}, degenerate=True),
    "gaussian.geodesic": Row(
        gaussian.geodesic, with_options(gaussians, t=some(0.0, 0.25, 1.0)), {"0": 1, "1": 2}, degenerate=True
    ),
    "gaussian.barycenter": Row(
        gaussian.barycenter,
        with_options(members, tol=1e-6),
        {"mean": 1, "cov": 2, "n_iter": None, "residual": None, "converged": None},
        degenerate=True,
        loose=1e-2,
    ),
    "gaussian.entropic_cost": Row(
        gaussian.entropic_cost, with_options(gaussians, epsilon=some(0.1, 2.0, power=2)), 2, degenerate=True
    ),
    "gaussian.sinkhorn_divergence": Row(
        gaussian.sinkhorn_divergence, with_options(gaussians, epsilon=some(0.1, 2.0, power=2)), 2, degenerate=True
    ),
    "gaussian.mixture_w2_squared": Row(gaussian.mixture_w2_squared, mixtures, 2, degenerate=True),
    "gaussian.mixture_plan": Row(gaussian.mixture_plan, mixtures, 0, degenerate=True),
    "gaussian.mixture_map": Row(moved_by_mixture, mixtures_and_points, 1, degenerate=True),
    "gaussian.Moments": Row(
        moments,
        lambda g, r: {"batch": Arg(fa.points(g, r, (r.sizes[0] + 1, r.sizes[2])))},
        {"0": 1, "1": 2},
        own_dtype=True,
    ),
    "inference.two_sample_test": Row(
        inference.two_sample_test,
        with_options(samples, n_permutations=9, rng=0),
        {"statistic": 2, "p_value": None},
        degenerate=True,
    ),
    "inference.confidence_interval": Row(
        inference.confidence_interval,
        with_options(lambda g, r: samples(g, r, 40), rng=0, method=some("jackknife", "delta")),
        CONFIDENT,
        degenerate=True,
        loose=1e-3,
    ),
    "inference.frechet_distance": Row(
        inference.frechet_distance,
        with_options(lambda g, r: samples(g, r, 40), correction=some("none", "jackknife", "extrapolate")),
        2,
        degenerate=True,
        loose=1e-3,
    ),
    "covariance.Diagonal": Row(
        lambda variance: covariance.Diagonal(variance).to_dense(),
        lambda g, r: {"variance": Arg(g.uniform(0, 2, (*r.batches[0], r.sizes[2])), 2)},
        2,
    ),
    "covariance.Isotropic": Row(
        lambda variance, d: covariance.Isotropic(variance, d).to_dense(),
        lambda g, r: {"variance": Arg(g.uniform(0, 2, r.batches[0]), 2, scalars=True), "d": r.sizes[2]},
        2,
    ),
    "covariance.Factor": Row(
        lambda root: covariance.Factor(root).to_dense(),
        # It may have no columns: "empty" is no fault.
        lambda g, r: {"root": Arg(fa.points(g, r, (*r.batches[0], r.sizes[2], r.sizes[0])), scalars=True)},
        2,
    ),
    "covariance.Circulant": Row(
        lambda spectrum, shape: covariance.Circulant(spectrum, shape).to_dense(),
        lambda g, r: {"spectrum": Arg(g.uniform(0, 2, (*r.batches[0], r.sizes[0] // 2 + 1)), 2), "shape": r.sizes[0]},
        2,
    ),
    "covariance.Kronecker": Row(
        lambda left, right: covariance.Kronecker(left, right).to_dense(),
        lambda g, r: {
            "left": Arg(fa.covariance(g, r, r.batches[0], 2), 2),
            "right": Arg(fa.covariance(g, r, r.batches[0], r.sizes[2]), 0),
        },
        2,
    ),
    "metrics.FrechetDistance": Row(
        lambda x, y: feed(metrics.FrechetDistance(), x, y),
        samples,
        2,
        degenerate=True,
        names=("points", "real"),
        own_dtype=True,
    ),
    "metrics.SlicedDistance": Row(
        lambda x, y: feed(metrics.SlicedDistance(directions=4), x, y), samples, 2, names=("points", "real")
    ),
    "metrics.SinkhornDivergence": Row(
        lambda x, y, epsilon: feed(metrics.SinkhornDivergence(epsilon=epsilon), x, y),
        with_options(samples, epsilon=some(0.5, 5.0, power=2)),
        2,
        loose=4e-3,
        names=("points", "real"),
    ),
    "metrics.to_torchmetrics": Row(
        lambda x, y: feed(metrics.to_torchmetrics(metrics.SlicedDistance(directions=4)), x, y),
        samples,
        2,
        names=("points", "real"),
    ),
    "otdist.pad_clouds": Row(
        between_padded,
        lambda g, r: clouds(g, r, batch=False, weighted=False),
        2,
        names=("clouds",),
        own_dtype=True,  # weights are in float32 at least
    ),
    "otdist.w2_squared": Row(
        of_distributions(otdist.w2_squared),
        locations,
        2,
        of_location_and_scale(1),
        loose=1e-9,
        sound=True,
        own_dtype=True,
    ),
    "otdist.w2": Row(
        of_distributions(otdist.w2),
        locations,
        1,
        of_location_and_scale(0.5),
        loose=1e-9,
        sound=True,
        own_dtype=True,
    ),
    "metrics.TwoSampleTest": Row(
        lambda x, y: feed(metrics.TwoSampleTest(n_permutations=9), x, y),
        samples,
        {"statistic": 2, "p_value": None},
        degenerate=True,
        names=("points", "real"),
    ),
}

# Public names that take no arrays or hold results.
NOT_CALLED = {
    "as_covariance",
    "validate_covariance",
    "Covariance",
    "Dense",
    "Metric",
    "register_w2",
    "warm_up",
    "ConvergenceWarning",
    "SinkhornResult",
}


def public() -> Iterator[str]:
    """Every public function and class: of ``__all__``, or defined in a module that has none."""
    for module_name in otdist.__all__:
        module = getattr(otdist, module_name)
        if not inspect.ismodule(module):
            if module_name not in NOT_CALLED:
                yield f"otdist.{module_name}"
            continue
        for name in getattr(module, "__all__", [k for k in vars(module) if not k.startswith("_")]):
            found = getattr(module, name)
            own = hasattr(module, "__all__") or getattr(found, "__module__", None) == module.__name__
            if own and callable(found) and name not in NOT_CALLED and not hasattr(found, "_replace"):  # named tuples
                yield f"{module_name}.{name}"


PUBLIC = sorted(public())


def test_every_public_function_is_called():
    assert set(PUBLIC) <= set(ROWS)


# What an error may speak of beside the arguments.
WORDS = ("variance", "root", "spectrum", "batch shapes", "library", "squared distance")

# One call.


def build(row: Row, r: Recipe) -> tuple[Args, Args, bool]:
    """Arguments as plain float64 in units, the hostile ones, and whether something about them is wrong."""
    dtype, other = fa.dtype_of(r), None
    if r.other_dtype is not None and dtype in fa.SCALES:
        other = fa.DTYPES[r.library][r.other_dtype]
    drawn = row.draw(np.random.default_rng(r.seed), r)
    shift = fa.SCALES[fa.working(dtype)][r.scale] if dtype in fa.SCALES or dtype == ">f8" else 0
    if other is not None and other != dtype:
        shift = 0
    plain: Args = {}
    hostile: Args = {}
    arrays = [k for k, v in drawn.items() if isinstance(v, Arg)]
    for k, v in drawn.items():
        if isinstance(v, Number):
            plain[k], hostile[k] = v.value, _ldexp(v.value, shift * v.power)
        elif not isinstance(v, Arg):
            plain[k] = hostile[k] = v
        else:
            which = other if other is not None and k == arrays[-1] else dtype
            if v.weight or (v.power == 0 and k == "directions"):  # which have to fit, and are made to by the library
                which = (
                    which
                    if which in ("float64", "float32", ">f8")
                    else "float64"
                    if r.library == "numpy"
                    else "float32"
                )
            value = fa.rounded(v.value, which)
            with np.errstate(over="ignore", under="ignore"):
                scaled = np.ldexp(value, shift * v.power)
                made = fa.typed(scaled, which, r.library)
                back = _back(made, value, which)
                plain[k] = replace(v, value=np.ldexp(back, -shift * v.power) if back is not value else value)
            hostile[k] = replace(v, value=made)
    return plain, hostile, shift


def _ldexp(value: float, exponent: int) -> float:
    with np.errstate(over="ignore"):
        return float(np.ldexp(value, exponent))


def _back(made: Any, value: np.ndarray, dtype: str) -> np.ndarray:
    if dtype in ("complex128", "complex64", "object", "longdouble"):
        return value
    return (made.double().numpy() if isinstance(made, torch.Tensor) else np.asarray(made)).astype(np.float64)


def spoil(args: Args, r: Recipe) -> str | None:
    """Put the recipe's fault into one of the arguments; its name, or None if the fault does not fit."""
    words = ("rng", "kind", "method", "correction", "biased")
    if r.fault == "option":
        names = [k for k, v in args.items() if not isinstance(v, Arg) and k not in words]
    else:
        names = [k for k, v in args.items() if isinstance(v, Arg)]
    if not names:
        return None
    name = names[r.fault_at % len(names)]
    if r.fault == "option":
        args[name] = (-1.0, math.nan, "many", 0, None, 1e400, [1], 0.5 + 0.5j)[r.seed % 8]
        return name
    arg = args[name]
    z = arg.value
    spoilt = _spoilt(z, r, arg)
    if spoilt is None:
        return None
    args[name] = replace(arg, value=spoilt)
    return name


def _spoilt(z: Any, r: Recipe, arg: Arg) -> Any:
    tensor = isinstance(z, torch.Tensor)
    floating = z.dtype.is_floating_point if tensor else z.dtype.kind == "f"
    if r.fault in ("nan", "inf", "negative"):
        size = z.numel() if tensor else z.size
        if not size or not floating or (r.fault == "negative" and not arg.weight):
            return None
        z = z.clone() if tensor else z.copy()
        z.reshape(-1)[r.seed % size] = {
            "nan": math.nan,
            "inf": -math.inf if r.seed % 2 else math.inf,
            "negative": -0.5,
        }[r.fault]
        return z
    if r.fault == "empty":
        return z[..., :0] if z.ndim and z.shape[-1] and not arg.scalars else None
    if r.fault == "no axis":
        return z.reshape(-1)[0] if math.prod(z.shape) else None
    if r.fault == "one axis more or less":
        return z[0] if z.ndim and len(z) and r.seed % 2 else z[None]
    if r.fault == "other size":
        return z[..., :-1] if z.ndim and z.shape[-1] > 1 else None
    if r.fault == "other library":
        if not tensor:
            return torch.from_numpy(np.real(z).astype(np.float64).copy())
        return (z.real if z.is_complex() else z).detach().double().numpy()
    return "text" if r.fault == "text" else None if r.fault == "option" else [[None]]


MUST_REFUSE = ("nan", "inf", "empty", "negative", "text", "none")


def check(name: str, r: Recipe) -> str:
    """Make one call and hold it to the law; what it came to, in a word."""
    row = ROWS[name]
    r = replace(r, fault=None) if row.sound else r
    plain, hostile, shift = build(row, r)
    if any(isinstance(v, float) and not 0 < v < math.inf for k, v in hostile.items() if k in ("epsilon", "reach")):
        return "not a case"  # an epsilon beyond float's range
    faulty = spoil(hostile, r) if r.fault else None
    arrays = [k for k, v in hostile.items() if isinstance(v, Arg)]
    dresses = fa.DRESSES[r.library]
    worn = {}
    for place, k in enumerate(arrays):
        z = hostile[k].value
        dress = dresses[r.dresses[place % 2] % len(dresses)]
        if dress == "repeated" and (
            r.batches != ((), ())
            or place > 1
            or name.startswith(
                (
                    "inference",
                    "metrics",
                    "gaussian.Moments",
                    "gaussian.mixture",
                    "exact.solve",
                    "sliced.barycenter",
                    "sinkhorn.barycenter",
                    "covariance.Kron",
                )
            )
        ):
            dress = "plain"
        worn[k] = dress
        if isinstance(z, (np.ndarray, torch.Tensor)):
            hostile[k] = replace(hostile[k], value=fa.dressed(z, dress))
    naked = [hostile[k].value for k in arrays]
    keywords = [*inspect.signature(row.call).parameters, *row.names, *(["points"] if "x" in hostile else [])]

    def call() -> Any:
        return row.call(**{k: v.wrap(v.value) if isinstance(v, Arg) else v for k, v in hostile.items()})

    named = {
        *hostile,
        *keywords,
        "variance",
        "root",
        "spectrum",
        "batch shapes",
        "library",
        "squared distance",
        name.rsplit(".")[0],
    }
    try:
        got = watched(call, naked, sorted(named))
    except Broken as broken:
        if isinstance(broken.__cause__, NotACase):
            return "not a case"
        raise
    if got.error is not None:
        _refusal_is_right(row, r, got.error, faulty, worn, hostile)
        return "refused"
    if faulty and r.fault in MUST_REFUSE:
        raise Broken(f"{r.fault} in {faulty} was not refused")
    out = list(_fields(got.result))
    if faulty:
        return "faulty, answered"
    if any(worn[k] == "repeated" for k in worn):
        if row.numpy_only:  # gradients by arguments that are not repeated have no axis to take off
            return "answered"
        out = [(k, z[0] if getattr(z, "ndim", 0) else z) for k, z in out]
    # The same numbers, plain.
    with np.errstate(all="ignore"):
        try:
            reference = watched(
                lambda: row.call(**{k: v.wrap(v.value) if isinstance(v, Arg) else v for k, v in plain.items()}),
                [],
                sorted(named),
            )
        except Broken as broken:
            if isinstance(broken.__cause__, NotACase):
                return "not a case"
            raise
    if reference.error is not None and any(word in str(reference.error) for word in ("semidefinite", "length 1")):
        return "answered"  # rounded to fewer digits, it is not quite
    if reference.error is not None:
        raise Broken("plain float64 arrays of the same numbers are refused, these were not") from reference.error
    if row.oracle is not None and not reference.unconverged:
        size = _size(plain)
        for what, found, right, error in row.oracle(reference.result, plain):
            degree = row.degree if isinstance(row.degree, int) else 2
            _close(f"{what} of plain arrays, beside the oracle", found, right, error, size, degree)
    if row.euler:
        _euler(reference.result, plain)
    _compare(
        row,
        r,
        out,
        list(_fields(reference.result)),
        plain,
        shift,
        got.unconverged or reference.unconverged,
        # A metric reads each update by itself: lists and integers beside a float32 array are of double precision.
        None if name.startswith("metrics") and not _all_floating(hostile) else _promoted(hostile),
    )
    _differentiable(got.result, naked, plain)
    return "answered"


def _refusal_is_right(row: Row, r: Recipe, error: Exception, faulty: str | None, worn: dict, hostile: Args) -> None:
    """Valid input is refused only for what the documentation says."""
    text = str(error)
    dtypes = {fa.dtype_of(r), *(fa.DTYPES[r.library][k] for k in (r.other_dtype,) if k is not None)}
    if faulty or dtypes & set(fa.REFUSED_DTYPES) or "masked" in worn.values():
        return
    if row.numpy_only and (
        r.library == "torch" or any(isinstance(v.value, torch.Tensor) for v in hostile.values() if isinstance(v, Arg))
    ):
        return
    beyond = r.scale in ("huge", "tiny") or (fa.dtype_of(r) == "float16" and r.scale != "unit")
    if beyond and any(word in text for word in ("range", "finite", "small", "large", "positive")):
        return
    if "semidefinite" in text and r.other_dtype is not None:  # singular, and rounded to fewer digits than it is held to
        return
    if "so that the dtypes agree" in text:
        return
    if "broadcast" in text or "must have shape" in text:  # batches that do not fit, by chance
        return
    if "positive definite" in text and (
        r.kind in ("lattice", "duplicates", "collinear") or dtypes & {"bool", "int64", "uint8", "float16", "bfloat16"}
    ):
        return
    if "not differentiable" in text or "must spread over two points" in text:
        return
    if "epsilon" in text and r.scale != "unit":
        return
    if dtypes & {"float16", "bfloat16", "bool", "int64", "uint8"} and (
        "semidefinite" in text or "length 1" in text or "sum to 1" in text
    ):
        return
    raise Broken(f"valid arguments were refused: {type(error).__name__}: {error}") from error


def _fields(result: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of a result with their names."""
    if hasattr(result, "_fields"):
        for k in result._fields:
            yield from _fields(getattr(result, k), k)
    elif isinstance(result, tuple):
        for k, z in enumerate(result):
            yield from _fields(z, prefix or str(k))
    elif hasattr(result, "__dataclass_fields__"):
        for k in result.__dataclass_fields__:
            if not k.startswith("_"):
                yield from _fields(getattr(result, k), k)
    elif result is not None:
        yield prefix or "0", result


def _numbers(z: Any) -> np.ndarray:
    return np.asarray(z.detach().double() if isinstance(z, torch.Tensor) else z, np.float64)


def _size(plain: Args) -> float:
    """The largest of the points and of the roots of the covariances."""
    found = [
        np.abs(v.value).max() ** (1 / v.power)
        for v in plain.values()
        if isinstance(v, Arg) and v.power and v.value.size
    ]
    return max([1e-3, *found, *(v**0.5 for k, v in plain.items() if k == "epsilon")])


def _close(what: str, got: Any, right: Any, error: float, size: float, degree: int) -> None:
    """|got - right| is at most `error` in units of size**2 for squares; a root may be off by the root of that."""
    got, right = _numbers(got), _numbers(right)
    if got.shape != right.shape:
        raise Broken(f"{what}: shape {got.shape}, not {right.shape}")
    allowed = error * 8 * size**degree
    if degree == 1:
        allowed = np.minimum(error**0.5 * 8 * size, error * 64 * size**2 / np.maximum(abs(right), 1e-300)) + allowed
    wrong = ~((got == right) | (abs(got - np.where(np.isfinite(right), right, np.nan)) <= allowed))
    if wrong.any():
        k = tuple(np.argwhere(wrong)[0])
        raise Broken(f"{what}: {got[k]:.9g}, not {right[k]:.9g} (allowed {np.broadcast_to(allowed, got.shape)[k]:.2g})")


def _promoted(hostile: Args) -> str | None:
    """The floating dtype that the arguments promote to, as it prints; None where integers or lists leave it open.

    Directions and the weights of mixtures do not take part; structures of integers are of the default dtype.
    """
    taking_part = {
        k: v for k, v in hostile.items() if isinstance(v, Arg) and k not in ("directions", "weights_x", "weights_y")
    }
    arrays = [v.value for v in taking_part.values()]
    if any(v.wrap is not _SAME for v in taking_part.values()) and not all(
        isinstance(z, np.ndarray | torch.Tensor) and "float" in str(z.dtype) for z in arrays
    ):
        return None
    if any(isinstance(z, torch.Tensor) for z in arrays):
        floating = [z for z in arrays if z.dtype.is_floating_point]
        found = [z.dtype for z in floating if z.ndim] or [z.dtype for z in floating]  # as torch.result_type
        return str(functools.reduce(torch.promote_types, found)) if found else None
    kinds = [z.dtype for z in arrays if isinstance(z, np.ndarray) and z.dtype.kind == "f"]
    wide = [z.dtype for z in arrays if isinstance(z, np.ndarray) and z.dtype.kind == "f" and z.ndim]
    kinds = wide or kinds  # a variance without dimensions is a scalar
    return str(np.result_type(*kinds)) if kinds else None


def _all_floating(hostile: Args) -> bool:
    arrays = [v.value for v in hostile.values() if isinstance(v, Arg)]
    return all(isinstance(z, np.ndarray | torch.Tensor) and "float" in str(z.dtype) for z in arrays)


def _compare(
    row: Row, r: Recipe, out: list, right: list, plain: Args, shift: int, unconverged: bool, promoted: str | None
) -> None:
    """Types, NaN, and the values of plain arrays."""
    dtype, size = fa.dtype_of(r), _size(plain)
    mixed = r.other_dtype is not None and fa.DTYPES[r.library][r.other_dtype] != dtype
    eps = {"float64": 2**-52, "float32": 2**-23, "bfloat16": 2**-7, "float16": 2**-10}.get(
        dtype, 2**-52 if r.library == "numpy" else 2**-23
    )
    if mixed:
        eps = 2**-7
    names = [k for k, _ in right]
    if [k for k, _ in out] != names:
        raise Broken(f"fields {[k for k, _ in out]}, not {names}")
    for (k, z), (_, ref) in zip(out, right, strict=True):
        v = _numbers(z)
        if np.isnan(v).any():
            raise Broken(f"NaN in {k}")
        degree = row.degree if isinstance(row.degree, int) else row.degree.get(k, row.degree.get("1"))
        if degree is None or unconverged:
            continue
        if (
            promoted
            and not row.own_dtype
            and isinstance(z, torch.Tensor | np.ndarray | np.generic)
            and str(z.dtype) != promoted
        ):
            raise Broken(f"{k} is a {type(z).__name__} of {z.dtype}; the arguments promote to {promoted}")
        if row.degenerate and (k not in ("0", "value", "cost", "statistic", "estimate") or eps > 2**-52):
            continue
        with np.errstate(over="ignore", under="ignore"):
            unscaled = np.ldexp(v, -shift * degree)
        if r.scale in ("huge", "tiny") or (dtype == "float16" and r.scale != "unit"):
            fine = np.isfinite(v) & (abs(v) > {"float64": 1e-290, "float16": 1e-2}.get(dtype, 1e-30))
            if degree != 1 and dtype != "float16":
                fine &= False
            unscaled = np.where(fine, unscaled, _numbers(ref)) if unscaled.shape == _numbers(ref).shape else unscaled
        count = max([1, *(x.value.size for x in plain.values() if isinstance(x, Arg))])
        _close(
            f"{k}, beside plain arrays",
            unscaled,
            ref,
            max(row.loose, 4 * count * eps, (100 * count * eps) ** 0.5 if row.degenerate else 0),
            size,
            degree,
        )


def _euler(result: Any, plain: Args) -> None:
    """Σ ⟨gradient, argument⟩ · power = 2 value: Euler's identity for what is of degree 2 in the points."""
    value, grads = result
    total = 0.0
    for k in grads._fields:
        g = getattr(grads, k)
        if g is None or k not in plain or isinstance(g, tuple):
            if isinstance(g, tuple):
                return
            continue
        if not np.isfinite(_numbers(g)).all():
            raise Broken(f"the gradient by {k} is not finite")
        if g.shape != plain[k].value.shape:
            raise Broken(f"the gradient by {k} has shape {g.shape}; {k} has {plain[k].value.shape}")
        total += plain[k].power * float((g * plain[k].value).sum())
    expected = 2 * float(np.sum(value))
    _close(
        "Euler's identity", np.array(total), np.array(expected), 1e-6, _size(plain) * max(1, np.size(value)) ** 0.5, 2
    )


def _differentiable(result: Any, naked: list[Any], plain: Args) -> None:
    """Whatever carries a gradient gives a finite one to every argument that requires it."""
    leaves = [z for z in naked if isinstance(z, torch.Tensor) and z.requires_grad and z.is_leaf]
    values = [z for _, z in _fields(result) if isinstance(z, torch.Tensor) and z.requires_grad]
    if leaves and values and all(bool(torch.isfinite(z).all()) for z in values):
        try:
            grads = torch.autograd.grad(sum(z.double().sum() for z in values), leaves, allow_unused=True)
        except ValueError as error:
            if undocumented(error, ["cov_x", "cov_y"]):
                raise
            return
        for g, z in zip(grads, leaves, strict=True):
            if g is not None and bool(torch.isnan(g).any()):
                raise Broken("NaN in a gradient")
            if g is not None and (g.shape != z.shape or g.dtype != z.dtype):
                raise Broken(f"a gradient of {tuple(g.shape)} {g.dtype}, of an argument {tuple(z.shape)} {z.dtype}")


@pytest.mark.parametrize("name", [k for k in PUBLIC if k in ROWS])
@given(recipe=fa.recipes)
def test_a_right_answer_or_a_documented_error(name, recipe):
    try:
        event(check(name, recipe))
    except Broken as broken:
        if not known(name, str(broken)):
            raise
        event("known")
