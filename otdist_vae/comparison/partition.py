"""How a comparison divides its examples: the same for every regularizer, with every class in each part."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import batches

OF_PARTS, OF_LABELS = 2**31, 2**30  # streams of random numbers, so that one seed's choices do not depend on another


class Parts(NamedTuple):
    """Indices of what is kept and of what is held out."""

    kept: np.ndarray
    held: np.ndarray


def split(n: int, y: np.ndarray | None, share: float, seed: int) -> Parts:
    """Hold out a share of n examples, of each class its share where there are classes.

    >>> y = np.repeat([0, 1], [90, 10])
    >>> np.bincount(y[split(100, y, 0.3, seed=0).held]).tolist()
    [27, 3]
    """
    if y is None:
        return Parts(*batches.split(n, share, seed))
    held = _proportional(y, math.ceil(share * n), 0, np.random.default_rng([seed, OF_PARTS]))
    return Parts(np.setdiff1d(np.arange(n), held), held)


def labelled(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Indices of n examples, the classes in their proportions, one at least of each; the same for every source.

    >>> y = np.repeat([0, 1], [90, 10])
    >>> np.bincount(y[labelled(y, 20, seed=0)]).tolist()
    [18, 2]
    """
    return _proportional(y, n, 1, np.random.default_rng([seed, OF_LABELS]))


def _proportional(y: np.ndarray, n: int, least: int, rng: np.random.Generator) -> np.ndarray:
    classes, counts = np.unique(y, return_counts=True)
    most = counts - (1 - least)  # what is held out leaves one of each class
    quota = np.clip(np.floor(n * counts / len(y)).astype(int), least, most)
    while quota.sum() < min(n, most.sum()):  # the classes furthest below their share first
        short = np.where(quota < most, n * counts / len(y) - quota, -np.inf)
        quota[int(short.argmax())] += 1
    chosen = [rng.permutation(np.flatnonzero(y == label))[:k] for label, k in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen))
