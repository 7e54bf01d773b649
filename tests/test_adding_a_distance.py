"""A distance is one folder, one line and one row, as CONTRIBUTING says: one is added to a copy, tried and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = ["cases.py", "conftest.py", "strategies.py", "test_laws.py", "test_layout.py"]

FOLDER = '''"""Transport along each axis by itself: the sum over the coordinates of W2² between the marginals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.annotations import A, Numbers, NumPy
from .._core.backend import Array
from .._core.clouds import validate_points
from .._core.operator import Operator

__all__ = ["Gradients", "w2", "w2_squared", "w2_squared_and_grad"]


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument."""

    x: np.ndarray
    y: np.ndarray


def _kernel(x: Array, y: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, tuple[Array | None, ...]]:
    """``Σᵢ ∫ (F⁻¹ - G⁻¹)²`` for as many points on both sides; the gradient goes back to where each point was."""
    xp, n = backend.namespace(x), x.shape[-2]
    orders = [xp.argsort(z, -2) for z in (x, y)]
    u, v = (xp.take_along_dim(z, k, -2) if backend.is_torch(z) else np.take_along_axis(z, k, -2)
            for z, k in zip((x, y), orders))
    slopes = (2 / n * (u - v), 2 / n * (v - u))
    grads = (_unsorted(g, k) if need else None for g, k, need in zip(slopes, orders, needs_input_grad))
    return ((u - v) ** 2).sum((-2, -1)) / n, tuple(grads)


def _unsorted(slope: Array, order: Array) -> Array:
    if backend.is_torch(slope):
        return slope.new_zeros(slope.shape).scatter(-2, order, slope)
    out = np.empty(slope.shape, slope.dtype)
    np.put_along_axis(out, order, slope, -2)
    return out


_axes_cost = Operator("axes_cost", _kernel, core_ndims=(2, 2))


def _validate(x: Any, y: Any) -> tuple[list[Array], Any]:
    arrays, cast_back = checks.arrays(x=x, y=y)
    for name, z in zip("xy", arrays):
        validate_points(name, z)
    checks.same_size("the number of points", "x", arrays[0].shape[-2], "y", arrays[1].shape[-2])
    return arrays, cast_back


def w2_squared(x: A | Numbers, y: A | Numbers) -> A:
    """The sum over the coordinates of W2² between the marginals of two clouds (..., n, d)."""
    arrays, cast_back = _validate(x, y)
    return cast_back(_axes_cost(*arrays))


def w2(x: A | Numbers, y: A | Numbers) -> A:
    """The root of `w2_squared`."""
    arrays, cast_back = _validate(x, y)
    return cast_back(backend.root(_axes_cost(*arrays)))


def w2_squared_and_grad(x: NumPy, y: NumPy) -> tuple[np.ndarray, Gradients]:
    """`w2_squared` with its gradients, for NumPy."""
    arrays, cast_back = _validate(x, y)
    checks.numpy_only("axes.w2_squared_and_grad", arrays[0])
    value, grads = _axes_cost.value_and_grad(*arrays)
    return cast_back(value), Gradients(*map(cast_back, grads))


def __dir__() -> list[str]:
    return __all__
'''

# What is written, and before what.
LINES = {
    "otdist/__init__.py": [("axes, ", "covariance, diagonal"), ('    "axes",\n', '    "covariance",')],
    "tests/cases.py": [
        ("axes, ", "diagonal, exact"),
        (
            """    Case(
        "axes",
        axes,
        _points,
        translate=lambda m, v: (m[0] + v,),
        stretch=lambda m, s: (s * m[0],),
    ),
""",
            '    Case(\n        "exact"',
        ),
    ],
}


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "otdist", tmp_path / "otdist", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "otdist_vae", tmp_path / "otdist_vae", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in NEEDED:
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(copy, *arguments):
    out = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


def test_a_folder_a_line_and_a_row_are_all_that_it_takes(copy):
    (copy / "otdist" / "axes").mkdir()
    (copy / "otdist" / "axes" / "__init__.py").write_text(FOLDER, "utf-8")
    before = {name: (copy / name).read_text("utf-8") for name in LINES}
    for name, text in before.items():
        for written, anchor in LINES[name]:
            assert text.count(anchor) == 1, f"{anchor!r} in {name}"
            text = text.replace(anchor, written + anchor)
        (copy / name).write_text(text, "utf-8")
    said = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", "-k", "axes")
    laws = (ROOT / "tests" / "test_laws.py").read_text("utf-8").count("@every_case")
    assert int(said.split(" passed")[0].split()[-1]) > laws  # every law, some at several dtypes; and the layout's

    shutil.rmtree(copy / "otdist" / "axes")
    for name, text in before.items():
        (copy / name).write_text(text, "utf-8")
    assert "axes" not in run(copy, "-c", "import otdist; print(dir(otdist))")
