"""Every picture. Functions return a matplotlib Figure; no window, no pyplot, no state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ._storage import write_atomically
from .networks import channels_last

DPI = 120


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def save(figure: Figure, path: Any) -> None:
    """Write a figure as PNG, whole or not at all."""
    write_atomically(Path(path), png(figure))


def is_image(shape: Sequence[int]) -> bool:
    """Whether examples of this shape are pictures: (h, w), or with 1, 3 or 4 channels in front or behind."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[0] in (1, 3, 4) or shape[2] in (1, 3, 4)))


def pixels(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, 3) in [0, 1]."""
    x = np.clip((np.asarray(x, dtype=np.float32) - low) / ((high - low) or 1.0), 0, 1)
    if x.ndim == 4 and not channels_last(x.shape[1:]):
        x = x.transpose(0, 2, 3, 1)
    return x[..., 0] if x.ndim == 4 and x.shape[-1] == 1 else x


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """One picture of all images, row by row, with a thin line between them."""
    n, height, width, *channels = images.shape
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *channels), 0.5, dtype=np.float32)
    for k, image in enumerate(images):
        top, left = (k // columns) * (height + 1), (k % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas


def images(x: Any, *, columns: int = 10, title: str = "", limits: tuple[float, float] | None = None) -> Figure:
    """A grid of images (n, h, w), (n, c, h, w) or (n, h, w, c); `limits` are the values of black and white."""
    x = np.asarray(x)
    low, high = limits or (float(x.min()), float(x.max()))
    canvas = _tile(pixels(x, low, high), columns)
    figure = Figure(figsize=(6, 6 * canvas.shape[0] / canvas.shape[1] + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def panels(x: Mapping[str, Any], *, columns: int = 8, across: int = 3, limits: tuple[float, float]) -> Figure:
    """Several named grids of images in one picture, `across` to a row."""
    rows = math.ceil(len(x) / across)
    figure = Figure(figsize=(3.2 * across, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, examples) in zip(grid.flat, x.items(), strict=False):
        axes.imshow(_tile(pixels(examples, *limits), columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name, fontsize=10)
    return figure


def pairs(x: Any, y: Any, *, columns: int = 10, limits: tuple[float, float] | None = None) -> Figure:
    """Rows of originals `x`, each with the row of its reconstructions `y` below."""
    x, y = np.asarray(x), np.asarray(y)
    n = len(x) // columns * columns or len(x)
    columns = min(columns, n)
    rows = [part for k in range(0, n, columns) for part in (x[k : k + columns], y[k : k + columns])]
    limits = limits or (float(x.min()), float(x.max()))
    return images(
        np.concatenate(rows), columns=columns, limits=limits, title="originals, and below each its reconstruction"
    )


def latent(codes: Any, labels: Any = None, *, title: str = "codes of the training data") -> Figure:
    """Codes (n, d) on their first two principal axes, beside the circles a standard normal prior would fill."""
    codes = np.asarray(codes, dtype=np.float64)
    centred = codes - codes.mean(0)
    _, _, axes_of_codes = np.linalg.svd(centred, full_matrices=False)
    plane = axes_of_codes[:2]
    flat = codes @ plane.T if len(plane) == 2 else np.column_stack([codes[:, 0], np.zeros(len(codes))])
    figure = Figure(figsize=(5.4, 5), layout="constrained")
    axes = figure.add_subplot()
    for name in [None] if labels is None else np.unique(labels):
        mine = slice(None) if labels is None else np.asarray(labels) == name
        axes.scatter(flat[mine, 0], flat[mine, 1], s=6, linewidths=0, label=None if name is None else str(name))
    if labels is not None and len(np.unique(labels)) <= 20:
        axes.legend(fontsize=7, loc="upper right", markerscale=2)
    angle = np.linspace(0, 2 * np.pi, 200)
    for radius in (1, 2, 3):
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color="0.6", linewidth=0.7)
    axes.set_aspect("equal")
    axes.set_title(title + "; circles: 1, 2, 3 deviations of N(0, I)", fontsize=9)
    axes.set_xlabel("first principal axis")
    axes.set_ylabel("second")
    return figure


def curves(history: Sequence[Mapping[str, float]], *, penalty: str = "penalty") -> Figure:
    """Loss, reconstruction and penalty over the epochs, training and validation."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    grid = figure.subplots(1, 3)
    epochs = [row["epoch"] + 1 for row in history]
    for axes, name, label in zip(
        grid, ("loss", "reconstruction", "penalty"), ("loss", "reconstruction", penalty), strict=True
    ):
        for key, line in ((name, "training"), (f"val_{name}", "validation")):
            if key in history[-1]:
                axes.plot(epochs, [row.get(key, math.nan) for row in history], label=line)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        if name != "penalty" and all(row[name] > 0 for row in history):
            axes.set_yscale("log")
        axes.legend(fontsize=8)
    return figure


def clouds(real: Any, drawn: Any, *, title: str = "") -> Figure:
    """Real and generated examples of any shape on the real ones' first two principal axes."""
    real, drawn = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (real, drawn))
    middle, spread = real.mean(0), np.where(real.std(0) > 0, real.std(0), 1)
    white, other = (real - middle) / spread, (drawn - middle) / spread
    plane = np.linalg.svd(white, full_matrices=False)[2][:2]
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    for points, name in ((white, "data"), (other, "generated")):
        flat = points @ plane.T
        axes.scatter(flat[:, 0], flat[:, -1], s=6, alpha=0.5, linewidths=0, label=name)
    axes.legend()
    axes.set_title(title, fontsize=10)
    return figure
