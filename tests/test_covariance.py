"""Structured covariances: every pair agrees with its dense form, in value and in gradient."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from strategies import covariance as random_covariance

from otdist import covariance, gaussian

D = 6
EPS = np.finfo(float).eps


def _spectrum_2d(rng, batch):
    """The spectrum of a random real field on a 2 x 3 grid: the transform of a positive, symmetric correlation."""
    white = np.fft.rfftn(rng.standard_normal((*batch, 2, 3)), axes=(-2, -1))
    return np.abs(white) ** 2 / 6 + 0.1


# name -> (draw the parameters from rng with a batch shape, build the covariance from them)
STRUCTURES = {
    "dense": (lambda rng, b: (_dense(rng, b, D),), lambda m: m),
    "diagonal": (lambda rng, b: (rng.uniform(0.2, 2, (*b, D)),), covariance.Diagonal),
    "isotropic": (lambda rng, b: (rng.uniform(0.2, 2, b),), lambda v: covariance.Isotropic(v, D)),
    "cholesky": (lambda rng, b: (np.linalg.cholesky(_dense(rng, b, D)),), covariance.Factor),
    "low rank": (lambda rng, b: (rng.standard_normal((*b, D, 2)),), covariance.Factor),
    "wide": (lambda rng, b: (rng.standard_normal((*b, D, 9)) / 3,), covariance.Factor),
    "circulant": (lambda rng, b: (rng.uniform(0.2, 2, (*b, 4)),), covariance.Circulant),
    "circulant 2-D": (lambda rng, b: (_spectrum_2d(rng, b),), lambda s: covariance.Circulant(s, (2, 3))),
    "kronecker": (lambda rng, b: (_dense(rng, b, 2), _dense(rng, b, 3)), covariance.Kronecker),
    "kronecker of structures": (
        lambda rng, b: (rng.uniform(0.2, 2, (*b, 2)), rng.uniform(0.2, 2, b)),
        lambda v, w: covariance.Kronecker(covariance.Diagonal(v), covariance.Isotropic(w, 3)),
    ),
}
PAIRS = list(product(STRUCTURES, STRUCTURES))


def _dense(rng, batch, d):
    flat = [random_covariance(d, rng) for _ in range(int(np.prod(batch)))]
    return np.stack(flat).reshape(*batch, d, d) if batch else flat[0]


def dense(cov):
    return cov.to_dense() if isinstance(cov, covariance.Covariance) else cov


def draw(name, seed, batch=()):
    parameters, build = STRUCTURES[name]
    return parameters(np.random.default_rng(seed), batch), build


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_every_pair_is_its_dense_form(left, right):
    (p, build_x), (q, build_y) = draw(left, 1), draw(right, 2)
    x, y = build_x(*p), build_y(*q)
    zero = np.zeros(D)
    expected = gaussian.w2_squared(zero, dense(x), zero, dense(y))
    scale = np.trace(dense(x)) + np.trace(dense(y))
    # A singular matrix formed from its factor has eigenvalues of eps, whose roots are √eps: the dense side's error.
    tolerance = 1000 * EPS * scale if "low rank" not in (left, right) else 100 * np.sqrt(EPS) * scale
    assert abs(gaussian.w2_squared(zero, x, zero, y) - expected) <= tolerance


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_gradients_of_every_pair(left, right):
    (p, build_x), (q, build_y) = draw(left, 3), draw(right, 4)
    zero = torch.zeros(D, dtype=torch.float64)
    leaves = [torch.tensor(a, requires_grad=True) for a in (*p, *q)]

    def distance(*parameters):
        return gaussian.w2_squared(zero, build_x(*parameters[: len(p)]), zero, build_y(*parameters[len(p) :]))

    assert torch.autograd.gradcheck(distance, leaves)
    distance(*leaves).backward()
    value, grads = gaussian.w2_squared_and_grad(np.zeros(D), build_x(*p), np.zeros(D), build_y(*q))
    twins = [g for grad in (grads.cov_x, grads.cov_y) for g in (grad if isinstance(grad, tuple) else (grad,))]
    assert value == pytest.approx(float(distance(*leaves).detach()), rel=1e-12)
    for leaf, twin in zip(leaves, twins, strict=True):
        assert np.shape(twin) == tuple(leaf.shape)
        np.testing.assert_allclose(twin, leaf.grad.numpy(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("left", "right"), [(a, b) for a, b in PAIRS if a <= b])
def test_batches_broadcast(left, right):
    (p, build_x), (q, build_y) = draw(left, 5, (2, 1)), draw(right, 6, (3,))
    zero = np.zeros(D)
    out = gaussian.w2_squared(zero, build_x(*p), zero, build_y(*q))
    assert out.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = gaussian.w2_squared(zero, build_x(*(a[i, 0] for a in p)), zero, build_y(*(a[j] for a in q)))
        assert out[i, j] == pytest.approx(one, rel=1e-11)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_covariance_is_at_distance_zero_from_itself(name):
    p, build = draw(name, 7)
    zero = np.zeros(D)
    scale = np.trace(dense(build(*p)))
    assert 0 <= gaussian.w2(zero, build(*p), zero, build(*p)) <= 1000 * EPS * np.sqrt(scale)


@pytest.mark.parametrize("name", [n for n in STRUCTURES if n != "dense"])
def test_trace_and_root_agree_with_the_dense_form(name):
    p, build = draw(name, 8)
    cov = build(*p)
    assert cov.trace() == pytest.approx(np.trace(cov.to_dense()), rel=1e-13)
    assert cov.shape == (D, D)
    transposed = cov.apply_root_transposed(np.eye(D))
    assert transposed.shape == (cov.root_columns, D)
    np.testing.assert_allclose(transposed.T @ transposed, cov.to_dense(), atol=100 * EPS * cov.trace())
    np.testing.assert_allclose(cov.apply_root(np.eye(cov.root_columns)), transposed.T, atol=100 * EPS * cov.trace())


def test_nothing_dense_is_formed_for_long_vectors():
    d = 2**20
    rng = np.random.default_rng(0)
    zero = np.zeros(d)
    circulant = covariance.Circulant(rng.uniform(1, 2, d // 2 + 1))
    factor = covariance.Factor(rng.standard_normal((d, 2)))
    diagonal = covariance.Diagonal(rng.uniform(1, 2, d))
    for x, y in ((circulant, circulant), (factor, factor), (factor, diagonal), (factor, circulant)):
        assert np.isfinite(gaussian.w2_squared(zero, x, zero, y))  # a d x d matrix would take 8 TiB
    for x, y in ((circulant, circulant), (factor, factor), (diagonal, covariance.Isotropic(1.0, d))):
        assert np.isfinite(gaussian.w2_squared_and_grad(zero, x, zero, y)[1].cov_x).all()


def test_nearly_equal_factors_keep_their_digits():
    rng = np.random.default_rng(1)
    root, change = rng.standard_normal((2, D, D))
    zero = np.zeros(D)
    out = [
        gaussian.w2_squared(zero, covariance.Factor(root), zero, covariance.Factor(root + t * change))
        for t in (1e-6, 1e-7)
    ]
    assert out[0] / out[1] == pytest.approx(100, rel=1e-4)  # W2² is quadratic in t, up to a relative t


def test_float32_and_torch_in_are_out():
    x = covariance.Diagonal(torch.ones(3))
    assert gaussian.w2_squared(torch.zeros(3), x, torch.zeros(3), torch.eye(3)).dtype == torch.float32
    y = covariance.Isotropic(np.float32(2), 3)
    zero = np.zeros(3, np.float32)
    assert gaussian.w2_squared(zero, y, zero, y).dtype == np.float32


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: covariance.Diagonal(np.array([1.0, -1.0])), "variance must be nonnegative; got -1"),
        (lambda: covariance.Diagonal(1.0), r"variance must have shape \(\.\.\., d\); got \(\)"),
        (lambda: covariance.Isotropic(1.0, 0), "d must be a positive integer; got 0"),
        (lambda: covariance.Diagonal(np.zeros((2, 0))), "variance must have at least one coordinate"),
        (lambda: covariance.Factor(np.full((2, 2), np.nan)), "root must be finite"),
        (lambda: covariance.Factor(np.zeros((0, 2))), "root must have at least one coordinate"),
        (lambda: covariance.Factor(np.full((2, 1), 1e200)).to_dense(), "root rootᵀ is beyond the range of float64"),
        (lambda: covariance.Kronecker(np.zeros((2, 3)), np.eye(2)), r"left must have shape \(\.\.\., d, d\)"),
        (lambda: covariance.Kronecker(np.eye(2), np.zeros((0, 0))), "right must have at least one coordinate"),
        (lambda: covariance.Circulant(np.ones(4), (3,)), r"spectrum must have shape \(\.\.\., 2\) on a grid \(3,\)"),
        (lambda: covariance.Circulant(np.arange(12.0).reshape(4, 3), (4, 4)), "spectrum must be symmetric"),
    ],
)
def test_refusals_of_structures(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_refusals_name_the_argument():
    zero = np.zeros(4)
    with pytest.raises(ValueError, match="mean_x and cov_x must agree in the number of coordinates; got 4 and 3"):
        gaussian.w2(zero, covariance.Isotropic(1.0, 3), zero, np.eye(4))
    with pytest.raises(TypeError, match=r"mean_x is a numpy\.ndarray|cov_y.variance is a torch\.Tensor"):
        gaussian.w2(zero, np.eye(4), zero, covariance.Diagonal(torch.ones(4)))
    with pytest.raises(ValueError, match=r"cov_x\.left must be symmetric"):
        gaussian.w2(zero, covariance.Kronecker(np.triu(np.ones((2, 2))), np.eye(2)), zero, np.eye(4))


def test_the_grid_is_whole_numbers():
    with pytest.raises(TypeError, match="shape must be a positive integer; got float"):
        covariance.Circulant(np.ones(3), 0.5)


def test_a_list_beside_an_array_takes_its_dtype():
    product = covariance.Kronecker(np.eye(2, dtype=np.float32), [[1.0]])
    assert product.to_dense().dtype == np.float32


@pytest.mark.parametrize("name", [k for k in STRUCTURES if k != "dense"])
@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_an_empty_batch_of_every_structure(name, as_given):
    parameters, build = draw(name, 1, batch=(2,))
    cov = build(*(as_given(p[:0]) for p in parameters))
    other = build(*(as_given(p) for p in draw(name, 2)[0]))
    mean = as_given(np.zeros(D))
    assert cov.to_dense().shape == (0, D, D)
    assert gaussian.w2_squared(mean, cov, mean, other).shape == (0,)
    assert gaussian.transport_map(mean, cov, mean, other).matrix.shape == (0, D, D)
    if as_given is torch.from_numpy:
        leaves = [torch.from_numpy(p[:0]).requires_grad_() for p in parameters]
        gaussian.transport_map(mean, build(*leaves), mean, other).matrix.sum().backward()
        gaussian.w2_squared(mean, build(*leaves), mean, other).sum().backward()


@pytest.mark.parametrize(("left", "right"), [pair for pair in PAIRS if "dense" not in pair])
@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_the_distance_of_structures_whose_square_is_beyond_the_range(left, right, as_given):
    """W2 has degree 1: it is a number where its square is not, which is refused. A factor may be as large as a mean."""
    x, y = (build(*map(as_given, p)) for p, build in (draw(left, 1), draw(right, 2)))
    mean = as_given(np.full(D, 2.0))
    factors = isinstance(x, covariance.Factor) and isinstance(y, covariance.Factor)
    unit = as_given(np.array(2.0**600 if factors else 2.0**510))
    far = mean * unit, x.divided(1 / unit), -mean * unit, y.divided(1 / unit)
    true = float(gaussian.w2(mean, x, -mean, y))
    assert float(gaussian.w2(*far) / unit) == pytest.approx(true, rel=1e-12)
    with pytest.raises(ValueError, match="beyond the range of float64"):
        gaussian.w2_squared(*far)
