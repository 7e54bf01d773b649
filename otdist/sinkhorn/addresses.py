"""Compiled functions that call each other through an address.

Numba puts a copy of a function into everything that calls it and optimises each copy again: a chain of five functions
is compiled five times, and which of the copies runs can differ between the process that compiled them and one that
loaded them. A function called through its address exists once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

REALS = types.Array(types.float64, 1, "C")
INTEGERS = types.Array(types.int64, 1, "C")


def bundle(kinds: tuple[Any, ...], named_tuple: Any) -> Any:
    """The compiled type of a named tuple with members of these types."""
    return types.BaseTuple.from_types(kinds, named_tuple)


class Addressed:
    """A dispatcher whose argument types follow from the working type, ``signature(array of it)``; it returns an int.

    ``call(address, *arguments)`` is for compiled code; ``address(dtype)`` is where the function for that type is.
    """

    def __init__(self, dispatcher: Any, signature: Callable[[Any], tuple]) -> None:
        self.dispatcher, self.signature = dispatcher, signature
        self.address = cache(self._address)

        def call(typing, address, *arguments):
            given = tuple(types.unliteral(z) for z in arguments)
            if not any(given == signature(self.working(kind)) for kind in (np.float32, np.float64)):
                raise TypeError(f"{dispatcher.py_func.__name__} takes other types than {given}")

            def generate(context, builder, signature, values):
                kind = context.call_conv.get_function_type(types.int64, given)
                pointer = builder.inttoptr(values[0], ir.PointerType(kind))
                items = [builder.extract_value(values[1], k) for k in range(len(given))]
                items = [context.cast(builder, z, s, t) for z, s, t in zip(items, arguments, given, strict=True)]
                _, result = context.call_conv.call_function(builder, pointer, types.int64, given, items)
                return result

            return types.int64(address, types.StarArgTuple(arguments)), generate

        self.call = intrinsic(call)

    @staticmethod
    def working(dtype: Any) -> Any:
        """The type of a flat array of the working type."""
        return types.Array(from_dtype(np.dtype(dtype)), 1, "C")

    def _address(self, dtype: Any) -> int:
        arguments = self.signature(self.working(dtype))
        self.dispatcher.compile(arguments)
        compiled = self.dispatcher.overloads[arguments]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
