"""The barycenter in PyTorch: under autograd, ``torch.func``, ``vmap`` and ``torch.compile``.

An opaque operator, into which no transform looks, and around it a function that refuses to be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._core import backend
from .fixed_point import fixed_point


class _Barycenter(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(covs: Tensor, weights: Tensor, tol: float, max_iter: int) -> tuple[Tensor, ...]:
        return tuple(torch.ops.otdist.barycenter_covariance(covs, weights, tol, max_iter))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        if any(c is not None for c in cotangents):
            raise NotImplementedError("the covariance of a barycenter is not differentiable; pass covs.detach()")
        return None, None, None, None


def barycenter_covariance(covs: Tensor, weights: Tensor, tol: float, max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """The covariance (..., d, d), the number of steps (...) and the residual (...) of members (..., k, d, d)."""
    if torch.compiler.is_compiling():
        return tuple(torch.ops.otdist.barycenter_covariance(covs, weights.detach(), tol, max_iter))
    found: tuple[Tensor, Tensor, Tensor] = _Barycenter.apply(covs, weights, tol, max_iter)
    return found


def _opaque(name: str, function: Callable[..., Any], schema: str, fake: Callable[..., Any]) -> Any:
    """``torch.ops.otdist.name``: a function of NumPy arrays on the CPU, and of tensors elsewhere."""

    def compute(*arguments: Any) -> list[Tensor]:
        tensors = [z for z in arguments if isinstance(z, Tensor)]
        options = arguments[len(tensors) :]
        arrays = [backend.as_numpy(t) if backend.on_cpu(t) else t.detach() for t in tensors]
        found = function(*arrays, *options)
        found = found if isinstance(found, tuple) else (found,)
        return [torch.as_tensor(z, device=tensors[0].device).clone() for z in found]

    op = torch.library.custom_op(f"otdist::{name}", compute, mutates_args=(), schema=f"({schema}) -> Tensor[]")
    op.register_fake(fake)

    def batched(info: Any, in_dims: Any, *arguments: Any) -> Any:
        found = op(*(_front(z, dim, info.batch_size) for z, dim in zip(arguments, in_dims, strict=True)))
        return found, [0] * len(found)

    op.register_vmap(batched)
    return op


def _front(argument: Any, dim: int | None, size: int) -> Any:
    """A tensor with the mapped dimension in front."""
    if not isinstance(argument, Tensor):
        return argument
    return argument.expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)


def _fake_barycenter(covs: Tensor, weights: Tensor, tol: float, max_iter: int) -> list[Tensor]:
    steps = covs.new_empty(covs.shape[:-3], dtype=torch.int64)
    return [covs[..., 0, :, :].clone(), steps, covs.new_empty(covs.shape[:-3])]


_opaque(
    "barycenter_covariance",
    fixed_point,
    "Tensor covs, Tensor weights, float tol, int max_iter",
    _fake_barycenter,
)
