"""The Triton kernels without a card: in Triton's interpreter, and compiled ahead of time for one."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")

SHARED_MEMORY = 227 * 1024  # bytes a block may have on compute capability 9.0


def test_kernels_agree_with_the_dense_formula_in_the_interpreter():
    files = [str(HERE / f"triton_{name}interpreted.py") for name in ("", "small_", "pairs_")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])


def compiled_for_sm_90(function, kinds, constants):
    """The kernel as `triton.compile` makes it for compute capability 9.0, which takes no driver.

    `kinds` are Triton's names of the arguments' types; what has none is constant.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: kinds.get(name, "constexpr") for name in function.arg_names}
    source = ASTSource(function, signature, {k: v for k, v in constants.items() if k in function.arg_names})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": constants["num_warps"]})


def spilled_bytes(compiled, folder: Path) -> int:
    """What the assembler moves from registers to memory."""
    import triton.backends.nvidia

    (folder / "kernel.ptx").write_text(compiled.asm["ptx"])
    assembler = Path(triton.backends.nvidia.__file__).parent / "bin" / "ptxas"
    command = [assembler, "-v", "--gpu-name=sm_90a", folder / "kernel.ptx", "-o", folder / "kernel.cubin"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill", told)))


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A kernel for a card, if it spills nothing and finds the room it needs."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def compile_it(function, kinds, constants):
        found = compiled_for_sm_90(function, kinds, constants)
        assert spilled_bytes(found, tmp_path) == 0
        assert found.metadata.shared <= SHARED_MEMORY
        return found.asm["ptx"]

    return compile_it


@pytest.mark.parametrize("d", [3, 64])
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("kernel", ["softmin", "plan_sums"])
def test_kernels_compile_for_a_card_without_spills(kernel, double, d, compiled):
    from otdist.sinkhorn import triton_kernels

    products = d > 8
    own = "*fp64" if double else "*fp32"
    kinds = dict.fromkeys(("x", "y", "E", "G", "moved"), own) | dict.fromkeys(("n", "m", "d"), "i32")
    kinds |= {"mass": "*fp64", "out": "*fp64"}
    constants = {"PRODUCTS": products, "MOVED": True, **triton_kernels.tiles(products, double, d)}
    ptx = compiled(getattr(triton_kernels, kernel), kinds, constants)
    if products:  # on tensor cores
        assert ("mma.sync" if double else "wgmma") in ptx


@pytest.mark.parametrize(("n", "double"), [(40, False), (512, False), (256, True)])
def test_small_problems_compile_for_a_card_without_spills(n, double, compiled):
    from otdist.sinkhorn import triton_kernels, triton_small
    from otdist.sinkhorn.constants import SYMMETRIC_STEP

    kinds = dict.fromkeys(("E", "a", "b", "apart", "change", "sums"), "*fp64" if double else "*fp32")
    kinds |= dict.fromkeys(("own", "passes"), "*i32") | dict.fromkeys(("n", "m", "most", "burst"), "i32")
    kinds |= dict.fromkeys(("tol", "trust", "farthest"), "fp32")
    sizes = {**triton_small.tile(n, n, double), "SHARE": SYMMETRIC_STEP, "num_warps": triton_small.WARPS}
    compiled(triton_kernels.scalings, kinds, sizes)


@pytest.mark.parametrize("d", [8, 32])
def test_gaussian_pairs_compile_for_a_card_without_spills(d, compiled):
    from otdist.gaussian import triton_kernels, triton_pairs

    kinds = dict.fromkeys(("x", "y", "value", "slope_x", "slope_y", "table"), "*fp64")
    kinds |= {"good": "*i8"} | dict.fromkeys(("d", "stride_x", "stride_y"), "i32")
    assert "mma.sync" in compiled(triton_kernels.pairs, kinds, triton_pairs.sizes(d))


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_sliced_slopes_compile_for_a_card_without_spills_or_atomics(kind, compiled):
    from otdist.sliced import triton_kernels

    kinds = {"values": f"*{kind}", "slopes": f"*{kind}", "places": "*i64", "costs": "*fp64", "n": "i32", "rows": "i32"}
    constants = {"BLOCK": triton_kernels.BLOCK, "TIES": triton_kernels.TIES, "num_warps": triton_kernels.WARPS}
    ptx = compiled(triton_kernels.match, kinds, constants)
    assert not re.search(r"\b(atom|red)\.", ptx)
