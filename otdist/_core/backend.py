"""The only place where NumPy and PyTorch differ.

PyTorch is never imported here: a caller who passes a tensor has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, reduce
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor; a type variable would promise more than the two have in common


def torch_module() -> Any:
    """Return the ``torch`` module if the process has imported it, else None."""
    return sys.modules.get("torch")


def is_torch(x: object) -> bool:
    """Whether ``x`` is a PyTorch tensor."""
    if type(x) is np.ndarray:
        return False
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_jax(x: object) -> bool:
    """Whether ``x`` is a JAX array, or stands for one in a transformed function."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.Array)


def namespace(x: Array) -> Any:
    """Return the library that ``x`` belongs to: ``numpy`` or ``torch``."""
    return torch_module() if is_torch(x) else np


def on_cpu(x: Array) -> bool:
    """Whether the kernels for the CPU can read ``x``."""
    return not is_torch(x) or x.is_cpu


def in_transform() -> bool:
    """Whether a ``torch.func`` transform or ``torch.compile`` is running, so that tensors have no values to look at."""
    torch = torch_module()
    return torch is not None and (torch.compiler.is_compiling() or _in_func(torch))


def _in_func(torch: Any) -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None


def inspectable(x: Array) -> bool:
    """Whether reading the values of ``x`` is possible and cheap: not on a GPU, not while tracing."""
    return not is_torch(x) or (x.is_cpu and not in_transform())


def in_forward_mode() -> bool:
    """Whether tangents may be travelling along: within ``forward_ad.dual_level`` or ``torch.func.jvp``."""
    torch = torch_module()
    return torch is not None and torch.autograd.forward_ad._current_level >= 0


def needs_gradient(x: Array) -> bool:
    """Whether a derivative with respect to ``x`` is wanted now (it has a tangent) or may be asked for later."""
    torch = torch_module()
    if not is_torch(x):
        return False
    if torch.is_grad_enabled() and x.requires_grad:
        return True
    # Inside vmap a tensor does not show whether the function around it differentiates: assume it does.
    hidden = (torch.is_grad_enabled() or in_forward_mode()) and not torch.compiler.is_compiling() and _in_func(torch)
    return hidden or (in_forward_mode() and torch.autograd.forward_ad.unpack_dual(x).tangent is not None)


def as_numpy(x: Array) -> np.ndarray:
    """View a CPU tensor (or an array) as a NumPy array, without copying; bfloat16, which NumPy lacks, as float32."""
    if not is_torch(x):
        return x
    x = x.detach() if x.requires_grad else x
    return (x.float() if x.dtype is torch_module().bfloat16 else x).numpy()


def like(x: Any, reference: Array) -> Array:
    """Turn a NumPy array (or a scalar, or a list) into what ``reference`` is: type, device and dtype."""
    if is_torch(reference):
        torch = torch_module()
        if isinstance(x, np.ndarray) and not torch.compiler.is_compiling() and not x.flags.writeable:
            x = x.copy()  # a tensor is always writeable
        return torch.as_tensor(x, dtype=reference.dtype, device=reference.device)
    return np.asarray(x, dtype=reference.dtype)


def dtype_name(x: Array) -> str:
    """The dtype's short name, the same for both libraries: ``float32``."""
    return str(x.dtype).removeprefix("torch.") if is_torch(x) else _numpy_name(x.dtype)


@cache  # NumPy takes longer to spell a dtype than a kernel to solve a small problem
def _numpy_name(dtype: np.dtype) -> str:
    return str(dtype)


def numbers(*scalars: Array) -> list[float]:
    """The values of arrays of one number each; on a GPU the host waits once for all of them."""
    if is_torch(scalars[0]):
        found: list[float] = torch_module().stack([s.double() for s in scalars]).tolist()
        return found
    return [float(s) for s in scalars]


def promoted(arrays: Sequence[Array]) -> Any:
    """The dtype of an operation on all of these, by the rules of their library."""
    if not is_torch(arrays[0]):
        return np.result_type(*(x.dtype for x in arrays))
    torch = torch_module()
    # Tensors without dimensions decide only if there are no others, as in torch.result_type.
    return reduce(torch.promote_types, [x.dtype for x in arrays if x.ndim] or [x.dtype for x in arrays])


def astype(x: Array, dtype: Any) -> Array:
    """Cast without a copy where the dtype is right already; what is beyond its range becomes infinite."""
    if is_torch(x):
        return x.to(dtype)
    if x.dtype.kind != "f" or x.dtype == dtype:
        return x.astype(dtype, copy=False)
    with np.errstate(over="ignore"):
        return x.astype(dtype, copy=False)


def silent_overflow(x: Array) -> AbstractContextManager[Any]:
    """A context in which what overflows becomes infinite without NumPy's warnings; nothing for tensors."""
    return nullcontext() if is_torch(x) else np.errstate(over="ignore", invalid="ignore")


def epsilon(x: Array) -> float:
    """The spacing of the floating-point numbers at 1 in the dtype of ``x``."""
    return torch_module().finfo(x.dtype).eps if is_torch(x) else _numpy_epsilon(x.dtype)


@cache
def _numpy_epsilon(dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps)


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


def concatenate(*parts: Array) -> Array:
    """Join along the last axis; the dimensions before it broadcast, and a scalar counts as one coordinate each."""
    xp, d = namespace(parts[0]), max(p.shape[-1] if p.ndim else 1 for p in parts)
    parts = tuple(p if p.ndim else broadcast_to(p, (d,)) for p in parts)
    batch = np.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return xp.concatenate([broadcast_to(p, (*batch, p.shape[-1])) for p in parts], -1)


def sum_to(grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the dimensions along which its argument was broadcast."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape)))) if grad.ndim > len(shape) else grad
    repeated = tuple(k for k, n in enumerate(shape) if n == 1 and grad.shape[k] != 1)
    return grad.sum(axis=repeated, keepdims=True) if repeated else grad


def clip_below(x: Array, bound: float = 0.0) -> Array:
    """``max(x, bound)``, in place for NumPy; NaN stays NaN."""
    return x.clip(min=bound) if is_torch(x) else np.maximum(x, bound, out=x)


def root(x: Array) -> Array:
    """The square root of something nonnegative, with derivative 0 (not infinity) where it is 0."""
    if not is_torch(x):
        return np.sqrt(x)
    xp = torch_module()
    zero = x == 0
    return xp.where(zero, xp.zeros_like(x), xp.where(zero, xp.ones_like(x), x).sqrt())


def nth_root(x: Array, p: float) -> Array:
    """x^(1/p) of something nonnegative, p >= 1, with derivative 0 (not infinity) where x is 0 and p is not 1."""
    if p in (1, 2):
        return x if p == 1 else root(x)
    if not is_torch(x):
        return x ** (1 / p)
    xp = torch_module()
    zero = x == 0
    return xp.where(zero, xp.zeros_like(x), xp.where(zero, xp.ones_like(x), x) ** (1 / p))


def norm(x: Array) -> Array:
    """The Euclidean norm along the last axis: it neither overflows nor underflows, and its derivative at 0 is 0."""
    xp = namespace(x)
    largest = xp.abs(x.detach() if is_torch(x) else x).max(-1, keepdims=True) if x.shape[-1] else None
    if largest is None:
        return x.sum(-1)
    if is_torch(x):
        largest = largest.values
    scale = xp.where((largest > 0) & xp.isfinite(largest), largest, xp.ones_like(largest))
    return root(((x / scale) ** 2).sum(-1)) * scale[..., 0]


def cholesky(x: Array) -> Array | None:
    """The lower Cholesky factors of a stack of matrices, or None if one of them is not positive definite."""
    if is_torch(x):
        factor, info = torch_module().linalg.cholesky_ex(x)
        return None if bool(info.any()) else factor
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        return None


def solve_lower_transposed(lower: Array, b: Array) -> Array:
    """Solve Lᵀ z = b for a stack of lower triangular matrices."""
    if is_torch(lower):
        return torch_module().linalg.solve_triangular(lower.mT, b, upper=True)
    from scipy.linalg import solve_triangular

    batch = np.broadcast_shapes(lower.shape[:-2], b.shape[:-2])
    out = np.empty((*batch, *b.shape[-2:]), dtype=b.dtype)
    lower = np.broadcast_to(lower, (*batch, *lower.shape[-2:]))
    b = np.broadcast_to(b, out.shape)
    for k in np.ndindex(batch):
        out[k] = solve_triangular(lower[k], b[k], lower=True, trans=1, check_finite=False)
    return out


def asymmetry(x: np.ndarray) -> np.ndarray:
    """The largest |x - xᵀ| of each matrix (..., d, d); in tiles, so that the mirror image is read from the cache."""
    d, tile = x.shape[-1], 256
    gap = np.zeros(x.shape[:-2])
    for i in range(0, d, tile):
        for j in range(0, i + 1, tile):
            mirror = x[..., j : j + tile, i : i + tile].mT
            np.maximum(gap, np.abs(x[..., i : i + tile, j : j + tile] - mirror).max(axis=(-2, -1)), out=gap)
    return gap


def singular_values(x: Array) -> Array:
    """The singular values of a stack of matrices."""
    return torch_module().linalg.svdvals(x) if is_torch(x) else np.linalg.svd(x, compute_uv=False)


def rfftn(x: Array, grid: tuple[int, ...]) -> Array:
    """The Fourier transform of real fields over their last axes, a ``grid``."""
    axes = tuple(range(-len(grid), 0))
    if is_torch(x) and 0 in x.shape:  # which PyTorch's library refuses
        return x[..., : grid[-1] // 2 + 1] * (1 + 0j)
    return torch_module().fft.rfftn(x, grid, axes) if is_torch(x) else np.fft.rfftn(x, grid, axes)


def irfftn(x: Array, grid: tuple[int, ...]) -> Array:
    """The real fields on a ``grid`` whose transform is ``x``."""
    axes = tuple(range(-len(grid), 0))
    if is_torch(x) and 0 in x.shape:
        return x.real[..., :1].expand(*x.shape[:-1], grid[-1])
    return torch_module().fft.irfftn(x, grid, axes) if is_torch(x) else np.fft.irfftn(x, grid, axes)


def moveaxis(x: Array, source: int, destination: int) -> Array:
    """Move an axis."""
    return x.movedim(source, destination) if is_torch(x) else np.moveaxis(x, source, destination)


def index(positions: np.ndarray, reference: Array) -> Array:
    """Integer positions that can index ``reference``."""
    return torch_module().as_tensor(positions, device=reference.device) if is_torch(reference) else positions
