"""Kernels as Python calls them: compiled at their first use, kept on disk, loaded without their compiler.

Numba takes longer to be imported than everything else that a first call does. So what it and LLVM make of a kernel, an
object file for each working type, is kept; later processes, in which nothing has to be compiled, import llvmlite alone.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from . import object_files
from .kinds import BYTES, FLOAT, INT, WORKING, dtype_of

# What C takes for a number and for an array: integers travel like addresses, which ctypes passes on faster.
_PASSED: dict[str, list[Any]] = {INT: [ctypes.c_void_p], FLOAT: [ctypes.c_double]}
_ADDRESS_AND_SIZE = [ctypes.c_void_p, ctypes.c_void_p]
_memory_of = (ctypes.c_char * 0).from_buffer  # of an array that is contiguous and may be written
_compiling = threading.RLock()


class Kernel:
    """A function by its full name; ``kinds`` are those of its arguments.

    Tuples among the kinds, also named ones, are what the function takes; callers unpack them. ``kernel[dtype](...)``
    calls it for a working type, ``kernel(...)`` one that knows only doubles, without the interpreter's lock. Arrays of
    another dtype, or not contiguous, are refused; that those which the function fills may be written is up to the
    caller. The result is an integer, 0 if the function returns nothing.
    """

    all: ClassVar[list[Kernel]] = []

    def __init__(self, name: str, *kinds: Any, dtypes: tuple[Any, ...] = ()) -> None:
        self.module, _, self.name = name.rpartition(".")
        self.kinds, self.leaves = kinds, list(_leaves(kinds))
        self.dtypes = dtypes or ((np.float64, np.float32) if WORKING in self.leaves else (np.float64,))
        self.loaded: dict[Any, Loaded] = {}
        self.all.append(self)

    def __getitem__(self, dtype: Any) -> Loaded:
        found = self.loaded.get(dtype)
        if found is None:
            with _compiling:
                found = self.loaded.get(dtype) or self.loaded.setdefault(dtype, Loaded(self, np.dtype(dtype)))
        return found

    def __call__(self, *arguments: Any) -> int:
        return self[np.float64](*arguments)


class Loaded:
    """A kernel in memory, for one working type."""

    def __init__(self, kernel: Kernel, working: Any) -> None:
        def module() -> Any:
            from . import compiled
            from .flat import types_of

            function = getattr(importlib.import_module(kernel.module), kernel.name)
            return compiled.module_of(function, types_of(kernel.kinds, working), symbol)

        symbol = f"{kernel.name}_{working.name}"
        self.name = kernel.name
        self.address = object_files.address(f"{kernel.module}.{symbol}", module)
        self._dtypes = [None if kind in _PASSED else dtype_of(kind, working) for kind in kernel.leaves]
        passed = [each for kind in kernel.leaves for each in _PASSED.get(kind, _ADDRESS_AND_SIZE)]
        self._error = ctypes.c_void_p()  # where a kernel that raises says what
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *passed)(self.address)

    def __call__(self, *arguments: Any) -> int:
        result = ctypes.c_int64()
        flat: list[Any] = [ctypes.addressof(result), ctypes.addressof(self._error)]
        for dtype, value in zip(self._dtypes, arguments, strict=True):
            if dtype is None:
                flat.append(value)
                continue
            if value.dtype is not dtype and value.dtype != dtype:
                raise TypeError(f"{self.name}: an array of {dtype} is needed, not of {value.dtype}")
            try:
                flat.append(_memory_of(value))
            except TypeError:  # it can't be written
                flat.append(_address_of(value))
            flat.append(value.size)
        if self._function(*flat):
            raise RuntimeError(f"the kernel {self.name} failed")
        return result.value


def aligned(size: int, dtype: Any) -> np.ndarray:
    """An empty array of which no vector straddles two lines of the cache."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.empty(size + BYTES // itemsize, dtype)
    start = -raw.ctypes.data % BYTES // itemsize
    return raw[start : start + size]


def _forget() -> None:
    """In a forked child: whoever held the lock is gone."""
    global _compiling
    _compiling = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


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
