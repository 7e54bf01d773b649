"""A model on disk: model.json says what it is, weights.safetensors holds its numbers. Reading runs no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

FORMAT, VERSION = "otdist_vae", 1
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"


def prepare(folder: Path) -> None:
    """Make the folder and see that it can be written to. Raises OSError naming it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a kill at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.replace(partial, path)


def save(folder: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, each whole or not at all."""
    text = json.dumps({"format": FORMAT, "version": VERSION, **description}, indent=2)
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(folder / WEIGHTS, save_tensors(contiguous))
    write_atomically(folder / DESCRIPTION, (text + "\n").encode())


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files.

    Raises
    ------
    FileNotFoundError
        If there is no model in `folder`.
    ValueError
        If a file is damaged, foreign, or of a newer version.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: there is no {DESCRIPTION}")
    try:
        description = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path} does not describe an otdist_vae model")
    version = description.get("version")
    if version != VERSION:
        raise ValueError(f"{path} has format version {version}; this otdist_vae reads version {VERSION}")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: there is no {WEIGHTS}")
    try:
        return description, load_tensors(weights.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{weights} is damaged: {error}") from None
