"""Triton's kernels on graphics cards: where they can be compiled, and whether they are right there.

Triton compiles when a kernel is first called, which needs a C compiler and a driver that goes with it. Where it can't,
or compiles wrongly, PyTorch's operators do the work: so each family of kernels solves a small problem first.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger("otdist")


def takes_kernels(x: Tensor) -> bool:
    """Whether x is on a card for which kernels can be compiled: Ampere or newer.

    Not for subclasses of tensors, whose own operators a kernel would pass by.
    """
    if not x.is_cuda or type(x) is not Tensor or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(x.device) >= (8, 0)


def agree(what: str, device: torch.device, error: Callable[[], float], most: float) -> bool:
    """Whether the error of the kernels called `what` on a small problem is at most that; says so where it is not."""
    try:
        found = error()
    except Exception as reason:  # whatever a compiler, its launcher or a driver raises
        _log.warning("Triton's kernels (%s) can't be used on %s, PyTorch's operators are: %s", what, device, reason)
        return False
    if not found <= most:
        _log.warning("Triton's kernels (%s) are wrong on %s by %g, PyTorch's operators are used", what, device, found)
        return False
    return True


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Call a kernel on the card where its first argument is."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants)
