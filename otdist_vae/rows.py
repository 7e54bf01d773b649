"""What users hand in, arrays, tensors, Datasets and DataLoaders, seen alike: rows by number, a shape and a dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import labels


class DatasetRows:
    """A map-style Dataset as an array: `shape`, `dtype`, and rows stacked on demand, checked as they are read."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name
        first = _item(dataset, 0)[0]
        self.shape, self.dtype = (len(dataset), *first.shape), first.dtype

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Tensor:
        return torch.stack([self._row(int(i)) for i in np.arange(len(self.dataset))[index]])

    def _row(self, i: int) -> Tensor:
        row = _item(self.dataset, i)[0]
        if tuple(row.shape) != self.shape[1:]:
            mine, theirs = self.shape[1:], tuple(row.shape)
            raise ValueError(
                f"{self.name}: its examples must have one shape; the first has {mine}, example {i} {theirs}"
            )
        if not bool(torch.isfinite(row).all()):
            raise ValueError(f"{self.name} must be finite; example {i} holds NaN or infinity")
        return row


class RowSubset:
    """Some rows of something that is read as it is used, itself read as it is used."""

    def __init__(self, rows: Any, index: np.ndarray) -> None:
        self.rows, self.index = rows, index
        self.shape, self.dtype = (len(index), *rows.shape[1:]), rows.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[self.index[index]]


def subset(rows: Any, index: np.ndarray) -> Any:
    """DatasetRows by number: a copy of an array in memory, a view of a Dataset or of an array on disk."""
    return RowSubset(rows, index) if isinstance(rows, (DatasetRows, np.memmap)) else rows[index]


def _item(dataset: Any, i: int) -> tuple[Tensor, Any]:
    item = dataset[int(i)]
    x, y = (item[0], item[1] if len(item) > 1 else None) if isinstance(item, (tuple, list)) else (item, None)
    return torch.as_tensor(np.asarray(x)) if not isinstance(x, Tensor) else x, y


def as_rows(x: Any, y: Any = None, *, name: str = "x", minimum: int = 2) -> tuple[Any, np.ndarray | None]:
    """An array, tensor, Dataset or DataLoader as something with shape and rows, and its labels as an array.

    A DataLoader stands for its data set. The labels in a Dataset's pairs are used only if `y` is True.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the rule and what arrived: shapes, kinds of number, NaN or infinity, too few examples.
    """
    if isinstance(x, torch.utils.data.DataLoader):
        x = x.dataset
    if isinstance(x, torch.utils.data.IterableDataset):
        raise TypeError(f"{name} is an IterableDataset; a data set must have a length and rows by number")
    if y is True and not isinstance(x, torch.utils.data.Dataset):
        raise TypeError(f"y=True takes the labels of a Dataset; {name} is a {type(x).__name__}")
    if isinstance(x, torch.utils.data.TensorDataset):
        x, y = x.tensors[0], (x.tensors[1] if y is True and len(x.tensors) > 1 else y)
    if isinstance(x, torch.utils.data.Dataset):
        if not len(x):  # type: ignore[arg-type]
            raise ValueError(f"{name} must hold at least {minimum} examples; got an empty Dataset")
        rows: Any = DatasetRows(x, name)
        if y is True and _item(x, 0)[1] is not None:
            y = np.array([np.asarray(_item(x, i)[1]) for i in range(len(rows))])
    else:
        rows = _numbers(x, name)
    if y is True:
        raise ValueError(f"y=True takes the labels of a Dataset; the examples of {name} are no pairs (x, y)")
    if len(rows.shape) < 2 or 0 in rows.shape[1:]:
        raise ValueError(f"{name} must have shape (n, ...), one row an example; got {tuple(rows.shape)}")
    if len(rows) < minimum:
        raise ValueError(f"{name} must hold at least {minimum} examples; got {len(rows)}")
    return rows, None if y is None else labels.checked(y, len(rows))


def _numbers(x: Any, name: str) -> Any:
    if isinstance(x, Tensor):
        if x.is_complex() or x.is_sparse:
            raise TypeError(f"{name} must be a dense tensor of real numbers; got {x.dtype}, {x.layout}")
        x = x.detach().cpu()
    else:
        try:
            x = np.asanyarray(x)
        except ValueError as error:
            raise TypeError(f"{name} must be an array of real numbers: {error}") from None
        if x.dtype.kind not in "buif":
            raise TypeError(f"{name} must be an array of real numbers; got dtype {x.dtype}")
    for start in range(0, len(x) if x.ndim else 0, 4096):
        part = x[start : start + 4096]
        finite = torch.isfinite(part).all() if isinstance(x, Tensor) else np.isfinite(part).all()
        if not bool(finite):
            raise ValueError(f"{name} must be finite; rows {start} to {start + len(part) - 1} hold NaN or infinity")
    return x
