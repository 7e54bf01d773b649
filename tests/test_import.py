"""What importing costs: nothing that was not asked for."""

import subprocess
import sys


def test_import_otdist_imports_no_framework():
    code = (
        "import sys, otdist; print([m for m in ('torch', 'numba', 'ot', 'sklearn', 'lightning') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_module_is_imported_with_its_first_use():
    code = """
import sys
import otdist
assert not any(f"otdist.{name}" in sys.modules for name in otdist.__all__)
otdist.line.w2([0.0], [1.0])
assert "otdist.line" in sys.modules
assert "otdist.sinkhorn" not in sys.modules
for name in ("nothing", "__wrapped__", "_core.nothing"):
    assert not hasattr(otdist, name)
from otdist import *
assert all(globals()[name] is getattr(otdist, name) for name in otdist.__all__)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_that_fails_says_why():
    code = "import sys; sys.modules['otdist.line.coupling'] = None; import otdist; otdist.line"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "import of otdist.line.coupling halted" in out.stderr


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


def test_differentiating_imports_no_compiler():
    """The first call of one of PyTorch's custom operators imports its compiler, which sets variables and filters."""
    code = """
import os, sys, warnings
import torch
from otdist import gaussian, line
before = list(warnings.filters), dict(os.environ)
mean, cov = torch.zeros(2, requires_grad=True), torch.eye(2)
gaussian.transport_map(mean, cov, mean, (2 * cov).requires_grad_()).matrix.sum().backward()
gradient, = torch.autograd.grad(gaussian.w2_squared(mean, cov, torch.ones(2), 2 * cov), mean, create_graph=True)
gradient.sum().backward()
gradient, = torch.autograd.grad(line.w2_squared(mean, torch.ones(2)), mean, create_graph=True)
try:
    gradient.sum().backward()
except NotImplementedError as error:
    assert "can be differentiated once only" in str(error)
assert (list(warnings.filters), dict(os.environ)) == before
assert "torch._dynamo" not in sys.modules
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr


def test_a_first_call_leaves_the_state_of_the_process_alone():
    code = """
import os, warnings
import numpy as np
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "a filter of the caller's")
def state():
    generator = np.random.get_state()
    return list(warnings.filters), dict(os.environ), generator[1].tolist(), generator[2:], np.geterr()
before = state()
import otdist
from otdist import diagonal, exact, gaussian, inference, line, sinkhorn, sliced
x, y = np.random.default_rng(0).standard_normal((2, 40, 2))
assert state() == before, "import"
gaussian.w2_squared_from_samples(x, y), diagonal.w2(x, abs(x)), line.w2_squared_and_grad(x[:, 0], y[:, 0])
assert state() == before, "gaussian, line"
sliced.w2_squared_and_grad(x, y, rng=0), sinkhorn.w2_squared_and_grad(x, y, epsilon=1.0)
assert state() == before, "sliced, sinkhorn"
exact.w2_squared_and_grad(x, y[:30]), exact.plan(x, y)
assert state() == before, "exact"
inference.frechet_distance(x, y)
assert state() == before, "inference"
from scipy.stats import norm
otdist.w2(norm(0, 1), norm(1, 2))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
