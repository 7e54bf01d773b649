"""What a new process waits for: imports, first calls with and without compiled kernels, and calls too large to repeat.

First calls count processor seconds, since a compiler may use other cores or wait for none: from `import otdist` (NumPy
being there, and torch where tensors are passed) to the end of the call.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

from bench.problems import Problem
from bench.rivals import Call, Contender
from bench.workload import NO_VALUE, Rival, Workload, no_answers

# A Mac counts its resident memory in bytes, Linux in KiB.
_TOLD = """
import json, resource, sys
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "peak_bytes": peak}))
"""


def process(
    code: str, *, cold: bool = False, clock: str = "perf_counter", timeout_s: float = 300
) -> Callable[..., Call]:
    """Code that sets up, then a marker line, then what is timed; with `cold` no kernel is in the cache."""
    setup, _, timed = code.rpartition("# timed\n")
    script = f"import time\n{setup}start = time.{clock}()\n{timed}\nseconds = time.{clock}() - start\n{_TOLD}"

    def call() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | ({"NUMBA_CACHE_DIR": empty} if cold else {})
            done = subprocess.run(
                [sys.executable, "-c", script], env=environment, timeout=timeout_s, capture_output=True, text=True
            )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        return json.loads(done.stdout)

    return lambda problem: call


def elsewhere(name: str, package: str, distribution: str, code: str, **options: Any) -> Contender:
    """A contender whose call runs in a process of its own."""
    seconds, peak_bytes = itemgetter("seconds"), itemgetter("peak_bytes")
    return Contender(name, package, distribution, process(code, **options), no_answers, seconds, peak_bytes)


_IMPORT = Workload(
    name="import",
    group="process",
    title="import in a new process",
    data=partial(Problem, {}, {}),
    ours=elsewhere("from otdist import *", "otdist", "otdist", "from otdist import *"),
    rivals=(Rival(elsewhere("import ot", "ot", "POT", "import ot")),),
    tolerance=NO_VALUE,
    at_most_s=0.3,
)

_CLOUDS = "import numpy\nx = numpy.random.default_rng(0).normal(size=({n}, {d}))\ny = 1.2 * x[::-1] + 1\n"
_PAIR = "import numpy\nm, c = numpy.zeros({d}), numpy.cov(numpy.random.default_rng(0).normal(size=({d}, {n})))\n"
_BATCH = "import numpy\nr = numpy.random.default_rng(0).normal(size=(4096, 8, 9))\nc = r @ r.mT\nm = r[..., 0]\n"
_NORMALS = """\
import torch
from torch.distributions import Normal
p, q = Normal(torch.zeros(128, 8), 1.0), Normal(torch.zeros(128, 8, requires_grad=True), 2.0)
"""
# name, what it is, setting up, the call, and the promised seconds with an empty and with a filled cache
_FIRST_CALLS = (
    ("gaussian-8", "Gaussian pair, d = 8", _PAIR.format(d=8, n=20), "gaussian.w2_squared(m, c, m, 2 * c)", 1, 0.2),
    (
        "gaussian-200",
        "Gaussian pair, d = 200",
        _PAIR.format(d=200, n=500),
        "gaussian.w2_squared(m, c, m, 2 * c)",
        1,
        0.2,
    ),
    ("diagonal", "diagonal pair", "import numpy\nm = numpy.ones(8)\n", "diagonal.w2_squared_and_grad(m, m)", 1, 0.2),
    ("distributions", "w2_squared(q, p), backward", _NORMALS, "w2_squared(q, p).sum().backward()", 1, 0.2),
    (
        "gaussian-batch",
        "4096 Gaussian pairs with gradient",
        _BATCH,
        "gaussian.w2_squared_and_grad(m, c, m[::-1], c[::-1])",
        3,
        0.3,
    ),
    (
        "line",
        "one dimension, weighted, with gradient",
        _CLOUDS.format(n=2, d=300),
        "line.w2_squared_and_grad(x[0], y[0], *numpy.full((2, 300), 1 / 300))",
        3,
        0.3,
    ),
    ("exact", "exact with gradient", _CLOUDS.format(n=100, d=3), "exact.w2_squared_and_grad(x, y)", 3, 0.3),
    ("sliced", "sliced with gradient", _CLOUDS.format(n=500, d=16), "sliced.w2_squared_and_grad(x, y, rng=0)", 4, 0.3),
    (
        "sinkhorn-256",
        "Sinkhorn divergence with gradient, 256 points",
        _CLOUDS.format(n=256, d=16),
        "sinkhorn.w2_squared_and_grad(x, y, epsilon=1.0)",
        6,
        0.4,
    ),
    (
        "sinkhorn-256-float32",
        "the same in float32",
        _CLOUDS.format(n=256, d=16) + "x, y = numpy.float32(x), numpy.float32(y)\n",
        "sinkhorn.w2_squared_and_grad(x, y, epsilon=1.0)",
        6,
        0.4,
    ),
)


def _first_call(name: str, title: str, setup: str, call: str, at_most_s: float, *, cold: bool) -> Workload:
    how = "kernels compiled" if cold else "kernels cached"
    code = f"{setup}# timed\nimport otdist\notdist.{call}"
    return Workload(
        name=f"first-call-{name}{'-cold' if cold else ''}",
        group="first-call",
        title=f"first call in a new process, {how}: {title}",
        data=partial(Problem, {}, {}),
        ours=elsewhere(call.partition("(")[0], "otdist", "otdist", code, cold=cold, clock="process_time"),
        rivals=(),
        tolerance=NO_VALUE,
        at_most_s=at_most_s,
    )


# The whole of 1e5 x 1e5 would be 40 GB in float32. The truth is not known; the certificate says how near we are.
_LARGE = """\
import numpy
from otdist import sinkhorn
rng = numpy.random.default_rng(0)
x = rng.normal(size=(100_000, 3)).astype(numpy.float32)
y = (0.7 * rng.normal(size=(100_000, 3)) + 1 / 3**0.5).astype(numpy.float32)
mean_cost = 3 * (1 + 0.7**2) + 1
# timed
result = sinkhorn.solve(x, y, epsilon=0.05 * mean_cost)
lower, upper = result.bounds()
assert result.converged
assert 0 < lower <= upper
"""

_STREAMED = Workload(
    name="sinkhorn-100000",
    group="process",
    title="Sinkhorn with certificate, 100000 points, d = 3, ε = .05 mean cost, float32",
    data=partial(Problem, {}, {}),
    ours=elsewhere("sinkhorn.solve, bounds", "otdist", "otdist", _LARGE, timeout_s=3600),
    rivals=(),
    tolerance=NO_VALUE,
    at_most_bytes=2**30,
    by_name_only=True,
)

WORKLOADS: tuple[Workload, ...] = (
    _IMPORT,
    *(
        _first_call(*row, seconds[cold], cold=bool(cold))
        for cold in (1, 0)
        for *row, empty, filled in _FIRST_CALLS
        for seconds in [(filled, empty)]
    ),
    _STREAMED,
)
