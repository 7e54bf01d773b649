"""What is done to the data before the network, and undone behind it: x -> (x - shift) / scale, within their range."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .batches import take

SCALINGS = ("auto", "none", "standard", "range")
CHUNK = 1024  # rows looked at together


class DataUnits(NamedTuple):
    """What ties the network's numbers to the data's; each broadcasts against an example.

    Attributes
    ----------
    shift, scale : the network sees (x − shift)/scale.
    low, high : the ends of the training data's range, which nothing decoded leaves.
    """

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor


def resolve(rows: Any, kind: str) -> str:
    """The kind of scaling that "auto" stands for; any other kind stands for itself."""
    if kind != "auto":
        return kind
    low, high = value_range(rows)
    if low >= 0 and high <= 1:
        return "none"
    return "standard" if len(rows.shape) == 2 else "range"


def value_range(rows: Any) -> tuple[float, float]:
    """Least and greatest value of the rows, or 0 where that is beyond."""
    low = high = 0.0
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def shift_and_scale(rows: Any, kind: str) -> tuple[Tensor, Tensor]:
    """(shift, scale) in float32 (float64 for float64 data is rounded: the network is single precision)."""
    if kind == "standard":
        whole = np.asarray(take(rows, np.arange(len(rows))), dtype=np.float64)
        deviation = whole.std(0)
        constant = deviation <= 1e-7 * np.abs(whole).max(0)  # a column that rounding alone makes vary
        scale = np.where(constant, 1.0, deviation)
        return torch.from_numpy(whole.mean(0)).float(), torch.from_numpy(scale).float()
    if kind == "none":
        return torch.zeros(()), torch.ones(())
    if str(rows.dtype).endswith("uint8"):
        return torch.zeros(()), torch.tensor(255.0)
    low, high = value_range(rows)
    return torch.tensor(low), torch.tensor(high - low or 1.0)


def check_unit_range(rows: Any, shift: Tensor, scale: Tensor) -> None:
    """Raises ValueError unless the scaled rows are in [0, 1]."""
    low, high = value_range(rows)
    ends = [((torch.tensor(end) - shift) / scale) for end in (low, high)]
    if float(ends[0].min()) < -1e-6 or float(ends[1].max()) > 1 + 1e-6:
        raise ValueError(
            f"the Bernoulli likelihood needs data in [0, 1]; x is in [{low:g}, {high:g}]: use scaling='range'"
        )


def units(rows: Any, kind: str) -> DataUnits:
    """Everything that ties the network's numbers to the data's.

    The range is that of bytes for bytes, each column's own for a standardised table, and else one for all features.
    """
    shift, scale = shift_and_scale(rows, kind)
    return DataUnits(shift, scale, *_limits(rows, each=kind == "standard"))


def _limits(rows: Any, each: bool) -> tuple[Tensor, Tensor]:
    if str(rows.dtype).endswith("uint8"):
        return torch.tensor(0.0), torch.tensor(255.0)
    lows, highs = [], []
    for start in range(0, len(rows), CHUNK):
        part = take(rows, np.arange(start, min(start + CHUNK, len(rows))))
        lows.append(part.amin(0) if each else part.min())
        highs.append(part.amax(0) if each else part.max())
    return torch.stack(lows).amin(0).float(), torch.stack(highs).amax(0).float()
