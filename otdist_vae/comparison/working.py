"""Where a comparison is made: in ``OUT/unfinished``, until it is whole and takes the place of what was in OUT.

Whatever stops it, the older comparison is there, byte for byte, and the finished cells of the new one wait.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import _storage, settings, staging
from .protocol import CELLS, Protocol


class Interrupted(KeyboardInterrupt):
    """A comparison was stopped by Ctrl-C; `advice` says how to go on."""

    def __init__(self, advice: str) -> None:
        super().__init__(advice)
        self.advice = advice


def advice(folder: Path) -> str:
    """How to go on with a comparison that was stopped."""
    done = len(list((staging.staged(folder) / CELLS).glob("*.json")))
    return (
        f"{done} finished cells are kept; go on with otdist-vae compare --out {shlex.quote(str(folder))} --resume auto"
    )


@contextmanager
def replacing(folder: Path, made: Iterable[str], *, go_on: bool) -> Iterator[Path]:
    """A folder to make a comparison in; if nothing is raised it takes the place of the old files, those `made`.

    `go_on` keeps the cells that are there. What is raised before a single cell was finished leaves no trace.

    Raises
    ------
    Interrupted
        On Ctrl-C.
    """
    existed, working = folder.is_dir(), staging.staged(folder)
    _storage.prepare(folder)
    if not go_on:
        staging.discard(folder)
    working.mkdir(exist_ok=True)
    try:
        yield working
    except KeyboardInterrupt:
        raise Interrupted(advice(folder)) from None
    except BaseException:
        if not any((working / CELLS).glob("*.json")):
            staging.discard(folder)
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
        raise
    staging.install(folder, made)


def take_up(folder: Path, names: Iterable[str]) -> None:
    """Begin a larger comparison with the cells and models of the finished one in `folder`, which stays until then."""
    source = staging.staged(folder)
    begun = source.with_suffix(".begun")  # a copy that a kill cut short must not look like a comparison
    for path in (source, begun):
        shutil.rmtree(path, ignore_errors=True)
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.copytree(path, begun / name)
        elif path.is_file():
            begun.mkdir(exist_ok=True)
            shutil.copy2(path, begun / name)
    begun.rename(source)


def command(protocol: Protocol) -> str:
    """The command line that asks for this comparison."""
    parts = ["otdist-vae compare", f"--data {shlex.quote(_data(protocol))}"]
    parts += [f"--regularizers {','.join(protocol.names)}", f"--seeds {protocol.seeds}"]
    if protocol.factors:
        parts.append(f"--tune {','.join(f'{f:g}' for f in protocol.factors)}")
    parts.append(f"--labels {','.join(map(str, protocol.labels)) or 'none'}")
    if protocol.labels and protocol.augmented != protocol.names:
        parts.append(f"--augment {','.join(protocol.augmented) or 'none'}")
    for key, value in sorted(protocol.config.items()):
        if key not in ("data", "regularizer") and value != settings.default(key):
            parts += [f"--set {shlex.quote(part)}" for part in _settings(key, value)]
    return " ".join(parts)


def _data(protocol: Protocol) -> str:
    """As one would name it here: a file below the current folder without the folder."""
    source, here = str(protocol.config["data"]), Path.cwd()
    return str(Path(source).relative_to(here)) if Path(source).is_relative_to(here) else source


def _settings(key: str, value: Any) -> list[str]:
    """KEY=VALUE, or several for the parts of a component."""
    if isinstance(value, dict):
        name, rest = value.get("name"), {k: v for k, v in value.items() if k != "name"}
        return [f"{key}={name}", *(f"{key}.{k}={v}" for k, v in rest.items())]
    return [f"{key}={value}"]
