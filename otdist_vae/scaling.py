"""What is done to the data before the network, and undone behind it: x -> (x - shift) / scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batches import take

SCALINGS = ("auto", "none", "standard", "range")
CHUNK = 1024  # rows looked at together


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
