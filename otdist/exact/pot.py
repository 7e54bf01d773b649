"""POT's compiled network simplex, without the import of its package, which takes seconds and loads PyTorch and JAX.

`ot.lp.emd_wrap` is one extension module; all that it imports of the package is a function that it does not need here.
It is loaded beside a stand-in for that. Whatever turns out to be different than expected, POT's public function is
called instead, with the same result.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_OPTIMAL = 1


def network_simplex(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, max_iter: int
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """An optimal plan (n, m), the potential of the columns (m,), and a warning or None; all weights are positive."""
    direct = _compiled()
    if direct is None:
        return _by_package(a, b, cost, max_iter)
    plan, _, _, g, code = direct.emd_c(a, b * a.sum() / b.sum(), cost, max_iter, 1)  # as POT's public function does
    return plan, g, None if code == _OPTIMAL else direct.check_result(code)


def _by_package(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, max_iter: int
) -> tuple[np.ndarray, np.ndarray, str | None]:
    with caller_state():
        import ot

    plan, log = ot.emd(a, b, cost, numItermax=max_iter, log=True, center_dual=False)
    return plan, log["v"], log["warning"]


@cache
def _compiled() -> Any:
    """The extension module, or None where it can't be loaded or does not solve a small problem as it should."""
    try:
        module = sys.modules["ot.lp.emd_wrap"] if "ot" in sys.modules else _load()
        plan, _, _, g, code = module.emd_c(np.full(2, 0.5), np.full(2, 0.5), np.array([[1.0, 0.0], [0.0, 3.0]]), 100, 1)
        right = code == _OPTIMAL and np.array_equal(plan, [[0, 0.5], [0.5, 0]]) and g.shape == (2,)
    except Exception:
        return None
    return module if right else None


def _load() -> Any:
    package = importlib.util.find_spec("ot")  # finds it without importing it
    folder = Path(package.submodule_search_locations[0]) / "lp"  # type: ignore[union-attr, index]
    paths = (folder / f"emd_wrap{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    path = next(p for p in paths if p.exists())
    parents = {name: types.ModuleType(name) for name in (_NAME, f"{_NAME}.lp", f"{_NAME}.utils")}
    parents[_NAME].__path__ = parents[f"{_NAME}.lp"].__path__ = []
    parents[f"{_NAME}.utils"].dist = _dist  # type: ignore[attr-defined]
    own = f"{_NAME}.lp.emd_wrap"
    before = set(sys.modules)
    sys.modules.update(parents)
    try:
        loader = importlib.machinery.ExtensionFileLoader(own, str(path))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(own, loader))  # type: ignore[arg-type]
        loader.exec_module(module)
        return module
    finally:  # `import ot` is to find what it would have found
        for name in (*parents, own, "ot.lp.emd_wrap"):
            if name not in before:
                sys.modules.pop(name, None)


_NAME = "_otdist_pot"


def _dist(*args: Any, **options: Any) -> Any:
    """`ot.utils.dist`, which POT's own callers of this module will want after they have imported the package."""
    from ot.utils import dist

    return dist(*args, **options)


@contextmanager
def caller_state() -> Any:
    """Import a package without a trace in the environment, the warning filters and NumPy's global generator."""
    environment, state = dict(os.environ), np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
