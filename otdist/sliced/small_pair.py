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
_NOTHING = (False, False, False)
_ARRAYS = (np.ndarray,) * 3
# Between which values nothing has overflowed, and nothing that matters has underflowed.
_LIMITS = {np.dtype(kind): scaling.range_of(np.dtype(kind), 1) for kind in (np.float32, np.float64)}


def value_of(x: Any, y: Any, a: Any, b: Any, directions: Any) -> Array | None:
    """The value for one small pair as a caller gave it, checked on the way; None if it has to go the long way."""
    found = attempt(x, y, a, b, directions)
    if found is None:
        return None
    value, grads, needs = found
    if type(x) is np.ndarray:
        return value
    value = np.asarray(value)
    if not any(needs):
        return backend.torch_module().from_numpy(value)
    tensors = [z for z, need in zip((x, y, directions), needs, strict=True) if need]
    return sliced_cost.attach(tensors, value, [g for g in grads if g is not None])


def attempt(x: Any, y: Any, a: Any, b: Any, directions: Any, needs: direct.Needs = _NOTHING) -> Any:
    """The value, the gradients (or None) and which are needed; None for no such pair or one that may be refused.

    Every check is made by a look at the result or skipped for a kind of argument that it does not concern: what is not
    certainly in order goes the long way. `needs` says which gradients are wanted of arrays; tensors tell themselves.

    Between a model's operators every Python function costs a microsecond or two, for nothing of it is in the caches.
    """
    if a is not None or b is not None:
        return None
    kinds = type(x), type(y), type(directions)
    if kinds == _ARRAYS:
        return _solve(x, y, directions, needs)
    torch = sys.modules.get("torch")
    if torch is None or torch.compiler.is_compiling():
        return None
    if kinds != (torch.Tensor,) * 3 and not {*kinds} <= {torch.Tensor, torch.nn.Parameter}:
        return None
    if torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0:
        return None
    needs = x.requires_grad, y.requires_grad, directions.requires_grad
    if True in needs:
        x, y, directions = x.detach(), y.detach(), directions.detach()
        needs = needs if torch.is_grad_enabled() else _NOTHING
    try:
        views = x.numpy(), y.numpy(), directions.numpy()
    except (TypeError, RuntimeError):  # another device, layout or dtype
        return None
    return _solve(*views, needs)


@products.quiet()  # quicker as a decorator
def _solve(x: np.ndarray, y: np.ndarray, directions: np.ndarray, needs: direct.Needs) -> Any:
    limits = _LIMITS.get(dtype := x.dtype)
    if limits is None or y.dtype != dtype or directions.dtype != dtype:
        return None
    if directions.shape[-1:] != x.shape[-1:] or not direct.is_small(x, y, directions):
        return None
    excess = np.vecdot(directions, directions)
    excess -= 1
    if not np.dot(excess, excess) <= _UNIT**2:  # then each is within that
        return None
    value, grads = direct.value_and_gradients(x, y, directions, needs)
    return (dtype.type(value), grads, needs) if limits[0] < value <= limits[1] else None
