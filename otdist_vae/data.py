"""Data sets: the bundled digits, and what lies on disk: arrays, tables, image folders, MNIST and CIFAR files.

Nothing is unpickled and nothing is downloaded.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import memory

__all__ = ["Examples", "digits", "load"]

UNREADABLE = (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # Pillow's names for grey images of more than 8 bits
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
LABEL_COLUMNS = ("y", "label", "class", "target")
CIFAR_BYTES = 3 * 32 * 32


@dataclass
class Examples:
    """`x` (n, ...) and, where there are labels, `y` (n,); `columns` are a table's headings."""

    x: np.ndarray
    y: np.ndarray | None = None
    columns: list[str] | None = None

    def classes_to_show(self) -> np.ndarray | None:
        """The labels, where they are classes that a picture can tell apart by colour."""
        if self.y is None or self.y.ndim != 1 or self.y.dtype.kind not in "buiUS":
            return None
        return self.y


def load(source: str | os.PathLike[str]) -> Examples:
    """Read ``"digits"``, a file or a folder.

    - ``.npy``: x. ``.npz``: x, and perhaps y.
    - ``.csv``: numbers, perhaps under a line of headings; a column headed y, label, class or target is y.
    - an IDX file (``train-images-idx3-ubyte``, gzipped or not) with its labels beside it, or a folder of them: MNIST.
    - ``data_batch_1.bin`` and the like, or a folder of them: CIFAR-10 or CIFAR-100, the binary version.
    - a folder of images of one size; folders in it are classes.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file or folder and what is wrong with it.
    """
    if source == "digits":
        return digits()
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"data {str(source)!r} is neither 'digits' nor an existing file or folder")
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    ending = path.suffix.lower()
    if ending in READERS:
        return _with_labels(READERS[ending](path), path)
    if _is_idx(path):
        return _read_mnist(path)
    known = ", ".join(READERS)
    raise ValueError(
        f"{path}: cannot read {ending or 'a file without an ending'}; use {known}, an IDX file, or a folder"
    )


def _with_labels(examples: Examples, path: Path) -> Examples:
    n, y = len(examples.x) if examples.x.ndim else 0, examples.y
    if y is not None and y.shape != (n,):
        raise ValueError(f"{path}: y must have shape ({n},), one label an example; got {y.shape}")
    return examples


def digits() -> Examples:
    """The 1797 handwritten digits bundled with scikit-learn: x (1797, 8, 8) in [0, 1], y in 0..9.

    >>> digits().x.shape
    (1797, 8, 8)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Examples((bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64))


# --- arrays and tables ------------------------------------------------------------------------------------------------


def _read_npy(path: Path) -> Examples:
    try:
        # memory-mapped: a data set larger than memory is read as it is used
        return Examples(np.load(path, mmap_mode="r", allow_pickle=False))
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a readable .npy file of numbers: {error}") from None


def _read_npz(path: Path) -> Examples:
    try:
        _check_npz(path)
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as archive:
            if "x" not in archive:
                held = ", ".join(archive) or "nothing"
                raise KeyError(f"{path} must hold an array x (and perhaps y); it holds {held[:200]}")
            return Examples(archive["x"], archive.get("y"))
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a readable .npz file of numbers: {error}") from None


def _check_npz(path: Path) -> None:
    """What the headers of x and y promise is there, and fits in memory, before anything is unpacked."""
    needed = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename in ("x.npy", "y.npy"):
                with archive.open(member) as f:
                    promised = _promised_bytes(f)
                if promised > member.file_size:
                    raise ValueError(f"{member.filename} promises {promised} bytes and holds {member.file_size}")
                needed += member.file_size
    memory.require(needed, str(path))


def _promised_bytes(f: Any) -> int:
    """The size of the values that the header of an open .npy file announces."""
    version = np.lib.format.read_magic(f)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(f)
    return math.prod(shape) * dtype.itemsize


def _read_csv(path: Path) -> Examples:
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            rows = [(k, row) for k, row in enumerate(csv.reader(f), 1) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable .csv file: {error}") from None
    if not rows:
        raise ValueError(f"{path} is empty")
    columns = None if all(map(_is_number, rows[0][1])) else [name.strip() for name in rows.pop(0)[1]]
    if not rows:
        raise ValueError(f"{path} has a line of headings and no rows")
    width = len(columns or rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise ValueError(f"{path}, line {line}: {len(row)} values where {width} are expected")
    label = next((k for k, name in enumerate(columns or []) if name.lower() in LABEL_COLUMNS), None)
    features = [k for k in range(width) if k != label]
    x = np.array([[_number(path, line, columns, k, row[k]) for k in features] for line, row in rows], dtype=np.float64)
    y = None if label is None else _as_labels([row[label].strip() for _, row in rows])
    return Examples(x, y, columns and [columns[k] for k in features])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, columns: list[str] | None, k: int, text: str) -> float:
    name = f"column {columns[k]!r}" if columns else f"column {k + 1}"
    if not text.strip():
        raise ValueError(f"{path}, line {line}, {name}: a value is missing")
    if not _is_number(text):
        raise ValueError(f"{path}, line {line}, {name}: {text!r} is not a number")
    return float(text)


def _as_labels(texts: list[str]) -> np.ndarray:
    """Integers where all are, else the strings themselves."""
    try:
        return np.array([int(text) for text in texts])
    except ValueError:
        return np.array(texts)


# --- MNIST: IDX files -------------------------------------------------------------------------------------------------


def _is_idx(path: Path) -> bool:
    return "ubyte" in path.name or ".idx" in path.name


def _read_idx(path: Path) -> np.ndarray:
    """An array of bytes: two zeros, the type code 8, the number of axes, each axis's length in 4 bytes, the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as f:
            return _idx_array(f, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a readable gzip file: {error}") from None


def _idx_array(f: Any, path: Path) -> np.ndarray:
    """No more is unpacked than the header announces: a few bytes of gzip can stand for gigabytes."""
    start = f.read(4)
    if len(start) < 4 or start[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes")
    lengths = f.read(4 * start[3])
    if len(lengths) < 4 * start[3]:
        raise ValueError(f"{path} is damaged: its header ends too soon")
    shape = tuple(int(n) for n in np.frombuffer(lengths, dtype=">u4"))
    size = math.prod(shape)
    memory.require(size, str(path))
    content = f.read(size + 1)
    if len(content) != size:
        found = f"{len(content)} bytes follow" if len(content) < size else "more bytes follow"
        raise ValueError(f"{path} is damaged: its header says {shape}, and {found}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_mnist(images: Path) -> Examples:
    x = _read_idx(images)
    if x.ndim != 3:
        raise ValueError(f"{images} holds an array of shape {x.shape}, not images (n, h, w)")
    name = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    labels = next((p for p in (images.with_name(name), images.with_name(name + ".gz")) if p.exists()), None)
    if labels is None or labels == images:
        return Examples(x)
    y = _read_idx(labels).astype(np.int64)
    if y.shape != (len(x),):
        raise ValueError(f"{labels} holds {len(y)} labels for the {len(x)} images of {images.name}")
    return Examples(x, y)


# --- CIFAR: the binary version ----------------------------------------------------------------------------------------


def _read_cifar(path: Path) -> Examples:
    """Records of one label (CIFAR-10) or two, coarse and fine (CIFAR-100), and 3072 bytes of a (3, 32, 32) image."""
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for n_labels in (1, 2):
        if len(content) and len(content) % (CIFAR_BYTES + n_labels) == 0:
            records = content.reshape(-1, CIFAR_BYTES + n_labels)
            x = records[:, n_labels:].reshape(-1, 3, 32, 32)
            return Examples(x, records[:, n_labels - 1].astype(np.int64))
    raise ValueError(f"{path} is no CIFAR batch: {len(content)} bytes are no whole number of records of 3073 or 3074")


# --- folders ----------------------------------------------------------------------------------------------------------


def _read_folder(path: Path) -> Examples:
    names = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    training = [p for p in names if _is_idx(p) and "images" in p.name]
    if training:
        return _read_mnist(next((p for p in training if p.name.startswith("train")), training[0]))
    binary = [p for p in names if p.suffix == ".bin"]
    batches = [p for p in binary if p.name.startswith(("data_batch", "train"))] or binary
    if batches:
        parts = [_read_cifar(p) for p in batches]
        return Examples(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts if p.y is not None]))
    if any(p.name.startswith("data_batch") or p.name == "batches.meta" for p in names):
        raise ValueError(f"{path} is the pickled version of CIFAR, which is not read; use the binary version (.bin)")
    return _read_image_folder(path)


def _read_image_folder(path: Path) -> Examples:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    loose = _images_in(path)
    if folders and loose:
        raise ValueError(f"{path} holds both images and folders; put each image into its class's folder, or none")
    if not folders:
        if not loose:
            raise ValueError(f"{path} holds no images ({', '.join(IMAGES)}), no IDX files and no CIFAR batches")
        return Examples(_read_images(loose))
    files = {folder: _images_in(folder) for folder in folders}
    for folder, found in files.items():
        if not found:
            raise ValueError(f"class folder {folder} holds no images ({', '.join(IMAGES)})")
    y = [folder.name for folder, found in files.items() for _ in found]
    return Examples(_read_images([p for found in files.values() for p in found]), _as_labels(y))


def _images_in(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)


def _read_images(files: list[Path]) -> np.ndarray:
    """(n, h, w) if every image is grey, else (n, 3, h, w); bytes, or numbers of the depth that the files have."""
    arrays: list[np.ndarray] = []
    for file in files:
        arrays.append(_read_image(file, left=len(files) - len(arrays)))
        for what, of in (("size", _size), ("depth", lambda a: a.dtype)):
            if of(arrays[-1]) != of(arrays[0]):
                found = f"{files[0].name} is {of(arrays[0])}, {file} is {of(arrays[-1])}"
                raise ValueError(f"images must have one {what}: {found}")
    if all(a.ndim == 2 for a in arrays):
        return np.stack(arrays)
    coloured = [a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for a in arrays]
    return np.stack(coloured).transpose(0, 3, 1, 2)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _read_image(file: Path, left: int) -> np.ndarray:
    """(h, w) or (h, w, 3); refused by its size, times the images that are `left`, before a pixel is unpacked."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                memory.require(left * 3 * image.width * image.height, f"{left} images like {file}")
                if image.mode in DEEP:
                    return _deep(np.asarray(image))
                grey = image.mode in ("1", "L", "LA")
                return np.asarray(image.convert("L" if grey else "RGB"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS
        raise ValueError(
            f"{file} has more than {most} pixels: this may be a decompression bomb, and is not read"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{file} is not a readable image: {error}") from None


def _deep(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits, in 16 where they fit: some formats come as 32-bit integers."""
    if values.dtype.kind == "f" or values.size == 0:
        return values
    fits = values.min() >= 0 and values.max() < 2**16
    return values.astype(np.uint16) if fits else values


READERS = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".bin": _read_cifar}


def __dir__() -> list[str]:
    return __all__
