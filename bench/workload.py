"""One question of the bench: the data, our call, the rivals, how closely all must agree, how fast we promise to be."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.problems import Arrays, Problem
from bench.rivals import Contender


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
    """One question.

    `at_most_s` and `at_most_bytes` promise our own time and peak memory. What takes many minutes is run `by_name_only`,
    what asks a question about graphics cards where tensors are on one: `device_only`.
    """

    name: str
    group: str
    title: str
    data: Callable[[], Problem]
    ours: Contender
    rivals: tuple[Rival, ...]
    tolerance: Tolerance
    at_most_s: float | None = None
    at_most_bytes: float | None = None
    by_name_only: bool = False
    device_only: bool = False


NO_VALUE = Tolerance(0.0, "there is no value to agree on")


def no_answers(result: object) -> Arrays:
    """What is timed for itself alone answers nothing."""
    return {}
