"""Whether the values and tensors of a saved model are of the kinds and shapes that a model needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = ("float32", "float64")
ROW = ("epoch", "loss", "reconstruction", "penalty", "weight", "seconds")  # of the history


def check(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises KeyError, TypeError or ValueError naming what does not fit."""
    _check_values(description)
    _check_scaling(description["sample_shape"], tensors["network.shift"], tensors["network.scale"])
    _check_codes(description, tensors["codes"], tensors.get("code_classes"))


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
        _require(alike and isinstance(classes[0], (bool, int, str)), "classes are no list of labels")
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


def _check_codes(d: dict[str, Any], codes: Tensor, labels: Tensor | None) -> None:
    fits = codes.ndim == 2 and codes.shape[1] == d["latent_dim"] and codes.is_floating_point()
    _require(fits, f"codes must be (n, {d['latent_dim']}); got {tuple(codes.shape)}")
    _require(bool(torch.isfinite(codes).all()), "codes are not finite")
    _require((labels is None) == (d["classes"] is None), "codes have classes where the model has none, or none")
    if labels is not None:
        _require(labels.shape == codes.shape[:1] and labels.dtype == torch.int64, "code_classes do not fit the codes")
        within = bool(((labels >= 0) & (labels < len(d["classes"]))).all())
        _require(within, "code_classes are beyond the classes")
