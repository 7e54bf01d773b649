"""Every second path against the plain one that would do: each has to earn its code, and its compiler's seconds.

A row is a workload of the table run again with one decision of ours taken the other way, by setting what the library
decides by. A path stays where it is 1.3 times faster in its headline row.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from bench.problems import Problem
from bench.rivals import Call, Contender
from bench.workload import Rival, Workload

# What a second path must gain to stay.
AT_LEAST = 1.3


@dataclass(frozen=True)
class Switch:
    """What the library decides by, and a value with which it decides the other way."""

    module: str
    attribute: str
    value: Any

    @property
    def place(self) -> Any:
        return import_module(self.module)


@dataclass(frozen=True)
class Ablation:
    """A workload, what is taken away from it, and how; `at_least` is None where both ways are needed anyhow."""

    workload: str
    path: str
    instead: str
    switches: tuple[Switch, ...]
    at_least: float | None = AT_LEAST


def _by_argsort(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `projected` does by packed keys, by NumPy's argsort."""
    order = x.argsort(axis=-1)
    rows, n = x.shape[-2:]
    return np.take_along_axis(x, order, -1), order + np.arange(0, rows * n, n)[:, None]


def _as_tensors(tensors: Any) -> tuple[Any, ...]:
    """What a kernel gets on a GPU: tensors, in place of arrays."""
    return tuple(t.detach() for t in tensors)


_ONE_THREAD = Switch("otdist._core.threads", "size", lambda: 1)
_TENSORS = Switch("otdist._core.torch_operator", "_unwrap", _as_tensors)
_LAPACK = Switch("otdist.gaussian.bures", "_LARGEST_BATCHED", 0)
_GENERAL = Switch("otdist.sliced.direct", "is_small", lambda *sizes: False)

ABLATIONS = (
    Ablation("gaussian-batch-8", "compiled Jacobi", "LAPACK pair by pair", (_LAPACK,)),
    Ablation("gaussian-batch-32", "compiled Jacobi", "LAPACK pair by pair", (_LAPACK,)),
    Ablation("line-weighted", "compiled loops", "array operations", (Switch("otdist.line.monotone", "_FEW", 1 << 62),)),
    Ablation(
        "sliced-gradient",
        "packed sort",
        "numpy.argsort",
        (Switch("otdist.sliced.projected", "_tagged_floats", _by_argsort),),
    ),
    Ablation(
        "sliced-value",
        "products in pieces",
        "one product on BLAS's threads",
        (Switch("otdist.sliced.products", "is_small", lambda *sizes: True),),
    ),
    Ablation(
        "sliced-gradient",
        "products in pieces",
        "products on BLAS's threads",
        (Switch("otdist.sliced.products", "is_small", lambda *sizes: True),),
    ),
    Ablation("sliced-gradient", "threads of our own", "one thread", (_ONE_THREAD,)),
    Ablation("sliced-gradient", "NumPy", "PyTorch's operations", (_TENSORS,)),
    Ablation("step-sliced-value", "short way for one small pair", "general way", (_GENERAL,)),
    Ablation("step-sliced-gradient", "short way for one small pair", "general way", (_GENERAL,)),
    Ablation(
        "sinkhorn-256",
        "one compiled loop",
        "compiled passes, the method in Python",
        (Switch("otdist.sinkhorn.numpy_engine", "CACHED", -1),),
    ),
    Ablation("sinkhorn-1000", "compiled passes", "PyTorch's operations", (_TENSORS,)),
    Ablation("sinkhorn-1000", "threads of our own", "one thread", (_ONE_THREAD,)),
)


@contextmanager
def switched(switches: tuple[Switch, ...]) -> Iterator[None]:
    """The library with its decisions taken the other way."""
    before = [getattr(switch.place, switch.attribute) for switch in switches]
    for switch in switches:
        setattr(switch.place, switch.attribute, switch.value)
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            setattr(switch.place, switch.attribute, value)


def without(contender: Contender, ablation: Ablation) -> Contender:
    """The same call of ours on the other path."""

    def prepare(problem: Problem) -> Call:
        call = contender.prepare(problem)

        def ablated() -> Any:
            with switched(ablation.switches):
                return call()

        return ablated

    return replace(contender, name=ablation.instead, prepare=prepare)


def rows(workloads: Mapping[str, Workload]) -> tuple[Workload, ...]:
    """One workload for each ablation, of those that have the names."""
    return tuple(_row(workloads[ablation.workload], ablation) for ablation in ABLATIONS)


def _row(base: Workload, ablation: Ablation) -> Workload:
    return replace(
        base,
        name=f"ablation-{base.name}-{ablation.path.replace(' ', '-')}",
        group="ablation",
        title=f"{ablation.path}: {base.title}",
        rivals=(Rival(without(base.ours, ablation), ablation.at_least),),
    )
