"""The front of the compiler for kernels: numba reads a function and writes LLVM's intermediate code, nothing else.

Numba by itself would make machine code of every function, optimised, together with a copy of all that it calls, and
again in whatever calls it. Here a function is written down once as it is. `kernels` has a kernel and all that it calls
put together, optimised and compiled at once, see `machine_code`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import CodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from .flat import types_of

# Everything of fastmath that keeps NaN and inf.
FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}
# Passes for what no kernel has: closures, `with`, array expressions, literal loops, branches on None.
_NEEDLESS = {
    "with_lifting",
    "inline_closure_likes",
    "rewrite_semantic_constants",
    "dead_branch_prune",
    "Rewrite dynamic raises",
    "make_function_op_code_to_jit_function",
    "find_literally",
    "literal_unroll",
    "LiteralPropagation",
    "inline_overloads",
    "nopython_rewrites",
}


class _IntermediateCode(CodeLibrary):
    """What numba writes for one function, and the libraries of the functions that it calls."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self._own: list[Any] = []
        self._called: list[Any] = []

    def add_ir_module(self, ir_module: Any) -> None:
        for function in ir_module.functions:
            if function.blocks and "alwaysinline" not in function.attributes:
                function.attributes.add("noinline")
        module = binding.parse_assembly(cgutils.normalize_ir_text(str(ir_module)))
        module.name = ir_module.name
        self._own.append(module)

    def add_linking_library(self, library: Any) -> None:
        self._called.append(library)

    def finalize(self) -> None:
        self._finalized = True

    def link_into(self, module: Any, seen: set[int]) -> None:
        """Copy this function's code and, once each, that of what it calls into a module."""
        if id(self) in seen:
            return
        seen.add(id(self))
        for own in self._own:
            module.link_in(own, preserve=True)
        for called in self._called:
            if isinstance(called, _IntermediateCode):
                called.link_into(module, seen)
            elif id(called) not in seen:  # a function of numba's own
                seen.add(id(called))
                module.link_in(called._get_module_for_linking(), preserve=True)

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Kernels have no Python in them."""

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    def get_function(self, name: str) -> Any:
        return next(found for found in (own.get_function(name) for own in self._own) if not found.is_declaration)

    def get_llvm_str(self) -> str:
        return "\n".join(map(str, self._own))

    get_asm_str = get_llvm_str


class _Front(CompilerBase):
    """Numba's compiler up to the intermediate code, which goes into a library of ours."""

    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        super().__init__(typing, target, _IntermediateCode(target.codegen(), "otdist"), *rest)

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [(each, text) for each, text in pipeline.passes if each._name not in _NEEDLESS]
        pipeline.finalize()
        return [pipeline]


def compiled(function: Any = None, *, inlined: bool = False, fast: bool = True) -> Any:
    """A function of kernels, which may call others of them: flat arrays (`flat`), vectors (`simd`) and numbers.

    ``inlined`` puts it into its callers, the others stay as they are. ``fast`` lets LLVM rearrange sums and products.
    It can't be called from Python: see `kernels`.
    """

    def decorate(function: Any) -> Any:
        return numba.njit(
            pipeline_class=_Front,
            fastmath=FAST if fast else False,
            error_model="numpy",
            nogil=True,
            forceinline=inlined,
            no_cpython_wrapper=True,
            no_cfunc_wrapper=True,
            _nrt=False,
        )(function)

    return decorate if function is None else decorate(function)


def at_address(kernel: Any) -> Any:
    """``call(address, *arguments)`` inside compiled functions: of one, compiled by itself, with the kernel's arguments.

    It returns an integer, and raises nothing.
    """

    def call(typing: Any, address: Any, *arguments: Any) -> Any:
        given = tuple(types.unliteral(z) for z in arguments)
        if not any(given == types_of(kernel.kinds, np.dtype(dtype)) for dtype in kernel.dtypes):
            raise TypeError(f"{kernel.name} takes other types than {given}")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = context.call_conv.get_function_type(types.int64, given)
            pointer = builder.inttoptr(values[0], ir.PointerType(kind))
            items = [builder.extract_value(values[1], k) for k in range(len(given))]
            items = [context.cast(builder, z, s, t) for z, s, t in zip(items, arguments, given, strict=True)]
            return context.call_conv.call_function(builder, pointer, types.int64, given, items)[1]

        return types.int64(address, types.StarArgTuple(arguments)), generate

    return intrinsic(call)


def module_of(dispatcher: Any, arguments: tuple[Any, ...], symbol: str) -> Any:
    """The LLVM module of a compiled function for arguments of these types, callable as `symbol`, and all it calls."""
    if numba.config.DISABLE_JIT:
        raise RuntimeError("the loops of otdist have to be compiled, and NUMBA_DISABLE_JIT forbids it; unset it")
    with global_compiler_lock:
        dispatcher.compile(arguments)
        found = dispatcher.overloads[arguments]
        module = binding.parse_assembly("")
        found.library.link_into(module, set())
    for function in module.functions:
        if function.name == found.fndesc.llvm_func_name:
            function.name = symbol
        elif not function.is_declaration:
            function.linkage = "internal"
    return module
