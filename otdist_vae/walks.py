"""Codes worth decoding: walks along latent coordinates, a plane, and lines between the codes of two examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .labels import spoken

STEPS = 11  # of a walk along a coordinate, and of an interpolation
PLANE = 9  # steps of each of the plane's directions
REACH = 3.0  # deviations of the codes to either side of a walk
COORDINATES = 8  # walked at most
PER_START = PLANE * PLANE  # decodings of the plane through one start; a walk has STEPS a coordinate


@dataclass
class Start:
    """A code to walk from: its name, and its class if the model wants one."""

    name: str
    code: np.ndarray
    label: Any = None


def principal(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (d,), first two principal directions (2, d) and deviations along them (2,); zeros where there is none."""
    middle = codes.mean(0)
    _, values, vectors = np.linalg.svd(codes - middle, full_matrices=False)
    k = min(2, len(vectors))
    directions, spread = np.zeros((2, codes.shape[1])), np.zeros(2)
    directions[:k], spread[:k] = vectors[:k], values[:k] / np.sqrt(max(len(codes) - 1, 1))
    return middle, directions, spread


def starts(codes: np.ndarray, labels: np.ndarray | None, *, conditional: bool, most: int) -> list[Start]:
    """The mean code, then that of each class; of a class-conditional model only the latter, at most `most` in all."""
    found = [] if conditional else [Start("the mean code", codes.mean(0))]
    for name in [] if labels is None else np.unique(labels):
        if len(found) == max(most, 1):
            break
        found.append(Start(spoken(name), codes[labels == name].mean(0), name if conditional else None))
    return found


def along(start: np.ndarray, coordinates: list[int], spread: np.ndarray) -> np.ndarray:
    """Codes (coordinates, STEPS, d): each coordinate from −REACH to REACH deviations around the start."""
    steps = np.linspace(-REACH, REACH, STEPS)
    codes = np.tile(start, (len(coordinates), STEPS, 1))
    for k, j in enumerate(coordinates):
        codes[k, :, j] += steps * spread[j]
    return codes


def plane(start: np.ndarray, directions: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Codes (PLANE, PLANE, d) around the start: the second direction down, the first across."""
    steps = np.linspace(-REACH, REACH, PLANE)
    first, second = (spread[k] * steps[:, None] * directions[k] for k in range(2))
    return start + second[:, None] + first[None, :]


def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Codes (n, STEPS, d) on the lines between two codes (n, d) each, ends included."""
    t = np.linspace(0, 1, STEPS)[:, None]
    return (1 - t) * first[:, None] + t * second[:, None]
