"""Features in files: arrays that are read in blocks, and the statistics that FID tools write."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

# Rows that are read at a time: 8192 features of 2048 numbers are 64 MiB in float32.
BLOCK = 8192


class Statistics(NamedTuple):
    """A Gaussian without the points that it was fitted to, as ``mu`` and ``sigma`` in a .npz file."""

    mean: np.ndarray
    cov: np.ndarray


class Features:
    """Points (n, d) in a file, read block by block; a .npy file is mapped into memory."""

    def __init__(self, path: Path, array: np.ndarray) -> None:
        if array.ndim != 2 or not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise ValueError(f"{path} must hold numbers of shape (n, d); got {array.dtype} of shape {array.shape}")
        self.path, self.array = path, array

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, in float64, at most so many at a time."""
        for start in range(0, len(self.array), BLOCK):
            block = np.asarray(self.array[start : start + BLOCK], np.float64)
            if not np.isfinite(block).all():
                row = start + int(np.flatnonzero(~np.isfinite(block).all(1))[0])
                raise ValueError(f"{self.path} must be finite; row {row} holds NaN or infinity")
            yield block

    def whole(self) -> np.ndarray:
        """All rows at once."""
        return np.concatenate([*self.blocks(), np.empty((0, self.shape[1]))])


def load(path: str | Path) -> Features | Statistics:
    """Features from .npy, .npz or .csv, or the statistics ``mu`` and ``sigma`` from .npz.

    A .npz file without statistics must hold one array, or one that is called ``features``. A .csv file has one point a
    line, and perhaps a line of names above.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds something else. Pickled objects are refused: reading a file runs no code.
    """
    path = Path(path)
    readers = {".npy": _load_npy, ".npz": _load_npz, ".csv": _load_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must end in {', '.join(readers)}; got {path.suffix or 'no ending'!r}")
    return readers[path.suffix.lower()](path)


def _open(path: Path, **options: Any) -> Any:
    try:
        return np.load(path, allow_pickle=False, **options)
    except (BadZipFile, EOFError, ValueError):
        raise ValueError(f"{path} is no {path.suffix} file of numbers, or is damaged") from None


def _load_npy(path: Path) -> Features:
    return Features(path, _open(path, mmap_mode="r"))


def _load_npz(path: Path) -> Features | Statistics:
    with _open(path) as archive:
        names = archive.files
        if {"mu", "sigma"} <= set(names):
            mean, cov = (np.asarray(_entry(path, archive, k), np.float64) for k in ("mu", "sigma"))
            if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
                raise ValueError(f"{path} must hold mu (d,) and sigma (d, d); got {mean.shape} and {cov.shape}")
            return Statistics(mean, cov)
        name = "features" if "features" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise ValueError(
                f"{path} must hold mu and sigma, features, or one array; it has {', '.join(names) or 'none'}"
            )
        return Features(path, _entry(path, archive, name))


def _entry(path: Path, archive: Any, name: str) -> np.ndarray:
    try:
        return archive[name]
    except (BadZipFile, EOFError, ValueError):
        raise ValueError(f"{path}: {name} is no array of numbers, or is damaged") from None


def _load_csv(path: Path) -> Features:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            first = next(lines, [])
            try:
                parts = [np.array([first], np.float64)]
            except ValueError:
                parts = []  # a line of names
            while block := list(islice(lines, BLOCK)):
                parts.append(np.array([row for row in block if row], np.float64).reshape(-1, len(first)))
    except ValueError as error:
        raise ValueError(f"{path} must hold as many numbers in every line: {error}") from None
    return Features(path, np.concatenate([*parts, np.empty((0, len(first)))]))
