"""Flat arrays inside compiled kernels: an address and a length, no more.

Numba's own arrays have shapes, strides, owners and Python's rules for indices, all of which it takes the compiler
longer to remove than the loops take to compile. Here ``x[i]`` is a load: an index counts from the start and is not
checked, and ``view(x, start, size)`` is an addition.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_getattr, models, register_model

from .kinds import FLOAT, INT, dtype_of


class Flat(types.Type):
    """An array of numbers of this type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"otdist.Flat({dtype})")


_NUMBERS = types.float32, types.float64, types.int32, types.int64, types.uint32, types.uint64
FLAT = {dtype: Flat(dtype) for dtype in _NUMBERS}


@register_model(Flat)
class _Model(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("data", types.CPointer(kind.dtype)), ("size", types.intp)])


# Makes numba try a rule before its own: they are many, and each takes its time to say that it does not apply.
FIRST = {"target": "cpu"}


class _First(AbstractTemplate):
    metadata = FIRST

    def generic(self, args: Any, kws: Any) -> Any:
        return self.rule(*args) if args and isinstance(args[0], Flat) else None


@infer_global(operator.getitem)
class _GetItem(_First):
    @staticmethod
    def rule(array: Any, index: Any) -> Any:
        return signature(array.dtype, array, types.intp)


@infer_global(operator.setitem)
class _SetItem(_First):
    @staticmethod
    def rule(array: Any, index: Any, value: Any) -> Any:
        return signature(types.none, array, types.intp, array.dtype)


@infer_global(len)
class _Len(_First):
    @staticmethod
    def rule(array: Any) -> Any:
        return signature(types.intp, array)


@infer_getattr
class _Attributes(AttributeTemplate):
    key = Flat

    def resolve_itemsize(self, array: Any) -> Any:
        return types.intp


def pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """The address of array[index]."""
    return builder.gep(cgutils.create_struct_proxy(kind)(context, builder, array).data, [index])


@lower_builtin(operator.getitem, Flat, types.intp)
def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.load(pointer(context, builder, sig.args[0], *args))


@lower_builtin(operator.setitem, Flat, types.intp, types.Any)
def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    builder.store(args[2], pointer(context, builder, sig.args[0], *args[:2]))
    return context.get_dummy_value()


@lower_builtin(len, Flat)
def _size(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0]).size


@lower_getattr(Flat, "itemsize")
def _itemsize(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return ir.Constant(context.get_value_type(types.intp), kind.dtype.bitwidth // 8)


@intrinsic
def view(typing, array, start, size):
    """array[start : start + size]."""

    def generate(context, builder, signature, arguments):
        part = cgutils.create_struct_proxy(signature.return_type)(context, builder)
        part.data = pointer(context, builder, signature.args[0], *arguments[:2])
        part.size = arguments[2]
        return part._getvalue()

    return array(array, types.intp, types.intp), generate


def types_of(kinds: Any, working: Any) -> tuple[Any, ...]:
    """The compiled types of arguments of these kinds, see `kernels`, for a working dtype."""

    def type_of(kind: Any) -> Any:
        if isinstance(kind, tuple):
            members = tuple(map(type_of, kind))
            return types.BaseTuple.from_types(members, type(kind) if hasattr(kind, "_fields") else None)
        if kind in (INT, FLOAT):
            return types.int64 if kind == INT else types.float64
        return FLAT[from_dtype(dtype_of(kind, working))]

    return tuple(map(type_of, kinds))
