"""Calls between PyTorch's own operators, whose threads spin on the same cores and whose data fill the caches."""

import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter

from bench import clouds, rivals
from bench.problems import Problem
from bench.rivals import Call, Contender
from bench.workload import NO_VALUE, Rival, Workload, no_answers

# Calls a turn: their median is its time.
_CALLS = 31


def in_step(prepare: Callable[[Problem], Call], problem: Problem) -> Call:
    """The median time of a call that follows a layer's products, as it does in training."""
    import numpy
    import torch

    inner, weights, data = prepare(problem), torch.randn(784, 512), torch.randn(256, 784)

    def call() -> dict[str, float]:
        times = []
        for _ in range(_CALLS):
            torch.relu(data @ weights) @ weights.T
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


def _contender(name: str, package: str, distribution: str, prepare: Callable[[Problem], Call]) -> Contender:
    return Contender(name, package, distribution, partial(in_step, prepare), no_answers, itemgetter("seconds"))


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
