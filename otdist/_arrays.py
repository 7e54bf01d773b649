"""The only place where NumPy and PyTorch differ.

PyTorch is never imported here: a caller who passes a tensor has imported it already.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor; a type variable would promise more than the two have in common


def torch_module() -> Any:
    """Return the ``torch`` module if the process has imported it, else None."""
    return sys.modules.get("torch")


def is_torch(x: object) -> bool:
    """Whether ``x`` is a PyTorch tensor."""
    torch = torch_module()
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(x: Array) -> Any:
    """Return the library that ``x`` belongs to: ``numpy`` or ``torch``."""
    return torch_module() if is_torch(x) else np


def on_cpu(x: Array) -> bool:
    """Whether the kernels for the CPU can read ``x``."""
    return not is_torch(x) or x.device.type == "cpu"


def in_transform() -> bool:
    """Whether a ``torch.func`` transform or ``torch.compile`` is running, so that tensors have no values to look at."""
    torch = torch_module()
    return torch is not None and (torch.compiler.is_compiling() or _in_func(torch))


def _in_func(torch: Any) -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None


def inspectable(x: Array) -> bool:
    """Whether reading the values of ``x`` is possible and cheap: not on a GPU, not while tracing."""
    return not is_torch(x) or (x.device.type == "cpu" and not in_transform())


def needs_gradient(x: Array) -> bool:
    """Whether a gradient with respect to ``x`` may be asked for later."""
    torch = torch_module()
    if not (is_torch(x) and torch.is_grad_enabled()):
        return False
    # Inside vmap a tensor does not show whether the function around it differentiates: assume it does.
    return x.requires_grad or (not torch.compiler.is_compiling() and _in_func(torch))


def as_numpy(x: Array) -> np.ndarray:
    """View a CPU tensor (or an array) as a NumPy array, without copying."""
    return x.detach().numpy() if is_torch(x) else x


def like(x: Any, reference: Array) -> Array:
    """Turn a NumPy array (or a scalar, or a list) into what ``reference`` is: type, device and dtype."""
    if is_torch(reference):
        return torch_module().as_tensor(x, dtype=reference.dtype, device=reference.device)
    return np.asarray(x, dtype=reference.dtype)


def dtype_name(x: Array) -> str:
    """The dtype's short name, the same for both libraries: ``float32``."""
    return str(x.dtype).removeprefix("torch.")


def astype(x: Array, dtype: Any) -> Array:
    """Cast without a copy where the dtype is right already."""
    return x.to(dtype) if is_torch(x) else x.astype(dtype, copy=False)


def epsilon(x: Array) -> float:
    """The spacing of the floating-point numbers at 1 in the dtype of ``x``."""
    return namespace(x).finfo(x.dtype).eps


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast without a copy."""
    return x.expand(shape) if is_torch(x) else np.broadcast_to(x, shape)


def without_repeats(x: Array, core: int) -> Array:
    """Undo the broadcasting of leading dimensions: those with stride 0 get length 1.

    A kernel that factorises its argument does the work once for a covariance that a whole batch shares.
    """
    strides = x.stride() if is_torch(x) else x.strides
    batch = x.ndim - core
    index = tuple(slice(0, 1) if strides[k] == 0 and x.shape[k] > 1 else slice(None) for k in range(batch))
    return x[index] if batch else x


def scalar(x: Array) -> Array:
    """A NumPy result without dimensions becomes a NumPy scalar, as in ``numpy.sum``."""
    return x if is_torch(x) else x[()]
