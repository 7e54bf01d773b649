"""Whether the values and tensors of a saved model are of the kinds and shapes that a model needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .samplers import DENSITIES

DTYPES = ("float32", "float64")
PARTS = ("weights", "means", "covs")
ROW = ("epoch", "loss", "reconstruction", "penalty", "weight", "seconds")  # of the history


def check(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises KeyError, TypeError or ValueError naming what does not fit."""
    _check_values(description)
    _check_scaling(description["sample_shape"], tensors["network.shift"], tensors["network.scale"])
    _check_range(description["sample_shape"], tensors["network.low"], tensors["network.high"])
    _check_choice(description["report"]["sampler"])
    for k in range(len(description["classes"] or [None])):
        for name in ("gaussian", "mixture"):
            _check_density(description["latent_dim"], *(tensors[f"density.{name}.{k}.{part}"] for part in PARTS))


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)


def _check_values(d: dict[str, Any]) -> None:
    shape, classes, history = d["sample_shape"], d["classes"], d["history"]
    _require(isinstance(shape, list) and bool(shape) and all(_is_size(n) for n in shape), "sample_shape is no shape")
    _require(d["dtype"] in DTYPES, f"dtype is none of {', '.join(DTYPES)}")
    _require(isinstance(d["returns_tensors"], bool), "returns_tensors is neither true nor false")
    _require(isinstance(d["report"], dict), "report is no mapping")
    _require(isinstance(history, list) and bool(history) and all(map(_is_row, history)), "history is no list of epochs")
    if classes is not None:
        alike = isinstance(classes, list) and len({type(c) for c in classes}) == 1
        _require(alike and isinstance(classes[0], (bool, int, float, str)), "classes are no list of labels")
        _require(sorted(set(classes)) == classes, "classes are not in order")


def _is_size(n: Any) -> bool:
    return type(n) is int and n > 0


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(type(row.get(key)) in (int, float) for key in ROW)


def _check_scaling(shape: list[int], shift: Tensor, scale: Tensor) -> None:
    for name, value in (("shift", shift), ("scale", scale)):
        whole = tuple(value.shape) in ((), tuple(shape))
        _require(whole and value.is_floating_point(), f"{name} has the wrong shape or type")
        _require(bool(torch.isfinite(value).all()), f"{name} is not finite")
    _require(bool((scale != 0).all()), "scale is 0")


def _check_range(shape: list[int], low: Tensor, high: Tensor) -> None:
    for name, value in (("low", low), ("high", high)):
        whole = tuple(value.shape) in ((), tuple(shape))
        _require(whole and value.is_floating_point() and not bool(value.isnan().any()), f"{name} is no end of a range")
    _require(bool((low <= high).all()), "low is above high")


def _check_choice(choice: Any) -> None:
    whole = isinstance(choice, dict) and sorted(choice) == ["n_components", "name", "scores"]
    _require(whole and choice["name"] in DENSITIES and _is_size(choice["n_components"]), "report.sampler is no choice")
    scores = choice["scores"]
    numbers = isinstance(scores, dict) and all(type(v) in (int, float) for v in scores.values())
    _require(numbers and set(scores) == set(DENSITIES), "report.sampler has no scores")


def _check_density(d: int, weights: Tensor, means: Tensor, covs: Tensor) -> None:
    k = len(weights) if weights.ndim else 0
    shapes = [tuple(t.shape) for t in (weights, means, covs)]
    _require(k > 0 and shapes == [(k,), (k, d), (k, d, d)], f"a density of codes has shapes {shapes}")
    for t in (weights, means, covs):
        _require(t.dtype == torch.float64 and bool(torch.isfinite(t).all()), "a density of codes is not finite")
    _require(bool((weights >= 0).all()), "a density of codes has negative weights")
