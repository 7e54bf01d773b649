"""Six rows of a matrix at a time, as one value of compiled loops: six vectors (see `simd`), one for each row.

Six accumulators, a vector of the second operand and a number of the first fit into the 16 registers of AVX2, too.
Written with these operations, a loop over a matrix is as short as its formula, and the compiler sees a sixth of it.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from .._core.flat import FLAT, pointer
from .._core.simd import KINDS, splat, vector_pointer

GROUP = 6
_FLAGS = ("contract", "nsz")


class _Rows(types.Type):
    def __init__(self, lanes: Any) -> None:
        self.lanes = lanes
        super().__init__(f"otdist.Rows({lanes})")


ROWS = {lanes: _Rows(lanes) for lanes in KINDS.values()}


@register_model(_Rows)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(kind.lanes.vector, GROUP))


def _packed(builder: Any, lanes: Any, vector_of: Callable[[int], Any]) -> Any:
    """The value whose row q is vector_of(q)."""
    rows = ir.Constant(ir.ArrayType(lanes.vector, GROUP), ir.Undefined)
    for q in range(GROUP):
        rows = builder.insert_value(rows, vector_of(q), q)
    return rows


def _step(builder: Any, first: Any, stride: Any, q: int) -> Any:
    return builder.add(first, builder.mul(stride, ir.Constant(stride.type, q)))


@intrinsic
def repeat(typing, vector):
    """The same vector in every row."""

    def generate(context, builder, signature, arguments):
        return _packed(builder, vector, lambda q: arguments[0])

    return ROWS[vector](vector), generate


@intrinsic
def load_rows(typing, array, first, stride):
    """Vectors number first, first + stride, ... of a one-dimensional array."""
    lanes = KINDS[array.dtype]

    def generate(context, builder, signature, arguments):
        def vector(q):
            number = _step(builder, arguments[1], arguments[2], q)
            where = vector_pointer(context, builder, signature.args[0], arguments[0], number)
            return builder.load(where, align=lanes.scalar.bitwidth // 8)

        return _packed(builder, lanes, vector)

    return ROWS[lanes](array, types.intp, types.intp), generate


@intrinsic
def store_rows(typing, array, first, stride, rows):
    """Write vectors number first, first + stride, ..."""

    def generate(context, builder, signature, arguments):
        for q in range(GROUP):
            number = _step(builder, arguments[1], arguments[2], q)
            where = vector_pointer(context, builder, signature.args[0], arguments[0], number)
            builder.store(builder.extract_value(arguments[3], q), where, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, rows), generate


@intrinsic
def store_multiple(typing, out, number, factor, array, first):
    """Write vector `number` of out: factor · array[first : ...], which is in doubles, and rounded once."""
    lanes = KINDS[out.dtype]
    wide = ir.VectorType(ir.DoubleType(), lanes.count)

    def generate(context, builder, signature, arguments):
        source = pointer(context, builder, signature.args[3], arguments[3], arguments[4])
        values = builder.load(builder.bitcast(source, wide.as_pointer()), align=8)
        by = splat(builder, lanes, arguments[2])
        if lanes.vector == wide:
            product = builder.fmul(by, values)
        else:
            product = builder.fptrunc(builder.fmul(builder.fpext(by, wide), values), lanes.vector)
        where = vector_pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(product, where, align=out.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(out, types.intp, out.dtype, FLAT[types.float64], types.intp), generate


@intrinsic
def spread_rows(typing, array, first, stride):
    """In every lane of row q the number array[first + q stride]."""
    lanes = KINDS[array.dtype]

    def generate(context, builder, signature, arguments):
        def vector(q):
            where = pointer(
                context, builder, signature.args[0], arguments[0], _step(builder, arguments[1], arguments[2], q)
            )
            return splat(builder, lanes, builder.load(where))

        return _packed(builder, lanes, vector)

    return ROWS[lanes](array, types.intp, types.intp), generate


@intrinsic
def multiply_add(typing, total, rows, vector):
    """total + rows · vector."""

    def generate(context, builder, signature, arguments):
        def sum_of(q):
            product = builder.fmul(builder.extract_value(arguments[1], q), arguments[2], flags=_FLAGS)
            return builder.fadd(builder.extract_value(arguments[0], q), product, flags=_FLAGS)

        return _packed(builder, vector, sum_of)

    return rows(rows, rows, vector), generate


@intrinsic
def add_square(typing, total, vector, rows):
    """total + (vector - rows)²."""

    def generate(context, builder, signature, arguments):
        def sum_of(q):
            gap = builder.fsub(arguments[1], builder.extract_value(arguments[2], q), flags=_FLAGS)
            square = builder.fmul(gap, gap, flags=_FLAGS)
            return builder.fadd(builder.extract_value(arguments[0], q), square, flags=_FLAGS)

        return _packed(builder, vector, sum_of)

    return rows(rows, vector, rows), generate


@intrinsic
def add_products(typing, vector, left, right):
    """vector + Σ_q left_q · right_q, over the rows."""

    def generate(context, builder, signature, arguments):
        products = [
            builder.fmul(*(builder.extract_value(side, q) for side in arguments[1:]), flags=_FLAGS)
            for q in range(GROUP)
        ]
        while len(products) > 1:  # a tree: a chain would wait for each sum
            pairs = zip(products[::2], products[1::2], strict=False)
            products = [builder.fadd(*pair, flags=_FLAGS) for pair in pairs] + products[len(products) // 2 * 2 :]
        return builder.fadd(arguments[0], products[0], flags=_FLAGS)

    return vector(vector, left, left), generate


@intrinsic
def maximum_rows(typing, x, y):
    """x where it is greater than y, elsewhere (also where x is NaN) y."""

    def generate(context, builder, signature, arguments):
        def greater_of(q):
            pair = [builder.extract_value(side, q) for side in arguments]
            return builder.select(builder.fcmp_ordered(">", *pair), *pair)

        return _packed(builder, x.lanes, greater_of)

    return x(x, x), generate


def _reduced(context, builder, lanes, name, first, vector):
    scalar = lanes.vector.element
    kind = ir.FunctionType(scalar, [*(z.type for z in first), lanes.vector])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.{lanes.suffix}")
    return builder.call(function, [*first, vector], fastmath=("reassoc",) if first else ())


@intrinsic
def store_totals(typing, rows, out, at):
    """out[at + q] = the sum of row q."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(rows.lanes.vector.element, -0.0)
        for q in range(GROUP):
            total = _reduced(context, builder, rows.lanes, "fadd", [zero], builder.extract_value(arguments[0], q))
            index = builder.add(arguments[2], ir.Constant(arguments[2].type, q))
            builder.store(total, pointer(context, builder, signature.args[1], arguments[1], index))
        return context.get_dummy_value()

    return types.none(rows, out, types.intp), generate


@intrinsic
def store_largest(typing, rows, out, at):
    """out[at + q] = the largest number of row q; NaN does not count."""

    def generate(context, builder, signature, arguments):
        for q in range(GROUP):
            largest = _reduced(context, builder, rows.lanes, "fmax", [], builder.extract_value(arguments[0], q))
            index = builder.add(arguments[2], ir.Constant(arguments[2].type, q))
            builder.store(largest, pointer(context, builder, signature.args[1], arguments[1], index))
        return context.get_dummy_value()

    return types.none(rows, out, types.intp), generate


# 2^t, by Cody and Waite's reduction: t = k + r with k the nearest integer, 2^r by a polynomial on [-1/2, 1/2], and k
# added to the exponent bits. The polynomials interpolate 2^r at the Chebyshev nodes; their relative errors are 2.5e-9
# (degree 6, float32) and 4e-18 (degree 11, float64), below the rounding of the type. Of each type: bits of the
# mantissa, exponents of the smallest normal number and of the largest power of 2, coefficients from the highest down.
_POWER_OF_2 = {
    types.float32: (
        *(23, -126.0, 127.0),
        *(1.54614447e-04, 1.34004282e-03, 9.61805668e-03, 5.55032723e-02, 2.40226509e-01, 6.93147207e-01, 1.0),
    ),
    types.float64: (
        *(52, -1022.0, 1023.0),
        *(4.455817908336064e-10, 7.074194297288521e-09, 1.0178057087773941e-07, 1.3215432535912376e-06),
        *(1.5252733841556773e-05, 1.5403530463724354e-04, 1.3333558146406471e-03, 9.618129107587257e-03),
        *(5.5504108664821627e-02, 2.402265069591016e-01, 6.931471805599453e-01, 1.0),
    ),
}


def _exp2_of(builder: Any, lanes: Any, t: Any) -> Any:
    """Rounded by an instruction: fastmath callers may reassociate (t + shift) - shift, which is not t."""
    bits, lowest, highest, *coefficients = _POWER_OF_2[lanes.scalar]
    integer = ir.VectorType(ir.IntType(lanes.scalar.bitwidth), lanes.count)

    def constant(number):
        return ir.Constant(lanes.vector, [number] * lanes.count)

    t = builder.select(builder.fcmp_ordered(">", t, constant(highest)), constant(highest), t)
    small = builder.fcmp_ordered("<", t, constant(lowest))
    kind = ir.FunctionType(lanes.vector, [lanes.vector])
    nearest = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.{lanes.suffix}")
    k = builder.call(nearest, [builder.select(small, constant(lowest), t)])
    r, shifted = builder.fsub(t, k), builder.fadd(k, constant(1.5 * 2.0**bits))  # whose low bits are k's
    p = constant(coefficients[0])
    for coefficient in coefficients[1:]:
        p = builder.fadd(builder.fmul(p, r, flags=("contract",)), constant(coefficient), flags=("contract",))
    low = builder.shl(builder.bitcast(shifted, integer), ir.Constant(integer, [bits] * lanes.count))
    power = builder.bitcast(builder.add(builder.bitcast(p, integer), low), lanes.vector)
    return builder.select(small, constant(0.0), power)


@intrinsic
def exp2(typing, t):
    """2^t; exactly 0 below the smallest normal number, capped at the largest power of 2, NaN for NaN."""

    def generate(context, builder, signature, arguments):
        return _exp2_of(builder, t, arguments[0])

    return t(t), generate


@intrinsic
def exp2_rows(typing, rows, offset):
    """2^(rows + offset)."""

    def generate(context, builder, signature, arguments):
        def power(q):
            t = builder.fadd(*(builder.extract_value(side, q) for side in arguments), flags=_FLAGS)
            return _exp2_of(builder, rows.lanes, t)

        return _packed(builder, rows.lanes, power)

    return rows(rows, rows), generate


def _log2_of(builder: Any, lanes: Any, t: Any) -> Any:
    """log2 t of lanes of positive normal doubles; NaN for NaN.

    t = m 2^k with √½ <= m < √2, log2 m = 2/ln 2 · artanh z with z = (m - 1)/(m + 1), whose series is cut where
    z² <= 0.0295 makes the rest 1e-17.
    """
    integer = ir.VectorType(ir.IntType(64), lanes.count)

    def constant(number):
        return ir.Constant(lanes.vector, [number] * lanes.count)

    def whole(number):
        return ir.Constant(integer, [number] * lanes.count)

    bits = builder.bitcast(t, integer)
    k = builder.sitofp(builder.sub(builder.lshr(bits, whole(52)), whole(1023)), lanes.vector)
    fraction = builder.or_(builder.and_(bits, whole((1 << 52) - 1)), whole(1023 << 52))
    m = builder.bitcast(fraction, lanes.vector)
    above = builder.fcmp_ordered(">", m, constant(1.4142135623730951))
    m = builder.select(above, builder.fmul(m, constant(0.5)), m)
    k = builder.select(above, builder.fadd(k, constant(1.0)), k)
    z = builder.fdiv(builder.fsub(m, constant(1.0)), builder.fadd(m, constant(1.0)))
    w, p = builder.fmul(z, z), constant(1.0 / 21.0)
    for odd in range(19, 0, -2):
        p = builder.fadd(builder.fmul(p, w, flags=("contract",)), constant(1.0 / odd), flags=("contract",))
    series = builder.fmul(builder.fmul(z, p), constant(2.8853900817779268))
    valid = builder.fcmp_ordered(">", t, constant(0.0))
    nan = builder.fadd(t, constant(float("nan")))
    return builder.select(valid, builder.fadd(series, k), nan)


@intrinsic
def log2(typing, t):
    """log2 t of lanes of positive normal doubles; NaN for NaN."""

    def generate(context, builder, signature, arguments):
        return _log2_of(builder, t, arguments[0])

    return t(t), generate


@intrinsic
def root_rows(typing, squares):
    """√squares."""
    lanes = squares.lanes

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(lanes.vector, [lanes.vector])
        root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.{lanes.suffix}")
        return _packed(builder, lanes, lambda q: builder.call(root, [builder.extract_value(arguments[0], q)]))

    return squares(squares), generate


@intrinsic
def power_rows(typing, squares, exponent):
    """squares^exponent of doubles; 0 for what is below the smallest normal number."""
    lanes = squares.lanes

    def generate(context, builder, signature, arguments):
        least = ir.Constant(lanes.vector, [2.0**-1022] * lanes.count)
        zero = ir.Constant(lanes.vector, [0.0] * lanes.count)
        by = splat(builder, lanes, arguments[1])

        def power(q):
            t = builder.extract_value(arguments[0], q)
            small = builder.fcmp_ordered("<", t, least)
            found = _exp2_of(builder, lanes, builder.fmul(by, _log2_of(builder, lanes, t)))
            return builder.select(small, zero, found)

        return _packed(builder, lanes, power)

    return squares(squares, types.float64), generate
