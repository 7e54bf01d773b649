"""What is measured: the data, our call, the rivals, how closely everybody must agree, and how fast we promise to be."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import problems, rivals
from bench.problems import Problem
from bench.rivals import Call, Contender


@dataclass(frozen=True)
class Tolerance:
    """The largest relative error at which an answer still counts as the same answer, and why that large."""

    rtol: float
    reason: str

    def __str__(self) -> str:
        return f"{self.rtol:.0e}: {self.reason}"


@dataclass(frozen=True)
class Rival:
    """A contender and the factor by which we promise to be faster (below 1: how much slower we may be)."""

    contender: Contender
    at_least: float | None = None
    tolerance: Tolerance | None = None


@dataclass(frozen=True)
class Workload:
    """One question. `at_most_s` promises our time itself; `needs` is the function that must exist to ask it."""

    name: str
    group: str
    title: str
    data: Callable[[], Problem]
    ours: Contender
    rivals: tuple[Rival, ...]
    tolerance: Tolerance
    at_most_s: float | None = None
    needs: str = ""

    @property
    def available(self) -> bool:
        module, _, function = self.needs.rpartition(".")
        try:
            return not self.needs or hasattr(importlib.import_module(module), function)
        except ModuleNotFoundError:
            return False


def ours(name: str, prepare: Callable[[Problem], Call], answers=rivals.value_only) -> Contender:
    return Contender(name, "otdist", "otdist", prepare, answers)


def _numpy(module: str, function: str, problem: Problem) -> Call:
    """Our function on the NumPy inputs."""
    return partial(getattr(importlib.import_module(f"otdist.{module}"), function), **problem.inputs, **problem.options)


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
        ours=ours("gaussian.w2_squared", partial(_numpy, "gaussian", "w2_squared")),
        rivals=tuple(Rival(entrant, at_least.get(key)) for key, entrant in entrants.items()),
        tolerance=_DENSE,
        needs="otdist.gaussian.w2_squared",
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
            Rival(ours("our value alone", partial(_numpy, "gaussian", "w2_squared")), 1 / 5),
            Rival(rivals.pot_bures_gradient),
        ),
        tolerance=_DENSE_GRADIENT,
        needs="otdist.gaussian.w2_squared",
    ),
    Workload(
        name="gaussian-batch-8",
        group="gaussian",
        title="4096 Gaussian pairs, d = 8, W2² and gradient, float64",
        data=partial(problems.gaussian_pair, 8, batch=(4096,)),
        ours=ours("gaussian.w2_squared, backward", partial(_torch_gradient, "gaussian"), rivals.torch_answers),
        rivals=(Rival(rivals.pot_bures_gradient, 10),),
        tolerance=_DENSE_GRADIENT,
        needs="otdist.gaussian.w2_squared",
    ),
    Workload(
        name="gaussian-samples-500-2048",
        group="gaussian",
        title="Fréchet distance from 500 samples, d = 2048, float64",
        data=partial(problems.gaussian_samples, 500, 2048),
        ours=ours("gaussian.w2_squared_from_samples", partial(_numpy, "gaussian", "w2_squared_from_samples")),
        rivals=(Rival(rivals.torchmetrics_from_samples, 30, _SINGULAR),),
        tolerance=_SAMPLES,
        needs="otdist.gaussian.w2_squared_from_samples",
    ),
    Workload(
        name="diagonal-pairwise-5000",
        group="gaussian",
        title="5000 x 5000 diagonal Gaussians, d = 64, float64",
        data=partial(problems.diagonal_families, 5000, 64),
        ours=ours("diagonal.pairwise_w2_squared", partial(_numpy, "diagonal", "pairwise_w2_squared")),
        rivals=(Rival(rivals.torch_cdist, 1),),
        tolerance=_EXPANDED,
        needs="otdist.diagonal.pairwise_w2_squared",
    ),
)


# Fresh processes: what a user waits for before anything is computed. The interpreter's own start is included.


def _process(code: str) -> Callable[[Problem], Call]:
    def prepare(problem: Problem) -> Call:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

    return prepare


def _nothing(result: object) -> problems.Arrays:
    return {}


_IMPORT = Workload(
    name="import",
    group="import",
    title="import in a fresh process",
    data=partial(Problem, {}, {}),
    ours=ours("import otdist", _process("import otdist"), _nothing),
    rivals=(Rival(Contender("import ot", "ot", "POT", _process("import ot"), _nothing)),),
    tolerance=Tolerance(0.0, "an import has no value to agree on"),
    at_most_s=0.3,
)

WORKLOADS: tuple[Workload, ...] = (*_GAUSSIAN, _IMPORT)


def select(words: list[str]) -> list[Workload]:
    """The available workloads whose group or name contains one of the words; all of them if there is none."""
    wanted = [w for w in WORKLOADS if not words or any(word in (w.group, w.name) or word in w.name for word in words)]
    return [w for w in wanted if w.available]
