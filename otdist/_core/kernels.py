"""Kernels as Python calls them: compiled at their first use, kept on disk, loaded without their compiler.

Numba takes longer to be imported than everything else that a first call does. So what it and LLVM make of a kernel, an
object file for each working type, is kept; later processes, in which nothing has to be compiled, import llvmlite alone.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from . import object_files

# A vector of the loops: bytes, and doubles in it.
BYTES, LANES = 64, 8
# Kinds of arguments: numbers, and flat contiguous arrays of a dtype or of the working type.
INT, FLOAT, INTS, FLOATS, WORKING = "int", "float", "int64[:]", "float64[:]", "working[:]"
_SCALARS = {INT: ctypes.c_int64, FLOAT: ctypes.c_double}
_addressof, _bytes_of = ctypes.addressof, ctypes.c_char.from_buffer
_compiling = threading.RLock()


class Kernel:
    """A function of the module ``otdist.<name's first part>``, by its name; ``kinds`` are those of its arguments.

    Tuples among the kinds stand for tuples, which are named tuples inside, too. It is called with the working type and
    the arguments, without the interpreter's lock, and returns an integer (0 where the function returns nothing).
    """

    all: ClassVar[list[Kernel]] = []

    def __init__(self, name: str, *kinds: Any, dtypes: tuple[Any, ...] = (np.float64, np.float32)) -> None:
        self.module, _, self.name = name.rpartition(".")
        self.kinds, self.dtypes = kinds, dtypes
        self._leaves = list(_leaves(kinds))
        self._entries: dict[Any, tuple[int, Callable, list[Any]]] = {}
        self.all.append(self)

    def __call__(self, dtype: Any, *arguments: Any) -> int:
        _, function, kinds = self._entries.get(dtype) or self._entry(dtype)
        result = ctypes.c_int64(0)
        flat, kind_of = [ctypes.addressof(result), None], iter(kinds)
        for argument in arguments:
            for value in argument if isinstance(argument, tuple) else (argument,):
                kind = next(kind_of)
                if kind is not None:
                    if value.dtype != kind or not value.flags.c_contiguous:
                        raise TypeError(f"{self.name}: a contiguous array of {kind} is needed, not of {value.dtype}")
                    try:
                        flat.append(_addressof(_bytes_of(value)))
                    except (TypeError, ValueError):  # not writable, or empty
                        flat.append(value.ctypes.data)
                    value = value.size
                flat.append(value)
        if function(*flat):
            raise RuntimeError(f"{self.name} failed")
        return result.value

    def address(self, dtype: Any) -> int:
        """Where the function for this working type is."""
        return (self._entries.get(dtype) or self._entry(dtype))[0]

    def _entry(self, dtype: Any) -> tuple[int, Callable, list[Any]]:
        with _compiling:
            if dtype not in self._entries:
                working = np.dtype(dtype)
                symbol = f"{self.name}_{working.name}"
                address = object_files.address(f"{self.module}.{symbol}", lambda: self._compile(working, symbol))
                kinds = [None if k in _SCALARS else dtype_of(k, working) for k in self._leaves]
                types = [t for k in self._leaves for t in ([_SCALARS[k]] if k in _SCALARS else _POINTER_AND_SIZE)]
                prototype = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *types)
                self._entries[dtype] = address, prototype(address), kinds
            return self._entries[dtype]

    def compiled(self) -> list[Any]:
        """The working types that it is in memory for."""
        return list(self._entries)

    def _compile(self, working: Any, symbol: str) -> Any:
        """The LLVM module."""
        from . import compiled
        from .flat import types_of

        function = getattr(importlib.import_module(self.module), self.name)
        return compiled.module_of(function, types_of(self.kinds, working), symbol)


def dtype_of(kind: str, working: Any) -> Any:
    """The dtype of an array of this kind."""
    return working if kind == WORKING else np.dtype(kind.removesuffix("[:]"))


_POINTER_AND_SIZE = [ctypes.c_void_p, ctypes.c_int64]


def _leaves(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, tuple):
            yield from _leaves(item)
        else:
            yield item
