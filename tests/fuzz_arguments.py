"""Hostile arguments: what `test_fuzz` passes to the public functions.

A `Recipe` says how one call is made. Values are drawn in units (float64), rounded to the dtype, multiplied by a power
of two, which is exact, and dressed: as a view, a subclass, a list, a tensor. So the right answer is known at every
scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from strategies import rotation

DTYPES = {
    "numpy": ("float64", "float32", "float16", "int64", "uint8", "bool", ">f8", "longdouble", "complex128", "object"),
    "torch": ("float64", "float32", "float16", "bfloat16", "int64", "bool", "complex64"),
}
REFUSED_DTYPES = ("longdouble", "complex128", "complex64", "object")
# Exponents of two. "large" and "small" have squares within the range, "huge" and "tiny" have not: there, infinity, zero
# or a refusal is right too, and NaN is not.
SCALES = {
    "float64": {"unit": 0, "large": 500, "small": -480, "huge": 600, "tiny": -600},
    "float32": {"unit": 0, "large": 55, "small": -50, "huge": 90, "tiny": -80},
    "bfloat16": {"unit": 0, "large": 55, "small": -50, "huge": 90, "tiny": -80},
    "float16": {"unit": 0, "large": 3, "small": -3, "huge": 12, "tiny": -10},
}
DRESSES = {
    "numpy": ("plain", "plain", "fortran", "reversed", "strided", "repeated", "read-only", "matrix", "masked", "list",
              "subclass"),
    "torch": ("plain", "plain", "fortran", "strided", "repeated", "parameter", "requires grad", "subclass"),
}  # fmt: skip
# What is wrong, if anything.
FAULTS = ("nan", "inf", "empty", "no axis", "one axis more or less", "other size", "negative", "other library", "text",
          "none", "option")  # fmt: skip
BATCHES = ((), (), (), (2,), (1,), (0,), (2, 1), (1, 3))
KINDS = ("normal", "lattice", "duplicates", "equal", "collinear", "constant")


@dataclass(frozen=True)
class Recipe:
    """How one call is made. Indices are taken modulo the number of choices, so every recipe fits every function."""

    seed: int = 0
    library: str = "numpy"
    dtype: int = 0
    other_dtype: int | None = None
    scale: str = "unit"
    kind: str = "normal"
    sizes: tuple[int, int, int] = (3, 4, 2)
    batches: tuple[tuple[int, ...], ...] = ((), ())
    dresses: tuple[int, int] = (0, 0)
    weights: str = "none"
    fault: str | None = None
    fault_at: int = 0


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    library=st.sampled_from(["numpy", "torch"]),
    dtype=st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    other_dtype=st.sampled_from([None, None, None, 0, 1, 2, 3]),
    scale=st.sampled_from(["unit", "unit", "unit", "large", "small", "huge", "tiny"]),
    kind=st.sampled_from(KINDS),
    sizes=sizes,
    batches=st.tuples(st.sampled_from(BATCHES), st.sampled_from(BATCHES)),
    dresses=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    weights=st.sampled_from(["none", "none", "random", "zeros", "one side"]),
    fault=st.sampled_from([None] * 12 + list(FAULTS)),
    fault_at=st.integers(0, 7),
)


@dataclass
class Arg:
    """An array argument in units. Multiplying the points by s multiplies it by s**power."""

    value: np.ndarray
    power: int = 1
    wrap: Callable[[Any], Any] = field(default=lambda z: z)
    weight: bool = False  # entries are nonnegative with sum 1
    scalars: bool = False  # every axis is a batch


def dtype_of(recipe: Recipe) -> str:
    names = DTYPES[recipe.library]
    return names[recipe.dtype % len(names)]


def working(name: str) -> str:
    """The floating dtype in which a dtype's values are exact or to which integers are promoted."""
    return name if name in SCALES else "float64"


def rounded(value: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest value of the dtype, in float64."""
    if dtype == "bfloat16":
        return torch.tensor(np.asarray(value)).to(torch.bfloat16).double().numpy()
    if dtype in ("float64", "float32", "float16"):
        return np.asarray(value).astype(dtype).astype(np.float64)
    if dtype in ("int64", "uint8"):
        return np.abs(np.round(value)) if dtype == "uint8" else np.round(value)
    return (np.asarray(value) > 0.5).astype(np.float64) if dtype == "bool" else np.asarray(value, np.float64)


def typed(value: np.ndarray, dtype: str, library: str) -> Any:
    """As an array or tensor of the dtype."""
    if library == "torch":
        return torch.from_numpy(np.array(value, order="C")).to(getattr(torch, dtype))
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(value).astype(dtype)


class SubArray(np.ndarray):
    """An array subclass that adds nothing."""


class SubTensor(torch.Tensor):
    """A tensor subclass that adds nothing."""


def dressed(z: Any, dress: str) -> Any:
    """The same numbers in other clothes."""
    if isinstance(z, torch.Tensor):
        return _dressed_tensor(z, dress)
    if dress == "fortran":
        return np.asfortranarray(z) if z.ndim else z
    if dress == "reversed":
        return np.ascontiguousarray(z[..., ::-1])[..., ::-1] if z.ndim else z
    if dress == "strided":
        wide = np.full((*z.shape, 3), 7, z.dtype)
        wide[..., 1] = z
        return wide[..., 1]
    if dress == "repeated":
        return np.broadcast_to(z, (2, *z.shape))
    if dress == "read-only":
        z = z.copy()
        z.flags.writeable = False
        return z
    if dress == "matrix" and z.ndim == 2:
        return z.view(np.matrix)
    if dress == "masked":
        return np.ma.MaskedArray(z)
    if dress == "list" and z.size and z.dtype.kind in "fiub" and z.dtype != np.longdouble:
        return z.tolist()
    return z.view(SubArray) if dress == "subclass" else z


def _dressed_tensor(z: torch.Tensor, dress: str) -> torch.Tensor:
    if dress == "fortran" and z.ndim > 1:
        return z.mT.contiguous().mT
    if dress == "strided":
        return torch.stack([z, z, z], -1)[..., 1]
    if dress == "repeated":
        return z.expand(2, *z.shape)
    if dress == "parameter" and z.dtype.is_floating_point:
        return torch.nn.Parameter(z)
    if dress == "requires grad" and z.dtype.is_floating_point:
        return z.clone().requires_grad_()
    return z.as_subclass(SubTensor) if dress == "subclass" else z


# Values in units. All of them come from the recipe's generator.


def points(rng: np.random.Generator, r: Recipe, shape: tuple[int, ...]) -> np.ndarray:
    """Points (..., n, d), or numbers (..., n)."""
    z = rng.standard_normal(shape)
    if r.kind == "lattice":
        return rng.integers(-2, 3, shape).astype(float)
    if r.kind == "duplicates":
        return (
            z[..., rng.integers(0, shape[-2], shape[-2]), :]
            if len(shape) > 1
            else z[rng.integers(0, shape[0], shape[0])]
        )
    if r.kind == "collinear":
        return z[..., :1] + np.zeros(shape)
    if r.kind == "constant":
        return np.ones(shape)
    return z


def weights(rng: np.random.Generator, r: Recipe, shape: tuple[int, ...], side: int) -> Arg | None:
    """Weights (..., n), or None."""
    if r.weights == "none" or (r.weights == "one side" and side):
        return None
    w = rng.uniform(0.1, 1, shape)
    if r.weights == "zeros" and shape[-1] > 1:
        w[..., rng.integers(shape[-1])] = 0
    return Arg(w / w.sum(-1, keepdims=True), 0, weight=True)


def covariance(rng: np.random.Generator, r: Recipe, shape: tuple[int, ...], d: int) -> np.ndarray:
    """Covariances (..., d, d); singular ones of the kinds that are."""
    root = rng.standard_normal((*shape, d, d)) + np.eye(d)
    if r.kind == "collinear":
        root[..., 1:] = 0
    if r.kind == "constant":
        return np.zeros((*shape, d, d)) + np.eye(d)
    if r.kind == "lattice":
        root = np.round(root)
    if r.kind == "duplicates" and d > 1:
        root[..., 1, :] = root[..., 0, :]
    return root @ np.swapaxes(root, -1, -2)


def unit_rows(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return np.concatenate([rotation(d, rng) for _ in range(n)])[:n]
