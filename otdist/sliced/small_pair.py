"""The shortest way in for one small pair along given directions: few looks at arguments, one call for all the work."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .._core import backend
from .._core.backend import Array
from . import direct, products, scaling
from .operator import sliced_cost

# What is allowed for the squared length of a direction to be off by, see `direction_sets.length_tolerance`.
_UNIT = 2e-3
_FLOAT = (np.dtype(np.float32), np.dtype(np.float64))


def value_of(x: Any, y: Any, a: Any, b: Any, directions: Any) -> Array | None:
    """The value for one small pair as a caller gave it, checked on the way; None if it has to go the long way."""
    found = attempt(x, y, a, b, directions)
    if found is None:
        return None
    value, (by_x, by_y, by_theta), (x_needs, y_needs, theta_needs) = found
    if type(x) is np.ndarray:
        return value
    if not (x_needs or y_needs or theta_needs):
        return backend.torch_module().from_numpy(np.asarray(value))
    nothing = x.new_empty(0)
    return sliced_cost.attach(
        (x, y, nothing, nothing, directions),
        (x_needs, y_needs, False, False, theta_needs),
        value,
        [g for g in (by_x, by_y, by_theta) if g is not None],
        {"count": 0, "seed": -1, "p": 2.0},
    )


def attempt(x: Any, y: Any, a: Any, b: Any, directions: Any, needs: direct.Needs | None = None) -> Any:
    """The value and gradients (or None) of such a pair as a caller gave it; None if it is none or may be refused.

    Every check is made by a look at the result or skipped for a kind of argument that it does not concern: what is not
    certainly in order goes the long way. `needs` says which gradients are wanted, where tensors do not.
    """
    if a is not None or b is not None or not type(x) is type(y) is type(directions):
        return None
    views = _views(x, y, directions)
    if views is None or views[0].dtype not in _FLOAT or not (views[0].dtype == views[1].dtype == views[2].dtype):
        return None
    if views[2].shape[-1:] != views[0].shape[-1:] or not direct.is_small(views[0], views[1], views[2]):
        return None
    excess = np.vecdot(views[2], views[2]) - 1
    if not np.vdot(excess, excess) <= _UNIT**2:  # then each is within that
        return None
    if needs is None:
        needs = (False,) * 3 if type(x) is np.ndarray else _wanted(x, y, directions)
    low, high = scaling.range_of(views[0].dtype, 1)
    with products.quiet():
        value, grads = direct.value_and_gradients(views[0], views[1], views[2], needs)
    return (views[0].dtype.type(value), grads, needs) if low < value <= high else None


def _views(*arrays: Any) -> tuple[np.ndarray, ...] | None:
    """Plain arrays, and plain tensors on the CPU outside of transforms, as arrays."""
    if type(arrays[0]) is np.ndarray:
        return arrays
    torch = sys.modules.get("torch")
    if torch is None or type(arrays[0]) is not torch.Tensor or backend.in_transform() or backend.in_forward_mode():
        return None
    try:
        return tuple((z.detach() if z.requires_grad else z).numpy() for z in arrays)
    except (TypeError, RuntimeError):  # another device, layout or dtype
        return None


def _wanted(*tensors: Any) -> direct.Needs:
    return tuple(z.requires_grad for z in tensors) if backend.torch_module().is_grad_enabled() else (False,) * 3
