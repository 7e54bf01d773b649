"""The squared Bures distance from factors: X = R Rᵀ and Y = S Sᵀ, or Y itself.

``B²(R Rᵀ, S Sᵀ) = |R|² + |S|² - 2 ‖SᵀR‖_* = min over orthogonal Q of |R - S Q|²``

With SᵀR = U Σ Vᵀ the minimum is at Q = U Vᵀ, and the gradients are 2(R - S Q) and 2(S - R Qᵀ): bounded, whatever the
rank. Low-rank factors (d, r) cost O(d r²): no d x d matrix is formed. The gradient in Y itself is I - W Wᵀ with
W = R V Σ^-½, a matrix as narrow as R: a structured Y takes it up without forming it.

Reference: Masarotto, Panaretos & Zemel (2019), "Procrustes metrics on covariance operators and optimal transportation
of Gaussian processes", arXiv:1801.01990.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from ..covariance.base import Structure, from_structure
from .factor import factor
from .size import refuse_infinite

Grads = tuple[Array | None, ...]
# The share of the traces below which their difference has lost three digits, and the residual is summed instead.
_CANCELLED = 1e-3


def _from_roots(root_x: Array, root_y: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, Grads]:
    """B² of two factors (..., d, r) and (..., d, s), with r, s <= d."""
    xp, dtype = backend.namespace(root_x), root_x.dtype
    r, s = (backend.astype(z, xp.float64) for z in (root_x, root_y))
    with backend.silent_overflow(r):
        total = _squared_norm(r) + _squared_norm(s)
    refuse_infinite(total, dtype)
    cross = s.mT @ r
    if not any(needs_input_grad):
        value = total - 2 * backend.singular_values(cross).sum(-1)
        if bool((value >= _CANCELLED * total).all()):
            return backend.astype(value, dtype), (None, None)
    u, _, vt = xp.linalg.svd(cross, full_matrices=False)
    q, (m, n) = u @ vt, (root_x.shape[-1], root_y.shape[-1])
    residual_x = _residual(r, s, q) if needs_input_grad[0] or m <= n else None
    residual_y = _residual(s, r, q.mT) if needs_input_grad[1] or m > n else None
    # The residual of the narrower factor leaves out what the wider one has outside the range of Q.
    value = _squared_norm(residual_x if m <= n else residual_y)
    if m < n:
        value = value + _squared_norm(_residual(s, s @ u, u.mT))
    elif m > n:
        value = value + _squared_norm(_residual(r, r @ vt.mT, vt))
    grads = (
        _doubled(residual_x) if needs_input_grad[0] else None,
        _doubled(residual_y) if needs_input_grad[1] else None,
    )
    return backend.astype(value, dtype), _cast(grads, dtype)


def _second_derivative(root_x: Array, root_y: Array, *, cotangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """The gradient of ⟨G, 2(R - SQ)⟩ + ⟨H, 2(S - RQᵀ)⟩.

    The polar factor Q = U Vᵀ of K moves by dQ = U ((X - Xᵀ)/(σᵢ + σⱼ)) Vᵀ with X = Uᵀ dK V; K is square and regular.
    """
    xp, dtype = backend.namespace(root_x), root_x.dtype
    r, s, g, h = (backend.astype(z, xp.float64) for z in (root_x, root_y, *cotangents))
    if r.shape[-1] != s.shape[-1]:
        raise ValueError("second derivatives exist only where both factors have the same number of columns")
    u, sigma, vt = xp.linalg.svd(s.mT @ r)
    if not bool((sigma[..., -1] > backend.epsilon(sigma) * sigma[..., 0]).all()):
        raise ValueError("second derivatives exist only at factors of full column rank that overlap")
    q = u @ vt
    inner = (u.mT @ (s.mT @ g + h.mT @ r) @ vt.mT) / (sigma[..., :, None] + sigma[..., None, :])
    cross_gradient = -2 * u @ (inner - inner.mT) @ vt
    grad_x, grad_y = 2 * g - 2 * h @ q + s @ cross_gradient, 2 * h - 2 * g @ q.mT + r @ cross_gradient.mT
    return backend.astype(grad_x, dtype), backend.astype(grad_y, dtype)


def _from_root_and_cov(
    root_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, ...], precision: float = 0.0
) -> tuple[Array, Grads]:
    """B² of R Rᵀ, with R (..., d, r), and a dense Y (..., d, d)."""
    xp, dtype = backend.namespace(root_x), root_x.dtype
    r, y = backend.astype(root_x, xp.float64), backend.astype(backend.without_repeats(cov_y, 2), xp.float64)
    s = factor("cov_y", y, max(float(backend.epsilon(cov_y)), precision)).root
    value, (grad_x, _) = _from_roots(
        r, backend.broadcast_to(s, (*r.shape[:-2], *s.shape[-2:])), needs_input_grad=(needs_input_grad[0], False)
    )
    grad_y = None
    if needs_input_grad[1]:
        _, sigma, vt = xp.linalg.svd(s.mT @ r, full_matrices=False)
        w = _inverse_transport_factor(r, sigma, vt, y.shape[-1])
        grad_y = xp.eye(y.shape[-1], dtype=y.dtype, device=y.device) - w @ w.mT
    return backend.astype(value, dtype), _cast((grad_x, grad_y), dtype)


def _from_root_and_structure(
    root_x: Array, *parameters_y: Array, needs_input_grad: tuple[bool, ...], structure: Structure
) -> tuple[Array, Grads]:
    """B² of R Rᵀ, with R (..., d, r) and r < d, and a structured Y = S Sᵀ that can apply S."""
    xp, dtype = backend.namespace(root_x), root_x.dtype
    r, *parameters = (backend.astype(z, xp.float64) for z in (root_x, *parameters_y))
    y = from_structure(structure, parameters)
    with backend.silent_overflow(r):
        total = _squared_norm(r) + y.trace()
    refuse_infinite(total, dtype)
    cross = y.apply_root_transposed(r)
    if not any(needs_input_grad):
        value = total - 2 * backend.singular_values(cross).sum(-1)
        return backend.astype(value.clip(0, None), dtype), (None,) * len(needs_input_grad)
    u, sigma, vt = xp.linalg.svd(cross, full_matrices=False)
    grad_x = None
    if needs_input_grad[0]:
        grad_x = y.apply_root(u @ vt)
        grad_x -= r
        grad_x *= -2
    grads_y: Grads = (None,) * len(parameters)
    if any(needs_input_grad[1:]):
        w = _inverse_transport_factor(r, sigma, vt, y.d)
        differences = (a - b for a, b in zip(y.trace_gradient(), y.gradient_low_rank(w), strict=True))
        grads_y = y.least_norm(tuple(differences))
    value = (total - 2 * sigma.sum(-1)).clip(0, None)
    needed = tuple(g if need else None for g, need in zip((grad_x, *grads_y), needs_input_grad, strict=True))
    return backend.astype(value, dtype), _cast(needed, dtype)


def _inverse_transport_factor(r: Array, sigma: Array, vt: Array, d: int) -> Array:
    """W = R V Σ^-½ of SᵀR = U Σ Vᵀ: W Wᵀ maps Y back to R Rᵀ. Directions without mass are left where they are."""
    xp = backend.namespace(r)
    present = sigma > backend.epsilon(sigma) * d * sigma[..., :1]
    weight = xp.where(present, xp.where(present, sigma, xp.ones_like(sigma)) ** -0.5, xp.zeros_like(sigma))
    return r @ (vt.mT * weight[..., None, :])


def _residual(x: Array, y: Array, q: Array) -> Array:
    """x - y q, in one new array: taking memory costs as much as these products."""
    out = y @ q
    out *= -1
    out += x
    return out


def _doubled(x: Array) -> Array:
    x *= 2
    return x


def _cast(grads: Grads, dtype: Any) -> Grads:
    return tuple(None if g is None else backend.astype(g, dtype) for g in grads)


def _squared_norm(x: Array) -> Array:
    return backend.namespace(x).einsum("...ij,...ij->...", x, x)


_OPERATORS: dict[tuple[Structure, tuple[int, ...]], Operator] = {}


def bures_squared_from_root_and(structure: Structure, core_ndims: tuple[int, ...]) -> Operator:
    """The operator for a factor and one kind of structure, made at first use.

    Called with (root, *parameters of the structure); ``core_ndims`` are those of the parameters.
    """
    _prepare(structure, core_ndims)
    return _OPERATORS[structure, core_ndims]


def _prepare(structure: Structure, core_ndims: tuple[int, ...]) -> None:
    if (structure, core_ndims) not in _OPERATORS:
        _OPERATORS[structure, core_ndims] = Operator(
            f"bures_squared_from_root_and_{_identifier(structure)}",
            partial(_from_root_and_structure, structure=structure),
            core_ndims=(2, *core_ndims),
        )


# As `torch._dynamo.assume_constant_result` does: a compiler that comes first calls this and does not trace it.
_prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _identifier(structure: Structure) -> str:
    """A structure as part of a name: ``kronecker_diagonal_circulant_4_6``."""
    words = (_identifier(s) if isinstance(s, tuple) else getattr(s, "__name__", str(s)).lower() for s in structure)
    return "_".join(words)


bures_squared_from_roots = Operator(
    "bures_squared_from_roots", _from_roots, core_ndims=(2, 2), second_derivative=_second_derivative
)
bures_squared_from_root_and_cov = Operator(
    "bures_squared_from_root_and_cov", _from_root_and_cov, core_ndims=(2, 2), options="float precision"
)
