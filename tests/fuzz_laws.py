"""What no call may do, whatever its arguments: the part of the law that needs no right answer.

Errors are documented ones, raised by a ``raise`` of the library's own and naming what is wrong; the only warning is a
`ConvergenceWarning`; arguments and global state are as before.
"""

from __future__ import annotations

import linecache
import os
import random
import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import otdist

PACKAGE = str(Path(otdist.__file__).parent)
DOCUMENTED = (ValueError, TypeError, NotImplementedError, MemoryError, RuntimeError)


class Outcome(NamedTuple):
    """What a call gave: a result, or a documented error, and whether it warned of not having converged."""

    result: Any
    error: Exception | None
    unconverged: bool


class Broken(AssertionError):
    """A call broke the law."""


def watched(function: Callable[[], Any], arguments: list[Any], names: list[str]) -> Outcome:
    """The outcome of a call; `arguments` are what it must leave alone, `names` one of which an error must say."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state, copies = _globals(), [_frozen(z) for z in arguments]
        result, error = None, None
        try:
            result = function()
        except Exception as raised:
            error = raised
        changed = {k: v for k, v in _globals().items() if not _same(v, state[k])}
    if changed:
        raise Broken(f"the call changed {_what(changed, state)}")
    for z, copy in zip(arguments, copies, strict=True):
        if not _same(_frozen(z), copy):
            raise Broken("the call changed an argument")
    for warning in caught:
        if not issubclass(warning.category, otdist.ConvergenceWarning):
            raise Broken(f"the call warned: {warning.category.__name__}: {warning.message} ({warning.filename})")
    if error is not None:
        problem = undocumented(error, names)
        if problem:
            raise Broken(problem) from error
    return Outcome(result, error, bool(caught))


def undocumented(error: Exception, names: list[str]) -> str | None:
    """What is wrong with an error as an answer to a caller, if anything."""
    ours = type(error).__module__.startswith("otdist") and isinstance(error, DOCUMENTED)
    text = f"{type(error).__name__}: {error}"
    if type(error) not in DOCUMENTED and not ours:
        return f"an error that no documentation names: {text}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    if not last.filename.startswith(PACKAGE) or not line.startswith("raise"):
        return f"an error from inside, {Path(last.filename).name}:{last.lineno}: {text}"
    if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) for name in names):
        return f"an error that names no argument: {text}"
    return None


def _globals() -> dict[str, Any]:
    return {
        "numpy.random": np.random.get_state()[1:],  # noqa: NPY002  # the global generator is what must not change
        "random": random.getstate(),
        "torch's generator": torch.get_rng_state(),
        "the default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "warnings.filters": list(warnings.filters),
        "os.environ": dict(os.environ),
        "torch's threads": torch.get_num_threads(),
        "numpy.errstate": np.geterr(),
        "print options": str(np.get_printoptions()),
    }


def _what(changed: dict[str, Any], before: dict[str, Any]) -> str:
    """The names of what changed; of a dictionary or a list, the entries that are new."""
    words = []
    for name, now in changed.items():
        new = [z for z in now if z not in before[name]] if isinstance(now, dict | list) else []
        words.append(f"{name} {new}" if new else name)
    return ", ".join(words)


def _frozen(z: Any) -> Any:
    """Everything about an argument that a call could change, by value."""
    if isinstance(z, torch.Tensor):
        d = z.detach()
        return (d.as_subclass(torch.Tensor).clone(), z.requires_grad, z.grad is None, z._version, z.stride(), type(z))
    if isinstance(z, np.ndarray):
        return (np.array(z, copy=True, subok=False), z.flags.writeable, z.strides, type(z))
    return repr(z)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and (
            a.dtype == object or a.tobytes() == b.tobytes()
        )  # fmt: skip
    return bool(a == b)
