"""A vector of eight doubles for compiled kernels: eight problems are solved side by side, one in each lane.

LLVM turns it into one AVX-512 register, two of AVX2 or four of NEON. Its vectoriser would have to prove that the rows
of one array do not overlap before it did the same to loops over lanes.

Comparisons give a set of lanes as the bits of an integer; `choose` takes one or the other lane by lane.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 8
ALL = 255

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_FAST = ("contract", "nsz")


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__("otdist.Lanes")


_lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    first = builder.mul(index, ir.Constant(index.type, LANES))
    return builder.bitcast(builder.gep(data, [first]), _VECTOR.as_pointer())


@intrinsic
def load(typing, array, index):
    """The lanes array[8 index : 8 index + 8] of a one-dimensional array of doubles."""

    def generate(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=8)

    return _lanes(array, types.intp), generate


@intrinsic
def store(typing, array, index, value):
    """array[8 index : 8 index + 8] = value."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]), align=8)
        return context.get_dummy_value()

    return types.none(array, types.intp, _lanes), generate


@intrinsic
def fill(typing, scalar):
    """The same number in every lane."""

    def generate(context, builder, signature, arguments):
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(undefined, arguments[0], ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, everywhere)

    return _lanes(types.float64), generate


@intrinsic
def sqrt(typing, x):
    """√x in every lane."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f64"), arguments)

    return _lanes(x), generate


@intrinsic
def greater(typing, x, y):
    """The set of lanes where x > y, which NaN never is."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(builder.fcmp_ordered(">", *arguments), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.intp(x, y), generate


@intrinsic
def choose(typing, lanes, x, y):
    """x in the given set of lanes, y in the others."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(builder.trunc(arguments[0], ir.IntType(LANES)), _BITS)
        return builder.select(bits, arguments[1], arguments[2])

    return _lanes(types.intp, _lanes, _lanes), generate


def _arithmetic(symbol: Any, instruction: str) -> None:
    @intrinsic
    def compute(typing, x, y):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=_FAST)

        return _lanes(_lanes, _lanes), generate

    @overload(symbol)
    def _(x, y):
        return (lambda x, y: compute(x, y)) if x is _lanes and y is _lanes else None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _instruction)


@njit(cache=True, nogil=True, error_model="numpy")
def space(vectors):
    """Zeros for that many vectors, none of which straddles two lines of the cache."""
    raw = np.zeros((vectors + 1) * LANES)
    skipped = (-raw.ctypes.data) % (8 * LANES) // 8
    return raw[skipped : skipped + vectors * LANES]
