"""Class labels of any kind that NumPy and pandas hold, as a plain NumPy array, and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def plain(y: Any) -> np.ndarray:
    """Labels as an array of booleans, integers, whole floats, strings or dates: one kind, nothing missing.

    Raises
    ------
    TypeError
        For other kinds, and for a mixture of them.
    ValueError
        For missing values.

    Examples
    --------
    >>> plain(np.array(["b", "a"], dtype=object))
    array(['b', 'a'], dtype='<U1')
    """
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.dtype.kind in "OT":  # NumPy's own strings of any length, and whatever pandas keeps as objects
        labels = _of_one_kind(labels)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    kind = labels.dtype.kind
    if kind in "fM" and bool((np.isnan(labels) if kind == "f" else np.isnat(labels)).any()):
        raise ValueError("y must have a label for each example; got missing values")
    if kind not in "buiUM" and not (kind == "f" and bool((labels == np.rint(labels)).all())):
        raise TypeError(f"y must be class labels: whole numbers, strings, booleans or dates; got dtype {labels.dtype}")
    return labels


def _of_one_kind(labels: np.ndarray) -> np.ndarray:
    values = labels.ravel().tolist()
    if any(v is None or type(v).__name__ in ("NAType", "NaTType") or (isinstance(v, float) and v != v) for v in values):
        raise ValueError("y must have a label for each example; got missing values")
    for kinds, dtype in (((bool, np.bool_), bool), ((int, np.integer), np.int64), ((int, float), float), ((str,), str)):
        if all(isinstance(v, kinds) and (dtype is bool or not isinstance(v, bool)) for v in values):
            return np.array(values, dtype=dtype).reshape(labels.shape)
    names = ", ".join(sorted({type(v).__name__ for v in values})[:3])
    raise TypeError(f"y must be class labels of one kind: whole numbers, strings, booleans or dates; got {names}")


def spoken(label: Any) -> str:
    """A label as a page names it: a number needs the word, a name does not.

    >>> spoken(3), spoken("setosa")
    ('class 3', 'setosa')
    """
    return str(label) if isinstance(label, str) else f"class {label}"


def checked(y: Any, n: int) -> np.ndarray:
    """Labels (n,). Raises ValueError or TypeError naming y and what arrived."""
    labels = plain(y)
    if labels.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one label an example; got {labels.shape}")
    return labels


def to_plain_values(classes: np.ndarray) -> tuple[list[Any], str]:
    """Distinct labels as JSON can hold them, and their dtype.

    >>> to_plain_values(np.array(["2026-01-01"], dtype="datetime64[D]"))
    (['2026-01-01'], '<M8[D]')
    """
    values = classes.astype(str) if classes.dtype.kind == "M" else classes
    return values.tolist(), classes.dtype.str


def from_plain_values(values: list[Any], dtype: str) -> np.ndarray:
    """The inverse of `to_plain_values`. Raises TypeError or ValueError for what it cannot have written."""
    if np.dtype(dtype).kind not in "buifUM":
        raise ValueError(f"labels cannot have dtype {dtype}")
    return np.array(values, dtype=dtype)
