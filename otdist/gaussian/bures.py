"""The squared Bures distance between covariances, with first and second derivatives.

``B²(X, Y) = tr X + tr Y - 2 tr (X^½ Y X^½)^½``

With factors X = R Rᵀ and Y = S Sᵀ, and K = SᵀR = U Σ Vᵀ, there are three ways to it:

1. tr (X^½ Y X^½)^½ = Σ √λ(Rᵀ Y R): the fastest, but it loses digits of small eigenvalues, and cancels when X ≈ Y;
2. tr (X^½ Y X^½)^½ = the sum of the singular values of K: keeps the digits, still cancels;
3. ‖R - S Q‖² with Q = U Vᵀ (Procrustes): never negative, and exact when X ≈ Y.

All of it runs in float64. On a CPU, pairs of up to 256 coordinates take the second way: one by one
(`bures_single`) or, up to 5 coordinates, or 14 if there are many pairs, side by side by Jacobi rotations
(`bures_small`), which also take the third where X ≈ Y. Large pairs go through LAPACK, one by one
(`bures_large`): they take the first, and an estimate of its error sends the doubtful ones on to the third,
which needs no singular values there, for the value depends on the square of Q's error only. Singular covariances, and
GPUs, take the stacked code below.

The gradient is I - T in X and I - T⁻¹ in Y, with T the transport map, T X T = Y; T = S U Σ⁻¹ Uᵀ Sᵀ.

References: Bhatia, Jain & Lim (2019), "On the Bures–Wasserstein distance between positive definite matrices",
arXiv:1712.01504; Takatsu (2011), "Wasserstein geometry of Gaussian measures", for singular covariances.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, checks
from .._core.backend import Array
from .._core.operator import Operator

# A relative error of the value above which another way is taken. Users are promised 1e-12 while both conditions are
# below 1e4; K's is at most their geometric mean. Beyond, they are promised 1e-9.
_DOUBTFUL, _DOUBTFUL_ILL = 5e-13, 5e-10
_ILL = 1e-4
# From how many pairs on a batch fills the lanes, and how it is split over threads: evenly, but a chunk should take
# .1 ms, and a pair takes some 1.6 d³ ns, or half of that if it is large.
_BATCH, _CHUNKS, _CHUNK_WORK = 8, 8, 60_000
# The share of the traces below which subtracting them has cost too many digits.
_CANCELLED = 1e-3
# The ratio of singular values down to which Σ as the root of Σ² still has ten digits.
_SPREAD = 1e-3


class _Factor(NamedTuple):
    """cov = root rootᵀ; where a covariance is singular, also its eigenvectors, those of range zeroed."""

    root: Array
    null: Array | None = None


def _kernel(
    cov_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, tuple[Array | None, ...]]:
    """B² (...) and its gradients (..., d, d); the contract is `Operator`'s."""
    batch, dtype = cov_x.shape[:-2], cov_x.dtype
    value, grads = _solve(_flat(cov_x, 2), _flat(cov_y, 2), needs_input_grad, float(backend.epsilon(cov_x)))
    return _unflat(value, batch, dtype), tuple(None if g is None else _unflat(g, batch, dtype) for g in grads)


def _solve(
    x: Array, y: Array, needs_input_grad: tuple[bool, ...], eps: float = 2.0**-52
) -> tuple[Array, list[Array | None]]:
    """The values (n,) and gradients (n, d, d); `eps` is the precision that the covariances came in."""
    if backend.is_torch(x):
        return _solve_finite_or_not(x, y, needs_input_grad, eps)
    n, d = max(len(x), len(y)) if len(x) and len(y) else 0, x.shape[-1]
    value = np.empty(n)
    # One block: glibc keeps twice its size at hand, so that the pages are not taken from the system each time anew.
    block = iter(np.empty((sum(needs_input_grad), n, d, d)))
    grads: list[Array | None] = [next(block) if need else None for need in needs_input_grad]
    for i in _solve_compiled(x, y, value, grads):
        pair = x[i % len(x)], y[i % len(y)]
        finite = np.isfinite(pair[0].sum() + pair[1].sum())  # LAPACK refuses NaN
        found = _solve_pair(*pair, needs_input_grad) if finite else None
        if found is None:
            stacked, slopes = _solve_finite_or_not(pair[0][None], pair[1][None], needs_input_grad, eps)
            found = stacked[0], [None if g is None else g[0] for g in slopes]
        value[i] = found[0]
        for all_of_them, its in zip(grads, found[1], strict=True):
            if all_of_them is not None:
                all_of_them[i] = its
    return value, grads


def _solve_compiled(x: Array, y: Array, value: Array, grads: list[Array | None]) -> Sequence[int]:
    """Fill in the answers of pairs that are not too large; return which are left."""
    _, bures_small, bures_single, _ = _kernels()
    n, d = len(value), x.shape[-1]
    left: Sequence[int] = range(n)
    slopes = [np.empty((0, d, d)) if g is None else g for g in grads]
    if (bures_small.FIRST_BATCHED if n >= _BATCH else bures_small.FIRST_SINGLE) < d <= bures_single.LARGEST:
        left = _run(bures_single.solve, 1, left, x, y, value, *slopes)
    if len(left) and d <= (bures_small.LARGEST_BATCHED if len(left) >= _BATCH else bures_small.LARGEST_SINGLE):
        left = _run(bures_small.solve, bures_small.LANES, left, x, y, value, *slopes)
    return left


def _run(solve: Any, lanes: int, chosen: Sequence[int], x: Array, y: Array, *answers: Array) -> Sequence[int]:
    """Have a compiled loop fill in the answers of the chosen pairs, split over threads; return which are left."""
    n, d = len(chosen), x.shape[-1]
    everything = n == len(answers[0])
    if everything:
        own = answers
    else:
        x, y = (c if len(c) == 1 else c[chosen] for c in (x, y))
        own = tuple(np.empty((n, *a.shape[1:])) if len(a) else a for a in answers)
    status = np.empty(n, np.int8)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    step = max(-(-n // _CHUNKS), 1 + _CHUNK_WORK // d**3)
    step += -step % lanes
    if step >= n:
        solve(x, y, 0, n, *own, status)
    else:
        _kernels()[0].map(lambda i: solve(x, y, i, min(i + step, n), *own, status), range(0, n, step))
    if not everything:
        for a, its in zip(answers, own, strict=True):
            if len(a):
                a[chosen] = its
    return np.asarray(chosen)[status != 0] if status.any() else ()


def _solve_pair(x: Array, y: Array, needs_input_grad: tuple[bool, ...]) -> tuple[Any, list[Array | None]] | None:
    """One pair (d, d) on the CPU; None if one of the two is not positive definite."""
    bures_large = _kernels()[-1]
    gram = bures_large.gram(x, y)
    if gram is None:
        return None
    exactly, traces = any(needs_input_grad), x.trace() + y.trace()
    if exactly or _nearly_equal(x, y, traces):
        spectrum = bures_large.eigenvectors(gram.matrix)
    else:
        spectrum = bures_large.eigenvalues(gram.matrix)
    sigma = np.sqrt(np.maximum(spectrum[0], 0.0))
    value = traces - 2 * sigma.sum()
    if _is_good(value, traces, sigma) and not (exactly and sigma[0] <= _SPREAD * sigma[-1]):
        return value, bures_large.slopes(gram.root, sigma, spectrum[1], needs_input_grad) if exactly else [None, None]
    if not spectrum[1].size:
        spectrum = bures_large.eigenvectors(gram.matrix)
    solution = bures_large.procrustes(gram.root, y, spectrum, exactly)
    if solution is None or (exactly and not bures_large.invertible(solution)):
        return None
    value = np.einsum("ij,ij->", solution.residual, solution.residual)
    return value, bures_large.procrustes_slopes(solution, needs_input_grad)


@cache
def _kernels() -> tuple[Any, Any, Any, Any]:
    """Loaded at first use, because numba and SciPy take time, and once: an import statement costs 30 µs each time."""
    from .._core import threads
    from . import bures_large, bures_single, bures_small

    return threads, bures_small, bures_single, bures_large


def _nearly_equal(x: Array, y: Array, traces: Array) -> bool:
    """Whether the traces will surely cancel: B² is at most the nuclear norm of X - Y, hence √d |X - Y|."""
    bound = _CANCELLED * traces
    if np.abs(x.diagonal() - y.diagonal()).sum() > bound:
        return False
    return bool(np.linalg.norm(x - y) * len(x) ** 0.5 < bound)


def _is_good(value: Array, traces: Array, sigma: Array) -> Array:
    """Whether tr X + tr Y - 2 Σσ, with σ (..., d) the ascending roots of eigenvalues, has the promised digits.

    An eigenvalue is off by up to 2 eps times the Frobenius norm √Σσ⁴ (this much was seen over a wide range of spectra
    and sizes), its root by that over 2σ; their signs are independent. Roots near √eps of the largest are rounding.
    """
    xp = backend.namespace(sigma)
    largest, eps = sigma[..., -1], backend.epsilon(sigma)
    relative = sigma / xp.where(largest > 0, largest, xp.ones_like(largest))[..., None]
    known = relative[..., 0] > 10 * eps**0.5
    inverse = 1 / xp.where(known[..., None], relative, xp.ones_like(relative))
    error = 2 * eps * largest * xp.sqrt((relative**4).sum(-1) * (inverse**2).sum(-1))
    bound = xp.where(relative[..., 0] > _ILL, _DOUBTFUL, _DOUBTFUL_ILL)
    return known & (error <= bound * value) & (value >= _CANCELLED * traces)


def _solve_finite_or_not(
    x: Array, y: Array, needs_input_grad: tuple[bool, ...], eps: float
) -> tuple[Array, list[Array | None]]:
    """`_solve_stack`, with NaN for an answer where there is NaN or infinity."""
    xp = backend.namespace(x)
    broken = ~xp.isfinite(x.sum((-2, -1)) + y.sum((-2, -1)))
    if not bool(broken.any()):
        return _solve_stack(x, y, needs_input_grad, eps)
    # LAPACK refuses NaN: let a harmless problem stand in.
    nan = xp.where(broken, xp.nan, 0.0)[..., None, None]
    harmless = xp.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    x, y = (xp.where(xp.isnan(nan), harmless, c) for c in (x, y))
    value, grads = _solve_stack(x, y, needs_input_grad, eps)
    return value + nan[..., 0, 0], [None if g is None else g + nan for g in grads]


def _solve_stack(
    x: Array, y: Array, needs_input_grad: tuple[bool, ...], eps: float
) -> tuple[Array, list[Array | None]]:
    """`_solve` for whole stacks, whatever their library and rank."""
    x_factor, y_factor = _factor("cov_x", x, eps), _factor("cov_y", y, eps)
    value, grads, doubtful = _by_eigenvalues(x, y, x_factor, needs_input_grad)
    if bool(doubtful.any()):
        n = len(value)
        chosen_x, chosen_y = _pick(x_factor, doubtful, n), _pick(y_factor, doubtful, n)
        value[doubtful], refined = _by_singular_values(chosen_x, chosen_y, needs_input_grad)
        for g, r in zip(grads, refined, strict=True):
            if g is not None:
                g[doubtful] = r
    return value, grads


def _by_eigenvalues(
    x: Array, y: Array, x_factor: _Factor, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, list[Array | None], Array]:
    """Way 1, for all problems; and which of them it did not solve well enough."""
    xp, root = backend.namespace(x), x_factor.root
    gram = root.mT @ y @ root
    traces = _trace(x) + _trace(y)
    grads: list[Array | None] = [None, None]
    if any(needs_input_grad):
        squares, vectors = xp.linalg.eigh(gram)
    else:
        squares = xp.linalg.eigvalsh(gram)
    sigma = xp.sqrt(xp.clip(squares, 0, None))
    value = traces - 2 * sigma.sum(-1)
    good, largest = _is_good(value, traces, sigma), sigma[..., -1]
    if any(needs_input_grad):
        # T = R⁻ᵀ V Σ Vᵀ R⁻¹ and T⁻¹ = R V Σ⁻¹ Vᵀ Rᵀ
        regular = (sigma[..., 0] > _SPREAD * largest) & (x_factor.null is None)
        good = good & regular
        safe = xp.where(regular[..., None], sigma, xp.ones_like(sigma))[..., None, :]
        identity = xp.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        if needs_input_grad[0]:
            half = backend.solve_lower_transposed(root, vectors * safe**0.5) if x_factor.null is None else vectors
            grads[0] = identity - half @ half.mT
        if needs_input_grad[1]:
            half = root @ (vectors * safe**-0.5)
            grads[1] = identity - half @ half.mT
    return value, grads, ~good


def _by_singular_values(
    x_factor: _Factor, y_factor: _Factor, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, list[Array | None]]:
    """Ways 2 and 3, which work for singular covariances too."""
    xp, rx, ry = backend.namespace(x_factor.root), x_factor.root, y_factor.root
    u, sigma, vt = xp.linalg.svd(ry.mT @ rx, full_matrices=False)
    traces = (rx * rx).sum((-2, -1)) + (ry * ry).sum((-2, -1))
    value = traces - 2 * sigma.sum(-1)
    residual = rx - ry @ (u @ vt)
    value = xp.where(value > 0.5 * traces, value, (residual * residual).sum((-2, -1)))
    grads: list[Array | None] = [None, None]
    # Directions that one of the two does not have are left where they are: the minimal-norm choice of T.
    tolerance = backend.epsilon(sigma) * sigma.shape[-1] * sigma[..., :1]
    present = sigma > tolerance
    weight = xp.where(present, xp.where(present, sigma, xp.ones_like(sigma)) ** -0.5, xp.zeros_like(sigma))[
        ..., None, :
    ]
    for i, (own, half) in enumerate(((x_factor, ry @ (u * weight)), (y_factor, rx @ (vt.mT * weight)))):
        if needs_input_grad[i]:
            grads[i] = _minimal(xp.eye(rx.shape[-1], dtype=rx.dtype, device=rx.device) - half @ half.mT, own.null)
    return value, grads


def _minimal(grad: Array, null: Array | None) -> Array:
    """The subgradient of least norm at a singular covariance.

    Where a covariance has no mass, it can only gain some: on its null space the subgradients are everything below the
    one-sided derivative, and the smallest of them is its negative part.
    """
    if null is None:
        return grad
    xp = backend.namespace(grad)
    eigenvalues, vectors = xp.linalg.eigh(null.mT @ grad @ null)
    basis = null @ (vectors * xp.sqrt(xp.clip(eigenvalues, 0, None))[..., None, :])
    return grad - basis @ basis.mT


def _second(cov_x: Array, cov_y: Array, *, cotangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """The gradient of ⟨G, I - T⟩ + ⟨H, I - T⁻¹⟩ in X and in Y, both positive definite.

    Differentiating T X T = Y gives dT = Φ(dY - T dX T), where with W = R⁻ᵀV the operator
    Φ(Z) = W ((W⁻¹ Z W⁻ᵀ) / (σᵢ + σⱼ)) Wᵀ solves a Sylvester equation; and d(T⁻¹) = -T⁻¹ dT T⁻¹.
    """
    xp, dtype, shape = backend.namespace(cov_x), cov_x.dtype, cov_x.shape
    x, y, g, h = (backend.astype(z, xp.float64) for z in (cov_x, cov_y, *cotangents))
    root = backend.cholesky(x)
    if root is None:
        raise ValueError("second derivatives exist only at positive definite covariances; cov_x is singular")
    squares, vectors = xp.linalg.eigh(root.mT @ y @ root)
    if not bool((squares[..., 0] > backend.epsilon(x) * squares[..., -1]).all()):
        raise ValueError("second derivatives exist only at positive definite covariances; cov_y is singular")
    sigma = xp.sqrt(squares)
    w = backend.solve_lower_transposed(root, vectors)
    inverse = root @ vectors  # W⁻ᵀ
    transport = (w * sigma[..., None, :]) @ w.mT
    back = (inverse / sigma[..., None, :]) @ inverse.mT
    middle = back @ h @ back - g
    solved = (w.mT @ middle @ w) / (sigma[..., :, None] + sigma[..., None, :])
    grad_y = inverse @ solved @ inverse.mT
    grad_y = (grad_y + grad_y.mT) / 2
    grad_x = -transport @ grad_y @ transport
    return backend.astype(grad_x, dtype).reshape(shape), backend.astype(grad_y, dtype).reshape(shape)


def _factor(name: str, cov: Array, eps: float) -> _Factor:
    """Factor covariances (n, d, d): by Cholesky, or by eigenvectors as soon as one of them is singular.

    `eps` is the precision that they came in: so much of the trace, and no more, may be negative.
    """
    root = backend.cholesky(cov)
    if root is not None:
        return _Factor(root)
    xp = backend.namespace(cov)
    eigenvalues, vectors = xp.linalg.eigh(cov)
    if backend.on_cpu(cov):
        checks.semidefinite(name, eigenvalues, eps)
    tolerance = cov.shape[-1] * backend.epsilon(cov) * xp.abs(eigenvalues[..., -1:])
    null = (eigenvalues <= tolerance)[..., None, :]
    zero = xp.zeros_like(vectors)
    scale = xp.sqrt(xp.clip(eigenvalues, 0, None))[..., None, :]
    return _Factor(xp.where(null, zero, vectors * scale), xp.where(null, vectors, zero))


def _flat(cov: Array, core: int) -> Array:
    """(..., d, d) as (n, d, d) in float64, or (1, d, d) if the whole batch shares one."""
    xp, trailing = backend.namespace(cov), cov.shape[cov.ndim - core :]
    if cov.ndim == core:
        return backend.astype(cov[None], xp.float64)
    own = backend.without_repeats(cov, core)
    shared = all(k == 1 for k in own.shape[: own.ndim - core])
    flat = own.reshape(1, *trailing) if shared else cov.reshape(-1, *trailing)
    return backend.astype(flat, xp.float64)


def _unflat(x: Array, batch: tuple[int, ...], dtype: Any) -> Array:
    """Undo `_flat`: one result for a batch that shares everything is everybody's."""
    x, core = backend.astype(x, dtype), tuple(x.shape[1:])
    if not batch:
        return x[0]
    return backend.broadcast_to(x[0], (*batch, *core)) if len(x) == 1 else x.reshape(*batch, *core)


def _pick(factor: _Factor, chosen: Array, n: int) -> _Factor:
    """The factors of the chosen problems among n."""
    return _Factor(*(None if z is None else backend.broadcast_to(z, (n, *z.shape[1:]))[chosen] for z in factor))


def _trace(x: Array) -> Array:
    return backend.namespace(x).diagonal(x, 0, -2, -1).sum(-1)


def _kernel_with_means(
    mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array, *, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, tuple[Array | None, ...]]:
    """|mean_x - mean_y|² + B² (...) and the gradients."""
    bures, (slope_x, slope_y) = _kernel(cov_x, cov_y, needs_input_grad=(needs_input_grad[1], needs_input_grad[3]))
    shift = mean_x - mean_y
    grads = (2 * shift if needs_input_grad[0] else None, slope_x, -2 * shift if needs_input_grad[2] else None, slope_y)
    return (shift * shift).sum(-1) + bures, grads


def _second_with_means(
    mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array, *, cotangents: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Means and covariances do not meet; and what nobody differentiates twice may be singular."""
    turn = 2 * (cotangents[0] - cotangents[2])
    slopes = cotangents[1], cotangents[3]
    if any(bool((g != 0).any()) for g in slopes):
        slopes = _second(cov_x, cov_y, cotangents=slopes)
    return turn, slopes[0], -turn, slopes[1]


bures_squared = Operator("bures_squared", _kernel, core_ndims=(2, 2), second_derivative=_second)
gaussian_squared = Operator(
    "gaussian_squared", _kernel_with_means, core_ndims=(1, 2, 1, 2), second_derivative=_second_with_means
)
