"""The table of covariance pairs: one rule for value and gradient, and room for structures of one's own."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import oracles
import pytest
import torch
from strategies import covariance as random_covariance
from test_covariance import STRUCTURES, D, dense, draw

from otdist import covariance, gaussian
from otdist.covariance import Covariance
from otdist.gaussian import pairs

EPS = np.finfo(float).eps
PAIRS = [(a, b) for a in STRUCTURES for b in STRUCTURES if a <= b]
ZERO = np.zeros(D)


def flat(grad):
    """The gradients of a covariance's parameters, those of a product flattened."""
    return [g for part in grad for g in flat(part)] if isinstance(grad, tuple) else [grad]


# --- every pair ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_values_are_those_of_eighty_digits(left, right):
    (p, build_x), (q, build_y) = draw(left, 11), draw(right, 12)
    x, y = build_x(*p), build_y(*q)
    expected = float(oracles.bures_squared(dense(x), dense(y)))
    scale = np.trace(dense(x)) + np.trace(dense(y))
    singular = "low rank" in (left, right)  # the dense form of a factor has eigenvalues of eps: roots of √eps
    assert (
        abs(gaussian.w2_squared(ZERO, x, ZERO, y) - expected)
        <= (10 * D * np.sqrt(EPS) if singular else 1000 * EPS) * scale
    )


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_gradients_broadcast(left, right):
    """A batch that shares a covariance gives it the sum of its members' gradients."""
    (p, build_x), (q, build_y) = draw(left, 13, (2, 1)), draw(right, 14, (3,))
    value, grads = gaussian.w2_squared_and_grad(ZERO, build_x(*p), ZERO, build_y(*q))
    assert value.shape == (2, 3)
    sums = [np.zeros_like(a) for a in (*p, *q)]
    for i, j in np.ndindex(2, 3):
        one, each = gaussian.w2_squared_and_grad(
            ZERO, build_x(*(a[i, 0] for a in p)), ZERO, build_y(*(a[j] for a in q))
        )
        assert value[i, j] == pytest.approx(one, rel=1e-11)
        found = flat(each.cov_x) + flat(each.cov_y)
        for k, (total, g) in enumerate(zip(sums, found, strict=True)):
            total[(i, 0) if k < len(p) else (j,)] += g
    for total, g in zip(sums, flat(grads.cov_x) + flat(grads.cov_y), strict=True):
        # The conditions here are at most 100, and a gradient loses its root.
        np.testing.assert_allclose(g, total, rtol=0, atol=1e4 * EPS * np.abs(total).max())


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_gradient_vanishes_at_equal_covariances(name):
    p, build = draw(name, 15)
    value, grads = gaussian.w2_squared_and_grad(ZERO, build(*p), ZERO, build(*p))
    scale = float(np.trace(dense(build(*p))))
    assert 0 <= value <= 1000 * EPS * scale
    for g in flat(grads.cov_x) + flat(grads.cov_y):
        # I - T: T = 1 up to the root of K's condition; the gradient of a root has the root's scale.
        assert np.abs(g).max() <= 1e5 * EPS * max(1, scale)


SPECTRA = ["diagonal", "circulant", "circulant 2-D", "kronecker of structures"]


def with_a_zero(name, seed, step=0.0):
    p, build = draw(name, seed)
    p = [a.copy() for a in p]
    p[0].reshape(-1)[0] = step
    return build(*p)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_gradient_at_a_singular_spectrum_is_the_least_one_sided_slope(name):
    # What has rank 2 fits into what is left: the slope is finite. Gradients below it are subgradients.
    q, build = draw("low rank", 17)
    y, step = build(*q), 1e-7
    found = gaussian.w2_squared_and_grad(ZERO, with_a_zero(name, 16), ZERO, y)[1].cov_x
    values = [gaussian.w2_squared(ZERO, with_a_zero(name, 16, t), ZERO, y) for t in (0.0, step, 2 * step)]
    slope = (4 * values[1] - 3 * values[0] - values[2]) / (2 * step)
    # Differences of numbers of order 10, over 2 steps; the third derivative times the square of a step is nothing.
    assert flat(found)[0].reshape(-1)[0] == pytest.approx(min(slope, 0.0), abs=100 * EPS * 10 / step)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("other", ["diagonal", "circulant", "isotropic", "dense"])
def test_an_infinite_slope_gives_a_finite_gradient(name, other):
    q, build = draw(other, 17)
    _, grads = gaussian.w2_squared_and_grad(ZERO, with_a_zero(name, 16), ZERO, build(*q))
    assert all(np.isfinite(g).all() for g in flat(grads.cov_x) + flat(grads.cov_y))


def test_the_slope_where_a_factor_has_mass_and_the_diagonal_none():
    # X = v vᵀ with v = (1, 10) and Y = diag(1, y): B² = 101 + 1 + y - 2 √(1 + 100 y), with slope 1 - 100 at y = 0.
    x = covariance.Factor(np.array([[1.0], [10.0]]))
    for y in (
        covariance.Diagonal(np.array([1.0, 0.0])),
        covariance.Diagonal(torch.tensor([1.0, 0.0], dtype=torch.float64)),
    ):
        if isinstance(y.variance, np.ndarray):
            slope = gaussian.w2_squared_and_grad(np.zeros(2), x, np.zeros(2), y)[1].cov_y
        else:
            zero, leaf = torch.zeros(2, dtype=torch.float64), y.variance.requires_grad_()
            gaussian.w2_squared(
                zero, covariance.Factor(torch.tensor(x.root)), zero, covariance.Diagonal(leaf)
            ).backward()
            slope = leaf.grad.numpy()
        np.testing.assert_allclose(slope, [0.0, -99.0], atol=1e-12)
    # And the other way, v = (1, 0): more mass costs what it is, and the subgradient of least norm is 0.
    x = covariance.Factor(np.array([[1.0], [0.0]]))
    slope = gaussian.w2_squared_and_grad(np.zeros(2), x, np.zeros(2), covariance.Diagonal(np.array([1.0, 0.0])))[
        1
    ].cov_y
    np.testing.assert_allclose(slope, [0.0, 0.0], atol=1e-12)


def test_values_are_never_negative():
    rng = np.random.default_rng(0)
    for _ in range(50):
        d = rng.integers(2, 6)
        variance = np.where(np.arange(d) < 1, rng.uniform(0.1, 1), 0.0)
        x = covariance.Factor(np.sqrt(variance)[:, None] * (np.arange(d) < 1)[:, None])
        assert 0 <= gaussian.w2_squared(np.zeros(d), x, np.zeros(d), covariance.Diagonal(variance)) <= 10 * EPS


# Compared by spectra or by factors: roots times 1e±140 are variances times 1e±280, whose squares no float holds.
SCALED = [
    ("diagonal", "diagonal"),
    ("diagonal", "isotropic"),
    ("circulant", "circulant"),
    ("circulant 2-D", "isotropic"),
    ("low rank", "low rank"),
    ("low rank", "diagonal"),
    ("low rank", "isotropic"),
    ("low rank", "circulant"),
    ("low rank", "cholesky"),
]


@pytest.mark.parametrize("scale", [1e-140, 1e140])
@pytest.mark.parametrize(("left", "right"), SCALED)
def test_huge_and_tiny_scales(left, right, scale):
    def times(name, seed, factor):
        parameters, build = draw(name, seed)
        power = 1 if name in ("cholesky", "low rank") else 2
        return build(*(a * factor**power for a in parameters))

    one = gaussian.w2_squared(ZERO, times(left, 18, 1.0), ZERO, times(right, 19, 1.0))
    value, grads = gaussian.w2_squared_and_grad(ZERO, times(left, 18, scale), ZERO, times(right, 19, scale))
    assert value / scale / scale == pytest.approx(one, rel=1e-12)
    assert all(np.isfinite(g).all() for g in flat(grads.cov_x) + flat(grads.cov_y))


# --- what PyTorch does to functions -------------------------------------------------------------------------------

COMPILED = [
    ("diagonal", "isotropic"),
    ("circulant", "circulant"),
    ("circulant 2-D", "isotropic"),
    ("circulant", "dense"),
    ("circulant", "diagonal"),
    ("low rank", "circulant"),
    ("low rank", "kronecker"),
    ("low rank", "low rank"),
    ("low rank", "dense"),
    ("cholesky", "diagonal"),
    ("kronecker", "kronecker of structures"),
    ("isotropic", "kronecker"),
]


@pytest.mark.parametrize(("left", "right"), COMPILED)
def test_structures_under_compile_vmap_and_grad(left, right):
    (p, build_x), (q, build_y) = draw(left, 20, (3,)), draw(right, 21, (3,))
    zero, cut = torch.zeros(D, dtype=torch.float64), len(p)
    arrays = [torch.tensor(a) for a in (*p, *q)]

    def distance(*parameters):
        return gaussian.w2_squared(zero, build_x(*parameters[:cut]), zero, build_y(*parameters[cut:]))

    leaves = [a.clone().requires_grad_() for a in arrays]
    expected = distance(*leaves)
    grads = torch.autograd.grad(expected.sum(), leaves)
    torch._dynamo.reset()
    compiled = torch.compile(distance, fullgraph=True, backend="aot_eager")
    out = compiled(*leaves)
    torch.testing.assert_close(out, expected)
    for g, e in zip(torch.autograd.grad(out.sum(), leaves), grads, strict=True):
        torch.testing.assert_close(g, e)
    torch.testing.assert_close(torch.func.vmap(distance)(*arrays), expected.detach())
    each = torch.func.vmap(torch.func.grad(distance, argnums=tuple(range(len(arrays)))))(*arrays)
    for g, e in zip(each, grads, strict=True):
        torch.testing.assert_close(g, e)


@pytest.mark.parametrize(
    ("left", "right"), [("diagonal", "isotropic"), ("circulant", "circulant"), ("kronecker", "kronecker")]
)
def test_second_derivatives_of_structures(left, right):
    (p, build_x), (q, build_y) = draw(left, 22), draw(right, 23)
    zero, cut = torch.zeros(D, dtype=torch.float64), len(p)
    leaves = [torch.tensor(a, requires_grad=True) for a in (*p, *q)]

    def distance(*parameters):
        return gaussian.w2_squared(zero, build_x(*parameters[:cut]), zero, build_y(*parameters[cut:]))

    assert torch.autograd.gradgradcheck(distance, leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [n for n in STRUCTURES if n != "dense"])
@pytest.mark.parametrize("other", ["dense", "diagonal", "low rank"])
def test_half_precision_is_computed_in_float32(name, other, dtype):
    (p, build), (q, build_other) = draw(name, 24), draw(other, 25)
    p, q = ([torch.tensor(a).to(dtype) for a in given] for given in (p, q))
    zero = torch.zeros(D, dtype=dtype)
    out = gaussian.w2_squared(zero, build(*p), zero, build_other(*q))
    assert out.dtype == dtype
    single = gaussian.w2_squared(
        zero.float(), build(*(a.float() for a in p)), zero.float(), build_other(*(a.float() for a in q))
    )
    torch.testing.assert_close(out, single.to(dtype))
    assert build(*p).to_dense().dtype == dtype


# --- a structure of one's own -------------------------------------------------------------------------------------


class Blocks(Covariance):
    """Block-diagonal: (..., k, b, b), k blocks of b coordinates each."""

    _fields = ("blocks",)

    def __init__(self, blocks):
        self.blocks = blocks

    @property
    def d(self):
        return self.blocks.shape[-3] * self.blocks.shape[-1]

    @property
    def batch_shape(self):
        return tuple(self.blocks.shape[:-3])

    @property
    def core_ndims(self):
        return (3,)

    def to_dense(self):
        k, b = self.blocks.shape[-3], self.blocks.shape[-1]
        xp = torch if isinstance(self.blocks, torch.Tensor) else np
        eye = xp.eye(k, dtype=self.blocks.dtype)
        return (self.blocks[..., :, :, None, :] * eye[:, None, :, None]).reshape(*self.batch_shape, k * b, k * b)

    def gradient(self, matrix):
        k, b = self.blocks.shape[-3], self.blocks.shape[-1]
        tiles = matrix.reshape(*matrix.shape[:-2], k, b, k, b)
        return (np.stack([tiles[..., i, :, i, :] for i in range(k)], -3),)


def blockwise(x, y):
    """Blocks commute with blocks: their distances add up."""
    return gaussian.w2_squared(np.zeros(x.blocks.shape[-1]), x.blocks, np.zeros(y.blocks.shape[-1]), y.blocks).sum(-1)


def blockwise_and_grad(x, y):
    zero = np.zeros(x.blocks.shape[-1])
    batch = np.broadcast_shapes(x.blocks.shape, y.blocks.shape)  # each pair's own gradients, not yet summed
    value, grads = gaussian.w2_squared_and_grad(
        zero, np.broadcast_to(x.blocks, batch), zero, np.broadcast_to(y.blocks, batch)
    )
    return value.sum(-1), (grads.cov_x,), (grads.cov_y,)


@pytest.fixture
def blocks_rule(monkeypatch):
    """The rule is there for one test, and gone after it."""
    monkeypatch.setattr(pairs, "PAIRS", dict(pairs.PAIRS))
    rule = pairs.PairRule(blockwise, blockwise_and_grad, lambda x, y: x.blocks.shape[-3:] == y.blocks.shape[-3:])
    pairs.register(Blocks, Blocks, rule)
    return rule


def block_pair():
    rng = np.random.default_rng(3)
    return tuple(Blocks(np.stack([random_covariance(2, rng) for _ in range(3)])) for _ in range(2))


def test_a_structure_without_rules_is_compared_as_a_matrix():
    x, _ = block_pair()
    for name in STRUCTURES:
        p, build = draw(name, 26)
        other = build(*p)
        value, grads = gaussian.w2_squared_and_grad(ZERO, x, ZERO, other)
        expected, matrix_grads = gaussian.w2_squared_and_grad(ZERO, x.to_dense(), ZERO, other)
        assert value == pytest.approx(expected, rel=1e-12), name
        np.testing.assert_allclose(grads.cov_x[0], matrix_grads.cov_x[:2, :2], rtol=1e-9, atol=1e-12)
        for a, b in zip(flat(grads.cov_y), flat(matrix_grads.cov_y), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("blocks_rule")
def test_a_structure_with_a_rule_of_its_own():
    x, y = block_pair()
    value, grads = gaussian.w2_squared_and_grad(ZERO, x, ZERO, y)
    expected, matrix_grads = gaussian.w2_squared_and_grad(ZERO, x.to_dense(), ZERO, y.to_dense())
    assert value == pytest.approx(expected, rel=1e-12)
    assert gaussian.w2_squared(ZERO, x, ZERO, y) == pytest.approx(expected, rel=1e-12)
    for i in range(3):
        tile = slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(grads.cov_x[i], matrix_grads.cov_x[tile, tile], rtol=1e-9, atol=1e-12)
    several = Blocks(np.stack([x.blocks, y.blocks]))
    batched, batched_grads = gaussian.w2_squared_and_grad(ZERO, several, ZERO, y)
    np.testing.assert_allclose(batched, [expected, 0], atol=100 * EPS)
    assert batched_grads.cov_x.shape == (2, 3, 2, 2)
    assert batched_grads.cov_y.shape == (3, 2, 2)


def test_the_rule_is_gone():
    assert (Blocks, Blocks) not in pairs.PAIRS


def test_long_factors_against_structures_form_no_matrix():
    d = 2**18
    rng = np.random.default_rng(4)
    zero, x = np.zeros(d), covariance.Factor(rng.standard_normal((d, 2)))
    structured = (
        covariance.Diagonal(rng.uniform(1, 2, d)),
        covariance.Circulant(rng.uniform(1, 2, d // 2 + 1)),
        covariance.Kronecker(
            covariance.Diagonal(rng.uniform(1, 2, 2**10)), covariance.Circulant(rng.uniform(1, 2, 2**7 + 1))
        ),
        covariance.Kronecker(np.diag(rng.uniform(1, 2, 4)), covariance.Isotropic(1.0, 2**16)),
    )
    for y in structured:
        value, grads = gaussian.w2_squared_and_grad(zero, x, zero, y)  # a d x d matrix would take 512 GiB
        assert value > 0
        assert all(np.isfinite(g).all() for g in flat(grads.cov_y))


def test_few_samples_form_no_matrix():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((5, 2**18)), rng.standard_normal((4, 2**18))
    value, grads = gaussian.w2_squared_from_samples_and_grad(x, y)
    assert gaussian.w2_squared_from_samples(x, y) == pytest.approx(value, rel=1e-12)
    assert np.isfinite(grads.x).all()
    small = x[:, :3], y[:, :3]
    exact = oracles.gaussian_w2_squared(small[0].mean(0), np.cov(small[0].T), small[1].mean(0), np.cov(small[1].T))
    assert abs(gaussian.w2_squared_from_samples(*small) - float(exact)) <= mp.mpf(1000 * EPS) * 20


@pytest.mark.parametrize("cov", [np.ones(3), np.ones((2, 3)), torch.ones(3)])
def test_a_vector_for_a_covariance_points_to_diagonal(cov):
    zero = cov[..., :3] * 0 if cov.ndim == 1 else np.zeros(3)
    with pytest.raises(ValueError, match=r"cov_x must have shape .*otdist\.covariance\.Diagonal.*otdist\.diagonal"):
        gaussian.w2_squared(zero, cov, zero, cov)
