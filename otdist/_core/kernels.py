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
from .kinds import FLOAT, INT, dtype_of

# What C takes for a number and for an array: integers travel like addresses, which ctypes passes on faster.
_PASSED = {INT: [ctypes.c_void_p], FLOAT: [ctypes.c_double]}
_ADDRESS_AND_SIZE = [ctypes.c_void_p, ctypes.c_void_p]
_memory_of = (ctypes.c_char * 0).from_buffer  # of an array that is contiguous and may be written
_compiling = threading.RLock()


class Kernel:
    """A function of the module ``otdist.<name's first part>``, by its name; ``kinds`` are those of its arguments.

    Tuples among the kinds, also named ones, are what the function takes; callers unpack them. It is called with the
    working type first, runs without the interpreter's lock, and returns an integer (0 if the function returns nothing).
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
        result = ctypes.c_int64()
        flat: list[Any] = [ctypes.addressof(result), None]
        for kind, value in zip(kinds, arguments, strict=True):
            if kind is None:
                flat.append(value)
                continue
            if value.dtype is not kind and value.dtype != kind:
                raise TypeError(f"{self.name}: an array of {kind} is needed, not of {value.dtype}")
            try:
                flat.append(_memory_of(value))
            except TypeError:  # it can't be written
                flat.append(_address_of(value))
            flat.append(value.size)
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
                kinds = [None if kind in _PASSED else dtype_of(kind, working) for kind in self._leaves]
                types: list[Any] = sum((_PASSED.get(kind, _ADDRESS_AND_SIZE) for kind in self._leaves), [])
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


def _leaves(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, tuple):
            yield from _leaves(item)
        else:
            yield item


def _address_of(array: np.ndarray) -> int:
    if not array.flags.c_contiguous:
        raise TypeError("kernels take contiguous arrays")
    return array.ctypes.data
