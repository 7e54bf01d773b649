"""What the public functions take and return, in the words of type checkers; at run time these names stand for nothing.

``def distance(x: A | Numbers, y: A | Numbers) -> A`` says: NumPy arrays give NumPy's, tensors give tensors, numbers and
lists give NumPy's, and the two libraries are not mixed. A result without dimensions is a NumPy scalar, which checkers
are told is an array: they do not know a batch when they see one. Where PyTorch is not installed, ``A`` is anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np


class Table(Protocol):
    """Frames and columns of pandas, polars and others."""

    def to_numpy(self) -> np.ndarray: ...


class JaxArray(Protocol):
    """An array of JAX. What is made of it is called NumPy's: checkers can't name a library that may be missing."""

    @property
    def sharding(self) -> Any: ...


# A string is a sequence of strings without end, and no sequence of numbers to any finite depth.
Lists: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]]
Numbers: TypeAlias = float | np.number | Lists | Sequence[np.ndarray] | Table | JaxArray
NumPy: TypeAlias = np.ndarray | Numbers


if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeVar  # which checkers know, installed or not

    A = TypeVar("A", np.ndarray, torch.Tensor, default=np.ndarray)
    Seed: TypeAlias = int | np.random.Generator | torch.Generator | None
    AnyArray: TypeAlias = np.ndarray | torch.Tensor | Numbers
else:
    from typing import TypeVar

    A, Seed, AnyArray = TypeVar("A"), Any, Any


class Frozen(Protocol):
    """A frozen distribution of SciPy, and whatever else can be drawn from."""

    def rvs(self, *args: Any, **kwargs: Any) -> Any: ...
