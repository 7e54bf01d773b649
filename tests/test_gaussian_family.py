"""Around the Gaussian distance: samples, maps, paths, barycenters, entropic forms, mixtures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import covariance as random_covariance
from strategies import dimensions, seeds

import otdist
from otdist import covariance, gaussian
from otdist.gaussian import families

EPS = np.finfo(float).eps


def pair(seed, d, rank=None):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal(d),
        random_covariance(d, rng, rank=rank),
        rng.standard_normal(d),
        random_covariance(d, rng),
    )


# --- families ---


def test_pairwise_is_every_pair():
    rng = np.random.default_rng(0)
    mx, my = rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 3))
    cx = np.stack([random_covariance(3, rng) for _ in range(8)]).reshape(2, 4, 3, 3)
    cy = np.stack([random_covariance(3, rng) for _ in range(5)])
    out = gaussian.pairwise_w2_squared(mx, cx, my, cy)
    assert out.shape == (2, 4, 5)
    for b, i, j in np.ndindex(2, 4, 5):
        assert out[b, i, j] == pytest.approx(gaussian.w2_squared(mx[b, i], cx[b, i], my[j], cy[j]), rel=1e-11)


def test_pairwise_with_structure_and_gradient():
    rng = np.random.default_rng(1)
    mx, my = (torch.tensor(rng.standard_normal((k, 3)), requires_grad=True) for k in (2, 4))
    vx = torch.tensor(rng.uniform(0.5, 2, (2, 3)), requires_grad=True)
    cy = torch.tensor(np.stack([random_covariance(3, rng) for _ in range(4)]), requires_grad=True)

    def distance(mx, vx, my, cy):
        return gaussian.pairwise_w2_squared(mx, covariance.Diagonal(vx), my, cy)

    assert torch.autograd.gradcheck(distance, (mx, vx, my, cy))
    shared = gaussian.pairwise_w2_squared(mx, covariance.Isotropic(1.0, 3), my, covariance.Isotropic(4.0, 3))
    torch.testing.assert_close(shared, torch.cdist(mx, my) ** 2 + 3)


def test_pairwise_in_blocks_is_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    means = rng.standard_normal((7, 2))
    covs = np.stack([random_covariance(2, rng) for _ in range(7)])
    whole = gaussian.pairwise_w2_squared(means, covs, means, covs)
    monkeypatch.setattr(families, "_BLOCK", 2 * 7 * 4)
    np.testing.assert_allclose(gaussian.pairwise_w2_squared(means, covs, means, covs), whole, rtol=1e-12, atol=1e-14)


# --- samples ---


def test_fit_is_numpys_mean_and_covariance():
    x = np.random.default_rng(0).standard_normal((50, 3))
    mean, cov = gaussian.fit(x)
    np.testing.assert_allclose(mean, x.mean(0), atol=10 * EPS)
    np.testing.assert_allclose(cov, np.cov(x.T), rtol=1e-13)
    np.testing.assert_allclose(gaussian.fit(x, biased=True)[1], np.cov(x.T, bias=True), rtol=1e-13)


def test_uniform_weights_change_nothing_and_integers_repeat_points():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 2))
    np.testing.assert_allclose(gaussian.fit(x, np.full(6, 1 / 6))[1], gaussian.fit(x)[1], rtol=1e-13)
    counts = np.array([1, 2, 3, 1, 1, 2])
    weighted = gaussian.fit(x, counts / counts.sum(), biased=True)
    repeated = gaussian.fit(np.repeat(x, counts, axis=0), biased=True)
    for ours, theirs in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_fit_far_from_the_origin_in_float32():
    x = (np.random.default_rng(2).standard_normal((1000, 2)) + 1e4).astype(np.float32)
    np.testing.assert_allclose(gaussian.fit(x)[1], np.cov(x.T.astype(float)), rtol=1e-5)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 40, 5), (4, 40, 5), (40, 4, 5), (4, 3, 5), (2, 2, 1)])
def test_from_samples_is_the_distance_of_the_fits(n, m, d):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, d)), 2 * rng.standard_normal((m, d)) + 1
    expected = gaussian.w2_squared(*gaussian.fit(x), *gaussian.fit(y))
    # The fits of few samples are singular: their rounded eigenvalues are worth √eps.
    assert gaussian.w2_squared_from_samples(x, y) == pytest.approx(expected, rel=10 * np.sqrt(EPS))


@pytest.mark.parametrize(("n", "m", "d"), [(7, 8, 3), (3, 8, 4), (3, 4, 5)])
def test_gradients_of_from_samples(n, m, d):
    rng = np.random.default_rng(d)
    x, y = (torch.tensor(rng.standard_normal((k, d)), requires_grad=True) for k in (n, m))
    assert torch.autograd.gradcheck(gaussian.w2_squared_from_samples, (x, y))
    gaussian.w2_squared_from_samples(x, y).backward()
    value, grads = gaussian.w2_squared_from_samples_and_grad(x.detach().numpy(), y.detach().numpy())
    assert value == pytest.approx(gaussian.w2_squared_from_samples(x.detach().numpy(), y.detach().numpy()), rel=1e-12)
    np.testing.assert_allclose(grads.x, x.grad.numpy(), atol=1e-7)
    np.testing.assert_allclose(grads.y, y.grad.numpy(), atol=1e-7)


def test_the_frechet_distance_of_a_sample_to_itself_is_zero():
    x = 100 * np.random.default_rng(0).standard_normal((50, 200))
    assert gaussian.w2_squared_from_samples(x, x) <= 1e3 * EPS * (x**2).sum() / 49


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_samples_keep_their_dtype(dtype):
    x = np.random.default_rng(0).standard_normal((9, 2)).astype(dtype)
    tensor = torch.tensor(x)
    for z, expected in ((x, np.dtype(dtype)), (tensor, tensor.dtype)):
        mean, cov = gaussian.fit(z)
        mapped = gaussian.transport_map(mean, cov, mean, cov)
        path = gaussian.geodesic(mean, cov, mean, cov, 0.5)
        center = gaussian.barycenter(mean[None], cov[None])
        for out in (mean, cov, gaussian.w2_squared_from_samples(z, z), *mapped, *path, center.mean, center.cov):
            assert out.dtype == expected


@given(seed=seeds, d=dimensions)
def test_moments_in_any_batches(seed, d):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, d)) + 1e3
    cuts = np.sort(rng.integers(0, 21, 3))
    parts = [gaussian.Moments().update(b) for b in np.split(x, cuts)]
    total = gaussian.Moments()
    for part in rng.permutation(np.array(parts, dtype=object)):
        total.merge(part)
    assert total.n == 20
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=100 * EPS)
    np.testing.assert_allclose(total.cov, np.cov(x.T).reshape(d, d), rtol=1e-9, atol=1e-9)


def test_moments_of_tensors_and_refusals():
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    moments = gaussian.Moments().update(x)
    assert moments.cov.dtype == torch.float64
    torch.testing.assert_close(moments.cov.float(), torch.cov(x.T))
    with pytest.raises(ValueError, match="at least 2 points; got 1"):
        _ = gaussian.Moments().update(x[:1]).cov
    with pytest.raises(ValueError, match=r"batch must have shape \(n, d\)"):
        gaussian.Moments().update(x[0])
    with pytest.raises(ValueError, match="number of coordinates"):
        moments.update(x[:, :2])
    with pytest.raises(TypeError, match=r"moments is a torch\.Tensor|batch is a numpy|is a numpy\.ndarray"):
        moments.update(np.zeros((2, 3)))


# --- maps and paths ---


@given(seed=seeds, d=dimensions)
def test_the_map_pushes_one_gaussian_onto_the_other_at_the_cost_of_w2(seed, d):
    m, x, n, y = pair(seed, d)
    move = gaussian.transport_map(m, x, n, y)
    np.testing.assert_allclose(move.matrix @ x @ move.matrix, y, atol=1e-10)
    np.testing.assert_allclose(move(m), n, atol=1e-11)
    away = move.matrix - np.eye(d)
    cost = ((move(m) - m) ** 2).sum() + np.trace(away @ x @ away)
    assert cost == pytest.approx(gaussian.w2_squared(m, x, n, y), abs=1e-10)


def test_maps_of_batches_move_clouds():
    m, x, n, y = (torch.tensor(a) for a in pair(0, 3))
    means = torch.stack([m, m + 1])
    move = gaussian.transport_map(means, x, n, y)
    points = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = move(points)
    assert moved.shape == (2, 5, 3)
    torch.testing.assert_close(moved[1], points[1] @ move.matrix[1].T + move.offset[1])


def test_the_map_is_differentiable():
    m, x, n, y = (torch.tensor(a, requires_grad=True) for a in pair(1, 3))
    assert torch.autograd.gradcheck(lambda *a: gaussian.transport_map(*a), (m, x, n, y))


@pytest.mark.parametrize("rank", [None, 2])
def test_the_geodesic_is_run_at_constant_speed(rank):
    m, x, n, y = pair(2, 3, rank)
    total = gaussian.w2(m, x, n, y)
    for t in (0.0, 0.25, 0.5, 1.0):
        mean, cov = gaussian.geodesic(m, x, n, y, t)
        tolerance = 1e-9 if rank is None else 1e-6
        assert gaussian.w2(m, x, mean, cov) == pytest.approx(t * total, abs=tolerance)
        if rank is None:
            assert gaussian.w2(mean, cov, n, y) == pytest.approx((1 - t) * total, abs=tolerance)


def test_geodesic_times_broadcast_and_are_checked():
    m, x, n, y = pair(3, 2)
    mean, cov = gaussian.geodesic(m, x, n, y, np.linspace(0, 1, 5))
    assert mean.shape == (5, 2)
    assert cov.shape == (5, 2, 2)
    np.testing.assert_allclose(cov[-1], y, atol=1e-13)
    with pytest.raises(ValueError, match="t must be between 0 and 1; got 0 to 2"):
        gaussian.geodesic(m, x, n, y, [0.0, 2.0])


def test_the_barycenter_is_a_stationary_point():
    rng = np.random.default_rng(4)
    means = rng.standard_normal((4, 3))
    covs = np.stack([random_covariance(3, rng) for _ in range(4)])
    w = np.array([0.1, 0.2, 0.3, 0.4])
    result = gaussian.barycenter(means, covs, w)
    assert result.converged
    assert result.residual <= 1e-10
    np.testing.assert_allclose(result.mean, w @ means, rtol=1e-13)
    maps = gaussian.transport_map(result.mean, result.cov, means, covs).matrix
    np.testing.assert_allclose(np.einsum("k,kij->ij", w, maps), np.eye(3), atol=1e-8)


def test_known_barycenters():
    rng = np.random.default_rng(5)
    scales = rng.uniform(0.5, 2, (3, 4))
    result = gaussian.barycenter(np.zeros((3, 4)), covariance.Diagonal(scales**2))
    np.testing.assert_allclose(result.cov, np.diag(scales.mean(0) ** 2), atol=1e-9)
    m, x, n, y = pair(6, 3)
    middle = gaussian.barycenter(np.stack([m, n]), np.stack([x, y]), np.array([0.7, 0.3]))
    np.testing.assert_allclose(middle.cov, gaussian.geodesic(m, x, n, y, 0.3)[1], atol=1e-8)


def test_barycenters_of_batches_and_singular_members():
    rng = np.random.default_rng(7)
    covs = np.stack([random_covariance(3, rng, rank=r) for r in (3, 2, 3, 1)]).reshape(2, 2, 3, 3)
    out = gaussian.barycenter(np.zeros((2, 2, 3)), covs)
    assert out.cov.shape == (2, 3, 3)
    assert out.converged
    for b in range(2):
        single = gaussian.barycenter(np.zeros((2, 3)), covs[b])
        np.testing.assert_allclose(out.cov[b], single.cov, atol=1e-8)


def test_a_barycenter_that_did_not_converge_says_so():
    m, x, n, y = pair(8, 3)
    with pytest.warns(otdist.ConvergenceWarning, match="after 1 steps; its residual is"):
        result = gaussian.barycenter(np.stack([m, n]), np.stack([x, y]), max_iter=1)
    assert not result.converged
    assert result.residual > 1e-10
    with pytest.raises(NotImplementedError, match="not differentiable"):
        gaussian.barycenter(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3).clone().requires_grad_())


# --- entropic forms ---


def brute_entropic(m, s, n, t, epsilon, nodes=80):
    """Sinkhorn between two 1-D Gaussians on Gauss–Hermite nodes, in the log domain."""
    from scipy.special import logsumexp

    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    keep = w > 1e-300
    z, w = z[keep], w[keep]
    cost = (m + s * z[:, None] - n - t * z[None, :]) ** 2
    f, g, lw = np.zeros_like(z), np.zeros_like(z), np.log(w)
    for _ in range(3000):
        f = -epsilon * logsumexp((g - cost) / epsilon + lw, axis=1)
        g = -epsilon * logsumexp((f[:, None] - cost) / epsilon + lw[:, None], axis=0)
    return w @ f + w @ g


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 20.0])
def test_the_entropic_closed_form_against_sinkhorn_on_quadrature_nodes(epsilon):
    args = (np.array([0.3]), np.array([[1.44]]), np.array([-0.5]), np.array([[0.49]]))
    brute = brute_entropic(0.3, 1.2, -0.5, 0.7, epsilon)
    assert gaussian.entropic_cost(*args, epsilon=epsilon) == pytest.approx(brute, rel=1e-8)


def test_limits_of_the_entropic_forms():
    args = pair(9, 3)
    w2_squared = gaussian.w2_squared(*args)
    shift = ((args[0] - args[2]) ** 2).sum()
    traces = np.trace(args[1]) + np.trace(args[3])
    assert gaussian.entropic_cost(*args, epsilon=1e-9) == pytest.approx(w2_squared, abs=1e-6)
    assert gaussian.entropic_cost(*args, epsilon=1e12) == pytest.approx(shift + traces, rel=1e-10)
    assert gaussian.sinkhorn_divergence(*args, epsilon=1e-9) == pytest.approx(w2_squared, abs=1e-6)
    assert gaussian.sinkhorn_divergence(*args, epsilon=1e12) == pytest.approx(shift, rel=1e-6)


@pytest.mark.parametrize("function", [gaussian.entropic_cost, gaussian.sinkhorn_divergence])
@pytest.mark.parametrize("rank", [None, 2])
def test_gradients_of_the_entropic_forms(function, rank):
    args = [torch.tensor(a, requires_grad=True) for a in pair(10, 3)]
    assert torch.autograd.gradcheck(lambda *a: function(*a, epsilon=0.7), args)
    if rank:  # through a factor, so that the finite differences stay semidefinite
        root = torch.tensor(np.random.default_rng(0).standard_normal((3, rank)), requires_grad=True)
        m, _, n, y = (a.detach() for a in args)
        assert torch.autograd.gradcheck(lambda r: function(m, r @ r.T, n, y, epsilon=0.7), root)


@given(seed=seeds, d=dimensions)
def test_the_sinkhorn_divergence_is_a_divergence(seed, d):
    m, x, n, y = pair(seed, d)
    assert abs(gaussian.sinkhorn_divergence(m, x, m, x, epsilon=0.5)) <= 1000 * EPS * d
    assert gaussian.sinkhorn_divergence(m, x, n, y, epsilon=0.5) > 0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_epsilon_is_checked(epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive and finite"):
        gaussian.entropic_cost(*pair(0, 2), epsilon=epsilon)


# --- mixtures ---


def mixture(seed, k, d=2):
    rng = np.random.default_rng(seed)
    w = rng.uniform(1, 2, k)
    return w / w.sum(), rng.standard_normal((k, d)), np.stack([random_covariance(d, rng) for _ in range(k)])


def test_mixtures_of_one_are_gaussians():
    m, x, n, y = pair(11, 3)
    out = gaussian.mixture_w2_squared(np.ones(1), m[None], x[None], np.ones(1), n[None], y[None])
    assert out == pytest.approx(gaussian.w2_squared(m, x, n, y), rel=1e-12)


def test_mixtures_are_transported_component_by_component():
    from scipy.optimize import linprog

    (a, mx, cx), (b, my, cy) = mixture(0, 3), mixture(1, 4)
    cost = gaussian.pairwise_w2_squared(mx, cx, my, cy)
    rows = np.kron(np.eye(3), np.ones((1, 4)))
    columns = np.kron(np.ones((1, 3)), np.eye(4))
    reference = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]))
    assert gaussian.mixture_w2_squared(a, mx, cx, b, my, cy) == pytest.approx(reference.fun, rel=1e-9)


def test_gradients_of_mixtures():
    x, y = (tuple(torch.tensor(z, requires_grad=True) for z in mixture(s, k)) for s, k in ((0, 3), (1, 2)))

    def distance(mx, cx, my, cy):
        return gaussian.mixture_w2_squared(x[0].detach(), mx, cx, y[0].detach(), my, cy)

    assert torch.autograd.gradcheck(distance, (x[1], x[2], y[1], y[2]))
    # Weights live on the simplex: along a direction that keeps their sum, the slope is the potentials'.
    gaussian.mixture_w2_squared(*x, *y).backward()
    direction = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    step, fixed = 1e-6, [z.detach() for z in (*x, *y)]
    values = [gaussian.mixture_w2_squared(fixed[0] + s * direction, *fixed[1:]) for s in (step, -step)]
    assert x[0].grad @ direction == pytest.approx(float(values[0] - values[1]) / (2 * step), rel=1e-6)


def test_the_plan_of_mixtures_has_the_marginals_and_the_cost():
    (a, mx, cx), (b, my, cy) = mixture(0, 3), mixture(1, 4)
    plan = gaussian.mixture_plan(a, mx, cx, b, my, cy)
    np.testing.assert_allclose(plan.sum(1), a, rtol=10 * EPS)
    np.testing.assert_allclose(plan.sum(0), b, rtol=10 * EPS)
    cost = gaussian.pairwise_w2_squared(mx, cx, my, cy)
    assert (plan * cost).sum() == pytest.approx(gaussian.mixture_w2_squared(a, mx, cx, b, my, cy), rel=1e-13)
    tensors = (torch.tensor(z, requires_grad=True) for z in (a, mx, cx, b, my, cy))
    np.testing.assert_allclose(gaussian.mixture_plan(*tensors).numpy(), plan, atol=1e-15)
    batch = gaussian.mixture_plan(np.stack([a, a]), np.stack([mx, mx + 1]), cx, b, my, cy)
    assert batch.shape == (2, 3, 4)
    np.testing.assert_allclose(batch[0], plan, atol=1e-15)


def test_maps_of_mixtures():
    a, mx, cx = mixture(0, 3)
    points = np.random.default_rng(3).standard_normal((50, 2))
    moved = gaussian.mixture_map(a, mx, cx, a, mx + np.array([10.0, 0.0]), cx)(points)
    # a translation, wherever a point belongs
    np.testing.assert_allclose(moved, points + np.array([10.0, 0.0]), atol=1e-11)
    m, x, n, y = pair(11, 3)
    one = gaussian.mixture_map(np.ones(1), m[None], x[None], np.ones(1), n[None], y[None])
    cloud = np.random.default_rng(4).standard_normal((9, 3))
    np.testing.assert_allclose(one(cloud), gaussian.transport_map(m, x, n, y)(cloud), atol=1e-12)
    in_torch = gaussian.mixture_map(*(torch.tensor(z) for z in (a, mx, cx, a, mx + 1, cx)))(torch.tensor(points))
    np.testing.assert_allclose(in_torch.numpy(), points + 1, atol=1e-11)
    empty = gaussian.mixture_map(np.array([0.0, 1.0]), mx[:2], cx[:2], np.ones(1), mx[2:], cx[2:])
    alone = gaussian.transport_map(mx[1], cx[1], mx[2], cx[2])
    np.testing.assert_allclose(empty(points), alone(points), atol=1e-12)
    with pytest.raises(ValueError, match="covs_x must be positive definite"):
        gaussian.mixture_map(np.ones(1), m[None], np.zeros((1, 3, 3)), np.ones(1), n[None], y[None])


@pytest.mark.parametrize("kind", ["map", "geodesic", "barycenter"])
def test_maps_paths_and_barycenters_under_transforms(kind):
    rng = np.random.default_rng(0)
    covs = torch.tensor(np.stack([random_covariance(3, rng) for _ in range(4)]))
    zero, y = torch.zeros(3, dtype=torch.float64), torch.tensor(random_covariance(3, rng))
    means = torch.tensor(rng.standard_normal((4, 2, 3)))
    function, batch = {
        "map": (lambda x: (gaussian.transport_map(zero, x, zero, y).matrix ** 2).sum(), covs),
        "geodesic": (lambda x: (gaussian.geodesic(zero, x, zero, y, 0.3)[1] ** 2).sum(), covs),
        "barycenter": (lambda m: (gaussian.barycenter(m, covs[:2]).mean ** 2).sum(), means),
    }[kind]
    expected = []
    for member in batch:
        leaf = member.clone().requires_grad_()
        function(leaf).backward()
        expected.append(leaf.grad)
    mapped = torch.func.vmap(torch.func.grad(function))(batch)
    if kind != "barycenter":  # of a symmetric argument; checked values are not averaged with their mirror images
        mapped, expected = mapped + mapped.mT, [g + g.mT for g in expected]
    torch.testing.assert_close(mapped, torch.stack(expected))
    torch._dynamo.reset()
    leaf = batch[0].clone().requires_grad_()
    torch.compile(function, fullgraph=True, backend="aot_eager")(leaf).backward()
    torch.testing.assert_close(leaf.grad if kind == "barycenter" else leaf.grad + leaf.grad.mT, expected[0])


def test_the_covariance_of_a_barycenter_refuses_to_be_differentiated_under_transforms():
    covs = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    means = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="not differentiable"):
        torch.func.grad(lambda c: gaussian.barycenter(means, c).cov.sum())(covs)


def test_refusals_of_mixtures():
    (a, mx, cx), (b, my, cy) = mixture(0, 3), mixture(1, 2)
    with pytest.raises(ValueError, match="weights_x must sum to 1 along its last axis; got a sum of 2"):
        gaussian.mixture_w2_squared(2 * a, mx, cx, b, my, cy)
    with pytest.raises(ValueError, match=r"mean_x must have shape \(\.\.\., k, d\)|means_x must have shape"):
        gaussian.mixture_w2_squared(a, mx[0], cx[0], b, my, cy)


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = torch.eye(3, dtype=torch.float64).requires_grad_()
        zero = torch.zeros(3, dtype=torch.float64)
        gaussian.w2(zero, x, zero, x).backward()


@pytest.mark.parametrize("scale", [2.0**-480, 2.0**-30, 2.0**30, 2.0**480])
def test_a_mixture_is_as_right_at_any_scale(scale):
    rng, covs, weights = np.random.default_rng(0), np.stack([np.eye(2)] * 3), np.array([0.2, 0.3, 0.5])
    means = rng.standard_normal((2, 3, 2))

    def at(s):
        return gaussian.mixture_w2_squared(
            weights, means[0] * s, covs * s * s, weights[::-1], means[1] * s, covs * s * s
        )

    assert at(scale) / scale / scale == pytest.approx(at(1.0), rel=1e-12)


def test_errors_of_families_name_the_families():
    covs = np.stack([np.eye(2)] * 3)
    with pytest.raises(ValueError, match=r"means_y must be finite"):
        gaussian.pairwise_w2_squared(np.zeros((3, 2)), covs, np.full((3, 2), np.nan), covs)
    with pytest.raises(ValueError, match=r"covs_x must have shape"):
        gaussian.mixture_w2_squared(None, np.zeros((3, 2)), np.zeros((3, 2)), None, np.zeros((3, 2)), covs)


def test_only_the_mean_of_a_barycenter_carries_the_gradient_by_weights():
    weights = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)
    found = gaussian.barycenter(torch.eye(2).double(), torch.eye(2).double().expand(2, 2, 2), weights)
    assert (found.mean.requires_grad, found.cov.requires_grad, found.residual.requires_grad) == (True, False, False)


@pytest.mark.parametrize("function", [gaussian.pairwise_w2_squared, gaussian.mixture_w2_squared])
@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_an_indefinite_member_is_refused_by_the_name_of_its_family(function, side, as_given):
    means, covs = as_given(np.zeros((2, 2))), as_given(np.stack([np.eye(2), np.eye(2)]))
    bad = as_given(np.stack([np.eye(2), np.diag([1.0, -1.0])]))
    families = [means, bad if side == "x" else covs, means, bad if side == "y" else covs]
    args = families if function is gaussian.pairwise_w2_squared else [None, *families[:2], None, *families[2:]]
    with pytest.raises(ValueError, match=f"covs_{side} must be positive semidefinite"):
        function(*args)


@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_maps_promote_as_their_library_does(as_given):
    single, double = (as_given(np.ones((3, 2), dtype)) for dtype in (np.float32, np.float64))
    mean, cov = as_given(np.zeros(2, np.float32)), as_given(np.eye(2, dtype=np.float32))
    move = gaussian.transport_map(mean, cov, mean, 4 * cov)
    mixed = gaussian.mixture_map(None, mean[None], cov[None], None, mean[None], 4 * cov[None])
    for one in (move, mixed):
        assert one(single).dtype == single.dtype
        assert one(double).dtype == double.dtype
        np.testing.assert_allclose(np.asarray(one(double)), 2.0)
        np.testing.assert_allclose(np.asarray(one([[1.0, 1.0]])), 2.0)
        with pytest.raises(ValueError, match="points and the map must agree in the number of coordinates; got 3 and 2"):
            one(as_given(np.ones((4, 3))))
    assert move(double[0]).dtype == double.dtype


@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("n", [3, 8])
def test_samples_beyond_the_range_of_squares(n, as_given):
    """What is a number is returned, what is not is refused by name; and nothing warns."""
    z = np.random.default_rng(4).standard_normal((n, 4))
    far = as_given(z * 2.0**600)
    if n > 4:  # of fewer points the distance is 0 up to rounding, which is beyond the range too
        assert gaussian.w2_squared_from_samples(far, far) == 0
    if n > 4 and as_given is np.asarray:
        value, grads = gaussian.w2_squared_from_samples_and_grad(far, far)
        assert value == 0
        np.testing.assert_array_equal(grads.x, 0)
    for call in (
        lambda: gaussian.w2_squared_from_samples(far, -far),
        lambda: gaussian.fit(far),
        lambda: gaussian.Moments().update(far),
        lambda: gaussian.Moments().update(far[:1]).update(-far[:1]),
    ):
        with pytest.raises(ValueError, match="is beyond the range of float64; divide"):
            call()
    same = as_given(np.full((n, 4), 2.0**1023))
    mean, cov = gaussian.fit(same)  # whose sum overflows
    np.testing.assert_array_equal(np.asarray(mean), 2.0**1023)
    np.testing.assert_array_equal(np.asarray(cov), 0)
