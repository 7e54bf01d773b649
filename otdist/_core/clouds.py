"""Two weighted point sets: the arguments that all distances between points share, and their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import backend, checks
from .backend import Array


class Gradients(NamedTuple):
    """The gradient of `w2_squared` with respect to each argument; None for weights that were not given."""

    x: Array
    y: Array
    a: Array | None
    b: Array | None


def validate_clouds(x: Any, y: Any, a: Any, b: Any, *, core: int) -> tuple[list[Array], list[Array | None], Any]:
    """Two weighted point sets, checked: arrays (weights (0,) where there are none), the weights' sums, a restorer.

    `core` is the number of dimensions of one point set: 1 for points on the line, 2 for clouds (n, d).
    """
    named = {k: v for k, v in {"x": x, "y": y, "a": a, "b": b}.items() if v is not None or k in "xy"}
    arrays, cast_back = checks.arrays(**named)
    if len(arrays) == 2 and checks.points_pass_fast_check(arrays[0], arrays[1], core):
        nothing = x.new_empty(0) if backend.is_torch(x := arrays[0]) else np.empty(0, x.dtype)
        return [*arrays, nothing, nothing], [None, None], cast_back
    found = dict(zip(named, arrays, strict=True))
    for name, size in (("x", "n"), ("y", "m")):
        z = found[name]
        checks.shape(name, z, f"(..., {size})" if core == 1 else f"(..., {size}, d)", core)
        checks.nonempty(name, z, -core, "point")
        if core == 2:
            checks.nonempty(name, z, -1, "coordinate")
        checks.finite(name, z)
    if core == 2:
        checks.same_size("the number of coordinates", "x", found["x"].shape[-1], "y", found["y"].shape[-1])
    totals: list[Array | None] = [None, None]
    for k, (name, points) in enumerate((("a", "x"), ("b", "y"))):
        if name in found:
            totals[k] = found[name].sum(-1)[..., None]
            found[name] = checks.weights(name, found[name], found[points].shape[-core])
        else:
            xp, z = backend.namespace(found["x"]), found["x"]
            found[name] = z.new_zeros((0,)) if backend.is_torch(z) else xp.zeros(0, z.dtype)
    batches = {k: found[k].shape[: found[k].ndim - (core if k in "xy" else 1)] for k in ("x", "y", "a", "b")}
    checks.batch({k: s for k, s in batches.items() if k in named})
    return [found[k] for k in ("x", "y", "a", "b")], totals, cast_back


def weight_gradients(grads: Any, arrays: list[Array], totals: list[Array | None]) -> list[Array | None]:
    """Gradients by x, y, a, b as given, from those by the normalised weights w = a / Σa: (g - ⟨g, w⟩) / Σa.

    Those with entries beyond the range of numbers come with mean 0 already: nothing is subtracted from infinity.
    """
    out: list[Array | None] = list(grads[:2])
    for name, g, w, total in zip("ab", grads[2:4], arrays[2:4], totals, strict=True):
        if total is None:
            out.append(None)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (g * w).sum(-1, keepdims=True)
        if not np.isfinite(mean).all():
            mean = np.where(np.isfinite(mean), mean, 0.0)
            if np.isnan(g).any():  # what a batch shares: plus and minus infinity have no sum
                raise ValueError(
                    f"the gradient by {name} is beyond the range of {g.dtype}; divide x and y by some c, and it by c²"
                )
        out.append((g - mean) / total)
    return out


def validate_points(name: str, x: Array) -> None:
    """Refuse anything but a cloud (..., n, d) of finite points."""
    checks.shape(name, x, "(..., n, d)", 2)
    checks.nonempty(name, x, -2, "point")
    checks.nonempty(name, x, -1, "coordinate")
    checks.finite(name, x)
