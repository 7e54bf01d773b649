"""Differentiable operators: one kernel each, which computes a value together with its gradients.

A kernel is called as ``kernel(*arrays, needs_input_grad=..., **options)`` and returns ``(value, grads)``. Its arrays
share one explicit batch shape (broadcast dimensions have stride 0); they are NumPy arrays on the CPU and tensors on a
GPU, in float32 or float64. ``grads`` holds an array of the argument's shape where ``needs_input_grad`` is true, and
None elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import backend
from .backend import Array

Kernel = Callable[..., tuple[Array, tuple[Array | None, ...]]]
SecondDerivative = Callable[..., tuple[Array, ...]]


class Operator:
    """A distance with its derivative, for NumPy and PyTorch.

    Parameters
    ----------
    name : the operator's name in PyTorch, ``otdist::name``.
    kernel : computes value and gradients, see above.
    core_ndims : how many trailing dimensions of each array are not batch.
    options : the kernel's further arguments as a PyTorch schema, ``"float epsilon, int max_iter"``.
    second_derivative : ``second_derivative(*arrays, cotangents=..., **options)``, the gradient of
        Σᵢ⟨cotangentᵢ, gradientᵢ⟩ with respect to each array; without it, differentiating twice is refused.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        *,
        core_ndims: tuple[int, ...],
        options: str = "",
        second_derivative: SecondDerivative | None = None,
    ) -> None:
        self.name, self.kernel, self.core_ndims, self.options, self.second_derivative = (
            name,
            kernel,
            core_ndims,
            options,
            second_derivative,
        )
        self.torch_operator: Any = None

        def prepare() -> None:
            if self.torch_operator is None:
                from .torch_operator import TorchOperator  # only now: `import otdist` imports no framework

                self.torch_operator = TorchOperator(self)

        # As `torch._dynamo.assume_constant_result` does: a compiler that comes first calls this and does not trace it.
        prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]
        self._prepare = prepare

    def __call__(self, *arrays: Array, **options: Any) -> Array:
        """The value, with the broadcast batch shape."""
        arrays = self.broadcast(arrays)
        if backend.is_torch(arrays[0]):
            self._prepare()
            return self.torch_operator.apply(arrays, options)
        value, _ = self.kernel(*arrays, needs_input_grad=(False,) * len(arrays), **options)
        return value

    def attach(self, arrays: Sequence[Array], value: np.ndarray, grads: Sequence[np.ndarray]) -> Array:
        """A value that is known with its gradients by these tensors, which require them, as the result of a call."""
        self._prepare()
        return self.torch_operator.attach(arrays, value, grads)

    def value_and_grad(self, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """The value and its gradient with respect to every array, summed to each array's own shape; NumPy only."""
        broadcast = self.broadcast(arrays)
        value, grads = self.kernel(*broadcast, needs_input_grad=(True,) * len(arrays), **options)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite gradients of what a batch shares may have no sum
            return value, tuple(backend.sum_to(g, x.shape) for g, x in zip(grads, arrays, strict=True))

    def gradients(self, *arrays: Array, **options: Any) -> tuple[Array, ...]:
        """The gradients alone, of the broadcast arrays; differentiable in PyTorch if there is a second derivative."""
        arrays = self.broadcast(arrays)
        if backend.is_torch(arrays[0]):
            self._prepare()
            return self.torch_operator.gradients(arrays, options)
        return self.kernel(*arrays, needs_input_grad=(True,) * len(arrays), **options)[1]

    def broadcast(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Give every array the same batch shape, without copying."""
        batches = [x.shape[: x.ndim - c] for x, c in zip(arrays, self.core_ndims, strict=True)]
        if batches.count(batches[0]) == len(batches):
            return arrays
        batch = np.broadcast_shapes(*batches)
        return tuple(
            backend.broadcast_to(x, (*batch, *x.shape[len(b) :])) for x, b in zip(arrays, batches, strict=True)
        )
