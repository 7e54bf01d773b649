"""Differentiable operators: one kernel each, which computes a value together with its gradients.

A kernel is called as ``kernel(*arrays, needs=..., **options)`` and returns ``(value, grads)``. Its arrays share one
explicit batch shape (broadcast dimensions have stride 0); they are NumPy arrays on the CPU and tensors on a GPU, in
float32 or float64. ``grads`` holds an array of the argument's shape where ``needs`` is true, and None elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array

Kernel = Callable[..., tuple[Array, tuple[Array | None, ...]]]
Second = Callable[..., tuple[Array, ...]]


class Operator:
    """A distance with its derivative, for NumPy and PyTorch.

    Parameters
    ----------
    name : the operator's name in PyTorch, ``otdist::name``.
    kernel : computes value and gradients, see above.
    core : how many trailing dimensions of each array are not batch.
    options : the kernel's further arguments as a PyTorch schema, ``"float epsilon, int max_iter"``.
    second : ``second(*arrays, cotangents=..., **options)``, the gradient of Σᵢ⟨cotangentᵢ, gradientᵢ⟩ with respect to
        each array; without it, differentiating twice is refused.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        *,
        core: tuple[int, ...],
        options: str = "",
        second: Second | None = None,
    ) -> None:
        self.name, self.kernel, self.core, self.options, self.second = name, kernel, core, options, second
        self.twin: Any = None

        def prepare() -> None:
            if self.twin is None:
                from ._torch import TorchOperator  # only now: `import otdist` imports no framework

                self.twin = TorchOperator(self)

        # As `torch._dynamo.assume_constant_result` does: a compiler that comes first calls this and does not trace it.
        prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]
        self._prepare = prepare

    def __call__(self, *arrays: Array, **options: Any) -> Array:
        """The value, with the broadcast batch shape."""
        arrays = self.broadcast(arrays)
        if _arrays.is_torch(arrays[0]):
            self._prepare()
            return self.twin.apply(arrays, options)
        value, _ = self.kernel(*arrays, needs=(False,) * len(arrays), **options)
        return value

    def value_and_grad(self, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """The value and its gradient with respect to every array, summed to each array's own shape; NumPy only."""
        broadcast = self.broadcast(arrays)
        value, grads = self.kernel(*broadcast, needs=(True,) * len(arrays), **options)
        return value, tuple(_arrays.sum_to(g, x.shape) for g, x in zip(grads, arrays, strict=True))

    def broadcast(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Give every array the same batch shape, without copying."""
        batches = [x.shape[: x.ndim - c] for x, c in zip(arrays, self.core, strict=True)]
        if all(b == batches[0] for b in batches):
            return arrays
        batch = np.broadcast_shapes(*batches)
        return tuple(
            _arrays.broadcast_to(x, (*batch, *x.shape[len(b) :])) for x, b in zip(arrays, batches, strict=True)
        )
