"""The squared Bures distance from factors: X = R Rᵀ and Y = S Sᵀ, or Y itself.

``B²(R Rᵀ, S Sᵀ) = |R|² + |S|² - 2 ‖SᵀR‖_* = min over orthogonal Q of |R - S Q|²``

With SᵀR = U Σ Vᵀ the minimum is at Q = U Vᵀ, and the gradients are 2(R - S Q) and 2(S - R Qᵀ): bounded, whatever the
rank. Low-rank factors (d, r) cost O(d r²): no d x d matrix is formed.

Reference: Masarotto, Panaretos & Zemel (2019), "Procrustes metrics on covariance operators and optimal transportation
of Gaussian processes", arXiv:1801.01990.
"""

from __future__ import annotations

from .._core import backend
from .._core.backend import Array
from .._core.operator import Operator
from .factor import factor

Grads = tuple[Array | None, ...]
# The share of the traces below which their difference has lost three digits, and the residual is summed instead.
_CANCELLED = 1e-3


def _from_roots(root_x: Array, root_y: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, Grads]:
    """B² of two factors (..., d, r) and (..., d, s), with r, s <= d."""
    xp, dtype = backend.namespace(root_x), root_x.dtype
    r, s = (backend.astype(z, xp.float64) for z in (root_x, root_y))
    total = _energy(r) + _energy(s)
    cross = s.mT @ r
    if not any(needs_input_grad):
        value = total - 2 * backend.singular_values(cross).sum(-1)
        if bool((value >= _CANCELLED * total).all()):
            return backend.astype(value, dtype), (None, None)
    u, _, vt = xp.linalg.svd(cross, full_matrices=False)
    towards_x, towards_y = r - s @ (u @ vt), s - r @ (u @ vt).mT
    # |R - SQ|² leaves out what S has outside the range of Q, where R has fewer columns; and the other way round.
    rest = _energy(s - (s @ u) @ u.mT) + _energy(r - (r @ vt.mT) @ vt)
    value = _energy((r @ vt.mT) - (s @ u)) + rest
    grads = (2 * towards_x if needs_input_grad[0] else None, 2 * towards_y if needs_input_grad[1] else None)
    return backend.astype(value, dtype), tuple(None if g is None else backend.astype(g, dtype) for g in grads)


def _second(root_x: Array, root_y: Array, *, cotangents: tuple[Array, Array]) -> tuple[Array, Array]:
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
    turn = -2 * u @ (inner - inner.mT) @ vt
    grad_x, grad_y = 2 * g - 2 * h @ q + s @ turn, 2 * h - 2 * g @ q.mT + r @ turn.mT
    return backend.astype(grad_x, dtype), backend.astype(grad_y, dtype)


def _from_root_and_cov(root_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, Grads]:
    """B² of R Rᵀ, with R (..., d, r), and a dense Y (..., d, d)."""
    xp, dtype = backend.namespace(root_x), root_x.dtype
    r, y = backend.astype(root_x, xp.float64), backend.astype(backend.without_repeats(cov_y, 2), xp.float64)
    s = factor("cov_y", y, float(backend.epsilon(cov_y))).root
    value, (grad_x, _) = _from_roots(
        r, backend.broadcast_to(s, (*r.shape[:-2], *s.shape[-2:])), needs_input_grad=(needs_input_grad[0], False)
    )
    grad_y = None
    if needs_input_grad[1]:
        _, sigma, vt = xp.linalg.svd(s.mT @ r, full_matrices=False)
        present = sigma > backend.epsilon(sigma) * y.shape[-1] * sigma[..., :1]
        weight = xp.where(present, xp.where(present, sigma, xp.ones_like(sigma)) ** -0.5, xp.zeros_like(sigma))
        half = r @ (vt.mT * weight[..., None, :])
        grad_y = xp.eye(y.shape[-1], dtype=y.dtype, device=y.device) - half @ half.mT
    return backend.astype(value, dtype), tuple(
        None if g is None else backend.astype(g, dtype) for g in (grad_x, grad_y)
    )


def _nuclear(matrix: Array, *, needs_input_grad: tuple[bool, ...]) -> tuple[Array, Grads]:
    """The sum of the singular values; its gradient is U Vᵀ, without the directions that are not there."""
    xp, dtype = backend.namespace(matrix), matrix.dtype
    k = backend.astype(matrix, xp.float64)
    if not needs_input_grad[0]:
        return backend.astype(backend.singular_values(k).sum(-1), dtype), (None,)
    u, sigma, vt = xp.linalg.svd(k, full_matrices=False)
    present = sigma > backend.epsilon(sigma) * max(k.shape[-2:]) * sigma[..., :1]
    grad = (u * backend.astype(present, u.dtype)[..., None, :]) @ vt
    return backend.astype(sigma.sum(-1), dtype), (backend.astype(grad, dtype),)


def _energy(x: Array) -> Array:
    return (x * x).sum((-2, -1))


bures_squared_from_roots = Operator(
    "bures_squared_from_roots", _from_roots, core_ndims=(2, 2), second_derivative=_second
)
bures_squared_from_root_and_cov = Operator("bures_squared_from_root_and_cov", _from_root_and_cov, core_ndims=(2, 2))
nuclear_norm = Operator("nuclear_norm", _nuclear, core_ndims=(2,))
