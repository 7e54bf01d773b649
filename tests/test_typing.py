"""Type checkers know what goes in and what comes out of every public function."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import otdist

ROOT = Path(__file__).parent.parent
CALLS = ROOT / "tests" / "typed_calls.py"


def test_mypy_finds_the_types_and_the_errors_that_are_written_down():
    # The cache of `mypy` itself, where there is one, has everything but the one file.
    command = [sys.executable, "-m", "mypy", str(CALLS)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout + out.stderr


@pytest.mark.parametrize("name", otdist.__all__)
def test_no_public_function_is_forgotten(name):
    nodes = ast.walk(ast.parse(CALLS.read_text("utf-8")))
    called = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    public = getattr(otdist, name)
    if not callable(public):
        names = {f"{name}.{inner}" for inner in public.__all__ if is_function(getattr(public, inner))}
    else:
        names = {f"otdist.{name}"} if is_function(public) else set()
    assert names <= called


def is_function(public: object) -> bool:
    return callable(public) and not isinstance(public, type)
