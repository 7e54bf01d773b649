"""The squared Bures distance of every pair of covariance structures, by the cheapest way that the two allow.

One table, `PAIRS`, decides: it names a rule for a pair of types, and a rule gives the value (NumPy and PyTorch) and the
gradient (NumPy; PyTorch differentiates the value). A pair that is not in the table takes the rule of its nearest
ancestors, at last the dense one. The rules:

- covariances that commute because of their structure are compared by their spectra, Σ(√a - √b)²;
- a narrow factor and another factor, a structure, or a matrix are compared by singular values (`procrustes`);
- Kronecker products of equal shapes factorise;
- the rest are formed and compared as matrices.

A new covariance is a subclass of `Covariance` and, where forming it is not the best, ``register(New, Other, rule)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core import backend
from .._core.backend import Array
from ..covariance import Circulant, Covariance, Dense, Diagonal, Factor, Isotropic, Kronecker
from ..covariance.base import unchecked
from ..covariance.kronecker import scaled
from .bures import bures_squared as _bures_of_dense
from .procrustes import bures_squared_from_root_and, bures_squared_from_root_and_cov, bures_squared_from_roots
from .size import refuse_overflow

# One gradient for each parameter, before the sum over the batch that shares it.
Grads = tuple[Array, ...]


class PairRule(NamedTuple):
    """How two covariances are compared; ``applies`` says whether it can do so for these two."""

    value: Callable[[Any, Any], Array]
    value_and_grad: Callable[[Any, Any], tuple[Array, Grads, Grads]]
    applies: Callable[[Any, Any], bool] = lambda x, y: True

    def mirrored(self) -> PairRule:
        """The same rule for (y, x)."""

        def value_and_grad(y: Any, x: Any) -> tuple[Array, Grads, Grads]:
            value, grad_x, grad_y = self.value_and_grad(x, y)
            return value, grad_y, grad_x

        return PairRule(lambda y, x: self.value(x, y), value_and_grad, lambda y, x: self.applies(x, y))


PAIRS: dict[tuple[type, type], PairRule] = {}


def register(kind_x: type, kind_y: type, rule: PairRule) -> None:
    """Have ``rule`` compare two types, in either order."""
    PAIRS[kind_y, kind_x] = rule.mirrored()
    PAIRS[kind_x, kind_y] = rule


def bures_squared(x: Covariance, y: Covariance) -> Array:
    """tr x + tr y - 2 tr (x^½ y x^½)^½ by the cheapest way that the two structures allow."""
    with backend.silent_overflow(next(iter(x.parameters("").values()))):
        x, y = _wide_factors_multiplied_out(x, y)
        value = _rule(x, y).value(x, y)
    refuse_overflow(value)
    return value


def bures_squared_and_grad(x: Covariance, y: Covariance, batch: tuple[int, ...]) -> tuple[Array, tuple[Any, Any]]:
    """`bures_squared`, broadcast to ``batch``, with its gradient in the parameters of both; NumPy only."""
    with np.errstate(over="ignore", invalid="ignore"):
        value, *grads = _value_and_grad(x, y)
    refuse_overflow(value)
    summed = []
    for c, own in ((x, grads[0]), (y, grads[1])):
        parameters = zip(own, c.parameters("").values(), c.core_ndims, strict=True)
        each = [
            backend.sum_to(np.broadcast_to(g, (*batch, *np.shape(p)[np.ndim(p) - core :])), np.shape(p))
            for g, p, core in parameters
        ]
        summed.append(c.per_argument(each))
    return np.broadcast_to(value, batch), (summed[0], summed[1])


def _rule(x: Covariance, y: Covariance) -> PairRule:
    """The rule of the two types, or of the nearest ancestors that have one for these two."""
    for kind_x in type(x).__mro__:
        for kind_y in type(y).__mro__:
            rule = PAIRS.get((kind_x, kind_y))
            if rule is not None and rule.applies(x, y):
                return rule
    raise AssertionError("the dense rule applies to everything")


def _value_and_grad(x: Covariance, y: Covariance) -> tuple[Array, Grads, Grads]:
    a, b = _wide_factors_multiplied_out(x, y)
    value, grad_x, grad_y = _rule(a, b).value_and_grad(a, b)
    if a is not x:
        grad_x = x.gradient(grad_x[0])
    if b is not y:
        grad_y = y.gradient(grad_y[0])
    return value, grad_x, grad_y


def _wide_factors_multiplied_out(*covariances: Covariance) -> list[Covariance]:
    """A factor with more columns than rows has fewer numbers as a matrix."""
    return [Dense(c.to_dense()) if isinstance(c, Factor) and c.r > c.d else c for c in covariances]


# The dense rule.


def _dense_value(x: Covariance, y: Covariance) -> Array:
    return _bures_of_dense(x.to_dense(), y.to_dense(), precision=coarser_precision(x, y))


def _dense_value_and_grad(x: Covariance, y: Covariance) -> tuple[Array, Grads, Grads]:
    value, grads = _kernel(_bures_of_dense, x.to_dense(), y.to_dense(), precision=coarser_precision(x, y))
    return value, x.gradient(grads[0]), y.gradient(grads[1])


def coarser_precision(*covariances: Covariance) -> float:
    """The coarsest precision in which a matrix among them came, 0 for that of its dtype."""
    return max(c.precision if isinstance(c, Dense) else 0.0 for c in covariances)


def _kernel(operator: Any, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
    """An operator's value and gradients, not yet summed over what a batch shares."""
    found: tuple[Array, tuple[Array, ...]] = operator.kernel(
        *operator.broadcast(arrays), needs_input_grad=(True,) * len(arrays), **options
    )
    return found


# Covariances that share an eigenbasis: Σ m (√a - √b)², with the eigenvalues' multiplicity m.


class _Spectra(NamedTuple):
    """Eigenvalues (..., k) on the same k axes, how often each counts, and k."""

    x: Array
    y: Array
    multiplicity: Any = 1.0
    axes: int = 1


def _coordinate_spectra(x: Diagonal | Isotropic, y: Diagonal | Isotropic) -> _Spectra:
    a, b = (c.variance[..., None] if isinstance(c, Isotropic) else c.variance for c in (x, y))
    both = isinstance(x, Isotropic) and isinstance(y, Isotropic)
    return _Spectra(a, b, float(x.d) if both else 1.0)


def _fourier_spectra(x: Circulant, y: Circulant | Isotropic) -> _Spectra:
    axes = len(x.grid)
    other = y.variance[(..., *(None,) * axes)] if isinstance(y, Isotropic) else y.spectrum
    return _Spectra(x.spectrum, other, x.multiplicity, axes)


def _spectra_value(spectra: _Spectra) -> Array:
    squares = (backend.root(spectra.x) - backend.root(spectra.y)) ** 2
    return (squares * spectra.multiplicity).sum(tuple(range(-spectra.axes, 0)))


def _spectra_grad(c: Covariance, own: Array, other: Array, spectra: _Spectra) -> Grads:
    """∂/∂a Σ m (√a - √b)² = m (1 - √(b/a)), and 0 where a is 0."""
    root, present = np.sqrt(own), own > 0
    slope = np.where(present, 1 - np.sqrt(other) / np.where(present, root, 1), 0) * spectra.multiplicity
    return (slope.sum(tuple(range(-spectra.axes, 0))) if isinstance(c, Isotropic) else slope,)


def commuting(spectra: Callable[[Any, Any], Any], applies: Callable[[Any, Any], bool] = lambda x, y: True) -> PairRule:
    """The rule of two structures whose common eigenvalues ``spectra`` gives."""

    def value_and_grad(x: Covariance, y: Covariance) -> tuple[Array, Grads, Grads]:
        found = spectra(x, y)
        grad_x, grad_y = _spectra_grad(x, found.x, found.y, found), _spectra_grad(y, found.y, found.x, found)
        return _spectra_value(found), grad_x, grad_y

    return PairRule(lambda x, y: _spectra_value(spectra(x, y)), value_and_grad, applies)


# Factors with at most d columns.


def _roots_value_and_grad(x: Factor, y: Factor) -> tuple[Array, Grads, Grads]:
    value, (grad_x, grad_y) = _kernel(bures_squared_from_roots, x.root, y.root)
    return value, (grad_x,), (grad_y,)


def _root_and_cov_value_and_grad(x: Factor, y: Covariance) -> tuple[Array, Grads, Grads]:
    precision = coarser_precision(y)
    value, (grad_x, grad_y) = _kernel(bures_squared_from_root_and_cov, x.root, y.to_dense(), precision=precision)
    return value, (grad_x,), y.gradient(grad_y)


def _root_and_structure(y: Covariance) -> Any:
    return bures_squared_from_root_and(y.structure, y.core_ndims)


def _root_and_structure_value(x: Factor, y: Covariance) -> Array:
    return _root_and_structure(y)(x.root, *y.parameters("").values())


def _root_and_structure_value_and_grad(x: Factor, y: Covariance) -> tuple[Array, Grads, Grads]:
    value, (grad_x, *grads_y) = _kernel(_root_and_structure(y), x.root, *y.parameters("").values())
    return value, (grad_x,), tuple(grads_y)


# Kronecker products: with L and R the distances of the left and of the right parts, and the traces a, b and c, e,
# B² = ((a - b)(c - e) + (a + b) R + (c + e) L - L R) / 2: near equality no digits are lost but those of the difference.


def _kronecker_value(x: Kronecker, y: Kronecker) -> Array:
    left, right = bures_squared(x.left, y.left), bures_squared(x.right, y.right)
    a, b, c, e = x.left.trace(), y.left.trace(), x.right.trace(), y.right.trace()
    return ((a - b) * (c - e) + (a + b) * right + (c + e) * left - left * right) / 2


def _kronecker_value_and_grad(x: Kronecker, y: Kronecker) -> tuple[Array, Grads, Grads]:
    left, left_x, left_y = _value_and_grad(x.left, y.left)
    right, right_x, right_y = _value_and_grad(x.right, y.right)
    a, b, c, e = x.left.trace(), y.left.trace(), x.right.trace(), y.right.trace()
    value = ((a - b) * (c - e) + (a + b) * right + (c + e) * left - left * right) / 2
    d_left, d_right = (c + e - right) / 2, (a + b - left) / 2
    grad_x = _combined(x.left, c - e + right, d_left, left_x) + _combined(x.right, a - b + left, d_right, right_x)
    grad_y = _combined(y.left, e - c + right, d_left, left_y) + _combined(y.right, b - a + left, d_right, right_y)
    return value, grad_x, grad_y


def _combined(c: Covariance, twice_by_trace: Array, by_distance: Array, grads: Grads) -> Grads:
    """The chain rule through one part's trace and distance."""
    through_trace = scaled(twice_by_trace / 2, c.trace_gradient(), c.core_ndims)
    through_distance = scaled(by_distance, grads, c.core_ndims)
    return tuple(a + b for a, b in zip(through_trace, through_distance, strict=True))


def _isotropic_as_product(x: Isotropic, like: Kronecker) -> Kronecker:
    one = backend.namespace(x.variance).ones_like(x.variance)
    left, right = (unchecked(Isotropic, v, d=c.d) for v, c in ((x.variance, like.left), (one, like.right)))
    return Kronecker.of(left, right)


def _isotropic_and_kronecker_value_and_grad(x: Isotropic, y: Kronecker) -> tuple[Array, Grads, Grads]:
    value, (grad_x, _), grad_y = _kronecker_value_and_grad(_isotropic_as_product(x, y), y)
    return value, (grad_x,), grad_y


FACTORS = PairRule(lambda x, y: bures_squared_from_roots(x.root, y.root), _roots_value_and_grad)
FACTOR_AND_MATRIX = PairRule(
    lambda x, y: bures_squared_from_root_and_cov(x.root, y.to_dense(), precision=coarser_precision(y)),
    _root_and_cov_value_and_grad,
)
FACTOR_AND_STRUCTURE = PairRule(_root_and_structure_value, _root_and_structure_value_and_grad, lambda x, y: x.r < x.d)

# The table, from the general to the special: the first entry of a pair's types is tried first.
register(Covariance, Covariance, PairRule(_dense_value, _dense_value_and_grad))
for _kind in (Dense, Diagonal, Isotropic, Circulant, Kronecker):
    register(Factor, _kind, FACTOR_AND_MATRIX if _kind is Dense else FACTOR_AND_STRUCTURE)
register(Factor, Covariance, FACTOR_AND_MATRIX)
register(Factor, Factor, FACTORS)
for _one, _two in ((Isotropic, Isotropic), (Isotropic, Diagonal), (Diagonal, Diagonal)):
    register(_one, _two, commuting(_coordinate_spectra))
register(Circulant, Isotropic, commuting(_fourier_spectra))
register(Circulant, Circulant, commuting(_fourier_spectra, lambda x, y: x.grid == y.grid))
register(
    Kronecker,
    Kronecker,
    PairRule(
        _kronecker_value,
        _kronecker_value_and_grad,
        lambda x, y: (x.left.d, x.right.d) == (y.left.d, y.right.d),
    ),
)
register(
    Isotropic,
    Kronecker,
    PairRule(
        lambda x, y: _kronecker_value(_isotropic_as_product(x, y), y),
        _isotropic_and_kronecker_value_and_grad,
    ),
)
