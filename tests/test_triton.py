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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "triton_interpreted.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])


def compiled_for_sm_90(kernel, products, double, d):
    """The kernel as `triton.compile` makes it for compute capability 9.0, which takes no driver."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from otdist.sinkhorn import triton_kernels

    tiles = triton_kernels.tiles(products, double, d)
    constants = {"PRODUCTS": products, "MOVED": True, **tiles}
    own = "*fp64" if double else "*fp32"
    kinds = dict.fromkeys(("x", "y", "E", "G", "moved"), own) | dict.fromkeys(("n", "m", "d"), "i32")
    kinds |= {"mass": "*fp64", "out": "*fp64"}
    function = getattr(triton_kernels, kernel)
    signature = {name: kinds.get(name, "constexpr") for name in function.arg_names}
    source = ASTSource(function, signature, {k: v for k, v in constants.items() if k in function.arg_names})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": tiles["num_warps"]})


def spilled_bytes(compiled, folder: Path) -> int:
    """What the assembler moves from registers to memory."""
    import triton.backends.nvidia

    (folder / "kernel.ptx").write_text(compiled.asm["ptx"])
    assembler = Path(triton.backends.nvidia.__file__).parent / "bin" / "ptxas"
    command = [assembler, "-v", "--gpu-name=sm_90a", folder / "kernel.ptx", "-o", folder / "kernel.cubin"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill", told)))


@pytest.mark.parametrize("d", [3, 64])
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("kernel", ["softmin", "plan_sums"])
def test_kernels_compile_for_a_card_without_spills(kernel, double, d, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    products = d > 8
    compiled = compiled_for_sm_90(kernel, products, double, d)
    assert spilled_bytes(compiled, tmp_path) == 0
    assert compiled.metadata.shared <= SHARED_MEMORY
    if products:  # on tensor cores
        assert ("mma.sync" if double else "wgmma") in compiled.asm["ptx"]
