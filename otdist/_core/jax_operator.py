"""Distances on JAX arrays, under ``jit``, ``grad`` and ``vmap``: the NumPy code by ``pure_callback``, its gradients by
``custom_vjp``.

JAX is never imported here before a caller has passed one of its arrays.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from . import random

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_jax(twin: str, *, root: bool = False, **core_ndims: int) -> Callable[[Function], Function]:
    """Let a public distance take JAX arrays; on anything else it is the function itself.

    ``twin`` names what returns, in the function's module, the squared distance with its gradients, and ``root`` says
    whether the function is the root of that. ``core_ndims`` has, for each argument that is differentiated, the number
    of its trailing dimensions that are not batch.
    """

    def lifted(function: Function) -> Function:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            jax = sys.modules.get("jax")
            if jax is None or not any(isinstance(v, jax.Array) for v in (*arguments, *options.values())):
                return function(*arguments, **options)
            bound = signature.bind(*arguments, **options).arguments
            arrays = {k: bound.pop(k) for k in core_ndims if isinstance(bound.get(k), jax.Array)}
            return _apply(jax, function, twin, root, core_ndims, arrays, bound)

        return call  # type: ignore[return-value]

    return lifted


def _apply(
    jax: Any, function: Any, twin: str, root: bool, core_ndims: dict[str, int], arrays: dict[str, Any], rest: Any
) -> Any:
    jnp = jax.numpy
    _refuse_mixtures(rest)
    rest = {k: np.asarray(v) if isinstance(v, jax.Array) else v for k, v in rest.items()}  # given directions
    if "rng" in inspect.signature(function).parameters and not isinstance(rest.setdefault("rng", None), int):
        seed = random.seed(rest["rng"])  # value and gradient must see the same directions
        rest["rng"] = seed if seed >= 0 else int(np.random.default_rng().integers(2**63))
    dtype = jnp.result_type(*arrays.values(), float)
    if not any(isinstance(x, jax.core.Tracer) for x in arrays.values()):
        return jnp.asarray(function(**{k: _host(x) for k, x in arrays.items()}, **rest), dtype)
    work = jnp.promote_types(dtype, jnp.float32)
    batch = jnp.broadcast_shapes(*(x.shape[: x.ndim - core_ndims[k]] for k, x in arrays.items()))
    wide = [jnp.broadcast_to(x, (*batch, *x.shape[x.ndim - core_ndims[k] :])).astype(work) for k, x in arrays.items()]
    value = _with_gradient(jax, function.__globals__[twin], tuple(arrays), rest, batch)(*wide)
    if root:  # with derivative 0 where it is 0
        value = jnp.where(value > 0, jnp.sqrt(jnp.where(value > 0, value, 1)), 0)
    return value.astype(dtype)


def _with_gradient(jax: Any, twin: Any, names: tuple[str, ...], rest: dict[str, Any], batch: tuple[int, ...]) -> Any:
    """The squared distance of arrays of one batch shape, as a function that JAX differentiates by formula."""

    def both(*arrays: Any) -> Any:
        found, grads = twin(**{k: np.asarray(x) for k, x in zip(names, arrays, strict=True)}, **rest)
        dtype = np.asarray(arrays[0]).dtype
        return tuple(np.asarray(v, dtype) for v in (found, *(getattr(grads, k) for k in names)))

    def forward(*arrays: Any) -> Any:
        first = jax.ShapeDtypeStruct(batch, arrays[0].dtype)
        specs = (first, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays))
        found, *grads = jax.pure_callback(both, specs, *arrays, vmap_method="broadcast_all")
        return found, grads

    def backward(grads: Any, cotangent: Any) -> Any:
        return tuple(cotangent.reshape(cotangent.shape + (1,) * (g.ndim - cotangent.ndim)) * g for g in grads)

    distance = jax.custom_vjp(lambda *arrays: forward(*arrays)[0])
    distance.defvjp(forward, backward)
    return distance


def _host(x: Any) -> np.ndarray:
    """A concrete JAX array for NumPy, which has no bfloat16."""
    return np.asarray(x, np.float32) if x.dtype.name == "bfloat16" else np.asarray(x)


def _refuse_mixtures(rest: dict[str, Any]) -> None:
    torch = sys.modules.get("torch")
    for name, v in rest.items():
        if torch is not None and isinstance(v, torch.Tensor):
            raise TypeError(f"{name} is a torch.Tensor beside a jax.Array; pass both as the same type")
        if isinstance(v, np.ndarray) and name != "directions":
            raise TypeError(f"{name} is a numpy.ndarray beside a jax.Array; pass both as the same type")
