"""Adapters: how each rival is called, and what its answer means.

An adapter owns its rival's units. Whatever roots, halves and squares the rival deals in, `answers` turns what the call
returned into the squared distance and its gradients, under the names `bench.problems` uses. `prepare` converts the
inputs to the rival's arrays beforehand and returns the bare call, so that only the rival's work is timed.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np

from bench import device
from bench.problems import Arrays, Problem

Call = Callable[[], Any]


def value_only(result: Any) -> Arrays:
    """The answers of a call that returns W2² itself, in an array or a tensor, wherever it is."""
    return {"value": np.asarray(result.detach().cpu() if hasattr(result, "detach") else result)}


@dataclass(frozen=True)
class Contender:
    """One way to answer a problem: ours or a rival's.

    `package` is what must be importable, and what it `needs` beside; `distribution` is what pip calls it. A call that
    does its work in another process tells in its result how many `seconds` that took, and its `peak_bytes` of memory.
    One that takes its tensors from `device` can have them `on_device`.
    """

    name: str
    package: str
    distribution: str
    prepare: Callable[[Problem], Call]
    answers: Callable[[Any], Arrays] = value_only
    seconds: Callable[[Any], float] | None = None
    peak_bytes: Callable[[Any], float] | None = None
    on_device: bool = False
    needs: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(name) is not None for name in (self.package, *self.needs))

    @property
    def version(self) -> str | None:
        return version_of(self.distribution)


def version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def leaves(problem: Problem) -> Arrays:
    """The inputs as torch tensors that ask for the gradients whose true values are known."""
    return {
        name: device.place(array).requires_grad_(f"grad_{name}" in problem.answers)
        for name, array in problem.inputs.items()
    }


def with_torch_gradient(problem: Problem, squared_distance: Callable[..., Any]) -> Call:
    """A call that computes the values and the gradient of their sum by backward()."""
    import torch

    inputs = leaves(problem)
    wanted = {name: leaf for name, leaf in inputs.items() if leaf.requires_grad}
    options = {k: device.place(o) if isinstance(o, np.ndarray) else o for k, o in problem.options.items()}

    def call() -> dict[str, Any]:
        value = squared_distance(**inputs, **options)
        grads = torch.autograd.grad(value.sum(), list(wanted.values()))
        return {"value": value, **{f"grad_{name}": grad for name, grad in zip(wanted, grads, strict=True)}}

    return call


def torch_answers(result: dict[str, Any]) -> Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in result.items()}


# POT: Gaussians. Its distance is W2, not squared.


def _pot_bures(problem: Problem) -> Call:
    from ot.gaussian import bures_wasserstein_distance

    i = problem.inputs
    return lambda: bures_wasserstein_distance(i["mean_x"], i["mean_y"], i["cov_x"], i["cov_y"])


def _pot_bures_gradient(problem: Problem) -> Call:
    from ot.gaussian import bures_wasserstein_distance

    def squared(mean_x, cov_x, mean_y, cov_y):
        return bures_wasserstein_distance(mean_x, mean_y, cov_x, cov_y, paired=mean_x.ndim == 2) ** 2

    return with_torch_gradient(problem, squared)


pot_bures = Contender(
    "POT bures_wasserstein_distance", "ot", "POT", _pot_bures, lambda distance: value_only(distance**2)
)
pot_bures_gradient = Contender(
    "POT bures_wasserstein_distance, torch autograd", "ot", "POT", _pot_bures_gradient, torch_answers, on_device=True
)


# The formulas that FID packages use. Both return W2².


def _torchmetrics_fid(problem: Problem) -> Call:
    from torchmetrics.image.fid import _compute_fid

    i = {name: device.place(array) for name, array in problem.inputs.items()}
    return lambda: _compute_fid(i["mean_x"], i["cov_x"], i["mean_y"], i["cov_y"])


def _torchmetrics_from_samples(problem: Problem) -> Call:
    from torchmetrics.image.fid import _compute_fid

    x, y = (device.place(problem.inputs[name]) for name in "xy")

    def moments(features):
        """As FrechetInceptionDistance.update accumulates and .compute finishes them."""
        n = len(features)
        mean = (features.sum(dim=0) / n).unsqueeze(0)
        cov = (features.t().mm(features) - n * mean.t().mm(mean)) / (n - 1)
        return mean.squeeze(0), cov

    return lambda: _compute_fid(*moments(x), *moments(y))


def _scipy_fid(problem: Problem) -> Call:
    from scipy.linalg import sqrtm

    mean_x, cov_x, mean_y, cov_y = (problem.inputs[k] for k in ("mean_x", "cov_x", "mean_y", "cov_y"))

    def frechet_distance():
        """As pytorch-fid's calculate_frechet_distance: the real part of the root of the product."""
        root = sqrtm(cov_x.dot(cov_y)).real
        difference = mean_x - mean_y
        return difference.dot(difference) + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root)

    return frechet_distance


torchmetrics_fid = Contender(
    "torchmetrics FID formula (eigvals)", "torchmetrics", "torchmetrics", _torchmetrics_fid, on_device=True
)
torchmetrics_from_samples = Contender(
    "torchmetrics FID from features", "torchmetrics", "torchmetrics", _torchmetrics_from_samples, on_device=True
)
scipy_fid = Contender("scipy.linalg.sqrtm formula", "scipy", "scipy", _scipy_fid)


# torch: diagonal Gaussians are points (mean, scale) in 2d dimensions.


def _torch_cdist(problem: Problem) -> Call:
    import torch

    x, y = (
        device.place(np.concatenate([problem.inputs[f"mean_{k}"], problem.inputs[f"scale_{k}"]], axis=-1)) for k in "xy"
    )
    return lambda: torch.cdist(x, y) ** 2


torch_cdist = Contender("torch.cdist(x, y) ** 2", "torch", "torch", _torch_cdist, on_device=True)


# Sliced. POT returns the root and takes directions as columns.


def _pot_sliced(problem: Problem) -> Call:
    from ot.sliced import sliced_wasserstein_distance

    x, y = problem.inputs["x"], problem.inputs["y"]
    columns = np.ascontiguousarray(problem.options["directions"].T)
    return lambda: sliced_wasserstein_distance(x, y, projections=columns)


def _pot_sliced_gradient(problem: Problem) -> Call:
    from ot.sliced import sliced_wasserstein_distance

    return with_torch_gradient(
        problem, lambda x, y, directions: sliced_wasserstein_distance(x, y, projections=directions.T) ** 2
    )


def _torch_sort_gradient(problem: Problem) -> Call:
    def squared(x, y, directions):
        """The formula as everybody writes it: each column sorted by itself."""
        along_x, along_y = (x @ directions.T).sort(dim=0).values, (y @ directions.T).sort(dim=0).values
        return (along_x - along_y).square().mean()

    return with_torch_gradient(problem, squared)


def _jax_sort_gradient(problem: Problem) -> Call:
    import jax
    import jax.numpy as jnp

    directions = jnp.asarray(problem.options["directions"])

    def squared(x, y):
        along_x, along_y = jnp.sort(directions @ x.T, axis=-1), jnp.sort(directions @ y.T, axis=-1)
        return ((along_x - along_y) ** 2).mean()

    return _jitted(problem, jax.value_and_grad(squared, argnums=(0, 1)))


def _jitted(problem: Problem, value_and_grads: Callable[..., Any]) -> Call:
    """x and y on the device, the function compiled at its first call, each call waited for."""
    import jax

    x, y = (jax.numpy.asarray(problem.inputs[name]) for name in "xy")
    compiled = jax.jit(value_and_grads)
    return lambda: jax.block_until_ready(compiled(x, y))


def _value_and_pair(result: Any) -> Arrays:
    value, (grad_x, grad_y) = result
    return {"value": np.asarray(value), "grad_x": np.asarray(grad_x), "grad_y": np.asarray(grad_y)}


def _projections_sorted(problem: Problem) -> Call:
    """What every sliced distance must at least do: the matrix products and NumPy's sort."""
    x, y, directions = problem.inputs["x"], problem.inputs["y"], problem.options["directions"]

    def call():
        along_x, along_y = directions @ x.T, directions @ y.T
        along_x.sort(axis=-1)
        along_y.sort(axis=-1)
        return along_x, along_y

    return call


def _projections_torch_sorted(problem: Problem) -> Call:
    """The same with PyTorch, which has the points' places beside: a gradient needs them."""
    x, y, directions = (device.place(z) for z in (*problem.inputs.values(), problem.options["directions"]))
    return lambda: [(directions @ z.T).sort().values for z in (x, y)]


def _value_of_sorted(result: Any) -> Arrays:
    along_x, along_y = (value_only(along)["value"].astype(float) for along in result)
    return value_only(((along_x - along_y) ** 2).mean())


pot_sliced = Contender(
    "POT sliced_wasserstein_distance", "ot", "POT", _pot_sliced, lambda distance: value_only(distance**2)
)
pot_sliced_gradient = Contender(
    "POT sliced_wasserstein_distance, torch autograd", "ot", "POT", _pot_sliced_gradient, torch_answers, on_device=True
)
torch_sort_gradient = Contender(
    "torch.sort formula", "torch", "torch", _torch_sort_gradient, torch_answers, on_device=True
)
jax_sort_gradient = Contender("jnp.sort formula, jax.jit", "jax", "jax", _jax_sort_gradient, _value_and_pair)
projections_sorted = Contender(
    "matrix product + numpy.sort alone", "numpy", "numpy", _projections_sorted, _value_of_sorted
)
projections_torch_sorted = Contender(
    "matrix product + torch.sort alone", "torch", "torch", _projections_torch_sorted, _value_of_sorted, on_device=True
)


# One dimension. With p = 2 POT's function returns the squared distance.


def _pot_line(problem: Problem) -> Call:
    from ot import wasserstein_1d

    x, y, a, b = (problem.inputs[name] for name in ("x", "y", "a", "b"))
    return lambda: wasserstein_1d(x, y, a, b, p=2)


pot_line = Contender("POT wasserstein_1d", "ot", "POT", _pot_line)


# Sinkhorn divergences with their gradients.


def _geomloss(scaling: float, problem: Problem) -> Call:
    from geomloss import SamplesLoss

    # GeomLoss's cost is |x - y|²/2 and its temperature blur²: both ε and the value are halved.
    blur = float(np.sqrt(problem.options["epsilon"] / 2))
    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")
    return with_torch_gradient(problem, lambda x, y, epsilon: 2 * loss(x, y))


def _ott(problem: Problem) -> Call:
    import jax
    from ott.geometry.pointcloud import PointCloud
    from ott.tools.sinkhorn_divergence import sinkhorn_divergence

    def divergence(x, y):
        epsilon = problem.options["epsilon"]
        return sinkhorn_divergence(PointCloud, x, y, epsilon=epsilon, solve_kwargs={"threshold": 1e-3})[0]

    function = jax.value_and_grad(divergence, argnums=(0, 1))
    return _jitted(problem, jax.vmap(function) if problem.inputs["x"].ndim == 3 else function)


def _pot_sinkhorn_log(problem: Problem) -> Call:
    """Three solves make a divergence. POT has no gradient that skips the iterations: the envelope's is written here."""
    from ot import dist
    from ot.bregman import sinkhorn_log

    x, y, epsilon = problem.inputs["x"], problem.inputs["y"], problem.options["epsilon"]

    def solve(x, y):
        n, m = len(x), len(y)
        a, b = np.full(n, 1 / n, x.dtype), np.full(m, 1 / m, x.dtype)
        # POT stops on an L2 norm; this makes the L1 norm at most 1e-3.
        plan, log = sinkhorn_log(a, b, dist(x, y), epsilon, stopThr=1e-3 / np.sqrt(m), log=True, warn=False)
        u, v = log["log_u"], log["log_v"]
        value = epsilon * (u.mean() + v.mean() + np.log(n) + np.log(m))
        return value, n * (plan @ y), m * (plan.T @ x)

    def call():
        (across, x_to_y, y_to_x), (in_x, x_to_x, _), (in_y, y_to_y, _) = solve(x, y), solve(x, x), solve(y, y)
        grads = 2 / len(x) * (x_to_x - x_to_y), 2 / len(y) * (y_to_y - y_to_x)
        return across - (in_x + in_y) / 2, grads

    return call


def _named_geomloss(scaling: float) -> Contender:
    name = f"GeomLoss tensorized, scaling {scaling:g}"
    return Contender(name, "geomloss", "geomloss", partial(_geomloss, scaling), torch_answers, on_device=True)


# GeomLoss follows a schedule that `scaling` makes finer, with no test of convergence: .5 is what it comes with; at .95
# its gradients are within some 5% of the true ones.
geomloss_coarse, geomloss_fine = _named_geomloss(0.5), _named_geomloss(0.95)
ott = Contender("OTT, threshold 1e-3, jitted and warm", "ott", "ott-jax", _ott, _value_and_pair)
pot_sinkhorn_log = Contender("POT sinkhorn_log", "ot", "POT", _pot_sinkhorn_log, _value_and_pair)
