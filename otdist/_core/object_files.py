"""Where compiled kernels are kept: object files in a cache, each of one kernel, processor and state of the sources.

A file begins with a digest of itself and of the sources that it was made from: what is stale or damaged is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from . import first_call

_PACKAGE = Path(__file__).resolve().parent.parent
_COMPILER = ("compiled.py", "flat.py", "kinds.py", "machine_code.py", "simd.py")
_DIGEST = 32


def address(name: str, module: Callable[[], Any]) -> int:
    """Where the kernel of this name is in memory, from its object file or from `module`, its LLVM module."""
    from . import machine_code

    file, sources = f"{name}-{_machine()}.o", _sources(name.split(".")[1])
    places = _folders() if sources else []
    found = next((code for place in places if (code := _read(place / file, sources)) is not None), None)
    if found is None:
        places = [place for place in places if _writable(place)]
        first_call.say(places[0] if places else None)
        found = machine_code.compile_module(module())
        if places and not any(_write(place / file, sources, found) for place in places):
            first_call.say(None)
    return machine_code.load(found, name.rpartition(".")[2])


def _folders() -> list[Path]:
    """Where to look, and where to write if the former can't be."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen) / "otdist"]
    beside = [_PACKAGE / "__pycache__"]
    try:
        if sys.platform == "win32":
            own = _absolute("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            own = Path.home() / "Library" / "Caches"
        else:
            own = _absolute("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return beside
    return [*beside, own / "otdist"]


def _absolute(variable: str) -> Path | None:
    """The folder that a variable of the environment names; what is relative to wherever we are does not count."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None


@cache
def _machine() -> str:
    """What tells apart files of one kernel: processors and installations."""
    import llvmlite
    from llvmlite.binding import get_process_triple

    from .machine_code import processor

    # As numba's would be imported to say its version, ask the folder that it was installed to.
    numba = sorted(path.name for path in Path(llvmlite.__file__).parent.parent.glob("numba-*.dist-info"))
    text = "\n".join((*processor(), get_process_triple(), llvmlite.__version__, *numba, str(_PACKAGE)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _sources(folder: str) -> bytes:
    """A digest of a distance's sources and of the compiler's; empty where they can't be read."""
    digest, own = hashlib.sha256(), sorted((_PACKAGE / folder).glob("*.py"))
    try:
        for path in [*(_PACKAGE / "_core" / name for name in _COMPILER), *own]:
            digest.update(path.read_bytes())
    except OSError:
        return b""
    return digest.digest() if own else b""


def _digest(sources: bytes, code: bytes) -> bytes:
    return hashlib.sha256(sources + code).digest()


def _read(path: Path, sources: bytes) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code = content[_DIGEST:]
    return code if content[:_DIGEST] == _digest(sources, code) else None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _write(path: Path, sources: bytes, code: bytes) -> bool:
    """Whether it could be written. Whoever reads at the same time finds the former file or all of this one."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        new.write_bytes(_digest(sources, code) + code)
        os.replace(new, path)
    except OSError:  # a full disk, say
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        return False
    return True
