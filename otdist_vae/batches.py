"""Batches of examples in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BatchSampler:
    """The order of examples: a permutation drawn from (seed, epoch) alone, so that it needs no state to be resumed.

    A last batch below half the size is dropped: distances between few points are noise.
    """

    def __init__(self, n: int, batch_size: int, seed: int | None, world: int = 1, rank: int = 0) -> None:
        self.n, self.batch_size, self.seed = n, min(batch_size, n), seed
        self.world, self.rank = world, rank
        self.epoch = 0

    def __len__(self) -> int:
        whole, rest = divmod(self.n, self.batch_size)
        return whole + (2 * rest >= self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.seed is None:
            order = np.arange(self.n)
        else:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n)
        for k in range(len(self)):
            batch = order[k * self.batch_size : (k + 1) * self.batch_size]
            share = len(batch) // self.world  # equal shares, so that means of means are means
            yield batch[self.rank * share : (self.rank + 1) * share]


class Batches:
    """Batches (x, y) of arrays held in memory or memory-mapped; `y` is None without labels."""

    def __init__(self, x: Any, y: Tensor | None, sampler: BatchSampler) -> None:
        self.x, self.y = x, y
        self.batch_indices = sampler  # not `.sampler`, by which Lightning takes a loader for a DataLoader

    def __len__(self) -> int:
        return len(self.batch_indices)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for index in self.batch_indices:
            yield take(self.x, index), None if self.y is None else self.y[torch.from_numpy(index)]


def take(x: Any, index: np.ndarray) -> Tensor:
    """DatasetRows of an array or tensor, as a tensor."""
    if isinstance(x, Tensor):
        return x[torch.from_numpy(index).to(x.device)]
    chosen = np.ascontiguousarray(x[index])
    if chosen.dtype.kind == "u" and chosen.dtype.itemsize > 1:  # of these torch has the type, and hardly an operation
        chosen = chosen.astype(np.int64)
    return torch.from_numpy(chosen)


def split(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training part and of a random validation part of ⌈fraction·n⌉ examples."""
    order = np.random.default_rng([seed, 2**31]).permutation(n)
    held = math.ceil(fraction * n)
    return np.sort(order[held:]), np.sort(order[:held])
