"""New contents of a folder, made beside the old ones and put in their place once they are whole.

They are made in ``FOLDER/unfinished``. When they are whole, a mark says so, and each file is renamed over the old one.
A kill before the mark leaves the old contents; a kill after it leaves work that `recover` ends.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ._storage import DESCRIPTION, WEIGHTS, beside, commit, write_atomically

UNFINISHED = "unfinished"
WHOLE = ".whole"  # names the old files that have no successor


def staged(folder: Path) -> Path:
    """Where the new contents of `folder` are made."""
    return folder / UNFINISHED


def discard(folder: Path) -> None:
    """Remove new contents that were never finished."""
    shutil.rmtree(staged(folder), ignore_errors=True)


def install(folder: Path, replaced: Iterable[str]) -> None:
    """Put the new contents in place; of the old ones the files (or folders) named in `replaced` go.

    Raises
    ------
    OSError
        If that fails; what is left is ended by `recover`.
    """
    source = staged(folder)
    new = {path.relative_to(source) for path in _files(source)}
    old = {path.relative_to(folder) for name in replaced for path in _files(folder / name)}
    write_atomically(source / WHOLE, json.dumps(sorted(map(str, old - new))).encode())
    recover(folder)


def recover(folder: Path) -> None:
    """End what a kill interrupted after the new contents were whole; nothing to do otherwise."""
    source = staged(folder)
    mark = source / WHOLE
    if not mark.is_file():
        return
    for target in _inside(folder, json.loads(mark.read_text("utf-8"))):
        target.unlink(missing_ok=True)
    for name in (WEIGHTS, DESCRIPTION):  # these two change together
        if (source / name).exists():
            os.replace(source / name, beside(folder / name))
    commit(folder)
    new = [path for path in _files(source) if path != mark]
    for path, target in zip(new, _inside(folder, [path.relative_to(source) for path in new]), strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    shutil.rmtree(source)


def _inside(folder: Path, names: Iterable[str | Path]) -> list[Path]:
    """The named files of `folder`. Raises ValueError for one that lies elsewhere: marks may have been tampered with."""
    targets = [folder / name for name in names]
    for target in targets:
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{staged(folder) / WHOLE} is damaged: {target} is not in {folder}")
    return targets


def _files(path: Path) -> list[Path]:
    if path.is_dir() and not path.is_symlink():
        return sorted(p for p in path.rglob("*") if p.is_file() or p.is_symlink())
    return [path] if path.exists() or path.is_symlink() else []
