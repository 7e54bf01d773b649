"""Adapters: how each rival is called, and what its answer means.

An adapter owns its rival's units. Whatever roots, halves and squares the rival deals in, `answers` turns what the call
returned into the squared distance and its gradients, under the names `bench.problems` uses. `prepare` converts the
inputs to the rival's arrays beforehand and returns the bare call, so that only the rival's work is timed.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from bench.problems import Arrays, Problem

Call = Callable[[], Any]


def value_only(result: Any) -> Arrays:
    """The answers of a call that returns W2² itself."""
    return {"value": np.asarray(result)}


@dataclass(frozen=True)
class Contender:
    """One way to answer a problem: ours or a rival's.

    `package` is what must be importable; `distribution` is what pip calls it.
    """

    name: str
    package: str
    distribution: str
    prepare: Callable[[Problem], Call]
    answers: Callable[[Any], Arrays] = value_only

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

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
    import torch

    return {
        name: torch.from_numpy(array).requires_grad_(f"grad_{name}" in problem.answers)
        for name, array in problem.inputs.items()
    }


def with_torch_gradient(problem: Problem, squared_distance: Callable[..., Any]) -> Call:
    """A call that computes the values and the gradient of their sum by backward()."""
    import torch

    inputs = leaves(problem)
    wanted = {name: leaf for name, leaf in inputs.items() if leaf.requires_grad}

    def call() -> Arrays:
        value = squared_distance(**inputs, **problem.options)
        grads = torch.autograd.grad(value.sum(), list(wanted.values()))
        return {"value": value, **{f"grad_{name}": grad for name, grad in zip(wanted, grads, strict=True)}}

    return call


def torch_answers(result: dict[str, Any]) -> Arrays:
    return {name: tensor.detach().numpy() for name, tensor in result.items()}


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
    "POT bures_wasserstein_distance, torch autograd", "ot", "POT", _pot_bures_gradient, torch_answers
)


# The formulas that FID packages use. Both return W2².


def _torchmetrics_fid(problem: Problem) -> Call:
    import torch
    from torchmetrics.image.fid import _compute_fid

    i = {name: torch.from_numpy(array) for name, array in problem.inputs.items()}
    return lambda: _compute_fid(i["mean_x"], i["cov_x"], i["mean_y"], i["cov_y"])


def _torchmetrics_from_samples(problem: Problem) -> Call:
    import torch
    from torchmetrics.image.fid import _compute_fid

    x, y = (torch.from_numpy(problem.inputs[name]) for name in "xy")

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


torchmetrics_fid = Contender("torchmetrics FID formula (eigvals)", "torchmetrics", "torchmetrics", _torchmetrics_fid)
torchmetrics_from_samples = Contender(
    "torchmetrics FID from features", "torchmetrics", "torchmetrics", _torchmetrics_from_samples
)
scipy_fid = Contender("scipy.linalg.sqrtm formula", "scipy", "scipy", _scipy_fid)


# torch: diagonal Gaussians are points (mean, scale) in 2d dimensions.


def _torch_cdist(problem: Problem) -> Call:
    import torch

    x, y = (
        torch.from_numpy(np.concatenate([problem.inputs[f"mean_{k}"], problem.inputs[f"scale_{k}"]], axis=-1))
        for k in "xy"
    )
    return lambda: torch.cdist(x, y) ** 2


torch_cdist = Contender("torch.cdist(x, y) ** 2", "torch", "torch", _torch_cdist)
