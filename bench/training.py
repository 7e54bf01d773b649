"""Calls in training: between PyTorch's own operators, whose threads spin on the same cores and whose data fill the
caches, and as regularizers of a model's steps.
"""

import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter

from bench import clouds, device, rivals
from bench.problems import Problem
from bench.rivals import Call, Contender
from bench.workload import NO_VALUE, Rival, Workload, no_answers

# Calls a turn: their median is its time.
_CALLS = 31


def in_step(prepare: Callable[[Problem], Call], problem: Problem) -> Call:
    """The median time of a call that follows a layer's products, as it does in training."""
    import torch

    weights, data = torch.randn(784, 512), torch.randn(256, 784)
    return _timed(prepare(problem), lambda: torch.relu(data @ weights) @ weights.T)


def alone(prepare: Callable[[Problem], Call], problem: Problem) -> Call:
    """The same of a call that follows nothing but itself."""
    return _timed(prepare(problem), lambda: None)


def _timed(inner: Call, before: Callable[[], object]) -> Call:
    """The median time of a call that follows another one, which is not timed."""
    import numpy

    def call() -> dict[str, float]:
        times = []
        for _ in range(_CALLS):
            before()
            start = time.perf_counter()
            inner()
            times.append(time.perf_counter() - start)
        return {"seconds": float(numpy.median(times))}

    return call


def _ours(gradient: bool, problem: Problem) -> Call:
    import torch

    from otdist import sliced

    x, y = (torch.tensor(problem.inputs[name], requires_grad=gradient) for name in "xy")
    directions = torch.tensor(problem.options["directions"])
    if not gradient:
        return lambda: sliced.w2_squared(x, y, directions=directions)
    return lambda: torch.autograd.grad(sliced.w2_squared(x, y, directions=directions), (x, y))


def _sinkhorn(problem: Problem) -> Call:
    from otdist import sinkhorn

    return rivals.with_torch_gradient(problem, sinkhorn.w2_squared)


def _contender(
    name: str, package: str, distribution: str, prepare: Callable[[Problem], Call], where: Callable[..., Call] = in_step
) -> Contender:
    return Contender(name, package, distribution, partial(where, prepare), no_answers, itemgetter("seconds"))


_FLOOR = _contender("its product and numpy.sort", "numpy", "numpy", rivals.projections_sorted.prepare)

SLICED_STEPS = tuple(
    Workload(
        name=f"step-sliced-{what}",
        group="step",
        title=f"sliced W2²{' and gradient' if gradient else ''} inside a training step, n = 256, d = 16, 50 directions",
        data=partial(clouds.sliced_clouds, 256, 16, 50),
        ours=_contender("sliced.w2_squared", "otdist", "otdist", partial(_ours, gradient)),
        rivals=(Rival(_FLOOR, 1 / at_most),),
        tolerance=NO_VALUE,
    )
    for what, gradient, at_most in (("value", False, 2), ("gradient", True, 3))
)

SINKHORN_STEP = Workload(
    name="step-sinkhorn",
    group="step",
    title="Sinkhorn divergence and gradient inside a training step, 256 points, d = 16, ε = .05 mean cost, float32",
    data=partial(clouds.entropic_clouds, 256, 16, 0.05),
    ours=_contender("sinkhorn.w2_squared, backward", "otdist", "otdist", _sinkhorn),
    rivals=(Rival(_contender("our call alone", "otdist", "otdist", _sinkhorn, alone), 1 / 1.3),),
    tolerance=NO_VALUE,
)


# What a Wasserstein regularizer costs over the Kullback-Leibler term in one step on the digits. Ten epochs of fit time
# themselves, so that setting up and the last pass over the data do not count.


def _fit(regularizer: str) -> Contender:
    def prepare(problem: Problem) -> Call:
        from otdist_vae import WVAE, data

        x = data.digits().x

        def call() -> dict[str, float]:
            model = WVAE(8, regularizer, posterior="diagonal", random_state=0)
            where = {} if device.current() == "cpu" else {"device": device.current()}
            return model.fit(x, max_epochs=10, validation=None, progress=False, **where).report

        return call

    return Contender(f"{regularizer} step", "otdist_vae", "otdist", prepare, no_answers, seconds=_seconds_a_step)


def _seconds_a_step(report: dict[str, float]) -> float:
    return report["seconds_per_epoch"] * report["epochs"] / report["steps"]


def vae_step(regularizer: str, at_most: float) -> Workload:
    """A step with this regularizer, which may take so many times as long as one with the Kullback-Leibler term."""
    return Workload(
        name=f"vae-{regularizer}",
        group="vae",
        title=f"training step on digits, {regularizer}",
        data=partial(Problem, {}, {}),
        ours=_fit(regularizer),
        rivals=(Rival(_fit("kl"), 1 / at_most),),
        tolerance=NO_VALUE,
    )
