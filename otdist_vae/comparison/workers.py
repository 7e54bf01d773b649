"""Cells over processes: whichever ends first is reported first, and what ended is never lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from typing import Any

import torch

from .. import data, runs
from ..regularizers import CHOICES
from ..threads import one_blas_thread, one_thread
from .cells import Result, compute
from .protocol import Cell, Protocol

_WORK: dict[str, Any] = {}  # what a worker process works on


class Clock:
    """How much time is left, by the mean time of the cells of each sort so far; the longest for a sort not met yet."""

    def __init__(self, left: Iterable[Cell], jobs: int) -> None:
        self.left, self.jobs = [_sort(cell) for cell in left], jobs
        self.seconds: dict[tuple[str, bool], list[float]] = {}
        self.total, self.start = len(self.left), time.monotonic()

    def tick(self, cell: Cell, seconds: float) -> str:
        """Count a cell that took so many seconds, and say how many are done and how long the others will take."""
        self.left.remove(_sort(cell))
        self.seconds.setdefault(_sort(cell), []).append(seconds)
        known = {sort: sum(values) / len(values) for sort, values in self.seconds.items()}
        rest = sum(known.get(sort, max(known.values())) for sort in self.left) / self.jobs
        done = self.total - len(self.left)
        return f"{done} of {self.total} cells, about {duration(rest)} left" if self.left else f"all {self.total} cells"


def _sort(cell: Cell) -> tuple[str, bool]:
    """Cells that take about as long as one another: those that train a model, or not."""
    return cell.kind, cell.name in CHOICES


def duration(seconds: float) -> str:
    """Time in the unit that a person would use.

    >>> duration(42), duration(400), duration(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


Report = Callable[[Cell, Result, float], None]


def run(
    protocol: Protocol, stages: list[list[Cell]], examples: data.Examples, folder: Path, jobs: int, report: Report
) -> None:
    """Compute the cells, each stage when the one before is whole; `report` hears of each with its wall-clock seconds.

    Raises
    ------
    OSError
        If a worker process was killed.
    """
    if jobs == 1:
        with one_thread(), one_blas_thread():  # as in every worker, so that numbers do not depend on how many work
            for cell in (cell for stage in stages for cell in stage):
                start = time.monotonic()
                report(cell, compute(protocol, cell, examples, folder), time.monotonic() - start)
        return
    if not any(stages):
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (protocol, folder))
    try:
        for stage in stages:
            _together({pool.submit(_one, cell) for cell in stage}, report)
    except BrokenProcessPool:
        raise OSError("a worker process was killed, perhaps for want of memory") from None
    finally:
        _stop(pool)


def _together(waiting: set[Future[tuple[Cell, Result, float]]], report: Report) -> None:
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            report(*future.result())


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: what they have in hand is lost, what they wrote is whole."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


# --- in a worker process ----------------------------------------------------------------------------------------------


def _begin(protocol: Protocol, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    one_blas_thread()
    _WORK.update(protocol=protocol, folder=folder, examples=runs.examples_of(protocol.config))


def _end_with_parent() -> None:
    """Workers of a parent that was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _one(cell: Cell) -> tuple[Cell, Result, float]:
    start = time.monotonic()
    result = compute(_WORK["protocol"], cell, _WORK["examples"], _WORK["folder"])
    return cell, result, time.monotonic() - start
