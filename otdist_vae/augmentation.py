"""Which examples new ones are made from, class by class, and the points between their codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

METHODS = ("prior", "posterior", "interpolation")


class Partners(NamedTuple):
    """Indices (m,) of the examples that m new ones are made from."""

    first: Tensor
    second: Tensor


def check(method: str, ratio: float) -> None:
    """Raises ValueError unless the method is known and the ratio a finite number, at least 0."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if not 0 <= ratio < float("inf"):
        raise ValueError(f"ratio must be nonnegative and finite; got {ratio}")


def interpolate(start: Tensor, end: Tensor, rng: torch.Generator) -> Tensor:
    """One point on the segment between each pair of codes (m, d), uniformly drawn."""
    t = torch.rand(len(start), 1, generator=rng, dtype=start.dtype)
    return torch.lerp(start, end, t)


def partners(labels: np.ndarray | None, n: int, ratio: float, rng: torch.Generator) -> Partners:
    """For each new example the one that it starts from, and another of its class to mix it with.

    Each class gets round(ratio · its size); every example is used ⌊ratio⌋ or ⌈ratio⌉ times.
    """
    groups = [np.arange(n)] if labels is None else [np.flatnonzero(labels == k) for k in np.unique(labels)]
    first, second = [], []
    for group in groups:
        members, wanted = torch.from_numpy(group), round(ratio * len(group))
        rounds = -(-wanted // max(len(group), 1))
        shuffled = [members[torch.randperm(len(members), generator=rng)] for _ in range(rounds)]
        chosen = torch.cat(shuffled)[:wanted] if shuffled else members[:0]
        first.append(chosen)
        second.append(members[torch.randint(max(len(members), 1), (len(chosen),), generator=rng)])
    return Partners(torch.cat(first), torch.cat(second))
