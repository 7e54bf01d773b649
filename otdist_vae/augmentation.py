"""New examples for a labelled data set: from the prior or a fitted density, about given ones, or between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .batches import as_labels

if TYPE_CHECKING:
    from .model import WVAE

METHODS = ("prior", "posterior", "interpolation")


def augment(
    model: WVAE,
    x: Any,
    y: Any,
    *,
    ratio: float,
    method: str,
    sampler: str | None,
    random_state: int | None,
) -> tuple[Any, np.ndarray | None]:
    """What :meth:`otdist_vae.WVAE.augment` does; see there."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if not 0 <= ratio < float("inf"):
        raise ValueError(f"ratio must be nonnegative and finite; got {ratio}")
    if y is not None and model.classes is None and method == "prior":
        raise ValueError(
            "the model has no classes, so draws from the prior have no label: fit it with y, "
            "or use method 'posterior' or 'interpolation'"
        )
    labels = None if y is None else as_labels(y, len(x))
    rows, indices = model._inputs(x, labels if model.classes is not None else None)
    seed = model.seed if random_state is None else int(random_state)
    rng = torch.Generator().manual_seed(seed)
    first, second = _partners(labels, len(rows), ratio, rng)
    new_labels = None if labels is None else labels[first.numpy()]
    if method == "prior":
        return model.sample(len(first), new_labels, sampler=sampler, random_state=seed), new_labels
    codes = _codes(model, rows, indices, first, second, method, rng)
    drawn = model._decode(codes, None if indices is None else indices[first])
    return (drawn.to(x.device) if isinstance(x, Tensor) else drawn.numpy()), new_labels


def _codes(
    model: WVAE, rows: Tensor, indices: Tensor | None, first: Tensor, second: Tensor, method: str, rng: torch.Generator
) -> Tensor:
    if method == "posterior":
        return model._encode(rows[first], None if indices is None else indices[first], rng)
    means = model._encode(rows, indices)
    t = torch.rand(len(first), 1, generator=rng, dtype=means.dtype)
    return torch.lerp(means[first], means[second], t)


def _partners(labels: np.ndarray | None, n: int, ratio: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the example each new one starts from, and of another of its class to mix it with.

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
    return torch.cat(first), torch.cat(second)
