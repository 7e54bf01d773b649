"""Values against the annotation of the argument they are meant for; what does not fit is refused by its name."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

# the words of a message for each annotation that is checked; any other is left to the argument's owner
WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "None": "none",
    "Sequence[int]": "a list of integers",
    "tuple[int, ...]": "a list of integers",
}
LARGEST = 2**63  # of integers: what torch's sizes and seeds can hold


def typed(name: str, value: Any, annotation: str, *, from_text: bool = False) -> Any:
    """`value` as the annotation says; with `from_text`, numbers may be written as text, as YAML reads ``1e-3``.

    Raises
    ------
    ValueError
        Naming the argument, the rule and what arrived.

    Examples
    --------
    >>> typed("learning_rate", "1e-3", "float", from_text=True)
    0.001
    >>> typed("max_epochs", 1.5, "int")
    Traceback (most recent call last):
    ValueError: max_epochs must be an integer; got 1.5
    """
    kinds = [kind.strip() for kind in annotation.split(" | ")]
    if not all(kind in WORDS for kind in kinds):
        return value
    for kind in kinds:
        with contextlib.suppress(_Misfit):
            return _as(kind, value, from_text)
    words = " or ".join(WORDS[kind] for kind in kinds)
    raise ValueError(f"{name} must be {words}; got {shown(value)}")


class _Misfit(Exception):
    pass


def _as(kind: str, value: Any, from_text: bool) -> Any:
    if kind == "None" and value is None:
        return None
    if (kind == "bool" and isinstance(value, (bool, np.bool_))) or (kind == "str" and isinstance(value, str)):
        return value
    if kind in ("int", "float"):
        return _number(kind, value, from_text)
    if kind in ("Sequence[int]", "tuple[int, ...]") and isinstance(value, (list, tuple)):
        return [_number("int", v, from_text) for v in value]
    raise _Misfit


def _number(kind: str, value: Any, from_text: bool) -> Any:
    if from_text and isinstance(value, str):
        try:
            value = int(value) if kind == "int" else float(value)
        except ValueError:
            raise _Misfit from None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise _Misfit
    if kind == "float":
        if not math.isfinite(value):
            raise _Misfit
        return float(value)
    if not isinstance(value, (int, np.integer)) or abs(int(value)) >= LARGEST:
        raise _Misfit
    return int(value)


def shown(value: Any) -> str:
    """What arrived, in a few words however large it is."""
    if isinstance(value, (list, tuple, dict, set)) and len(value) > 3:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested beyond bounds, or an integer of more digits than Python prints
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def argument_annotations(function: Callable[..., Any]) -> dict[str, str]:
    """The annotations of a function's arguments, or of a class's constructor's, as they are written."""
    found = inspect.signature(function).parameters.values()
    return {p.name: "Any" if p.annotation is p.empty else str(p.annotation) for p in found}


def argument_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function that have a default, and it."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.default is not p.empty}
