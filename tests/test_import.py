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
