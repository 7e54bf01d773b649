"""Peak memory of what is promised to need little: measured in a process of its own, kernels and libraries included."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Far below the size of what is not formed. A first call of the same kind, with few points, loads what is loaded once.
MEASURE = """
import json, resource, sys
import numpy as np
from otdist import exact, gaussian, line, metrics, sinkhorn
rng = np.random.default_rng(0)
def moments(n):
    found = gaussian.Moments()
    for _ in range(n):
        found.update(rng.standard_normal((4000, 64)))
def frechet(n):
    found = metrics.FrechetDistance()
    for k in range(n):
        found.update(rng.standard_normal((4000, 64)), real=k % 2 == 0)
def families(k):
    z = rng.standard_normal((k, 16, 20))
    mean, cov = rng.standard_normal((k, 16)), z @ z.mT
    gaussian.pairwise_w2_squared(mean, cov, mean, cov)
def points(n, d):
    return rng.standard_normal((2, n, d))
CALLS = {
    "moments": (lambda n: moments(n), 2, 60),
    "metric": (lambda n: frechet(n), 4, 60),
    "families": (families, 10, 400),
    "line": (lambda n: line.w2_squared_and_grad(*points(n, 1)[..., 0]), 10_000, 400_000),
    "sinkhorn": (lambda n: sinkhorn.solve(*points(n, 2), epsilon=1.0).bounds(), 500, 10_000),
    "exact": (lambda n: exact.w2_squared(*points(n, 2)), 50, 900),
}
call, few, many = CALLS[sys.argv[1]]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
call(few)
before = peak()
call(many)
print(json.dumps(peak() - before))
"""
MIB = 2**20
ALLOWED = {
    "moments": 12 * MIB,  # beside 117 MiB of points: a batch and its copies take 2 MiB each
    "metric": 12 * MIB,
    "families": 200 * MIB,  # six blocks of 32 MiB; beside 328 MiB for one matrix of each pair
    "line": 8 * 8 * 2 * 400_000,  # eight arrays of each side in float64
    "sinkhorn": 60 * MIB,  # beside 381 MiB for one matrix of float32
    "exact": 48 * 900**2 + 8 * MIB,  # what is asked for before it is tried, and what the allocator keeps
}


@pytest.mark.parametrize("name", ALLOWED)
def test_peak_memory(name):
    out = subprocess.run([sys.executable, "-c", MEASURE, name], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) <= ALLOWED[name]
