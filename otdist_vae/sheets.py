"""Many small images as one PNG, of a size that is bounded beforehand, for a page that holds them itself."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from . import plots


@dataclass
class Sheet:
    """`count` images of width x height in `columns` columns, row by row, as a PNG's data URI."""

    uri: str
    count: int
    columns: int
    width: int
    height: int


def reduced_size(shape: tuple[int, ...], longest: int) -> tuple[int, int, int]:
    """Width, height and channels of images of this shape once their longer side is `longest` at most."""
    height, width, *channels = plots.pixels(np.zeros((1, *shape)), 0.0, 1.0).shape[1:]
    factor = min(1.0, longest / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor)), channels[0] if channels else 1


def affordable(shape: tuple[int, ...], longest: int, budget: int) -> int:
    """How many images fit `budget` bytes before compression; at least one."""
    return max(1, budget // math.prod(reduced_size(shape, longest)))


def sheet(x: Any, limits: tuple[float, float], *, longest: int, columns: int = 16, gap: int = 0) -> Sheet:
    """Images (n, h, w), (n, c, h, w) or (n, h, w, c), `limits` being black and white, reduced to `longest` a side.

    Behind and below each is a grey line of `gap` pixels.
    """
    x = np.nan_to_num(np.asarray(x, dtype=np.float32), nan=limits[0], posinf=limits[1], neginf=limits[0])
    values = np.rint(255 * plots.pixels(x, *limits)).astype(np.uint8)
    width, height, _ = reduced_size(x.shape[1:], longest)
    if values.shape[1:3] != (height, width):
        smaller = [np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX)) for image in values]
        values = np.stack(smaller)
    columns = min(columns, len(values))
    rows = math.ceil(len(values) / columns)
    down, across = height + gap, width + gap
    canvas = np.full((rows * columns, down, across, *values.shape[3:]), 128, dtype=np.uint8)
    canvas[: len(values), :height, :width] = values
    canvas = canvas.reshape(rows, columns, *canvas.shape[1:]).swapaxes(1, 2)
    canvas = canvas.reshape(rows * down, columns * across, *values.shape[3:])
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Sheet(uri, len(values), columns, width, height)
