"""Kernels' object files: kept, read back, made anew where they are stale or damaged; and the arguments that fit."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from otdist._core import first_call, machine_code, object_files
from otdist._core.kernels import Kernel
from otdist._core.kinds import FLOATS, INT
from otdist.line import sort

WEIGHTS, ORDER = np.array([0.1, 0.2, 0.3, 0.4]), np.array([3, 1, 0, 2], np.int32)


def cumulate(weights=WEIGHTS, order=ORDER):
    """A kernel that nothing has loaded yet, called."""
    kernel, cdf = Kernel("otdist.line.walk_loops.cumulate", FLOATS, "int32[:]", INT, FLOATS), np.empty(4)
    Kernel.all.remove(kernel)
    kernel(weights, order, 4, cdf)
    return cdf


@pytest.fixture
def compilations(tmp_path, monkeypatch):
    """The modules that were compiled, with an empty cache."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    modules, compile_module = [], machine_code.compile_module

    def noted(module):
        modules.append(module)
        return compile_module(module)

    monkeypatch.setattr(machine_code, "compile_module", noted)
    return modules


def found(cache):
    (file,) = (cache / "otdist").iterdir()
    return file


def test_an_object_file_is_made_once_and_read_back(compilations, tmp_path):
    np.testing.assert_allclose(cumulate(), [0.4, 0.6, 0.7, 1.0])
    content = found(tmp_path).read_bytes()
    np.testing.assert_allclose(cumulate(), [0.4, 0.6, 0.7, 1.0])
    assert len(compilations) == 1
    assert found(tmp_path).read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:40],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2] + b"?" + content[len(content) // 2 + 1 :],
        lambda content: b"?" + content[1:],
    ],
)
def test_a_damaged_object_file_is_made_anew(compilations, tmp_path, damage):
    cumulate()
    content = found(tmp_path).read_bytes()
    found(tmp_path).write_bytes(damage(content))
    np.testing.assert_allclose(cumulate(), [0.4, 0.6, 0.7, 1.0])
    assert len(compilations) == 2
    assert found(tmp_path).read_bytes() == content


def test_other_sources_make_another_object_file(compilations, tmp_path, monkeypatch):
    cumulate()
    monkeypatch.setattr(object_files, "_sources", lambda folder: b"others")
    cumulate()
    cumulate()
    assert len(compilations) == 2
    assert found(tmp_path).exists()  # the former one is gone


def test_sources_are_those_of_the_distance_and_of_the_compiler(tmp_path, monkeypatch):
    for folder in ("_core", "line", "exact"):
        (tmp_path / folder).mkdir()
    for name in ("compiled.py", "flat.py", "kinds.py", "machine_code.py", "simd.py"):
        (tmp_path / "_core" / name).write_text("x")
    monkeypatch.setattr(object_files, "_PACKAGE", tmp_path)
    digest = object_files._sources.__wrapped__
    digests = {digest("line")}
    for path in ("line/walk_loops.py", "_core/simd.py"):
        (tmp_path / path).write_text("y")
        digests.add(digest("line"))
    assert len(digests) == 3
    (tmp_path / "exact" / "simplex.py").write_text("y")
    assert digest("line") in digests
    (tmp_path / "_core" / "simd.py").unlink()
    assert digest("line") == b""


def test_without_sources_nothing_is_kept(compilations, tmp_path, monkeypatch):
    monkeypatch.setattr(object_files, "_sources", lambda folder: b"")
    np.testing.assert_allclose(cumulate(), [0.4, 0.6, 0.7, 1.0])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_goes_to_the_next_folder_or_nowhere(compilations, tmp_path, monkeypatch, caplog):
    full, other, write = tmp_path / "full", tmp_path / "other", Path.write_bytes

    def refusing(*folders):
        def attempt(path, data):
            if path.parent in folders:
                raise OSError("no space left on the device")
            return write(path, data)

        return attempt

    monkeypatch.setattr(object_files, "_folders", lambda: [full, other])
    monkeypatch.setattr(Path, "write_bytes", refusing(full))
    cumulate()
    cumulate()
    assert len(compilations) == 1
    assert list(full.iterdir()) == []
    monkeypatch.setattr(Path, "write_bytes", refusing(full, other))
    monkeypatch.setattr(object_files, "_sources", lambda folder: b"others")
    first_call._say.cache_clear()
    np.testing.assert_allclose(cumulate(), [0.4, 0.6, 0.7, 1.0])
    assert "no folder for them can be written" in caplog.text


def test_threads_that_come_at_once_compile_once(compilations):
    kernel, values = Kernel("otdist.line.walk_loops.cumulate", FLOATS, "int32[:]", INT, FLOATS), []
    Kernel.all.remove(kernel)
    together = threading.Barrier(4)

    def call():
        cdf = np.empty(4)
        together.wait()
        kernel(WEIGHTS, ORDER, 4, cdf)
        values.append(cdf[2])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(set(values)) == 1
    assert len(compilations) == 1


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="an array of float64 is needed, not of float32"):
        cumulate(WEIGHTS.astype(np.float32))
    with pytest.raises(TypeError, match="contiguous"):
        cumulate(np.repeat(WEIGHTS, 2)[::2])
    with pytest.raises(ValueError, match="shorter"):
        Kernel.all[0]()
    fixed = WEIGHTS.copy()
    fixed.flags.writeable = False
    np.testing.assert_allclose(cumulate(fixed), [0.4, 0.6, 0.7, 1.0])


def test_a_kernel_that_raises_is_an_error_and_no_crash():
    nothing = np.empty(0, np.uint64)
    with pytest.raises(RuntimeError, match="pack64 failed"):
        sort._pack64(nothing, 0, nothing, 1)  # a range in steps of 0


def test_folders_of_the_cache(monkeypatch, tmp_path):
    package = Path(object_files.__file__).parent.parent / "__pycache__"
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    home = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    assert object_files._folders() == [package, tmp_path / home / "otdist"]
    if sys.platform == "linux":
        for relative in ("", "cache"):
            monkeypatch.setenv("XDG_CACHE_HOME", relative)
            assert object_files._folders() == [package, tmp_path / home / "otdist"]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
        assert object_files._folders() == [package, tmp_path / "own" / "otdist"]
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert object_files._folders() == [tmp_path / "chosen" / "otdist"]
