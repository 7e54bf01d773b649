"""A small pool of threads for kernels that release the GIL.

The pool has as many threads as the process may use: the affinity mask, and torch's thread count where torch is loaded
(so that `torch.set_num_threads(1)`, which DataLoader workers run under, also holds here). Work is never nested, and a
forked child starts with a pool of its own: threads do not survive a fork.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

Chunk = TypeVar("Chunk")

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_inside = threading.local()


def size() -> int:
    """The number of threads that kernels may use now."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity mask
        cores = os.cpu_count() or 1
    threads = getattr(sys.modules.get("torch"), "get_num_threads", None)
    return max(1, min(cores, threads()) if threads else cores)


def map(function: Callable[[Chunk], object], chunks: Sequence[Chunk]) -> None:
    """Call `function` on every chunk, on the caller's thread and the pool's; return when all are done.

    A single chunk, a single core, or a call from inside the pool runs on the caller's thread alone. The chunks should
    take 0.1 ms or more each: waking a thread costs about 0.02 ms.
    """
    threads = min(size(), len(chunks))
    if threads <= 1 or getattr(_inside, "pool", False):
        for chunk in chunks:
            function(chunk)
        return
    queue = iter(chunks)
    taking = threading.Lock()
    elsewhere = _elsewhere()
    helpers = [_pool(threads).submit(_help, function, queue, taking, elsewhere) for _ in range(threads - 1)]
    try:
        _drain(function, queue, taking)
    finally:
        # A helper that never started (the pool is busy with another caller's work) has nothing left to do.
        started = [helper for helper in helpers if not helper.cancel()]
        errors = [helper.exception() for helper in started]
    for error in errors:
        if error is not None:
            raise error


def _elsewhere() -> set[int]:
    """The processors that the caller may run on but does not; empty where that is not known."""
    getcpu = _getcpu()
    if getcpu is None:
        return set()
    return os.sched_getaffinity(0) - {getcpu()}


@cache
def _getcpu() -> Any:
    """The C library's `sched_getcpu`, where there is one."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


def _help(
    function: Callable[[Chunk], object], queue: Iterator[Chunk], taking: threading.Lock, elsewhere: set[int]
) -> None:
    """Drain the queue on a processor other than the caller's.

    On a busy machine Linux wakes a thread where it slept last, without a look for idle processors: on two of them every
    other call would share one processor with its caller for as long as it takes.
    """
    if elsewhere and getattr(_inside, "processors", None) != elsewhere:
        with suppress(OSError):
            os.sched_setaffinity(0, elsewhere)
            _inside.processors = elsewhere
    _drain(function, queue, taking)


def _drain(function: Callable[[Chunk], object], queue: Iterator[Chunk], taking: threading.Lock) -> None:
    """Take chunks until there are none; after a failure nobody takes another."""
    _inside.pool = True
    try:
        while True:
            with taking:
                chunk = next(queue, _END)
            if chunk is _END:
                return
            function(chunk)  # type: ignore[arg-type]
    except BaseException:
        with taking:
            for _ in queue:
                pass
        raise
    finally:
        _inside.pool = False


_END: object = object()


def _pool(threads: int) -> ThreadPoolExecutor:
    """The shared executor, made at first use and grown when more threads became available."""
    global _executor
    with _lock:
        if _executor is None or _executor._max_workers < threads:
            _executor = ThreadPoolExecutor(max(threads, os.cpu_count() or 1), thread_name_prefix="otdist")
        return _executor


def _forget() -> None:
    """In a forked child: the parent's threads and the state of its lock are gone."""
    global _executor, _lock, _inside
    _executor, _lock, _inside = None, threading.Lock(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
