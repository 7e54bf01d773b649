"""What importing costs: nothing that was not asked for."""

import subprocess
import sys


def test_import_otdist_imports_no_framework():
    code = (
        "import sys, otdist; print([m for m in ('torch', 'numba', 'ot', 'sklearn', 'lightning') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_numpy_callers_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np; from otdist import gaussian;"
        "print(gaussian.w2(np.zeros(1), np.eye(1), np.ones(1), np.eye(1)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(out.stdout) == 1.0


def test_a_compiler_may_be_the_first_to_call():
    code = """
import torch
from otdist import gaussian, line, sinkhorn
x, y, eye = torch.randn(7, 2), torch.randn(7, 2), torch.eye(2)
for function in (
    lambda p, q: sinkhorn.w2_squared(p, q, epsilon=0.4),
    lambda p, q: gaussian.w2_squared(p[0], eye, q[0], eye),
    lambda p, q: line.w2_squared(p[:, 0], q[:, 0]),
):
    print(float(torch.compile(function, fullgraph=True, backend="aot_eager")(x, y) - function(x, y)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [float(line) for line in out.stdout.split()] == [0.0] * 3
