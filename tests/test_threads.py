"""The pool of threads: many callers at once, forked and spawned children, interrupts, and where helpers run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from otdist import gaussian, line, sinkhorn, sliced
from otdist._core import threads

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 3000, 8))
ROWS = RNG.standard_normal((2, 64, 2000))
Z = RNG.standard_normal((2, 500, 6, 8))
MEANS, COVS = np.zeros((500, 6)), Z @ Z.mT
COVS = (COVS + COVS.mT) / 2
CALLS = {
    "gaussian": lambda: gaussian.w2_squared(MEANS, COVS[0], MEANS, COVS[1]),
    "line": lambda: line.w2_squared(*ROWS),
    "sliced": lambda: sliced.w2_squared(X, Y, directions=64, rng=0),
    "sinkhorn": lambda: sinkhorn.w2_squared(X[:300], Y[:300], epsilon=2.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_many_callers_at_once_get_the_same_bytes(name):
    expected = CALLS[name]()
    with ThreadPoolExecutor(8) as callers:
        for found in callers.map(lambda _: CALLS[name](), range(16)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own():
    expected = sum(float(np.sum(call())) for call in CALLS.values())  # the parent's pool has run
    pipe = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        pipe.put(sum(float(np.sum(call())) for call in CALLS.values()))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert pipe.get() == expected


def test_a_spawned_child_computes_the_same():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(line.w2_squared, tuple(ROWS)), line.w2_squared(*ROWS))


def test_an_interrupt_ends_a_long_call():
    code = """
import signal
import numpy as np
from otdist import sinkhorn
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
x, y = np.random.default_rng(0).standard_normal((2, 2000, 3))
sinkhorn.solve(x[:50], y[:50], epsilon=1.0)
print("started", flush=True)
sinkhorn.solve(x, y, epsilon=1e-5, tol=1e-12, max_iter=10**9)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == "started\n"
            for _ in range(60):  # Python drops an interrupt that meets a destructor: press again, as a person would
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                    break
            assert process.returncode, "still running after two minutes"
            assert "KeyboardInterrupt" in process.stderr.read()
        finally:
            process.kill()


def test_a_failure_of_one_chunk_reaches_the_caller():
    def work(chunk: int) -> None:
        if chunk == 3:
            raise ArithmeticError("chunk 3")

    with pytest.raises(ArithmeticError, match="chunk 3"):
        threads.map(work, range(8))
    done = []
    threads.map(done.append, range(8))  # the pool still works
    assert sorted(done) == list(range(8))


@pytest.mark.skipif(threads.size() < 2 or threads._getcpu() is None, reason="one processor, or none that can be named")
def test_helpers_run_on_other_processors_than_the_caller():
    allowed, main, seen = os.sched_getaffinity(0), threading.get_ident(), []
    both = threading.Barrier(2)

    def work(chunk: int) -> None:
        both.wait(60)  # so that caller and helper take one each
        seen.append((threading.get_ident() == main, os.sched_getaffinity(0)))

    threads.map(work, range(2))
    assert sorted(own for own, _ in seen) == [False, True]
    for own, processors in seen:
        assert processors == allowed if own else processors < allowed
    assert os.sched_getaffinity(0) == allowed
