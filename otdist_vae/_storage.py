"""A model on disk: model.json says what it is, weights.safetensors holds its numbers. Reading runs no code.

The two files belong together. Both are written beside the old ones before the first is put in place, and model.json
holds the checksum of its weights: a kill at any moment leaves the old pair or the new one, never half of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from . import memory

FORMAT, VERSION = "otdist_vae", 1
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"
CONFIG, CURVES, CHECKPOINT = "config.yaml", "metrics.csv", "checkpoints/last.ckpt"  # of a run
CHECKSUM = "weights_sha256"
PARTIAL = ".partial"


def prepare(folder: Path) -> None:
    """Make the folder and see that it can be written to. Raises OSError naming it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}") from None


def beside(path: Path) -> Path:
    """Where a file is written before it takes the place of `path`."""
    return path.with_name(path.name + PARTIAL)


def write_beside(path: Path, content: bytes) -> Path:
    """Write and flush `content` beside `path`; what could not be written whole is removed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = beside(path)
    try:
        with open(partial, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from None
    return partial


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a kill at any moment leaves the old file or the new one."""
    os.replace(write_beside(path, content), path)


def save(folder: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, together or not at all."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    weights = save_tensors(contiguous)
    checksum = hashlib.sha256(weights).hexdigest()
    text = json.dumps({"format": FORMAT, "version": VERSION, **description, CHECKSUM: checksum}, indent=2)
    first = write_beside(folder / WEIGHTS, weights)
    try:
        write_beside(folder / DESCRIPTION, (text + "\n").encode())
    except OSError:
        first.unlink(missing_ok=True)
        raise
    commit(folder)


def commit(folder: Path) -> None:
    """Put both files that lie beside the old ones in place, or the one that a kill left there."""
    for path in (folder / WEIGHTS, folder / DESCRIPTION):  # in this order: `load` accepts the weights of either text
        if beside(path).exists():
            os.replace(beside(path), path)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files.

    Raises
    ------
    FileNotFoundError
        If there is no model in `folder`.
    ValueError
        If a file is damaged, foreign, or of a newer version.
    """
    path, weights = folder / DESCRIPTION, folder / WEIGHTS
    for needed in (path, weights):
        if not needed.is_file():
            raise FileNotFoundError(f"{folder} holds no saved model: there is no {needed.name}")
    memory.require(weights.stat().st_size, str(weights))
    content = weights.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    description = read_description(path)
    if description.get(CHECKSUM, checksum) != checksum:
        description = _the_other(path, checksum)
    try:
        return description, load_tensors(content)
    except SafetensorError as error:
        raise ValueError(f"{weights} is damaged: {error}") from None


def _the_other(path: Path, checksum: str) -> dict[str, Any]:
    """The description that a kill left beside the old one, if it is of the weights that are in place."""
    with contextlib.suppress(OSError, ValueError):
        description = read_description(beside(path))
        if description.get(CHECKSUM) == checksum:
            return description
    raise ValueError(f"{path.parent} is damaged: {WEIGHTS} is not the file that {DESCRIPTION} was saved with")


def read_description(path: Path) -> dict[str, Any]:
    """model.json as a dictionary of this format and version. Raises OSError or ValueError."""
    try:
        description = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path} does not describe an otdist_vae model")
    version = description.get("version")
    if version != VERSION:
        raise ValueError(f"{path} has format version {version!r:.40}; this otdist_vae reads version {VERSION}")
    return description
