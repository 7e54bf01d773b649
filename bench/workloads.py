"""What is measured: the data, our call, the rivals, how closely everybody must agree, and how fast we promise to be."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench import ablation, clouds, device, on_card, problems, processes, rivals, training
from bench.problems import Problem
from bench.rivals import Call, Contender
from bench.workload import Rival, Tolerance, Workload


def ours(name: str, prepare: Callable[[Problem], Call], answers=rivals.value_only) -> Contender:
    return Contender(name, "otdist", "otdist", prepare, answers, on_device=True)


def _value(module: str, function: str, problem: Problem) -> Call:
    """Our function on the inputs: NumPy's, but tensors where they are on a card."""
    arrays = {
        name: device.own(z) if hasattr(z, "ndim") else z for name, z in (problem.inputs | problem.options).items()
    }
    return partial(getattr(importlib.import_module(f"otdist.{module}"), function), **arrays)


def _torch_gradient(module: str, problem: Problem) -> Call:
    """Our value and its gradient, as training asks for them."""
    return rivals.with_torch_gradient(problem, importlib.import_module(f"otdist.{module}").w2_squared)


# Gaussians

# eps 1.1e-16, times d for a sum of that many terms, times 1e3 because the formulas take roots of eigenvalues 1e4 times
# smaller than the largest and lose half those digits: 2e-10 at d = 2048. Gradients divide by the roots once more.
_DENSE = Tolerance(1e-9, "d eps, and half the digits of condition number 1e4")
# Rivals differentiate a root inside a root, each of which may cost its condition number: 1e4 twice, times eps, is 2e-8;
# that of cov_y is up to 24² times larger (24 is the map's own).
_DENSE_GRADIENT = Tolerance(1e-5, "eps times both condition numbers")
_SINGULAR = Tolerance(1e-5, "a product of singular covariances has eigenvalues good to eps, their roots to sqrt(eps)")
_SAMPLES = Tolerance(1e-9, "n eps; no singular covariance is formed")
_EXPANDED = Tolerance(1e-11, "|x|² + |y|² - 2 x·y cancels: d eps times |x|² over the smallest distance")


def _gaussian_value(d: int, **at_least: float) -> Workload:
    entrants = {
        "pot": rivals.pot_bures,
        "torchmetrics": rivals.torchmetrics_fid,
        "scipy": rivals.scipy_fid,
    }
    return Workload(
        name=f"gaussian-value-{d}",
        group="gaussian",
        title=f"Gaussian W2², d = {d}, float64",
        data=partial(problems.gaussian_pair, d),
        ours=ours("gaussian.w2_squared", partial(_value, "gaussian", "w2_squared")),
        rivals=tuple(Rival(entrant, at_least.get(key)) for key, entrant in entrants.items()),
        tolerance=_DENSE,
    )


_GAUSSIAN = (
    _gaussian_value(8),
    _gaussian_value(64, pot=4),
    _gaussian_value(512, pot=8, torchmetrics=5),
    _gaussian_value(2048, pot=9, torchmetrics=2.5, scipy=12),
    Workload(
        name="gaussian-gradient-512",
        group="gaussian",
        title="Gaussian W2² and gradient, d = 512, float64",
        data=partial(problems.gaussian_pair, 512),
        ours=ours("gaussian.w2_squared, backward", partial(_torch_gradient, "gaussian"), rivals.torch_answers),
        rivals=(
            Rival(ours("our value alone", partial(_value, "gaussian", "w2_squared")), 1 / 5),
            Rival(rivals.pot_bures_gradient),
        ),
        tolerance=_DENSE_GRADIENT,
    ),
    *(
        Workload(
            name=f"gaussian-batch-{d}",
            group="gaussian",
            title=f"4096 Gaussian pairs, d = {d}, W2² and gradient, float64",
            data=partial(problems.gaussian_pair, d, batch=(4096,)),
            ours=ours("gaussian.w2_squared, backward", partial(_torch_gradient, "gaussian"), rivals.torch_answers),
            rivals=(Rival(rivals.pot_bures_gradient, 10 if d == 8 else None),),
            tolerance=_DENSE_GRADIENT,
        )
        for d in (2, 8, 16, 32)
    ),
    Workload(
        name="gaussian-samples-500-2048",
        group="gaussian",
        title="Fréchet distance from 500 samples, d = 2048, float64",
        data=partial(problems.gaussian_samples, 500, 2048),
        ours=ours("gaussian.w2_squared_from_samples", partial(_value, "gaussian", "w2_squared_from_samples")),
        rivals=(Rival(rivals.torchmetrics_from_samples, 30, _SINGULAR),),
        tolerance=_SAMPLES,
    ),
    Workload(
        name="diagonal-pairwise-5000",
        group="gaussian",
        title="5000 x 5000 diagonal Gaussians, d = 64, float64",
        data=partial(problems.diagonal_families, 5000, 64),
        ours=ours("diagonal.pairwise_w2_squared", partial(_value, "diagonal", "pairwise_w2_squared")),
        rivals=(Rival(rivals.torch_cdist, 1),),
        tolerance=_EXPANDED,
    ),
)


# Sliced and one-dimensional

_SORTED = Tolerance(2e-4, "float32 sums of d products; neighbours that close swap places")
_CUMULATED = Tolerance(2e-3, "float32 weights cumulated over n points, n eps = 2.4e-3 at worst")
_LINE = Tolerance(1e-9, "float64 weights cumulated over 1e6 points")
_WITHIN_1_6 = Rival(rivals.projections_sorted, 1 / 1.6)

_SLICED = (
    Workload(
        name="sliced-value",
        group="sliced",
        title="sliced W2², n = 20000, d = 64, 100 directions, float32",
        data=partial(clouds.sliced_clouds, 20_000, 64, 100),
        ours=ours("sliced.w2_squared", partial(_value, "sliced", "w2_squared")),
        rivals=(Rival(rivals.pot_sliced, 50, _CUMULATED), _WITHIN_1_6),
        tolerance=_SORTED,
    ),
    Workload(
        name="sliced-gradient",
        group="sliced",
        title="sliced W2² and gradient, n = 20000, d = 64, 100 directions, float32",
        data=partial(clouds.sliced_clouds, 20_000, 64, 100),
        ours=ours("sliced.w2_squared, backward", partial(_torch_gradient, "sliced"), rivals.torch_answers),
        rivals=(
            Rival(rivals.pot_sliced_gradient, 30, _CUMULATED),
            Rival(rivals.torch_sort_gradient, 4),
            Rival(rivals.jax_sort_gradient, 12),
            _WITHIN_1_6,
        ),
        tolerance=_SORTED,
    ),
    Workload(
        name="line-weighted",
        group="sliced",
        title="one dimension, 1e6 weighted points, W2², float64",
        data=partial(clouds.weighted_line, 1_000_000),
        ours=ours("line.w2_squared", partial(_value, "line", "w2_squared")),
        rivals=(Rival(rivals.pot_line, 4),),
        tolerance=_LINE,
    ),
)


# Sinkhorn divergences, value and gradient

# Marginals off by 1e-3 move the value to second order and the barycentric maps to first. A map's error is 1e-3 of the
# cloud's spread, and the gradient is a difference of two maps some ten times shorter than that.
_STOPPED = Tolerance(2e-2, "stopped at a marginal error of 1e-3; a gradient is a difference of two maps")
_SCHEDULED = Tolerance(0.5, "a fixed schedule that does not test convergence; see its error")


def _sinkhorn(name: str, title: str, data: Callable[[], Problem], **at_least: float) -> Workload:
    entrants = {
        "geomloss": (rivals.geomloss_fine, _SCHEDULED),
        "coarse": (rivals.geomloss_coarse, _SCHEDULED),
        "ott": (rivals.ott, None),
        "pot": (rivals.pot_sinkhorn_log, None),
    }
    return Workload(
        name=f"sinkhorn-{name}",
        group="sinkhorn",
        title=f"Sinkhorn divergence and gradient, {title}, float32",
        data=data,
        ours=ours("sinkhorn.w2_squared, backward", partial(_torch_gradient, "sinkhorn"), rivals.torch_answers),
        rivals=tuple(Rival(entrants[key][0], least or None, entrants[key][1]) for key, least in at_least.items()),
        tolerance=_STOPPED,
    )


_SINKHORN = (
    _sinkhorn(
        "256",
        "256 points, d = 16, ε = .05 mean cost",
        partial(clouds.entropic_clouds, 256, 16, 0.05),
        geomloss=40,
        coarse=0,
        ott=8,
        pot=0,
    ),
    _sinkhorn(
        "256-batch",
        "64 problems of 256 points, d = 16, ε = .05 mean cost",
        partial(clouds.entropic_clouds, 256, 16, 0.05, batch=64),
        geomloss=40,
        coarse=0,
        ott=8,
    ),
    _sinkhorn(
        "1000",
        "1000 points, d = 2, ε = .01 mean cost",
        partial(clouds.entropic_clouds, 1000, 2, 0.01),
        geomloss=5,
        ott=5,
    ),
    _sinkhorn(
        "4000",
        "4000 points, d = 64, ε = .05 mean cost",
        partial(clouds.entropic_clouds, 4000, 64, 0.05),
        geomloss=40,
        ott=4,
        pot=50,
    ),
)


# Training

_TRAINING = (
    training.vae_step("w2", 1.05),
    training.vae_step("sliced", 1.15),
    training.vae_step("sinkhorn", 1.5),
)

_CLAIMS: tuple[Workload, ...] = (
    *_GAUSSIAN,
    *_SLICED,
    *training.SLICED_STEPS,
    training.SINKHORN_STEP,
    *_SINKHORN,
    *processes.WORKLOADS,
    *_TRAINING,
)

_BY_NAME = {workload.name: workload for workload in _CLAIMS}

WORKLOADS: tuple[Workload, ...] = (*_CLAIMS, *on_card.rows(_BY_NAME), *ablation.rows(_BY_NAME))


def select(words: list[str]) -> list[Workload]:
    """The workloads whose group is or whose name contains one of the words; without words, all quick ones."""
    return [w for w in WORKLOADS if _is_meant(w, words)]


def _is_meant(workload: Workload, words: list[str]) -> bool:
    if workload.by_name_only:
        return workload.name in words
    if workload.group == "ablation":  # whose names hold those of the workloads that they repeat
        return not words or any(workload.name.startswith(word) for word in words)
    return not words or any(word == workload.group or word in workload.name for word in words)


def on_host(workloads: list[Workload]) -> list[Workload]:
    """What can be measured without a card."""
    return [w for w in workloads if not w.device_only]


def on_device(workloads: list[Workload]) -> list[Workload]:
    """What can be measured on a card: calls of tensors, against rivals that take tensors too.

    What other workloads promise is promised of a processor.
    """
    there = [w for w in workloads if w.ours.on_device and w.group != "ablation"]  # whose paths are the host's
    return [w if w.device_only else _without_promises(w) for w in there]


def _without_promises(workload: Workload) -> Workload:
    there = tuple(replace(r, at_least=None) for r in workload.rivals if r.contender.on_device)
    return replace(workload, rivals=there, at_most_s=None, at_most_bytes=None)
