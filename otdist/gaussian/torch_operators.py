"""The transport map and the barycenter in PyTorch: under autograd, ``torch.func``, ``vmap`` and ``torch.compile``.

Opaque operators, into which no transform looks, and around them functions that know their derivatives or refuse. While
compiling, the opaque operator's own derivative stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._core import backend
from . import bures
from .fixed_point import fixed_point


class _Transport(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(cov_x: Tensor, cov_y: Tensor) -> Tensor:
        return torch.ops.otdist.transport_matrix(cov_x, cov_y)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return _Slopes.apply(*ctx.saved_tensors, cotangent)


class _Slopes(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(cov_x: Tensor, cov_y: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(torch.ops.otdist.transport_matrix_slopes(cov_x, cov_y, cotangent))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise NotImplementedError("the transport map can be differentiated once only")


def transport_matrix(cov_x: Tensor, cov_y: Tensor) -> Tensor:
    """T (..., d, d) of covariances (..., d, d) that have one batch shape."""
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.otdist.transport_matrix(cov_x, cov_y)[0]
        return found
    return _Transport.apply(cov_x, cov_y)


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


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _transport_backward(ctx: Any, cotangents: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.ops.otdist.transport_matrix_slopes(*ctx.saved_tensors, cotangents[0]))


def _front(argument: Any, dim: int | None, size: int) -> Any:
    """A tensor with the mapped dimension in front."""
    if not isinstance(argument, Tensor):
        return argument
    return argument.expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)


def _fake_barycenter(covs: Tensor, weights: Tensor, tol: float, max_iter: int) -> list[Tensor]:
    steps = covs.new_empty(covs.shape[:-3], dtype=torch.int64)
    return [covs[..., 0, :, :].clone(), steps, covs.new_empty(covs.shape[:-3])]


_opaque(
    "transport_matrix", bures.transport_matrix, "Tensor x, Tensor y", lambda x, y: [torch.empty_like(x)]
).register_autograd(_transport_backward, setup_context=_keep)
_opaque(
    "transport_matrix_slopes",
    bures.transport_matrix_slopes,
    "Tensor x, Tensor y, Tensor cotangent",
    lambda x, y, cotangent: [torch.empty_like(x), torch.empty_like(y)],
)
_opaque(
    "barycenter_covariance",
    fixed_point,
    "Tensor covs, Tensor weights, float tol, int max_iter",
    _fake_barycenter,
)
