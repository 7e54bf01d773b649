"""The squared Bures distance between covariances, with first and second derivatives.

``B²(X, Y) = tr X + tr Y - 2 tr (X^½ Y X^½)^½``

With factors X = R Rᵀ and Y = S Sᵀ, and K = SᵀR = U Σ Vᵀ, there are two ways to it:

1. **By eigenvalues**: tr (X^½ Y X^½)^½ = Σ √λ(Rᵀ Y R), R by Cholesky. The fastest; it loses digits of small
   eigenvalues, it cancels when X ≈ Y, and it needs both to be of full rank.
2. **By singular values**: B² = ‖R - S Q‖² with Q = U Vᵀ (Procrustes). Never negative, exact when X ≈ Y, and at home
   with any rank and any scale.

The first is taken, and a pair for which its result does not have the promised digits goes on to the second. Many small
pairs are solved side by side instead, by the compiled Jacobi rotations of `jacobi`; and tensors that no compiled loop
can read take the second way with Q from products alone, see `polar`, but for pairs with a singular covariance.

The gradients are I - T in X and I - T⁻¹ in Y, with T the transport map, T X T = Y; T = S U Σ⁻¹ Uᵀ Sᵀ.

**At a singular X** (`factor` says which are), with P and N its range and its null space, the distance has a finite
slope ⟨I - T, D⟩ along every direction D but those that give X mass in N where Y has some that T does not bring there:
along them it falls like a square root. The gradient is the matrix of least norm that is below every finite slope. So it
is I - T between P and P, and between P and N; in N it is the negative part of I - T where slopes are finite, and 0
elsewhere. T R = S Q shows that it is bounded: by 1 + √(tr Y / λ), λ the least positive eigenvalue of X, but for that
negative part, which is 0 if Y is of full rank or has X's null space.

References: Bhatia, Jain & Lim (2019), "On the Bures–Wasserstein distance between positive definite matrices",
arXiv:1712.01504; Takatsu (2011), "Wasserstein geometry of Gaussian measures", for singular covariances.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._core import backend, threads
from .._core.backend import Array
from .._core.operator import Operator
from . import jacobi
from .factor import RANK, Factor, factor, least_pivot, trace
from .size import power_of_two, refuse_infinite, squared_distance

Slopes = tuple[Array | None, Array | None]

_EPS = 2.0**-52
# A relative error of the value above which the first way will not do. Users are promised 1e-12 while both conditions
# are below 1e4; K's is at most their geometric mean. Beyond, they are promised 1e-9.
_DOUBTFUL, _DOUBTFUL_ILL, _ILL = 5e-13, 5e-10, 1e-4
# The share of the traces below which subtracting them has cost too many digits.
_CANCELLED = 1e-3
# The ratio of singular values down to which Σ as the root of Σ² still has ten digits.
_SPREAD = 1e-3
# The same after a Newton step on T X T = Y, which large pairs get. T is off by some eps/spread² before it; the step
# squares that and adds the rounding of the residual, eps/spread: (2.2e-6)² + 2.2e-11 here, ten digits again.
_SPREAD_REFINED = 1e-5
# Traces of which fourth powers are normal numbers.
_LEAST, _MOST = 1e-70, 1e70
# Coordinates from which SciPy's LAPACK, which works on triangles, beats NumPy's by more than it takes to import.
_LARGE = 500
# From how many pairs on a batch fills the lanes, and how it is split over threads: evenly, but a chunk should take
# .1 ms, and a pair takes some 1.6 d³ ns.
_BATCH, _CHUNKS, _CHUNK_WORK = 8, 8, 60_000
_LARGEST_BATCHED = 40  # coordinates; beyond, LAPACK is faster


class Spectrum(NamedTuple):
    """X = root rootᵀ, and the ascending eigenvalues (squares) of rootᵀ Y root, with eigenvectors if asked for."""

    root: Array
    squares: Array
    vectors: Array | None
    image: Array | None = None  # Y root


# The first way: by eigenvalues


def _pair_by_eigenvalues(
    x: Array, y: Array, traces: tuple[float, float], eps: float, needs: tuple[bool, bool]
) -> tuple[float, Slopes] | None:
    """B² of one pair of NumPy's and its gradients, or None if they are not good.

    In numbers of Python's: a small pair takes LAPACK 10 µs, and every operation of NumPy's .5 µs.
    """
    with_gradient = needs[0] or needs[1]
    spectrum = _spectrum_of_pair(x, y, with_gradient)
    if spectrum is None:
        return None
    squares = spectrum.squares
    smallest, largest = float(squares[0]), float(squares[-1])
    # The traces bound the norms: only a pair that this leaves in doubt has its norms computed.
    if not (
        smallest > _rounding_of_squares(traces, traces, eps)
        or smallest > _rounding_of_squares(traces, (float(_norm(x)), float(_norm(y))), eps)
    ):
        return None
    roots = np.sqrt(squares)
    inverses, total = 1.0 / roots, traces[0] + traces[1]
    value = total - 2 * float(np.add.reduce(roots))
    error = _error_of_roots(float(squares.dot(squares)), float(inverses.dot(inverses)))
    if not _has_digits(value, total, error, (smallest, largest)):
        return None
    if not with_gradient:
        return value, (None, None)
    if smallest > _SPREAD**2 * largest:
        return value, _slopes(spectrum, needs)
    if spectrum.image is None and smallest > _SPREAD_REFINED**2 * largest:
        return value, _lapack().refined_slopes(x, y, (spectrum.root, squares, spectrum.vectors), needs)
    return None


def _rounding_of_squares(traces: tuple[Any, Any], norms: tuple[Any, Any], eps: float) -> Any:
    """What the least eigenvalue of RᵀYR must be above, lest X or Y be singular.

    It is at most λ |Y| with λ the least eigenvalue of X, and |X| μ with μ that of Y.
    """
    return RANK * eps * (traces[0] * norms[1] + traces[1] * norms[0])


def _error_of_roots(fourth_powers: Any, inverse_squares: Any) -> Any:
    """The error of Σσ from Σσ⁴ and Σσ⁻².

    An eigenvalue σ² is off by up to 2 eps times the Frobenius norm √Σσ⁴ (this much was seen over a wide range of
    spectra and sizes), its root by that over 2σ; their signs are independent.
    """
    return 2 * _EPS * (fourth_powers * inverse_squares) ** 0.5


def _has_digits(value: Any, total: Any, error: Any, extremes: tuple[Any, Any]) -> Any:
    """Whether B² has the promised digits; `total` is the sum of the traces, `extremes` are the least and largest σ²."""
    smallest, largest = extremes
    bound = _DOUBTFUL_ILL - (_DOUBTFUL_ILL - _DOUBTFUL) * (smallest > _ILL**2 * largest)
    return (error <= bound * value) & (value >= _CANCELLED * total)


def _spectrum_of_pair(x: Array, y: Array, with_vectors: bool) -> Spectrum | None:
    if len(x) >= _LARGE:
        found = _lapack().spectrum(x, y, with_vectors)
        return None if found is None else Spectrum(*found)
    try:
        root = np.linalg.cholesky(x)
        image = y.dot(root)
        gram = root.T.dot(image)
        if with_vectors:
            return Spectrum(root, *np.linalg.eigh(gram), image)
        return Spectrum(root, np.linalg.eigvalsh(gram), None)
    except np.linalg.LinAlgError:
        return None


def _norm(x: Array) -> Array:
    """The Frobenius norm of matrices (..., d, d)."""
    return np.vdot(x, x) ** 0.5 if isinstance(x, np.ndarray) else (x * x).sum((-2, -1)) ** 0.5


def _slopes(spectrum: Spectrum, needs: tuple[bool, bool]) -> Slopes:
    """I - Y R V Σ⁻³ Vᵀ Rᵀ Y and I - R V Σ⁻¹ Vᵀ Rᵀ."""
    root, squares, vectors, image = spectrum
    if image is None:
        return _lapack().slopes(root, squares, vectors, needs)
    weight = squares[..., None, :] ** -0.25
    half_x = image @ (vectors * weight**3) if needs[0] else None
    half_y = root @ (vectors * weight) if needs[1] else None
    return _identity_minus(half_x), _identity_minus(half_y)


def _identity_minus(half: Array | None) -> Array | None:
    """I - H Hᵀ."""
    if half is None:
        return None
    identity = backend.namespace(half).eye(half.shape[-1], dtype=half.dtype, device=half.device)
    return identity - half @ half.mT


@cache
def _lapack() -> Any:
    """Loaded at first use, because SciPy's takes time to import, and once: an import statement costs 30 µs."""
    from . import lapack

    return lapack


# The second way: by singular values


@np.errstate(over="ignore")  # a value that is infinite is refused where it is returned
def _by_singular_values(
    x: Array, y: Array, eps: float, needs: tuple[bool, bool], whole: bool = False
) -> tuple[Array, Slopes]:
    """B² (...) and its gradients, whatever the ranks; `whole`: T counts in the whole null space."""
    xp = backend.namespace(x)
    r = factor("cov_x", x, eps, with_inverse=needs[0])
    s = factor("cov_y", y, eps, with_inverse=needs[1])
    u, sigma, vt = xp.linalg.svd(s.root.mT @ r.root)
    size_x, size_y = trace(x), trace(y)
    refuse_infinite(size_x + size_y, x.dtype)
    value = size_x + size_y - 2 * sigma.sum(-1)
    residual = r.root - s.root @ (u @ vt)
    value = xp.where(value > 0.5 * (size_x + size_y), value, (residual * residual).sum((-2, -1)))
    # K is known to eps |R| |S|: directions in which it is less are missing from X or from Y.
    noise = RANK * _EPS * xp.sqrt(xp.clip(size_x, 0, None)) * xp.sqrt(xp.clip(size_y, 0, None))
    present = (sigma > noise[..., None])[..., None, :]
    u, v = xp.where(present, u, 0.0), xp.where(present, vt.mT, 0.0)
    weight = xp.sqrt(xp.where(present[..., 0, :], sigma, 1.0))[..., None, :]
    nothing_x, nothing_y = (xp.full_like(z, xp.inf) if whole else RANK * eps * z for z in (size_x, size_y))
    grad_x = _subgradient(r, s.root, u, v, weight, nothing_y) if needs[0] else None
    grad_y = _subgradient(s, r.root, v, u, weight, nothing_x) if needs[1] else None
    return value, (grad_x, grad_y)


def _subgradient(own: Factor, other: Array, u: Array, v: Array, weight: Array, mass: Array) -> Array:
    """The gradient of least norm in X = R Rᵀ, from R, S, K's U and V (zeros where K has nothing) and √Σ.

    `mass` is what counts as nothing of the other covariance.
    """
    # (I - T) R = R - S U Vᵀ: differences of what is nearly equal are taken first.
    towards = (own.root - other @ u @ v.mT) @ own.inverse
    if own.null is None:
        return (towards + towards.mT) / 2
    across = own.null @ (own.null.mT @ towards)  # T between range and null space is half in here
    grad = (towards + across + (towards + across).mT) / 2
    return grad + _slope_in_null_space(own.null, other, u, weight, mass)


def _slope_in_null_space(null: Array, other: Array, u: Array, weight: Array, mass: Array) -> Array:
    """The negative part of I - T in the part of a null space where the other covariance has no mass of its own."""
    xp = backend.namespace(null)
    beside = null.mT @ (other - other @ u @ u.mT)
    found, vectors = xp.linalg.eigh(beside @ beside.mT)
    basis = null @ xp.where((found <= mass[..., None])[..., None, :], vectors, 0.0)
    half = basis.mT @ (other @ (u / weight))
    slopes, vectors = xp.linalg.eigh(basis.mT @ basis - half @ half.mT)
    basis = basis @ vectors
    return (basis * xp.clip(slopes, None, 0)[..., None, :]) @ basis.mT


# Which pair takes which way


def bures_squared_and_slopes(
    cov_x: Array, cov_y: Array, needs: tuple[bool, bool], *, precision: float = 0.0, whole: bool = False
) -> tuple[Array, Slopes]:
    """B² (...) in float64, and its gradients (..., d, d) in the dtype of the covariances, or coarser `precision`.

    With `whole`, the gradient at a singular covariance is the negative part of I - T in all of the null space, whether
    the slope there is finite or not: I less this is a positive semidefinite map.
    """
    batch, dtype, eps = cov_x.shape[:-2], cov_x.dtype, max(backend.epsilon(cov_x), precision)
    if not (batch or backend.is_torch(cov_x)):
        x, y = (backend.astype(c, np.float64) for c in (cov_x, cov_y))
        value, (grad_x, grad_y) = _solve_pair(x, y, eps, needs, whole)
        return value, (_cast(grad_x, dtype), _cast(grad_y, dtype))
    solve = _solve_stack if backend.is_torch(cov_x) else _solve_pairs
    value, (grad_x, grad_y) = solve(_flat(cov_x), _flat(cov_y), eps, needs, whole)
    return _unflat(value, batch, value.dtype), (_unflat(grad_x, batch, dtype), _unflat(grad_y, batch, dtype))


def _solve_pairs(x: Array, y: Array, eps: float, needs: tuple[bool, bool], whole: bool) -> tuple[Array, Slopes]:
    """The values (n,) and gradients (n, d, d) of NumPy's pairs; x and y are (n or 1, d, d)."""
    n, d = max(len(x), len(y)) if len(x) and len(y) else 0, x.shape[-1]
    if n == 1:
        value, (grad_x, grad_y) = _solve_pair(x[0], y[0], eps, needs, whole)
        return np.array([value]), (None if grad_x is None else grad_x[None], None if grad_y is None else grad_y[None])
    value = np.empty(n)
    # One block: glibc keeps twice its size at hand, so that the pages are not taken from the system each time anew.
    block = iter(np.empty((needs[0] + needs[1], n, d, d)))
    slopes = next(block) if needs[0] else None, next(block) if needs[1] else None
    if n >= _BATCH and d <= _LARGEST_BATCHED:
        _solve_side_by_side(x, y, eps, value, slopes, whole)
        return value, slopes
    for i in range(n):
        value[i], its = _solve_pair(x[i % len(x)], y[i % len(y)], eps, needs, whole)
        _put(slopes, i, its)
    return value, slopes


def _put(slopes: Slopes, where: Any, its: Slopes) -> None:
    """Assign the gradients of some pairs."""
    for all_of_them, own in zip(slopes, its, strict=True):
        if all_of_them is not None:
            all_of_them[where] = own


def _solve_pair(x: Array, y: Array, eps: float, needs: tuple[bool, bool], whole: bool) -> tuple[Any, Slopes]:
    """One pair (d, d) of NumPy's."""
    trace_x, trace_y = float(x.trace()), float(y.trace())
    if trace_x == trace_y and (x == y).all():
        return 0.0, _constant(0.0, x.shape, needs)
    if _LEAST < trace_x < _MOST and _LEAST < trace_y < _MOST:
        found = _pair_by_eigenvalues(x, y, (trace_x, trace_y), eps, needs)
        if found is not None:
            return found
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # LAPACK refuses NaN, which only a transform lets in
        return np.nan, _constant(np.nan, x.shape, needs)
    return _by_singular_values(x, y, eps, needs, whole)


def _constant(number: float, shape: tuple[int, ...], needs: tuple[bool, bool]) -> Slopes:
    return np.full(shape, number) if needs[0] else None, np.full(shape, number) if needs[1] else None


def _solve_side_by_side(x: Array, y: Array, eps: float, value: Array, slopes: Slopes, whole: bool) -> None:
    """Fill in the answers of many small pairs."""
    needs = slopes[0] is not None, slopes[1] is not None
    unsolved = _rotate(x, y, eps, value, slopes, with_vectors=any(needs))
    if len(unsolved) and not any(needs):  # nearly equal pairs, most of them
        near_x, near_y, refined = _chosen(x, unsolved), _chosen(y, unsolved), np.empty(len(unsolved))
        rest = _rotate(near_x, near_y, eps, refined, slopes, with_vectors=True)
        value[unsolved] = refined
        unsolved = unsolved[rest]
    if len(unsolved):
        found = _solve_stack(_chosen(x, unsolved), _chosen(y, unsolved), eps, needs, whole)
        value[unsolved] = found[0]
        _put(slopes, unsolved, found[1])
    equal = np.flatnonzero((x == y).all((-2, -1)))
    value[equal] = 0.0
    _put(slopes, equal, (0.0, 0.0))


def _rotate(x: Array, y: Array, eps: float, value: Array, slopes: Slopes, *, with_vectors: bool) -> Array:
    """Have the compiled rotations fill in what they can, split over threads; return which pairs are left."""
    n, status = len(value), np.empty(len(value), np.int64)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    step = max(-(-n // _CHUNKS), 1 + _CHUNK_WORK // x.shape[-1] ** 3)
    step += -step % jacobi.LANES

    def rotate(start: int) -> None:
        jacobi.bures_squared(
            x, y, RANK * eps, range(start, min(start + step, n)), (value, *slopes, status), with_vectors
        )

    threads.map(rotate, range(0, n, step))
    return np.flatnonzero(status)


def _chosen(cov: Array, where: Array) -> Array:
    """Some members of a stack, or the one that all share."""
    return cov if len(cov) == 1 else cov[where]


def _solve_stack(x: Array, y: Array, eps: float, needs: tuple[bool, bool], whole: bool) -> tuple[Array, Slopes]:
    """Pairs (n or 1, d, d), all at once, whatever their library; those of NumPy by singular values."""
    xp = backend.namespace(x)
    broken = ~xp.isfinite(x.sum((-2, -1)) + y.sum((-2, -1)))
    equal = (x == y).all(-1).all(-1)
    if backend.is_torch(x):
        value, slopes, doubtful = _by_polar_factors(x, y, eps, needs, ~(broken | equal))
        if doubtful is not None:
            found = _by_singular_values(_chosen(x, doubtful), _chosen(y, doubtful), eps, needs, whole)
            value[doubtful], its = found
            _put(slopes, doubtful, its)
    else:
        if bool(broken.any()):  # LAPACK refuses NaN, which only a transform lets in: let a harmless problem stand in
            identity = xp.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            x, y = (xp.where(broken[..., None, None], identity, c) for c in (x, y))
        value, slopes = _by_singular_values(x, y, eps, needs, whole)
    value, grad_x, grad_y = (_replaced(answer, broken, equal) for answer in (value, *slopes))
    return value, (grad_x, grad_y)


def _by_polar_factors(
    x: Array, y: Array, eps: float, needs: tuple[bool, bool], usable: Array
) -> tuple[Array, Slopes, Array | None]:
    """B² (n,) of PyTorch's pairs and its gradients, by `polar`; and for which `usable` ones that will not do, if any.

    The host waits once.
    """
    from . import polar, triton_pairs

    if triton_pairs.usable(x):
        value, (slope_x, slope_y), good = triton_pairs.value_and_slopes(x, y, eps, (_LEAST, _MOST))
        doubtful, slopes = usable & ~good, (slope_x if needs[0] else None, slope_y if needs[1] else None)
        return value, slopes, doubtful if bool(doubtful.any()) else None
    regular = usable
    for size in (trace(x), trace(y)):
        regular = regular & (size > _LEAST) & (size < _MOST)
    roots = polar.Roots(x, y, regular, (least_pivot(x, eps), least_pivot(y, eps)))
    doubtful = usable & ~roots.regular
    ill = roots.regular & (roots.smallest <= polar.WELL)
    any_doubtful, any_ill = backend.numbers(doubtful.any(), ill.any())
    value, slopes = roots.value_and_slopes(polar.LEAST if any_ill else polar.WELL, needs)
    return value, slopes, doubtful if any_doubtful else None


def _replaced(answer: Array | None, broken: Array, equal: Array) -> Array | None:
    """NaN for broken pairs, 0 for equal ones."""
    if answer is None:
        return None
    xp, shape = backend.namespace(answer), broken.shape + (1,) * (answer.ndim - 1)
    answer = xp.where(equal.reshape(shape), 0.0, answer)
    return xp.where(broken.reshape(shape), xp.nan, answer)


def _flat(cov: Array) -> Array:
    """(..., d, d) as (n, d, d) in float64, or (1, d, d) if the whole batch shares one."""
    xp, trailing = backend.namespace(cov), cov.shape[-2:]
    if cov.ndim == 2:
        return backend.astype(cov[None], xp.float64)
    own = backend.without_repeats(cov, 2)
    shared = all(k == 1 for k in own.shape[:-2])
    return backend.astype(own.reshape(1, *trailing) if shared else cov.reshape(-1, *trailing), xp.float64)


def _cast(x: Array | None, dtype: Any) -> Array | None:
    return None if x is None else backend.astype(x, dtype)


def _unflat(x: Array | None, batch: tuple[int, ...], dtype: Any) -> Array | None:
    """Undo `_flat`: one result for a batch that shares everything is everybody's."""
    if x is None:
        return None
    x, core = backend.astype(x, dtype), tuple(x.shape[1:])
    if not batch:
        return x[0]
    return backend.broadcast_to(x[0], (*batch, *core)) if len(x) == 1 else x.reshape(*batch, *core)


# Second derivatives


def _second_derivative(
    cov_x: Array, cov_y: Array, *, cotangents: tuple[Array, Array], precision: float = 0.0
) -> tuple[Array, Array]:
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
    if not bool((squares[..., 0] > max(backend.epsilon(x), precision) * squares[..., -1]).all()):
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


# The operators


def _bures(
    cov_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, bool], precision: float = 0.0
) -> tuple[Array, Slopes]:
    """B² (...) and its gradients; the contract is `Operator`'s."""
    value, slopes = bures_squared_and_slopes(cov_x, cov_y, needs_input_grad, precision=precision)
    return squared_distance(cov_x[..., 0, :0], value, cov_x.dtype), slopes


def _gaussian(
    mean_x: Array,
    cov_x: Array,
    mean_y: Array,
    cov_y: Array,
    *,
    needs_input_grad: tuple[bool, ...],
    precision: float = 0.0,
) -> tuple[Array, tuple[Array | None, ...]]:
    """|mean_x - mean_y|² + B² (...) and the gradients."""
    needs = needs_input_grad[1], needs_input_grad[3]
    bures, (slope_x, slope_y) = bures_squared_and_slopes(cov_x, cov_y, needs, precision=precision)
    shift = mean_x - mean_y
    grads = (2 * shift if needs_input_grad[0] else None, slope_x, -2 * shift if needs_input_grad[2] else None, slope_y)
    return squared_distance(shift, bures, mean_x.dtype), grads


def _second_with_means(
    mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array, *, cotangents: tuple[Array, ...], precision: float = 0.0
) -> tuple[Array, ...]:
    """Means and covariances do not meet; and what nobody differentiates twice may be singular."""
    turn = 2 * (cotangents[0] - cotangents[2])
    slopes = cotangents[1], cotangents[3]
    if any(bool((g != 0).any()) for g in slopes):
        slopes = _second_derivative(cov_x, cov_y, cotangents=slopes, precision=precision)
    return turn, slopes[0], -turn, slopes[1]


_PRECISION = "float precision"
bures_squared = Operator(
    "bures_squared", _bures, core_ndims=(2, 2), options=_PRECISION, second_derivative=_second_derivative
)
gaussian_squared = Operator(
    "gaussian_squared", _gaussian, core_ndims=(1, 2, 1, 2), options=_PRECISION, second_derivative=_second_with_means
)


def _bures_on_null_spaces(
    cov_x: Array, cov_y: Array, *, needs_input_grad: tuple[bool, bool], precision: float = 0.0
) -> tuple[Array, Slopes]:
    """`_bures`, with gradients that make I less them positive semidefinite maps at singular covariances too."""
    value, slopes = bures_squared_and_slopes(cov_x, cov_y, needs_input_grad, precision=precision, whole=True)
    return squared_distance(cov_x[..., 0, :0], value, cov_x.dtype), slopes


_whole = Operator(
    "bures_on_null_spaces",
    _bures_on_null_spaces,
    core_ndims=(2, 2),
    options=_PRECISION,
    second_derivative=_second_derivative,
)


# The map


def transport_matrix(cov_x: Array, cov_y: Array, precision: float = 0.0) -> Array:
    """T = I - ∂B²/∂X (..., d, d), with T X T = Y where X is regular; the covariances' batches broadcast.

    Each covariance is taken in units of its own size, lest I - (I - T) lose a small T.
    """
    xp = backend.namespace(cov_x)
    cov_x, cov_y = _whole.broadcast((cov_x, cov_y))
    units = [_square_unit(c) for c in (cov_x, cov_y)]
    x, y = (c / u[..., None, None] / u[..., None, None] for c, u in zip((cov_x, cov_y), units, strict=True))
    if backend.is_torch(x):
        slope = _whole.gradients(x, y, precision=precision)[0]
    else:  # without the gradient in Y
        slope = bures_squared_and_slopes(x, y, (True, False), precision=precision, whole=True)[1][0]
    identity = xp.eye(cov_x.shape[-1], dtype=cov_x.dtype, device=cov_x.device)
    return (identity - slope) * (units[1] / units[0])[..., None, None]


def _square_unit(cov: Array) -> Array:
    """A power of two near the root of the trace."""
    return power_of_two(backend.namespace(cov).sqrt(trace(cov)))
