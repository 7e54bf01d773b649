"""An `operator.Operator` in PyTorch: under autograd, ``torch.func``, ``vmap`` and ``torch.compile(fullgraph=True)``.

Two layers, because neither does all four alone: an opaque ``torch.library.custom_op``, into which the compiler does
not look, and around it a ``torch.autograd.Function``, which ``torch.func`` can differentiate (it can't differentiate a
custom op) and which differentiates twice. While compiling, the custom op's own first derivative stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import backend
from .backend import Array

# Whether saved tensors outlive this backward pass; a PyTorch that does not tell is taken to keep them.
_REFUSED = "otdist's {} has no second derivative: it can be differentiated once only"
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


class TorchOperator:
    """The PyTorch side of one `operator.Operator`, which makes it at first use."""

    def __init__(self, operator: Any) -> None:
        self.operator = operator
        self.option_names = tuple(part.split()[-1] for part in operator.options.split(",") if part.strip())
        tail = f", {operator.options}" if operator.options else ""
        schema = f"(Tensor[] arrays, bool[] needs_input_grad{tail}) -> Tensor[]"
        self.value_op = _custom_op(operator.name, schema, self._value, self._fake_value)
        self.value_op.register_autograd(_compiled_backward, setup_context=_compiled_setup)
        schema = f"(Tensor[] arrays{tail}) -> Tensor[]"
        self.gradients_op = _custom_op(f"{operator.name}_gradients", schema, self._gradients, self._fake_gradients)
        self.gradients_op.register_autograd(partial(_gradients_backward, operator), setup_context=_gradients_setup)
        if operator.second_derivative is not None:
            schema = f"(Tensor[] arrays, Tensor[] cotangents{tail}) -> Tensor[]"
            _custom_op(f"{operator.name}_second", schema, self._second, self._fake_second)

    def apply(self, arrays: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
        needs_input_grad = tuple(backend.needs_gradient(x) for x in arrays)
        if not any(needs_input_grad) and not backend.in_transform():
            with _own_precision(arrays[0]):
                value, _ = self.operator.kernel(*_unwrap(arrays), needs_input_grad=needs_input_grad, **options)
            return _wrap(value, arrays[0])
        if backend.in_forward_mode():
            _refuse_nested_forward_mode(self.operator.name)
        values = tuple(options[name] for name in self.option_names)
        if torch.compiler.is_compiling() or not any(needs_input_grad):
            return self.value_op(list(arrays), needs_input_grad, *values)[0]
        call = _Call(self.operator, needs_input_grad, values)
        return _apply(_Value, _EagerValue)(call, *arrays)[0]

    def attach(self, arrays: Sequence[Tensor], value: np.ndarray, grads: Sequence[np.ndarray]) -> Tensor:
        """What `apply` returns outside of transforms, of a value and its gradients by `arrays`, which require them.

        For operators without a second derivative. Nobody else has the gradients.
        """
        return _attach(self.operator, value, grads, *arrays)

    def gradients(self, arrays: tuple[Tensor, ...], options: dict[str, Any]) -> tuple[Tensor, ...]:
        """The gradient with respect to every array; differentiable where there is a second derivative."""
        everything = (True,) * len(arrays)
        values = tuple(options[name] for name in self.option_names)
        if torch.compiler.is_compiling():
            return tuple(self.gradients_op(list(arrays), *values))
        if backend.in_forward_mode():
            _refuse_nested_forward_mode(self.operator.name)
        call, first = _Call(self.operator, everything, values), arrays[0]
        found = _apply(_Value, _EagerValue)(call, *(x.detach() for x in arrays))[1:]
        one = first.new_ones(first.shape[: first.ndim - self.operator.core_ndims[0]])
        return _apply(_Gradient, _EagerGradient)(call, one, *arrays, *found)

    # What runs, and what the compiler sees of it: shapes.

    def _value(self, arrays: Sequence[Tensor], needs_input_grad: Sequence[bool], *options: Any) -> list[Tensor]:
        named = dict(zip(self.option_names, options, strict=True))
        with _own_precision(arrays[0]):
            value, grads = self.operator.kernel(*_unwrap(arrays), needs_input_grad=tuple(needs_input_grad), **named)
        wanted = [g for g, need in zip(grads, needs_input_grad, strict=True) if need]
        return [_wrap(out, arrays[0]) for out in (value, *wanted)]

    def _fake_value(self, arrays: Sequence[Tensor], needs_input_grad: Sequence[bool], *options: Any) -> list[Tensor]:
        batch = arrays[0].shape[: arrays[0].ndim - self.operator.core_ndims[0]]
        return [
            arrays[0].new_empty(batch),
            *(x.new_empty(x.shape) for x, need in zip(arrays, needs_input_grad, strict=True) if need),
        ]

    def _gradients(self, arrays: Sequence[Tensor], *options: Any) -> list[Tensor]:
        return self._value(arrays, (True,) * len(arrays), *options)[1:]

    def _fake_gradients(self, arrays: Sequence[Tensor], *options: Any) -> list[Tensor]:
        return [x.new_empty(x.shape) for x in arrays]

    def _second(self, arrays: Sequence[Tensor], cotangents: Sequence[Tensor], *options: Any) -> list[Tensor]:
        assert self.operator.second_derivative is not None
        named = dict(zip(self.option_names, options, strict=True))
        with _own_precision(arrays[0]):
            grads = self.operator.second_derivative(*_unwrap(arrays), cotangents=_unwrap(cotangents), **named)
        return [_wrap(g, arrays[0]) for g in grads]

    def _fake_second(self, arrays: Sequence[Tensor], cotangents: Sequence[Tensor], *options: Any) -> list[Tensor]:
        return [x.new_empty(x.shape) for x in arrays]


def _own_precision(x: Tensor) -> Any:
    """Without autocast, which would have products of float32 computed in half precision on a device."""
    kind = x.device.type
    if x.is_cpu or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _refuse_nested_forward_mode(name: str) -> None:
    """PyTorch switches forward mode off around a jvp, at all levels: jacfwd of jacfwd would be a silent 0."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    if sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack) > 1:
        raise NotImplementedError(
            f"otdist's {name} cannot be differentiated in forward mode twice; "
            "use torch.func.hessian, which is forward over reverse mode"
        )


class _Call:
    """What a call has beside its tensors, in one object that ``torch.func`` does not look into."""

    def __init__(self, operator: Any, needs_input_grad: tuple[bool, ...], options: tuple[Any, ...]) -> None:
        self.operator, self.needs_input_grad, self.options = operator, needs_input_grad, options


class _Value(torch.autograd.Function):
    """The value; its gradients are computed beside it and wait for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *arrays: Tensor) -> Any:
        operator = call.operator.torch_operator
        run = operator.value_op if backend.in_transform() else operator._value
        return tuple(run(list(arrays), call.needs_input_grad, *call.options))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call = inputs[0]
        _save(ctx, *inputs[1:], *output[1:])
        if not backend.in_transform():  # vmap mistakes tangents that are None for those of the value
            ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        call, saved, found = ctx.call, ctx.saved_tensors, tangents[1:]
        # By way of a function that is differentiated again: the gradients alone show none of their own tangents.
        first, core = saved[0], call.operator.core_ndims[0]
        one = first.new_ones(first.shape[: first.ndim - core])
        grads = _spread(_apply(_Gradient, _EagerGradient)(call, one, *saved), call.needs_input_grad)
        pairs = [(g, t) for g, t in zip(grads, found, strict=True) if g is not None and t is not None]
        rest = saved[len(found) :]
        return sum(_dot(g, t, one.ndim) for g, t in pairs), *(
            torch.zeros_like(g) if backend.in_transform() else None for g in rest
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        if cotangents[0] is None:
            return (None,) * (1 + len(ctx.call.needs_input_grad))
        if _is_last(cotangents[0]):
            found = _last_times(cotangents[0], ctx.saved_tensors, len(ctx.call.needs_input_grad))
        else:
            found = _apply(_Gradient, _EagerGradient)(ctx.call, cotangents[0], *ctx.saved_tensors)
        return None, *_spread(found, ctx.call.needs_input_grad)


class _Known(torch.autograd.Function):
    """A value without a batch whose gradients, NumPy's, are known already."""

    @staticmethod
    def forward(ctx: Any, operator: Any, value: np.ndarray, grads: Sequence[np.ndarray], *arrays: Tensor) -> Tensor:
        ctx.operator, ctx.grads = operator, grads
        ctx.save_for_backward(*arrays)
        return torch.from_numpy(value)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (cotangent,), grads, keep = cotangents, ctx.grads, _keeps_graph()
        if not keep:
            ctx.grads = None
        if grads is None or not _is_last(cotangent):
            arrays = ctx.saved_tensors  # where the graph is gone, this is what says so
            call = _Call(ctx.operator, (True,) * len(arrays), ())
            return (
                None,
                None,
                None,
                *_apply(_Gradient, _EagerGradient)(call, cotangent, *arrays, *map(torch.from_numpy, grads)),
            )
        factor = cotangent.item()
        if keep or factor != 1:  # by NumPy as in `_last_times`
            grads = [np.multiply(v, v.dtype.type(factor), out=None if keep else v) for v in grads]
        return None, None, None, *map(torch.from_numpy, grads)


# Past the part of `apply` that looks for transforms: who attaches has looked.
_attach: Any = super(torch.autograd.Function, _Known).apply


class _Gradient(torch.autograd.Function):
    """cotangent ↦ cotangent · gradient, as a function that is differentiated again or says that it can't be."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, cotangent: Tensor, *saved: Tensor) -> Any:
        return tuple(_times(cotangent, g) for g in saved[len(call.needs_input_grad) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call = inputs[0]
        _save(ctx, *inputs[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        cotangent, *saved = ctx.saved_tensors
        needs_input_grad = ctx.call.needs_input_grad
        change, n = tangents[1], len(needs_input_grad)
        moved, out = tangents[2 : 2 + n], [None] * sum(needs_input_grad)
        if any(t is not None for t in moved):
            # The matrix of second derivatives is symmetric: its product with tangents is that with cotangents.
            directions = [torch.zeros_like(x) if t is None else t for x, t in zip(saved[:n], moved, strict=True)]
            second = _second_times(ctx.call, saved[:n], directions)
            out = [_times(cotangent, h) for h, need in zip(second, needs_input_grad, strict=True) if need]
        if change is not None:
            out = [
                _times(change, g) if h is None else _times(change, g) + h for g, h in zip(saved[n:], out, strict=True)
            ]
        return tuple(torch.zeros_like(g) if h is None else h for g, h in zip(saved[n:], out, strict=True))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        cotangent, *saved = ctx.saved_tensors
        if all(c is None for c in cotangents):
            return (None,) * (2 + len(saved))
        n = len(ctx.call.needs_input_grad)
        arrays, grads = saved[:n], saved[n:]
        along = sum(_dot(c, g, cotangent.ndim) for c, g in zip(cotangents, grads, strict=True) if c is not None)
        if ctx.call.operator.second_derivative is None:
            if not backend.in_transform():  # an operator's first call imports PyTorch's compiler
                raise NotImplementedError(_REFUSED.format(ctx.call.operator.name))
            along = torch.ops.otdist.refuse_second(along, ctx.call.operator.name)
            return None, along, *([None] * len(saved))
        weighted = [
            torch.zeros_like(x) if c is None else _times(cotangent, c)
            for x, c in zip(arrays, _spread(cotangents, ctx.call.needs_input_grad), strict=True)
        ]
        return None, along, *_second_times(ctx.call, arrays, weighted), *([None] * len(grads))


class _Second(torch.autograd.Function):
    """The second derivatives times directions; not differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *inputs: Tensor) -> Any:
        n, operator = len(inputs) // 2, call.operator.torch_operator
        if backend.in_transform():
            second = getattr(torch.ops.otdist, f"{call.operator.name}_second")
        else:  # an operator's first call imports PyTorch's compiler
            second = operator._second
        return tuple(second(list(inputs[:n]), list(inputs[n:]), *call.options))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise NotImplementedError(f"otdist's {ctx.call.operator.name} has no third derivative")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(f"otdist's {ctx.call.operator.name} has no third derivative")


def _second_times(call: _Call, arrays: Sequence[Tensor], directions: Sequence[Tensor]) -> Sequence[Tensor]:
    """The second derivatives times one direction for each array."""
    if call.operator.second_derivative is None:
        raise NotImplementedError(_REFUSED.format(call.operator.name))
    return _apply(_Second, _EagerSecond)(call, *arrays, *directions)


def _eager(function: Any) -> Any:
    """``function`` without what ``torch.func`` needs: binding a signature costs more than a small problem."""

    class Eager(torch.autograd.Function):
        backward, jvp = function.backward, function.jvp

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = function.forward(*inputs)
            function.setup_context(ctx, inputs, output)
            return output

    return Eager


_EagerValue, _EagerGradient, _EagerSecond = _eager(_Value), _eager(_Gradient), _eager(_Second)


def _apply(function: Any, eager: Any) -> Any:
    return (function if backend.in_transform() else eager).apply


def _save(ctx: Any, *tensors: Tensor) -> None:
    """Keep tensors for the backward pass, and in forward mode for the tangents."""
    ctx.save_for_backward(*tensors)
    if backend.in_forward_mode():
        ctx.save_for_forward(*tensors)


def _compiled_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.differentiated, ctx.n_options = inputs[1], len(inputs) - 2
    ctx.save_for_backward(*output[1:])


def _compiled_backward(ctx: Any, cotangents: Any) -> Any:
    found = [_times(cotangents[0], g) for g in ctx.saved_tensors]
    return _spread(found, ctx.differentiated), *(None,) * (1 + ctx.n_options)


def _gradients_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.options = inputs[1:]
    ctx.save_for_backward(*inputs[0])


def _gradients_backward(operator: Any, ctx: Any, cotangents: Any) -> Any:
    arrays = list(ctx.saved_tensors)
    directions = [torch.zeros_like(x) if c is None else c for x, c in zip(arrays, cotangents, strict=True)]
    if operator.second_derivative is None:
        found = [torch.ops.otdist.refuse_second(d, operator.name) for d in directions]
    else:
        found = getattr(torch.ops.otdist, f"{operator.name}_second")(arrays, directions, *ctx.options)
    return found, *(None,) * len(ctx.options)


def _spread(found: Sequence[Any], needs_input_grad: Sequence[bool]) -> list[Any]:
    """Put one entry where each need is, None elsewhere."""
    rest = list(found)
    return [rest.pop(0) if need else None for need in needs_input_grad]


def _times(scalars: Array, x: Array) -> Array:
    return _beside(scalars, x) * x


def _beside(scalars: Array, x: Array) -> Array:
    """One number for each element of the batch, to be multiplied by arrays."""
    return scalars.reshape(scalars.shape + (1,) * (x.ndim - scalars.ndim))


def _is_last(cotangent: Tensor) -> bool:
    """Whether this backward pass has plain numbers on a CPU, and will not be differentiated."""
    if torch.is_grad_enabled() or not backend.inspectable(cotangent):
        return False
    return not torch._C._functorch.is_legacy_batchedtensor(cotangent)  # what is_grads_batched=True passes


def _last_times(cotangent: Tensor, saved: Sequence[Tensor], n: int) -> list[Tensor]:
    """cotangent · gradient for all but the first n, in place where no second backward pass can come.

    By NumPy: after a product of PyTorch's, OpenMP's threads spin for a while on the cores that our next kernel wants.
    """
    scalars, keep, found = backend.as_numpy(cotangent), _keeps_graph(), []
    places = [t.data_ptr() for t in saved]
    for g, place in zip(saved[n:], places[n:], strict=True):
        v = backend.as_numpy(g)
        if keep or places.count(place) > 1:  # it is an argument, or another gradient, itself
            found.append(_wrap(_times(scalars, v), g))
        else:
            v *= _beside(scalars, v)
            found.append(g)
    return found


def _dot(x: Tensor, y: Tensor, batch: int) -> Tensor:
    product = x * y
    return product.flatten(batch).sum(-1) if product.ndim > batch else product


def _unwrap(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple(backend.as_numpy(t) if backend.on_cpu(t) else t.detach() for t in tensors)


def _wrap(x: Any, reference: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        x = np.asarray(x)  # from a NumPy scalar, which a value without batch becomes
        x = torch.from_numpy(x if x.flags.writeable else x.copy())  # broadcast results: the caller owns what it gets
    if x.dtype != reference.dtype or x.device != reference.device:
        x = x.to(reference.device, reference.dtype)
    return x.contiguous()


def _custom_op(name: str, schema: str, implementation: Any, fake: Any) -> Any:
    op = torch.library.custom_op(f"otdist::{name}", implementation, mutates_args=(), schema=schema)
    op.register_fake(fake)

    def batched(info: Any, in_dims: Any, *args: Any) -> Any:
        moved = [
            [_front(x, dim, info.batch_size) for x, dim in zip(arg, dims, strict=True)] if _are_tensors(arg) else arg
            for arg, dims in zip(args, in_dims, strict=True)
        ]
        out = op(*moved)
        return out, [0] * len(out)

    op.register_vmap(batched)
    return op


def _are_tensors(arg: Any) -> bool:
    return isinstance(arg, list | tuple) and bool(arg) and isinstance(arg[0], Tensor)


def _front(x: Tensor, dim: int | None, size: int) -> Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


@torch.library.custom_op("otdist::refuse_second", mutates_args=())
def _refuse_second(x: Tensor, name: str) -> Tensor:
    raise NotImplementedError(_REFUSED.format(name))


@_refuse_second.register_fake
def _(x: Tensor, name: str) -> Tensor:
    return torch.empty_like(x)


@_refuse_second.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, name: str) -> Any:
    return _refuse_second(x, name), in_dims[0]
