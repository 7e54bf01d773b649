"""Vectors for compiled kernels: 64 bytes of doubles or floats, on which Python's operators work lane by lane.

LLVM turns each into one AVX-512 register, two of AVX2 or four of NEON. A loop over lanes would leave that to its
vectoriser, which gives up where it can't prove that the rows of one array do not overlap, and which keeps no block of
a matrix product in registers.

Comparisons give a set of lanes as the bits of an integer; `choose` takes one or the other lane by lane.

A product that is added or subtracted is fused with it, and this is decided by types, not left to LLVM: ``x * y`` is a
product, and ``x * y + z`` one fused operation. With its flag `contract` LLVM would decide anew in every copy that it
makes of a function, so that an answer could depend on which caller asked.
"""

import operator
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, register_model

from .flat import FIRST, pointer
from .kinds import BYTES, LANES
from .machine_code import is_x86, processor

ALL = 255


class _Vector(types.Type):
    """What the operators work on."""


class _Lanes(_Vector):
    def __init__(self, scalar: Any) -> None:
        self.scalar, self.count = scalar, BYTES * 8 // scalar.bitwidth
        super().__init__(f"otdist.Lanes({scalar})")

    @property
    def vector(self) -> Any:
        return ir.VectorType(ir.DoubleType() if self.scalar == types.float64 else ir.FloatType(), self.count)

    @property
    def suffix(self) -> str:
        """What LLVM appends to the names of its functions."""
        return f"v{self.count}f{self.scalar.bitwidth}"


KINDS = {scalar: _Lanes(scalar) for scalar in (types.float32, types.float64)}


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)


class _Product(_Vector):
    """x * y, not yet rounded: the pair of factors."""

    def __init__(self, lanes: _Lanes) -> None:
        self.lanes = lanes
        super().__init__(f"otdist.Product({lanes.scalar})")

    def can_convert_to(self, typing: Any, other: Any) -> Any:
        return Conversion.safe if other == self.lanes else None


PRODUCTS = {lanes: _Product(lanes) for lanes in KINDS.values()}


@register_model(_Product)
class _ProductModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("first", kind.lanes), ("second", kind.lanes)])


@lower_cast(_Product, _Lanes)
def _rounded(context: Any, builder: Any, given: Any, wanted: Any, value: Any) -> Any:
    return builder.fmul(*_factors(context, builder, given, value))


def _factors(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, Any]:
    pair = cgutils.create_struct_proxy(kind)(context, builder, value)
    return pair.first, pair.second


def _lanes(kind: Any) -> Any:
    """The type of what a value is when it is rounded."""
    return kind.lanes if isinstance(kind, _Product) else kind


@cache
def _has_fma() -> bool:
    """Whether one instruction multiplies and adds; without it LLVM would call a function for every lane."""
    return not is_x86() or "+fma" in processor()[1].split(",")


def _fused(builder: Any, lanes: _Lanes, x: Any, y: Any, z: Any) -> Any:
    """x y + z."""
    if not _has_fma():
        return builder.fadd(builder.fmul(x, y), z)
    kind = ir.FunctionType(lanes.vector, [lanes.vector] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.{lanes.suffix}"), [x, y, z])


def vector_pointer(context: Any, builder: Any, kind: Any, array: Any, number: Any) -> Any:
    """The address of vector `number` of an array."""
    first = builder.mul(number, ir.Constant(number.type, KINDS[kind.dtype].count))
    return vector_pointer_from(context, builder, kind, array, first)


def vector_pointer_from(context: Any, builder: Any, kind: Any, array: Any, first: Any) -> Any:
    """The address of the vector that begins with array[first]."""
    where = pointer(context, builder, kind, array, first)
    return builder.bitcast(where, KINDS[kind.dtype].vector.as_pointer())


def splat(builder: Any, lanes: Any, scalar: Any) -> Any:
    undefined = ir.Constant(lanes.vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), [0] * lanes.count)
    )


@intrinsic
def load(typing, array, index):
    """Vector number `index` of a one-dimensional array: with doubles, array[8 index : 8 index + 8]."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        return builder.load(vector_pointer(context, builder, kind, *arguments), align=kind.dtype.bitwidth // 8)

    return KINDS[array.dtype](array, types.intp), generate


@intrinsic
def store(typing, array, index, value):
    """Write vector number `index` of a one-dimensional array."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        where = vector_pointer(context, builder, kind, *arguments[:2])
        builder.store(arguments[2], where, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, KINDS[array.dtype]), generate


@intrinsic
def load_from(typing, array, first):
    """array[first : first + 8] with doubles, from wherever it is."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        where = vector_pointer_from(context, builder, kind, *arguments)
        return builder.load(where, align=kind.dtype.bitwidth // 8)

    return KINDS[array.dtype](array, types.intp), generate


@intrinsic
def store_to(typing, array, first, value):
    """array[first : first + 8] = value."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        where = vector_pointer_from(context, builder, kind, *arguments[:2])
        builder.store(arguments[2], where, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, KINDS[array.dtype]), generate


@intrinsic
def fill(typing, scalar):
    """The same number in every lane."""

    def generate(context, builder, signature, arguments):
        return splat(builder, KINDS[signature.args[0]], arguments[0])

    return KINDS[scalar](scalar), generate


@intrinsic
def everywhere(typing, array, number):
    """The same number, a double, rounded to the array's type, in every lane."""

    def generate(context, builder, signature, arguments):
        scalar = context.cast(builder, arguments[1], types.float64, array.dtype)
        return splat(builder, KINDS[array.dtype], scalar)

    return KINDS[array.dtype](array, types.float64), generate


@intrinsic
def spread(typing, array, index):
    """The number array[index] in every lane."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        return splat(builder, KINDS[kind.dtype], builder.load(pointer(context, builder, kind, *arguments)))

    return KINDS[array.dtype](array, types.intp), generate


@intrinsic
def sqrt(typing, x):
    """√x in every lane."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(x.vector, [x.vector])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.{x.suffix}"), arguments)

    return x(x), generate


@intrinsic
def total(typing, x):
    """The sum of the lanes."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        scalar = x.vector.element
        kind = ir.FunctionType(scalar, [scalar, x.vector])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.{x.suffix}")
        return builder.call(function, [ir.Constant(scalar, -0.0), arguments[0]], fastmath=("reassoc",))

    return x.scalar(x), generate


@intrinsic
def largest(typing, x):
    """The largest lane; those that are NaN do not count."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(x.vector.element, [x.vector])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fmax.{x.suffix}")
        return builder.call(function, arguments)

    return x.scalar(x), generate


def _compare(builder: Any, sign: str, left: Any, right: Any) -> Any:
    if isinstance(left.type, ir.IntType):
        return builder.icmp_signed(sign, left, right)
    return builder.fcmp_ordered(sign, left, right)


def _common(typing: Any, x: Any, y: Any) -> Any:
    return typing.unify_types(x, y) if isinstance(x, types.Number) else _lanes(x)


@intrinsic
def maximum(typing, x, y):
    """x where it is greater than y, elsewhere (also where x is NaN) y; of numbers, too."""
    x = _common(typing, x, y)

    def generate(context, builder, signature, arguments):
        return builder.select(_compare(builder, ">", *arguments), *arguments)

    return x(x, x), generate


@intrinsic
def minimum(typing, x, y):
    """x where it is less than y, elsewhere (also where x is NaN) y; of numbers, too."""
    x = _common(typing, x, y)

    def generate(context, builder, signature, arguments):
        return builder.select(_compare(builder, "<", *arguments), *arguments)

    return x(x, x), generate


@intrinsic
def exponent(typing, x):
    """k of positive normal numbers x = m · 2^k, 1 <= m < 2; in lanes of doubles."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        integer = ir.VectorType(ir.IntType(64), LANES)
        bits = builder.lshr(builder.bitcast(arguments[0], integer), ir.Constant(integer, [52] * LANES))
        return builder.sitofp(builder.sub(bits, ir.Constant(integer, [1023] * LANES)), x.vector)

    return x(x), generate


@intrinsic
def mantissa(typing, x):
    """m of positive normal numbers x = m · 2^k, 1 <= m < 2; in lanes of doubles."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        integer = ir.VectorType(ir.IntType(64), LANES)
        bits = builder.and_(builder.bitcast(arguments[0], integer), ir.Constant(integer, [(1 << 52) - 1] * LANES))
        return builder.bitcast(builder.or_(bits, ir.Constant(integer, [1023 << 52] * LANES)), x.vector)

    return x(x), generate


@intrinsic
def greater(typing, x, y):
    """The set of lanes where x > y, which NaN never is."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(builder.fcmp_ordered(">", *arguments), ir.IntType(x.count))
        return builder.zext(bits, ir.IntType(64))

    return types.intp(x, x), generate


@intrinsic
def choose(typing, lanes, x, y):
    """x in the given set of lanes, y in the others."""
    x = _lanes(x)

    def generate(context, builder, signature, arguments):
        set_of = ir.VectorType(ir.IntType(1), x.count)
        bits = builder.bitcast(builder.trunc(arguments[0], ir.IntType(x.count)), set_of)
        return builder.select(bits, arguments[1], arguments[2])

    return x(types.intp, x, x), generate


def _generate(instruction: str, x: Any, y: Any) -> Any:
    """The code of an operator on lanes and products of one kind, and its result's type."""
    lanes = _lanes(x)

    def multiply(context, builder, signature, arguments):
        pair = cgutils.create_struct_proxy(PRODUCTS[lanes])(context, builder)
        pair.first, pair.second = _round_all(context, builder, (x, y), arguments)
        return pair._getvalue()

    def add(context, builder, signature, arguments):
        left, right = arguments
        if isinstance(x, _Product):
            if isinstance(y, _Product):
                right = _rounded(context, builder, y, lanes, right)
            if instruction == "fsub":
                right = builder.fneg(right)
            return _fused(builder, lanes, *_factors(context, builder, x, left), right)
        if isinstance(y, _Product):
            first, second = _factors(context, builder, y, right)
            return _fused(builder, lanes, builder.fneg(first) if instruction == "fsub" else first, second, left)
        return getattr(builder, instruction)(left, right)

    def divide(context, builder, signature, arguments):
        return builder.fdiv(*_round_all(context, builder, (x, y), arguments))

    if instruction == "fmul":
        return PRODUCTS[lanes], multiply
    return lanes, divide if instruction == "fdiv" else add


def _round_all(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    return [
        _rounded(context, builder, kind, kind.lanes, value) if isinstance(kind, _Product) else value
        for kind, value in zip(kinds, values, strict=True)
    ]


def _arithmetic(symbol: Any, instruction: str) -> None:
    @infer_global(symbol)
    class _Rule(AbstractTemplate):
        metadata = FIRST

        def generic(self, args: Any, kws: Any) -> Any:
            if not all(isinstance(z, _Vector) for z in args) or _lanes(args[0]) != _lanes(args[1]):
                return None
            return signature(_generate(instruction, *args)[0], *args)

    @lower_builtin(symbol, _Vector, _Vector)
    def _(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _generate(instruction, *sig.args)[1](context, builder, sig, args)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _instruction)
