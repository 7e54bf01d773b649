"""How the regularizer's weight moves during training: a factor in [0, 1] for each epoch's fraction."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ._config import catalogue

__all__ = ["Constant", "Cyclical", "Schedule", "Warmup"]


class Schedule(ABC):
    """Maps an epoch (a float: 2.5 is the middle of the third) to a factor of the weight."""

    @abstractmethod
    def __call__(self, epoch: float) -> float: ...


class Constant(Schedule):
    """1, always."""

    def __call__(self, epoch: float) -> float:
        return 1.0


class Warmup(Schedule):
    """From 0 to 1 in a straight line over the first `epochs`."""

    def __init__(self, epochs: float = 10) -> None:
        if not epochs > 0:
            raise ValueError(f"epochs must be positive; got {epochs}")
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        return min(1.0, epoch / self.epochs)


class Cyclical(Schedule):
    """In each cycle of `epochs` from 0 to 1 over the first half, then 1 (Fu et al. 2019, arXiv 1903.10145)."""

    def __init__(self, epochs: float = 10) -> None:
        if not epochs > 0:
            raise ValueError(f"epochs must be positive; got {epochs}")
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        return min(1.0, 2 * (epoch % self.epochs) / self.epochs)


CHOICES = catalogue(Schedule, globals())


def __dir__() -> list[str]:
    return __all__
