"""First calls: what is compiled is said, kept and the same as what is loaded; every kernel is in `otdist.warm_up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Hashes of values and gradients of every distance, what was compiled after `warm_up`, kernels that never were, and
# whether numba was imported.
REPORT = """
import hashlib, importlib, json, logging, pkgutil, sys
import numpy as np
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("otdist").addHandler(Keep())
import otdist
from otdist import exact, gaussian, line, sinkhorn, sliced
from otdist.sinkhorn.operators import divergence
if "warm-up" in sys.argv:
    otdist.warm_up()
from otdist._core import machine_code
from otdist._core.kernels import Kernel
compiled, compile_module = [], machine_code.compile_module
def noted(module):
    compiled.append(str(module)[:100])
    return compile_module(module)
machine_code.compile_module = noted
hashes = {}
def note(name, value, grads):
    parts = [np.asarray(value), *(g for g in grads if g is not None)]
    hashes[name] = hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()
rng = np.random.default_rng(0)
for dtype in (np.float64, np.float32):
    kind = np.dtype(dtype).name
    for n, d in ((1, 3), (1, 8), (1, 12), (1, 24), (100, 4), (100, 9)):
        z = rng.standard_normal((2, n, d, d + 2))
        cov = (z @ z.mT).astype(dtype)
        cov, mean = (cov + cov.mT) / 2, np.zeros((n, d), dtype)
        note(f"gaussian {n} {d} {kind}", *gaussian.w2_squared_and_grad(mean, cov[0], mean, cov[1]))
    x, y = rng.standard_normal((2, 37, 3)).astype(dtype)
    a = rng.uniform(0.5, 1.0, 37).astype(dtype)
    a /= a.sum()
    note(f"line {kind}", *line.w2_squared_and_grad(x[:, 0], y[:30, 0]))
    note(f"line equal {kind}", *line.w2_squared_and_grad(x[:, 0], y[:, 0]))
    note(f"line weighted {kind}", *line.w2_squared_and_grad(x[:, 0], y[:, 0], a))
    u, v = rng.standard_normal((2, 9000)).astype(dtype)  # enough for the compiled loops
    mass = rng.uniform(0.5, 1.0, 9000)
    mass = (mass / mass.sum()).astype(dtype)
    note(f"line long {kind}", *line.w2_squared_and_grad(u, v[:8000]))
    note(f"line long equal {kind}", *line.w2_squared_and_grad(u, v))
    note(f"line long weighted {kind}", *line.w2_squared_and_grad(u, v, mass))
    note(f"line long cubed {kind}", line.wp(u, v, p=3), ())
    many = rng.standard_normal((2, 300, 3)).astype(dtype)
    note(f"sliced many {kind}", *sliced.w2_squared_and_grad(*many, directions=32, rng=0))
    note(f"exact {kind}", *exact.w2_squared_and_grad(x[:, :1], y[:, :1]))
    for weights in (None, a):
        note(f"sliced {weights is None} {kind}", *sliced.w2_squared_and_grad(x, y, weights, directions=32, rng=0))
        for options in ({}, {"reach": 1.5}, {"tol": 1e-8}):
            name = f"sinkhorn {weights is None} {options} {kind}"
            note(name, *sinkhorn.w2_squared_and_grad(x, y, weights, epsilon=0.4, **options))
    solved = sinkhorn.solve(x, y, epsilon=0.4, tol=1e-9)
    note(f"sinkhorn plan {kind}", solved.plan(), solved.bounds())
    big = rng.standard_normal((2, 2100, 2)).astype(dtype)  # not in one compiled call
    note(f"sinkhorn big {kind}", *sinkhorn.w2_squared_and_grad(*big, epsilon=2.0))
    options = {"epsilon": 0.5, "tol": 1e-3, "max_iter": 100, "reach": np.inf, "power": 1.0}
    note(f"sinkhorn Euclidean {kind}", *divergence.value_and_grad(x, y, *np.empty((2, 0), dtype), **options))
never = [kernel.name for kernel in Kernel.all if set(kernel.dtypes) - set(kernel.loaded)]
numba = "numba" in sys.modules
print(json.dumps({"hashes": hashes, "compiled": compiled, "never": never, "numba": numba, "records": records}))
"""


def report(cache: Path, *arguments: str, **environment: str) -> dict:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-W", "error", "-c", REPORT, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert out.stderr == ""
    return json.loads(out.stdout)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache that `warm_up` has filled, and what was found in the process that did."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, report(cache, "warm-up")


def test_warm_up_compiles_every_kernel(warm):
    _, found = warm
    assert found["compiled"] == []
    assert len(found["records"]) == 1
    assert "compiles kernels" in found["records"][0]


def test_a_loaded_kernel_gives_the_bytes_of_the_compiled_one(warm):
    cache, compiled = warm
    loaded = report(cache)
    assert loaded["compiled"] == []
    assert loaded["records"] == []
    assert not loaded["numba"]
    assert loaded["never"] == []  # some distance has a use for every kernel
    assert loaded["hashes"] == compiled["hashes"]


SMALL = "import numpy as np; from otdist import line; print(line.w2_squared(np.zeros(9000), np.ones(8000)))"


def test_where_no_cache_can_be_written_it_works_and_says_so_once():
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NUMBA_CACHE_DIR": "/dev/null/nothing",
    }
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", SMALL], capture_output=True, text=True, check=True, env=environment
    )
    assert out.stdout == "1.0\n"
    assert out.stderr.count("no folder for them can be written") == 1
    assert out.stderr.count("\n") == 1


def test_two_processes_fill_one_cache_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", SMALL], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in processes] == ["1.0\n"] * 2
    out = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, check=True, env=environment)
    assert (out.stdout, out.stderr) == ("1.0\n", "")
