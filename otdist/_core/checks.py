"""Every refusal of bad input: the argument, the rule, and what arrived.

Shapes, types and dtypes are always checked. Values are read only where that is possible and cheap
(`backend.inspectable`): on a GPU, under ``torch.func`` and under ``torch.compile`` a NaN propagates instead.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import backend
from .backend import Array


class ConvergenceWarning(UserWarning):
    """An iterative solver stopped before it reached its tolerance; its result says how far it came."""


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def warn(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn with the line of whoever called into the library (``skip_file_prefixes``, which Python 3.12 brought).

    Frames of PyTorch's between two of ours are skipped too: a kernel may run inside an autograd function.
    """
    frame, level, outermost = sys._getframe(1), 2, 2
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE + os.sep):
            outermost = level + 1
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    warnings.warn(message, category, stacklevel=outermost)


# Entries up to which an array of booleans costs less than avoiding one.
_SMALL = 4096
# Dimensions up to which matrices of a stack and their mirror images stay in the cache without tiles, and a tile.
_UNTILED, _TILE = 512, 64
# Numbers of which OpenBLAS takes an inner product in the calling thread. Beyond, it wakes NumPy's threads, which then
# go on spinning on the cores that SciPy's copy of OpenBLAS waits for.
_ONE_THREAD = 8192
_HALF = ("float16", "bfloat16")
# What `semidefinite` allows in float32, for each coordinate.
_SINGLE = 100 * 2.0**-23
_FLOAT = ("float32", "float64")
_NUMPY_FLOAT = (np.dtype(np.float64), np.dtype(np.float32))


def arrays(**named: Any) -> tuple[list[Array], Callable[[Array], Array]]:
    """Bring the arguments of one call to one library, device and dtype.

    Floating-point arrays of several dtypes are promoted as their library promotes them. Scalars, lists and integer
    arrays, and whatever else ``numpy.asarray`` reads (a pandas frame), take the dtype of the floating-point arrays
    beside them. Returns the arrays, float16 and bfloat16 raised to float32, and a function that casts a result back.

    Raises
    ------
    TypeError
        NumPy mixed with PyTorch, a masked array, or a dtype that is not real.
    ValueError
        Two devices.
    """
    alike = _already_alike(list(named.values()))
    if alike is not None:
        dtype = alike[0].dtype
        return alike, lambda value: backend.scalar(backend.astype(value, dtype))
    strong = {k: v for k, v in named.items() if isinstance(v, np.ndarray) or backend.is_torch(v)}
    tensors = {k: v for k, v in strong.items() if backend.is_torch(v)}
    if tensors and len(tensors) < len(strong):
        t, n = next(iter(tensors)), next(k for k in strong if k not in tensors)
        raise TypeError(f"{t} is a torch.Tensor and {n} is a numpy.ndarray; pass both as the same type")
    _same_device(tensors)
    converted = _tensors(named, tensors) if tensors else {k: _as_array(k, v) for k, v in named.items()}
    for name, x in converted.items():
        kind = backend.dtype_name(x)
        if kind not in _HALF + _FLOAT and not kind.startswith(("int", "uint", "bool")):
            raise TypeError(f"{name} must be real and at most double precision; got dtype {kind}")
    deciding = {k: x for k, x in converted.items() if (k in strong or not strong)}
    floats = [x for x in deciding.values() if "float" in backend.dtype_name(x)]
    dtype = backend.promoted(floats) if floats else _default_dtype(bool(tensors))
    xp = backend.torch_module() if tensors else np
    work = xp.float32 if str(dtype).removeprefix("torch.") in _HALF else dtype
    out = [backend.astype(x, work) for x in converted.values()]
    return out, lambda value: backend.scalar(backend.astype(value, dtype))


def _already_alike(values: list[Any]) -> list[Array] | None:
    """The common case without the ceremony: arrays of one type, device and dtype, and Python numbers beside them."""
    if _alike_in_numpy(values):
        return values
    first = next((v for v in values if not isinstance(v, float | int)), None)
    if first is None or not (type(first) is np.ndarray or backend.is_torch(first)):
        return None
    if backend.dtype_name(first) not in _FLOAT:
        return None
    for v in values:
        if isinstance(v, float | int):
            continue
        if type(v) is not type(first) or v.dtype != first.dtype or v.device != first.device:
            return None
    return [backend.like(v, first) if isinstance(v, float | int) else v for v in values]


def _alike_in_numpy(values: list[Any]) -> bool:
    """Whether all are NumPy arrays of one floating-point dtype: told within a microsecond."""
    dtype = getattr(values[0], "dtype", None)
    for v in values:
        if type(v) is not np.ndarray or v.dtype != dtype:
            return False
    return dtype in _NUMPY_FLOAT


def _tensors(named: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Array]:
    torch, first = backend.torch_module(), next(iter(tensors.values()))
    return {k: v if k in tensors else torch.as_tensor(_readable(k, v), device=first.device) for k, v in named.items()}


def _readable(name: str, value: Any) -> Any:
    """Numbers, or nested sequences of them, as they are; a refusal of everything else."""
    if not isinstance(value, float | int):
        _as_array(name, value)
    return value


def _default_dtype(torch: bool) -> Any:
    return backend.torch_module().get_default_dtype() if torch else np.dtype(np.float64)


def beside(name: str, value: Any, reference: Array, reference_name: str = "x") -> Array:
    """A further argument, brought to the library, device and dtype of one that has been through `arrays`."""
    (x, _), _ = arrays(**{name: value, reference_name: reference})
    return backend.astype(x, reference.dtype)


def _as_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array; fill the masked entries or give them weight 0")
    if backend.is_jax(value):
        raise TypeError(f"{name} is a jax.Array, which this function does not take; w2 and w2_squared do")
    try:
        x = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} must be an array of real numbers; got {type(value).__name__}: {error}") from None
    if x.dtype.kind in "OSUMmV":
        raise TypeError(f"{name} must be an array of real numbers; got {type(value).__name__}")
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def _same_device(tensors: dict[str, Array]) -> None:
    first = next(iter(tensors), None)
    for name, x in tensors.items():
        if first is not None and x.device != tensors[first].device:
            raise ValueError(
                f"{first} is on {tensors[first].device} and {name} is on {x.device}; "
                "move one of them, so that the devices agree"
            )


def numpy_only(function: str, x: Array, name: str = "x") -> None:
    """Refuse tensors where PyTorch has its own way."""
    if backend.is_torch(x):
        raise TypeError(
            f"{function} is for NumPy arrays, and {name} is a torch.Tensor; with PyTorch, call backward() on the value"
        )


def shape(name: str, x: Array, core: str, ndim: int) -> None:
    """Refuse fewer than ``ndim`` dimensions; ``core`` is the shape in words: ``(..., n, d)``."""
    if x.ndim < ndim:
        raise ValueError(f"{name} must have shape {core}; got {tuple(x.shape)}")


def square(name: str, x: Array) -> None:
    """Refuse anything but matrices (..., d, d)."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"{name} must have shape (..., d, d); got {tuple(x.shape)}")


def same_size(axis: str, first: str, n: int, second: str, m: int) -> None:
    """Refuse two arguments that disagree about a dimension."""
    if n != m:
        raise ValueError(f"{first} and {second} must agree in {axis}; got {n} and {m}")


def batch(shapes: dict[str, Sequence[int]]) -> tuple[int, ...]:
    """The broadcast batch shape, or a refusal that lists every argument's."""
    first, *rest = (tuple(s) for s in shapes.values())
    if all(s == first for s in rest):
        return first
    try:
        return np.broadcast_shapes(*(tuple(s) for s in shapes.values()))
    except ValueError:
        listed = ", ".join(f"{k} {tuple(s)}" for k, s in shapes.items())
        raise ValueError(f"the batch shapes must broadcast; got {listed}") from None


def nonempty(name: str, x: Array, axis: int, what: str) -> None:
    """Refuse an empty axis that is not a batch: a cloud without points, a space without coordinates."""
    if x.shape[axis] == 0:
        raise ValueError(f"{name} must have at least one {what}; got shape {tuple(x.shape)}")


def finite(name: str, x: Array) -> None:
    """Refuse NaN and infinity."""
    if isinstance(x, float | int):
        if not math.isfinite(x):
            raise ValueError(f"{name} must be finite; got {x}")
    elif backend.inspectable(x):
        v = backend.as_numpy(x)
        # A sum is finite only if every entry is (and reads memory once); entries whose sum overflows are looked at.
        if v.size > _SMALL:
            with np.errstate(over="ignore", invalid="ignore"):
                if math.isfinite(v.sum()):
                    return
        if not np.isfinite(v).all():
            bad = int(v.size - np.isfinite(v).sum())
            raise ValueError(f"{name} must be finite; got {bad} NaN or infinite of {v.size} entries")


def positive(name: str, x: Array) -> None:
    """Refuse entries that are not above 0."""
    if backend.inspectable(x):
        v = backend.as_numpy(x)
        if v.size and not (smallest := v.min()) > 0:
            raise ValueError(f"{name} must be positive; got {smallest:g}")


def nonnegative(name: str, x: Array) -> None:
    """Refuse entries below 0."""
    if isinstance(x, float | int):
        if not x >= 0:
            raise ValueError(f"{name} must be nonnegative; got {x:g}")
    elif backend.inspectable(x):
        v = backend.as_numpy(x)
        if v.size and not (smallest := v.min()) >= 0:
            raise ValueError(f"{name} must be nonnegative; got {smallest:g}")


def positive_number(name: str, value: Any) -> float:
    """A Python number above 0, or a refusal."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a positive number; got {type(value).__name__}") from None
    if not 0 < number < math.inf:  # spelt so that torch.compile can follow a changing number
        raise ValueError(f"{name} must be positive and finite; got {number:g}")
    return number


def positive_integer(name: str, value: Any) -> int:
    """A Python integer above 0, or a refusal."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a positive integer; got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value}")
    return int(value)


def exponent(p: Any) -> float:
    """The exponent of a Wasserstein distance as a float of at least 1."""
    number = positive_number("p", p)
    if number < 1:
        raise ValueError(f"p must be at least 1; got {number:g}")
    return number


def weights(name: str, w: Array, n: int) -> Array:
    """Weights (..., n): nonnegative, with sum 1 to 1e-6 n; what remains of the rounding is divided out."""
    shape(name, w, "(..., n)", 1)
    if w.shape[-1] != n:
        raise ValueError(f"{name} must have one entry for each of the {n} points; got shape {tuple(w.shape)}")
    finite(name, w)
    nonnegative(name, w)
    total = w.sum(-1)[..., None]
    if backend.inspectable(w):
        sums = backend.as_numpy(total)
        if sums.size and not (np.abs(sums - 1) <= 1e-6 * n).all():
            worst = sums.flat[np.abs(sums - 1).argmax()]
            raise ValueError(f"{name} must sum to 1 along its last axis; got a sum of {worst:.9g}")
    return w / total


def covariance(name: str, cov: Array) -> Array:
    """Refuse what is not a finite symmetric matrix; average away what is less than 1e-5 of its largest entry.

    That is generous beside rounding, so that finite differences of single entries can be taken.
    """
    square(name, cov)
    if backend.inspectable(cov):
        v = backend.as_numpy(backend.without_repeats(cov, 2))
        if _is_clean(v):
            return cov
        finite(name, v)
        gap = backend.asymmetry(v)
        if not gap.any():
            return cov
        scale = np.abs(v).max(axis=(-2, -1))
        if (gap > 1e-5 * scale).any():
            worst = gap[gap > 1e-5 * scale].max()
            raise ValueError(f"{name} must be symmetric; entries differ from their mirror images by up to {worst:g}")
    return (cov + cov.mT) / 2


def _is_finite(v: np.ndarray) -> bool:
    """Whether all numbers are certainly finite: their squares have a finite sum, which BLAS takes in silence.

    Of many numbers it would take the sum with its threads, which then spin where ours are to work.
    """
    if v.size <= _ONE_THREAD:
        return math.isfinite(np.vdot(v, v))
    flat = v.reshape(-1)
    whole = flat[: v.size // _ONE_THREAD * _ONE_THREAD].reshape(-1, _ONE_THREAD)
    rest = flat[whole.size :]
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.vecdot(whole, whole).sum() + np.vdot(rest, rest))


def _is_clean(v: np.ndarray) -> bool:
    """Whether matrices are certainly finite and exactly symmetric: the common case, in one quick look."""
    if v.ndim == 2 and v.size > _ONE_THREAD:
        return _is_clean_in_tiles(v)
    # Counting takes half as long as `all` if the matrices are small.
    return v.shape[-1] <= _UNTILED and not np.count_nonzero(v != v.mT) and _is_finite(v)


def _is_clean_in_tiles(v: np.ndarray) -> bool:
    """The same for one large matrix: rows and their mirror image stay in the cache, and no thread is woken."""
    for i in range(0, len(v), _TILE):
        end = i + _TILE
        if np.count_nonzero(v[i:end, :end] != v[:end, i:end].T):
            return False
    return _is_finite(v)


def gaussians_pass_fast_check(*given: Any) -> bool:
    """Whether two means and covariances (mean, cov, mean, cov) have nothing to convert and nothing to refuse.

    Certainly so, at one quick look: arrays of one type, dtype and batch shape. Else every rule is gone through.
    """
    alike = _already_alike(list(given))
    if alike is None or not backend.inspectable(alike[0]):
        return False
    views = tuple(map(backend.as_numpy, alike))
    shape = views[1].shape
    if len(shape) < 2 or 0 in shape or shape[-1] != shape[-2]:
        return False
    if not (views[3].shape == shape and views[0].shape == views[2].shape == shape[:-1]):
        return False
    return _is_finite(views[0]) and _is_finite(views[2]) and _is_clean(views[1]) and _is_clean(views[3])


def points_pass_fast_check(x: Array, y: Array, core: int) -> bool:
    """Whether point sets (..., n) or, with ``core`` 2, (..., n, d) of one kind certainly have nothing to refuse.

    They have one batch shape, and their sums are finite. Else every rule is gone through.
    """
    if not backend.inspectable(x):
        return False
    one, two = backend.as_numpy(x), backend.as_numpy(y)
    if one.ndim < core or two.ndim != one.ndim or not (one.size and two.size):
        return False
    n = one.ndim - core  # the axis of the points
    if one.shape[:n] + one.shape[n + 1 :] != two.shape[:n] + two.shape[n + 1 :]:
        return False
    return _is_finite(one) and _is_finite(two)


def semidefinite(name: str, eigenvalues: Array, eps: float) -> None:
    """Refuse a spectrum (..., d) that is negative beyond rounding: d · eps · 100 of the trace."""
    if not backend.on_cpu(eigenvalues):
        return
    eigenvalues = backend.as_numpy(eigenvalues)
    if eigenvalues.size:
        scale = np.abs(eigenvalues).sum(-1)
        tolerance = 100 * eigenvalues.shape[-1] * eps * scale
        smallest = eigenvalues.min(-1)
        if (smallest < -tolerance).any():
            worst = smallest[smallest < -tolerance].min()
            rounding = (smallest >= -_SINGLE * eigenvalues.shape[-1] * scale).all()
            advice = "; a covariance that was computed in float32 may be passed as float32" if rounding else ""
            raise ValueError(f"{name} must be positive semidefinite; its smallest eigenvalue is {worst:g}{advice}")


def memory(needed: int, what: str, instead: str) -> None:
    """Refuse an allocation that would not fit, before it is tried."""
    available = _available_memory()
    if needed > available:
        raise MemoryError(
            f"{what} needs {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are available; {instead}"
        )


def _available_memory() -> int:
    """Bytes that this process may still take: the machine's or, in a container, the container's."""
    try:
        with open("/proc/meminfo") as f:
            free = next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: no limit is known, and the allocator has the last word
        return 2**63
    try:
        with open("/sys/fs/cgroup/memory.max") as f, open("/sys/fs/cgroup/memory.current") as g:
            return min(free, int(f.read()) - int(g.read()))
    except (OSError, ValueError):
        return free
