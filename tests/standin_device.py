"""A stand-in for a graphics card: tensors that say they are on ``cuda:0`` and compute on the host.

It finds what a machine without a card cannot show. A tensor of `StandIn` refuses to meet tensors of the host, as one on
a card does; `StandInDevice` counts what the card's driver would have to do: **launches**, the operators that are
neither views nor allocations (an operator may be several kernels: this is a lower bound), **synchronisations**, where
the host needs a number that the device computes, or hands it memory (``item``, ``bool``, a boolean index, a copy either
way), and the most **bytes** that were allocated at one time, temporaries within an operator left out.

    with StandInDevice() as device:
        x = device.put(torch.randn(5, 3))
        device.reset()
        x.sum().item()
    assert (device.launches, device.synchronisations) == (1, 1)

How it works: a tensor subclass whose dispatcher unwraps, computes on the host, and wraps again. To C++ its tensors are
"meta" ones, which autograd takes without a driver; what asks Python for ``device`` is told ``cuda:0``.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("cuda", 0)
META = torch.device("meta")

# Operators that make the host wait for the device: their result, or its shape, is a number of the host.
WAITING = {
    *("_local_scalar_dense", "item", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    *("equal", "is_nonzero", "repeat_interleave", "bincount", "linalg_eigh", "linalg_solve", "linalg_inv"),
    *("linalg_cholesky", "cholesky", "linalg_eigvalsh"),
}
# cuSOLVER's eigensolver and PyTorch's checks of `info` wait; the `_ex` forms leave it on the device. The operators
# behind them:
WAITING_INSIDE = {"_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq"}
# Operators that are no views by their schema, and do not launch either.
IDLE = {"_unsafe_view", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class StandIn(Tensor):
    """A tensor of the stand-in device; `held` is the one of the host that computes for it."""

    held: Tensor
    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> StandIn:
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=META
        )
        made.held = held.detach()
        return made

    def __repr__(self, **options: Any) -> str:
        return f"StandIn({self.held!r})"

    def numpy(self, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first (stand-in device)")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"a tensor of the stand-in device was used outside of `with StandInDevice()`, by {func}")


class StandInDevice:
    """The device: a context in which its tensors compute, and its counters."""

    def __init__(self) -> None:
        self._modes = _Functions(self), _Dispatch(self)
        self._sizes: dict[int, list[int]] = {}
        self.allocated = 0
        self.reset()

    def reset(self) -> None:
        """Set the counters to 0; the peak starts from what is allocated now."""
        self.by_operator: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.base = self.peak = self.allocated

    @property
    def launches(self) -> int:
        return sum(self.by_operator.values())

    @property
    def synchronisations(self) -> int:
        return sum(self.waits.values())

    @property
    def bytes(self) -> int:
        """What was allocated at most, beyond what was there before."""
        return self.peak - self.base

    def __enter__(self) -> StandInDevice:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*exception)

    def put(self, x: Any) -> Any:
        """Tensors, in whatever structure, copied to the device."""
        return tree_map(lambda z: self.wrap(z.detach().clone()) if isinstance(z, Tensor) else z, x)

    def wrap(self, held: Tensor) -> StandIn:
        made = StandIn(held)
        self._account(made)
        return made

    def _account(self, made: StandIn) -> None:
        storage = made.held.untyped_storage()
        place, entry = storage.data_ptr(), self._sizes.setdefault(storage.data_ptr(), [0, storage.nbytes()])
        if entry[0] == 0:
            self.allocated += entry[1]
            self.peak = max(self.peak, self.allocated)
        entry[0] += 1
        weakref.finalize(made, self._release, place)

    def _release(self, place: int) -> None:
        entry = self._sizes[place]
        entry[0] -= 1
        if entry[0] == 0:
            self.allocated -= entry[1]
            del self._sizes[place]


class _Functions(TorchFunctionMode):
    """Python's side: a ``device`` that means ours becomes the one that C++ believes in."""

    def __init__(self, device: StandInDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.as_tensor, torch.tensor) and _is_ours(kwargs.get("device")) and not _ours(args[0]):
            kwargs["device"] = "cpu"
            return func(*args, **kwargs).to(META)
        if func is Tensor.cuda:
            return args[0].to(META)
        args = tuple(META if _is_ours(z) else z for z in args)
        kwargs = {k: META if _is_ours(z) else z for k, z in kwargs.items()}
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    """The dispatcher: computes on the host what is asked of the device, and counts."""

    def __init__(self, device: StandInDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        tensors = [z for z in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(z, Tensor)]
        ours, target = any(map(_ours, tensors)), kwargs.get("device")
        if not ours and target != META:
            return func(*args, **kwargs)
        if func.namespace == "otdist":  # an opaque operator of the library: run what is inside
            with self.device:  # a mode is off while it answers
                return torch._library.custom_ops.OPDEFS[func._schema.name]._backend_fns[None](*args, **kwargs)
        if name == "_to_copy" and target is not None and (target.type == "cpu" or not ours):
            return self._copied(func, name, args, kwargs)
        if name != "copy_":
            _refuse_hosts(func, tensors)
        self._count(func, name, args, ours)
        held = {} if target is None else {"device": torch.device("cpu")}
        plain = tree_map(_unwrapped, (args, kwargs | held))
        out = func(*plain[0], **plain[1])
        return self._wrapped(func, args, kwargs, out)

    def _copied(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Between the host and the device: both wait."""
        self.device.by_operator[name] += 1
        self.device.waits[name] += 1
        out = func(_unwrapped(args[0]), **kwargs | {"device": torch.device("cpu")})
        return out if kwargs["device"].type == "cpu" else self.device.wrap(out)

    def _count(self, func: Any, name: str, args: Any, ours: bool) -> None:
        returns = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not view and name not in IDLE:
            self.device.by_operator[name] += 1
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(z, Tensor) and (z.dtype in (torch.bool, torch.uint8) or not _ours(z)) for z in args[1]
        )
        if by_mask and name != "index" and args[2].ndim == 0:
            by_mask = False  # a number is filled in through the mask
        crossing = name == "copy_" and not (_ours(args[0]) and _ours(args[1])) and args[1].ndim > 0
        if name in WAITING or name in WAITING_INSIDE or by_mask or crossing:
            self.device.waits[name] += 1

    def _wrapped(self, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """Results on the device; an operator that writes to an argument returns that argument."""
        schema = func._schema
        if schema.is_mutable and schema.returns and schema.returns[0].alias_info is not None:
            return kwargs["out"] if "out" in kwargs else args[0]
        return tree_map(lambda z: self.device.wrap(z) if isinstance(z, Tensor) else z, out)


def _ours(x: Any) -> bool:
    return isinstance(x, StandIn)


def _is_ours(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


def _unwrapped(x: Any) -> Any:
    return x.held if isinstance(x, StandIn) else x


def _refuse_hosts(func: Any, tensors: list[Tensor]) -> None:
    """As on a card: numbers (tensors without dimensions) may come from the host, and positions that index."""
    indexing = func._schema.name.startswith("aten::index")
    for z in tensors:
        if not _ours(z) and z.ndim > 0 and not (indexing and z.dtype in (torch.int64, torch.bool)):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, cuda:0; one is on {z.device}")
