"""Entropic transport: against a log-domain reference, closed forms, manufactured problems and POT's exact values."""

from __future__ import annotations

import warnings

import numpy as np
import ot
import pytest
import torch
from scipy.special import logsumexp

import otdist
from otdist import gaussian, sinkhorn

EPS32 = float(np.finfo(np.float32).eps)


def clouds(seed, n=40, m=30, d=3, batch=(), zeros=True):
    """Two clouds of different sizes and shapes, with weights of which some are 0."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*batch, n, d))
    y = rng.standard_normal((*batch, m, d)) * 0.7 + 0.5
    a, b = rng.dirichlet(np.ones(n), batch or None), rng.dirichlet(np.ones(m), batch or None)
    if zeros:
        a[..., :2], b[..., -3:] = 0, 0
    return x, y, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)


def cost(x, y):
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)


def log_domain(C, a, b, epsilon, reach=np.inf):
    """Plain alternating softmins until nothing moves; value from the primal definition."""
    with np.errstate(divide="ignore"):
        la, lb = np.log(a), np.log(b)
    rho = reach**2
    damping = 1.0 if np.isinf(rho) else rho / (rho + epsilon)
    g = np.zeros(len(b))
    for _ in range(100_000):
        f = -damping * epsilon * logsumexp((g - C) / epsilon + lb, axis=1)
        new = -damping * epsilon * logsumexp((f[:, None] - C) / epsilon + la[:, None], axis=0)
        moved, g = np.abs(new - g).max(), new
        if moved < 1e-14 * C.max():
            break
    else:
        raise AssertionError("the reference did not converge")
    P = np.exp((f[:, None] + g - C) / epsilon + la[:, None] + lb)
    value = (P * C).sum() + epsilon * kl(P, np.outer(a, b))
    if np.isfinite(rho):
        value += rho * (kl(P.sum(1), a) + kl(P.sum(0), b))
    return f, g, P, value


def kl(p, q):
    live = p > 0
    return (p[live] * np.log(p[live] / q[live])).sum() - p.sum() + q.sum()


@pytest.mark.parametrize("reach", [None, 1.0])
@pytest.mark.parametrize(("d", "relative"), [(1, 0.5), (3, 0.05), (12, 0.05)])
def test_solution_is_that_of_the_log_domain_reference(d, relative, reach):
    x, y, a, b = clouds(0, d=d)
    C = cost(x, y)
    epsilon = relative * C.mean()
    f, g, P, value = log_domain(C, a, b, epsilon, np.inf if reach is None else reach)
    # The error of the potentials is that of the marginals times the condition of the problem, below 1e4 here.
    result = sinkhorn.solve(x, y, a, b, epsilon=epsilon, tol=1e-11, reach=reach)
    assert result.converged
    np.testing.assert_allclose(result.value, value, rtol=1e-11)
    np.testing.assert_allclose(result.transport_cost, (P * C).sum(), rtol=1e-8)
    np.testing.assert_allclose(result.plan(), P, atol=1e-8)
    shift = f[5] - result.f[5] if reach is None else 0.0
    np.testing.assert_allclose(result.f + shift, f, atol=1e-6 * C.mean())
    np.testing.assert_allclose(result.g - shift, g, atol=1e-6 * C.mean())


@pytest.mark.parametrize("relative", [0.05, 0.002, 1e-4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_marginal_error_is_the_l1_violation_of_the_plan(relative, dtype):
    x, y, a, b = (z.astype(dtype) for z in clouds(1, n=120, m=100, d=2))
    C = cost(x, y).astype(float)
    result = sinkhorn.solve(x, y, a, b, epsilon=relative * C.mean(), tol=1e-3)
    P = result.plan().astype(float)
    violation = np.abs(P.sum(1) - a).sum() + np.abs(P.sum(0) - b).sum()
    assert result.converged
    assert result.marginal_error <= 1e-3
    # f and g are returned in the caller's type: their rounding, in units of ε, is that of the plan's entries.
    rounding = 4 * np.finfo(dtype).eps * C.max() / (relative * C.mean())
    assert abs(violation - result.marginal_error) <= rounding + 1e-4 * (dtype == np.float32)
    density = np.exp((result.f[:, None].astype(float) + result.g - C) / (relative * C.mean()))
    np.testing.assert_allclose(density * np.outer(a, b), P, atol=2 * rounding)


def test_value_error_is_of_second_order():
    x, y, a, b = clouds(2, n=200, m=150)
    epsilon = 0.05 * cost(x, y).mean()
    exact = sinkhorn.solve(x, y, a, b, epsilon=epsilon, tol=1e-11).value
    error = abs(sinkhorn.solve(x, y, a, b, epsilon=epsilon, tol=1e-3).value - exact)
    assert error <= 1e-3 * epsilon  # the first order would be tol times the potentials, 20 ε and more


def test_potentials_share_their_constant_evenly():
    x, y, a, b = clouds(3)
    result = sinkhorn.solve(x, y, a, b, epsilon=0.3)
    np.testing.assert_allclose(a @ result.f, b @ result.g, rtol=1e-12)
    np.testing.assert_allclose(2 * (a @ result.f), result.value, rtol=1e-9)


@pytest.mark.parametrize(("d", "count", "epsilon"), [(2, 40, 2.0), (1, 150, 0.2)])
def test_gaussians_on_gauss_hermite_nodes(d, count, epsilon):
    # The quadrature is exact for the smooth densities of the plan while its nodes are closer than √(ε/2).
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    grid = np.stack(np.meshgrid(*[nodes] * d, indexing="ij"), -1).reshape(-1, d)
    mass = np.prod(np.meshgrid(*[weights / weights.sum()] * d, indexing="ij"), axis=0).ravel()
    keep = mass > 1e-25
    grid, mass = grid[keep], mass[keep] / mass[keep].sum()
    root, mean = np.array([[0.8, 0.0], [0.3, 0.6]])[:d, :d], np.array([0.5, -0.2])[:d]
    expected = gaussian.entropic_cost(np.zeros(d), np.eye(d), mean, root @ root.T, epsilon=epsilon)
    found = sinkhorn.solve(grid, grid @ root.T + mean, mass, mass, epsilon=epsilon, tol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.value, expected, rtol=1e-10)


@pytest.mark.parametrize("epsilon", [10.0, 1.0, 1e-2, 4e-4])  # the mean cost is 4
def test_manufactured_problems(epsilon):
    # Any f, g define a plan, whose marginals define the problem that it solves.
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((25, 2)), rng.standard_normal((20, 2))
    C = cost(x, y)
    f = C.min(1) + epsilon * rng.standard_normal(25)
    g = (C - f[:, None]).min(0) + epsilon * rng.standard_normal(20)
    P = np.exp((f[:, None] + g - C) / epsilon)
    P /= P.sum()
    a, b = P.sum(1), P.sum(0)
    value = (P * C).sum() + epsilon * kl(P, np.outer(a, b))
    found = sinkhorn.solve(x, y, a, b, epsilon=epsilon, tol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.value, value, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.plan(), P, atol=1e-9)


def test_value_agrees_with_pot():
    x, y, a, b = clouds(5, zeros=False)
    C = cost(x, y)
    P = ot.sinkhorn(a, b, C, 0.5, method="sinkhorn_log", stopThr=1e-12, numItermax=10_000)
    found = sinkhorn.solve(x, y, a, b, epsilon=0.5, tol=1e-10)
    np.testing.assert_allclose(found.transport_cost, (P * C).sum(), rtol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_bounds_contain_the_exact_value(d):
    rng = np.random.default_rng(d)
    for trial in range(30):
        n, m = rng.integers(1, 40, 2)
        x, y, a, b = clouds(100 * d + trial, n=n + 3, m=m + 4, d=d)
        exact = ot.emd2(a, b, cost(x, y))
        epsilon = float(10.0 ** rng.uniform(-3, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", otdist.ConvergenceWarning)
            max_iter = int(rng.choice([1, 3, 5000]))  # bounds hold before convergence, too
            result = sinkhorn.solve(x, y, a, b, epsilon=epsilon, max_iter=max_iter)
        lower, upper = result.bounds()
        assert lower <= exact + 1e-13 <= upper + 2e-13  # the exact solver rounds, too


def test_bounds_of_float32_are_rounded_outwards():
    x, y, _, _ = clouds(6)
    single = [z.astype(np.float32) for z in (x, y)]
    lower, upper = sinkhorn.solve(*single, epsilon=1e-3 * cost(x, y).mean()).bounds()
    exact = ot.emd2([], [], cost(*(z.astype(float) for z in single)))
    assert lower.dtype == np.float32
    assert lower <= exact <= upper


def test_bracket_meets_its_tolerance_around_the_exact_value():
    x, y, a, b = clouds(7, batch=(2,))
    found = sinkhorn.bracket(x, y, a, b, rel_tol=1e-2)
    assert found.converged.all()
    for k in range(2):
        exact = ot.emd2(a[k], b[k], cost(x[k], y[k]))
        assert found.lower[k] <= exact <= found.upper[k]
        assert found.upper[k] - found.lower[k] <= 1e-2 * found.upper[k]


def test_bracket_of_equal_clouds_is_zero():
    x = clouds(8)[0]
    found = sinkhorn.bracket(x, x[::-1])
    assert found.converged
    assert found.lower == 0
    assert found.upper <= 1e-10


def test_apply_and_barycentric_map_are_products_of_the_plan():
    x, y, a, b = clouds(9, batch=(2,))
    result = sinkhorn.solve(x, y, a, b, epsilon=0.3, tol=1e-9)
    P = result.plan()
    v = np.random.default_rng(0).standard_normal((2, 30, 4))
    np.testing.assert_allclose(result.apply(v), P @ v, atol=1e-14)
    np.testing.assert_allclose(result.apply(v[..., 0]), (P @ v)[..., 0], atol=1e-14)
    mean = result.barycentric_map()
    np.testing.assert_allclose(mean[:, 2:], (P @ y)[:, 2:] / P.sum(2)[:, 2:, None], rtol=1e-10)
    assert np.isfinite(mean).all()  # points without weight have a place to go, too


# Regimes and batches.


def test_padding_changes_nothing():
    x, y, a, b = clouds(10, zeros=False)
    far = 1e3 * np.ones((5, 3))
    padded = sinkhorn.w2_squared_and_grad(
        np.concatenate((x, far)), y, np.concatenate((a, np.zeros(5))), b, epsilon=0.3, tol=1e-10
    )
    value, grads = sinkhorn.w2_squared_and_grad(x, y, a, b, epsilon=0.3, tol=1e-10)
    # What is lost are digits of the points beside the padding's, 1e3.
    np.testing.assert_allclose(padded[0], value, rtol=1e-9)
    np.testing.assert_allclose(padded[1].x[:40], grads.x, atol=1e-9)
    assert (padded[1].x[40:] == 0).all()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("relative", [0.1, 1e-3])
@pytest.mark.parametrize("far", [3.0, 100.0])
def test_unbalanced_points_without_weight_change_nothing_wherever_they_are(monkeypatch, far, relative, cached):
    from otdist.sinkhorn import numpy_engine

    if not cached:
        monkeypatch.setattr(numpy_engine, "CACHED", 0)
    x, y, a, b = clouds(12)  # the first two of x and the last three of y have none
    epsilon = relative * cost(x, y).mean()
    x[0] += far
    y[-1] -= far
    for reach in (0.5 * epsilon**0.5, 3 * epsilon**0.5):  # damping 1/5 and 9/10
        options = {"epsilon": epsilon, "tol": 1e-10, "reach": reach}
        value, grads = sinkhorn.w2_squared_and_grad(x, y, a, b, **options)
        alone, own = sinkhorn.w2_squared_and_grad(x[2:], y[:-3], a[2:], b[:-3], **options)
        scale = np.abs(own.x).max() + np.abs(own.y).max()
        # Starts differ with the boxes around the clouds: both are right to 1e-10 of the marginals.
        np.testing.assert_allclose(value, alone, rtol=1e-8)
        np.testing.assert_allclose(grads.x[2:], own.x, atol=1e-7 * scale)
        np.testing.assert_allclose(grads.y[:-3], own.y, atol=1e-7 * scale)
        assert not grads.x[:2].any()
        assert not grads.y[-3:].any()
        assert np.isfinite(grads.a).all()
        assert np.isfinite(grads.b).all()


def test_batch_equals_its_problems_and_stops_each_on_its_own():
    x, y, a, b = clouds(11, batch=(3,))
    x[1] *= 5
    together = sinkhorn.solve(x, y, a, b, epsilon=0.3)
    assert len(set(together.n_iter)) > 1
    for k in range(3):
        alone = sinkhorn.solve(x[k], y[k], a[k], b[k], epsilon=0.3)
        assert alone.n_iter == together.n_iter[k]
        np.testing.assert_allclose(alone.f, together.f[k], rtol=1e-12)
        assert alone.value == together.value[k]


def test_broadcasting():
    x, y, _, b = clouds(12, batch=(2,))
    value, grads = sinkhorn.w2_squared_and_grad(x[:, None], y[0], None, b[0], epsilon=0.5, tol=1e-9)
    assert value.shape == (2, 1)
    assert grads.y.shape == y[0].shape
    one = [sinkhorn.w2_squared_and_grad(z, y[0], None, b[0], epsilon=0.5, tol=1e-9) for z in x]
    np.testing.assert_allclose(grads.y, one[0][1].y + one[1][1].y, atol=1e-9)
    np.testing.assert_allclose(grads.b, one[0][1].b + one[1][1].b, atol=1e-9)
    assert grads.a is None


REGIMES = {
    "a kernel that is kept": {"CACHED": 0},
    "kept, on threads": {"CACHED": 0, "LARGE": 1},
    "streamed": {"CACHED": 0, "STORED_BYTES": 0},
    "streamed in the smallest tiles, on threads": {"CACHED": 0, "STORED_BYTES": 0, "TILE": 1, "LARGE": 1},
}


@pytest.mark.parametrize("reach", [None, 2.0])
@pytest.mark.parametrize("limits", REGIMES.values(), ids=REGIMES)
def test_regimes_agree(monkeypatch, limits, reach):
    from otdist.sinkhorn import numpy_engine, numpy_passes

    x, y, a, b = clouds(13, n=91, m=70)
    a[2] = b[3] = 0.0
    a, b = a / a.sum(), b / b.sum()
    options = {"epsilon": 0.3, "tol": 1e-4, "reach": reach}
    whole = sinkhorn.w2_squared_and_grad(x, y, a, b, **options)
    solved = sinkhorn.solve(x, y, a, b, **options)
    for name, limit in limits.items():
        monkeypatch.setattr(numpy_engine if name == "CACHED" else numpy_passes, name, limit)
    other = sinkhorn.w2_squared_and_grad(x, y, a, b, **options)
    np.testing.assert_allclose(other[0], whole[0], rtol=1e-9)
    for mine, theirs in zip(other[1], whole[1], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
    np.testing.assert_allclose(sinkhorn.solve(x, y, a, b, **options).plan(), solved.plan(), atol=1e-12)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_start_from_far_away_is_followed(monkeypatch, dtype, streamed):
    # The potential moves by 400/ε: matrices that absorbed it on the way stop serving and are computed again, and
    # columns lose all their mass on the way.
    from otdist.sinkhorn import numpy_engine, numpy_passes

    x, y, _, _ = clouds(31, n=60, m=50)
    x, y = x.astype(dtype), y.astype(dtype)
    far = sinkhorn.solve(x + np.array([20.0] + [0.0] * (x.shape[1] - 1), dtype), y, epsilon=0.5)
    reference = sinkhorn.solve(x, y, epsilon=0.5, tol=1e-8).value
    if streamed:
        monkeypatch.setattr(numpy_engine, "CACHED", 0)
        monkeypatch.setattr(numpy_passes, "STORED_BYTES", 0)
    found = sinkhorn.solve(x, y, epsilon=0.5, init=far, max_iter=100)
    assert found.converged
    np.testing.assert_allclose(found.value, reference, rtol=1e-4)


def test_columns_of_hardly_any_weight_are_not_lost():
    # Within tol the marginals can be right while the potential of the second column is anything.
    x, y = np.array([[1.5266301830115059], [0.9989749136801044]]), np.array([[1.2664002355722317], [-0.61347864447609]])
    a = np.array([0.004897540823264409, 0.9951024591767356])
    b = np.array([1.2981174639380926e-07, 0.9999998701882536])
    found = sinkhorn.solve(x, y, a, b, epsilon=0.002285624347113785, tol=1e-6)
    P = found.plan()
    assert found.converged
    actual = np.abs(P.sum(1) - a).sum() + np.abs(P.sum(0) - b).sum()
    np.testing.assert_allclose(found.marginal_error, actual, atol=1e-10)
    np.testing.assert_allclose(found.value, log_domain(cost(x, y), a, b, found.epsilon)[3], rtol=1e-5)


def test_many_points_against_few_need_no_square():
    rng = np.random.default_rng(33)
    x, y = rng.standard_normal((50_000, 1)), rng.standard_normal((8, 1))  # 50 000² entries would be 20 GB
    assert sinkhorn.solve(x, y, epsilon=0.5).converged


def test_where_no_mass_moves_the_map_is_still_defined():
    found = sinkhorn.solve(np.zeros((1, 2)), np.full((1, 2), 10.0), epsilon=0.1, reach=0.3)
    np.testing.assert_allclose(found.barycentric_map(), [[10.0, 10.0]])


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_far_points_that_keep_their_mass_to_themselves_do_not_hold_it_up(monkeypatch, seed, cached):
    # A point beyond the reach sends nothing anywhere: its column's mass is as small as one that was lost on the way.
    # Plain damped Sinkhorn contracts by damping² a pass, whatever ε and the clouds are.
    from otdist.sinkhorn import numpy_engine

    if not cached:
        monkeypatch.setattr(numpy_engine, "CACHED", 0)
    x, y, a, b = clouds(40 + seed, zeros=seed % 2 == 0)
    y[-1] += 10.0 * (1 + seed)
    C = cost(x, y)
    epsilon = 10 ** (-1 - 0.2 * seed) * C.mean()
    damping = (0.3, 0.6, 0.9)[seed % 3]
    reach = float(np.sqrt(epsilon * damping / (1 - damping)))
    found = sinkhorn.solve(x, y, a, b, epsilon=epsilon, reach=reach, tol=1e-8)
    assert found.converged
    stages = 1 + np.ceil(np.log(300 * C.mean() / epsilon) / np.log(4))
    # From a start that is off by C/ε at most, in each stage.
    assert found.n_iter <= stages * (2 + np.log(C.max() / epsilon / 1e-8) / -np.log(damping**2))
    value = log_domain(C, a, b, epsilon, reach)[3]
    np.testing.assert_allclose(found.value, value, rtol=1e-7, atol=1e-7 * epsilon)


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_nan_behind_a_transform_stays_in_its_problem(tol):
    x = torch.tensor(clouds(34, n=530, m=520, batch=(2,), zeros=False)[0])
    x[0, 0, 0] = torch.nan
    value = torch.func.vmap(lambda z: sinkhorn.w2_squared(z, x[1, :520], epsilon=0.5, tol=tol))(x)
    assert value.isnan().tolist() == [True, False]


def test_what_needs_values_says_so():
    x = torch.zeros(3, 2)
    for function in (lambda z: sinkhorn.solve(z, x, epsilon=1.0).value, lambda z: sinkhorn.bracket(z, x).lower):
        with pytest.raises(RuntimeError, match="w2_squared does without"):
            torch.func.grad(function)(x)


def test_hardly_more_passes_than_asked_for():
    x, y, _, _ = clouds(32, n=60, m=50)
    for epsilon, stages in ((1e-3, 3), (0.3, 1)):
        with pytest.warns(otdist.ConvergenceWarning):
            found = sinkhorn.solve(x, y, epsilon=epsilon, tol=1e-12, max_iter=7)
        assert found.n_iter <= 7 + 2 * stages  # each has one pass at least, and does not end on a step to be undone


def test_split_over_threads_equals_one_thread(monkeypatch):
    from otdist._core import threads

    x, y, _, _ = clouds(14, n=700, m=600)
    parallel = sinkhorn.solve(x, y, epsilon=0.3)
    monkeypatch.setattr(threads, "size", lambda: 1)
    assert (sinkhorn.solve(x, y, epsilon=0.3).g == parallel.g).all()


def random_problem(seed):
    """A batch of one, weighted or not, from easy to hard: clouds, weights, ε, tol, most passes, damping, float32."""
    rng = np.random.default_rng(seed)
    (n, m), d = rng.integers(5, 120, 2), int(rng.integers(1, 9))
    x = rng.standard_normal((1, n, d))
    y = rng.standard_normal((1, m, d)) * rng.uniform(0.3, 1.5) + rng.normal()
    a = rng.dirichlet(np.ones(n))[None] if seed % 2 else np.full((1, n), 1 / n)
    b = rng.dirichlet(np.ones(m))[None] if seed % 3 else np.full((1, m), 1 / m)
    epsilon, tol = cost(x, y).mean() * 10 ** rng.uniform(-3.2, 0), 10 ** rng.uniform(-8, -2)
    limits = (float(epsilon), float(tol), int(rng.choice([50, 5000])), (1.0, 1.0) if seed % 4 else (0.8, 0.8))
    return x, y, a, b, limits, bool(seed % 2)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("other", ["python", "torch"])
def test_one_method_in_three_forms(monkeypatch, seed, other):
    """The compiled loop and the method in Python over compiled passes take the same steps; PyTorch's converges as well.

    Where rounding decides whether Anderson's step is undone, or ends the last steps of Newton's method, they part.
    PyTorch's looks at the outcome every few passes: what is undone, or came after the last pass needed, is a burst.
    """
    from otdist.sinkhorn import numpy_engine, torch_engine
    from otdist.sinkhorn.torch_passes import LONGEST_BURST

    *arrays, limits, single = random_problem(seed)
    limits = numpy_engine.Limits(*limits)
    expected = numpy_engine.solve(*arrays, limits, single=single, debias=True)
    if other == "torch":
        found = torch_engine.solve(*map(torch.tensor, arrays), limits, single=single, debias=True)
    else:
        monkeypatch.setattr(numpy_engine, "CACHED", 0)
        found = numpy_engine.solve(*arrays, limits, single=single, debias=True)
    scale = cost(*arrays[:2]).max()
    for mine, theirs in zip(expected, found, strict=True):
        if other == "torch" and 2 * mine.n_iter[0] > limits.max_iter:
            continue
        assert bool(mine.error[0] <= limits.tol) == bool(theirs.error[0] <= limits.tol)
        if other == "torch":
            assert int(theirs.n_iter[0]) <= 2 * mine.n_iter[0] + 3 * LONGEST_BURST  # at three ε
        else:
            assert abs(int(mine.n_iter[0]) - int(theirs.n_iter[0])) <= max(1, 0.1 * mine.n_iter[0])
        if mine.error[0] <= limits.tol:
            assert abs(float(mine.value[0]) - float(theirs.value[0])) <= limits.tol * scale


def test_torch_finishes_by_newton_too():
    # Sinkhorn's own iteration took more than 5000 passes to this tolerance.
    from otdist.sinkhorn import torch_engine
    from otdist.sinkhorn.numpy_engine import Limits

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 200, 2)), rng.standard_normal((1, 200, 2))
    weights = np.full((1, 200), 1 / 200)
    limits = Limits(0.002 * cost(x, y).mean(), 1e-9, 5000, (1.0, 1.0))
    (found,) = torch_engine.solve(*map(torch.tensor, (x, y, weights, weights)), limits, single=False)
    assert found.error <= 1e-9
    assert found.n_iter <= 600  # some hundred before, and some tens of Newton's


@pytest.mark.parametrize("form", ["compiled", "python", "torch"])
@pytest.mark.parametrize("seed", [6, 21, 42, 45, 53, 75])
def test_newton_finishes_where_potentials_of_groups_are_flat(monkeypatch, seed, form):
    # Of 19 lattice points against 87 each gets a share that no whole points make up. ε is so small that groups of
    # points hardly touch: Sinkhorn's own iteration moves the potentials of a group by a constant a pass, and rounding
    # decides on the sign of the Hessian in these directions.
    from otdist.sinkhorn import numpy_engine, torch_engine

    rng = np.random.default_rng(seed)
    x, y = np.round(rng.standard_normal((1, 19, 2))), np.round(rng.standard_normal((1, 87, 2)))
    a, b = np.full((1, 19), 1 / 19), np.full((1, 87), 1 / 87)
    limits = numpy_engine.Limits(9e-4 * cost(x, y).mean(), 5e-5, 5000, (1.0, 1.0))
    if form == "torch":
        (found,) = torch_engine.solve(*map(torch.tensor, (x, y, a, b)), limits, single=False)
    else:
        monkeypatch.setattr(numpy_engine, "CACHED", 2**22 if form == "compiled" else 0)
        (found,) = numpy_engine.solve(x, y, a, b, limits, single=False)
    assert found.error[0] <= limits.tol
    assert found.n_iter[0] <= 800  # 500 before Newton's, 100 at each larger ε


@pytest.mark.parametrize("m", [1, 12])
def test_torch_takes_points_without_weight_that_are_too_far_to_be_moved(m):
    # Unbalanced marginals are a 2^(-κ f): beyond the range of doubles where a is 0, as the points that fill up a batch.
    from otdist.sinkhorn import torch_engine
    from otdist.sinkhorn.numpy_engine import Limits

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 20, 2)), rng.standard_normal((1, m, 2)) + 30.0
    a, b = np.full((1, 20), 1 / 19), np.full((1, m), 1 / m)
    a[0, 3], x[0, 3] = 0.0, 60.0
    limits = Limits(0.002 * cost(x, y).mean(), 1e-6, 1000, (0.4, 0.4))
    found = torch_engine.solve(*map(torch.tensor, (x, y, a, b)), limits, single=False, points=(True, True), debias=True)
    for term in found:
        assert (term.error <= 1e-6).all()
        assert term.value.isfinite().all()
        assert term.grad_x.isfinite().all()


def test_torch_twin_makes_the_whole_operator(monkeypatch):
    from otdist.sinkhorn import operators, torch_engine

    x, y, a, b = clouds(16)
    numpy_value, numpy_grads = operators.divergence.value_and_grad(
        x, y, a, b, epsilon=0.3, tol=1e-9, max_iter=1000, reach=np.inf
    )
    tensors = [torch.tensor(z) for z in (x, y, a, b)]
    monkeypatch.setattr(operators, "engine_for", lambda x: torch_engine)
    options = {"epsilon": 0.3, "tol": 1e-9, "max_iter": 1000, "reach": np.inf}
    value, grads = operators._divergence(*tensors, needs_input_grad=(True,) * 4, **options)
    np.testing.assert_allclose(value, numpy_value, rtol=1e-8)
    for k, (mine, theirs) in enumerate(zip(grads, numpy_grads, strict=True)):
        gap = mine.numpy() - theirs
        if k > 1:  # free up to a constant
            gap = gap - gap.mean()
        assert np.abs(gap).max() <= 1e-7


def test_warm_start_needs_no_more_than_a_look():
    x, y, a, b = clouds(17)
    first = sinkhorn.solve(x, y, a, b, epsilon=0.05)
    again = sinkhorn.solve(x, y, a, b, epsilon=0.05, init=first)
    assert again.n_iter == 1
    np.testing.assert_allclose(again.value, first.value, rtol=1e-10)
    moved = sinkhorn.solve(x + 1e-3, y, a, b, epsilon=0.05, init=first)
    assert moved.n_iter < first.n_iter


def test_float32_moves_to_float64_where_it_must():
    # ε at 1e-4 of the mean cost: exponents of 1e5, of which float32 keeps two decimals.
    x, y, a, b = (z.astype(np.float32) for z in clouds(18, n=80, m=60))
    epsilon = 1e-4 * float(cost(x, y).mean())
    single = sinkhorn.solve(x, y, a, b, epsilon=epsilon)
    double = sinkhorn.solve(*(z.astype(float) for z in (x, y)), *_normalised(a, b), epsilon=epsilon)
    assert single.converged
    assert single.f.dtype == np.float32
    np.testing.assert_allclose(single.value, double.value, rtol=4 * EPS32)


def _normalised(*weights):
    return [w.astype(float) / w.astype(float).sum() for w in weights]


def test_truncated_kernels_do_not_fool_it():
    # The trap of the kernel form: exp(-C/ε) in float32 loses entries that carry the plan, and converges to 9% off.
    rng = np.random.default_rng(19)
    x, y = rng.standard_normal((400, 2)), rng.standard_normal((400, 2)) * 0.7 + 0.5
    epsilon = 0.01 * cost(x, y).mean()
    single = sinkhorn.solve(x.astype(np.float32), y.astype(np.float32), epsilon=epsilon)
    exact = sinkhorn.solve(x, y, epsilon=epsilon, tol=1e-9)
    np.testing.assert_allclose(single.value, exact.value, rtol=1e-4)


# The divergence.


def test_divergence_is_its_definition():
    x, y, a, b = clouds(20)
    options = {"epsilon": 0.4, "tol": 1e-10}
    terms = [sinkhorn.solve(*z, **options).value for z in ((x, y, a, b), (x, x, a, a), (y, y, b, b))]
    expected = terms[0] - 0.5 * terms[1] - 0.5 * terms[2]
    np.testing.assert_allclose(sinkhorn.w2_squared(x, y, a, b, **options), expected, rtol=1e-9)
    np.testing.assert_allclose(sinkhorn.w2(x, y, a, b, **options) ** 2, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_clouds_are_at_distance_zero_with_gradient_zero(dtype):
    x = clouds(21)[0].astype(dtype)
    value, grads = sinkhorn.w2_squared_and_grad(x, x.copy(), epsilon=0.1)
    assert value == 0
    assert (grads.x == 0).all()
    assert sinkhorn.w2(x, x, epsilon=0.1) == 0
    shuffled = sinkhorn.w2_squared(x, x[::-1], epsilon=0.1)
    assert 0 <= shuffled <= 1e-3 * 0.1


def test_translation_of_a_cloud():
    # The debiased divergence of a translation is its square, at every ε.
    x, _, a, _ = clouds(22)
    for epsilon in (1e-2, 1.0, 100.0):
        value = sinkhorn.w2_squared(x, x + np.array([3.0, 0.0, 4.0]), a, a, epsilon=epsilon, tol=1e-9)
        np.testing.assert_allclose(value, 25.0, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_scales_come_out_squared(scale):
    x, y, a, b = clouds(23)
    expected = sinkhorn.w2_squared(x, y, a, b, epsilon=0.3, tol=1e-9)
    found = sinkhorn.w2_squared(x * scale, y * scale, a, b, epsilon=0.3 * scale**2, tol=1e-9)
    np.testing.assert_allclose(found / scale / scale, expected, rtol=1e-8)


def test_far_from_the_origin():
    x, y, a, b = clouds(24)
    near = sinkhorn.w2_squared(x, y, a, b, epsilon=0.3, tol=1e-9)
    far = sinkhorn.w2_squared(x + 1e6, y + 1e6, a, b, epsilon=0.3, tol=1e-9)
    np.testing.assert_allclose(far, near, rtol=1e-8)  # eps times 1e6 is lost in the shift itself


def test_single_points_and_mass_in_one_place():
    one = np.zeros((1, 2))
    assert sinkhorn.w2_squared(one, one + 3, epsilon=1.0) == 18
    np.testing.assert_allclose(sinkhorn.solve(one, one + 3, epsilon=1e-4).value, 18, rtol=1e-14)
    x = clouds(25, d=2)[0]
    a = np.zeros(40)
    a[7] = 1
    np.testing.assert_allclose(sinkhorn.solve(x, one, a, epsilon=0.1).value, (x[7] ** 2).sum(), rtol=1e-14)
    piled = np.ones((5, 2))
    value, grads = sinkhorn.w2_squared_and_grad(piled, 2 * np.ones((4, 2)), epsilon=0.1)
    np.testing.assert_allclose(value, 2.0, rtol=1e-14)
    np.testing.assert_allclose(grads.x, -0.4, rtol=1e-14)
    assert sinkhorn.w2_squared(piled, np.ones((4, 2)), epsilon=0.1) == 0


def test_huge_epsilon_gives_the_distance_of_the_means():
    x, y, a, b = clouds(26)
    expected = ((a @ x - b @ y) ** 2).sum()
    for dtype in (np.float32, np.float64):
        value = sinkhorn.w2_squared(*(z.astype(dtype) for z in (x, y, a, b)), epsilon=1e7)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_empty_batch():
    value, grads = sinkhorn.w2_squared_and_grad(np.empty((0, 3, 2)), np.empty((0, 4, 2)), epsilon=0.1)
    assert value.shape == (0,)
    assert grads.x.shape == (0, 3, 2)
    assert sinkhorn.solve(np.empty((0, 3, 2)), np.empty((0, 4, 2)), epsilon=0.1).g.shape == (0, 4)


# Telling the truth.


def test_warns_once_and_says_so_in_the_result():
    x, y, a, b = clouds(27, batch=(3,))
    with pytest.warns(otdist.ConvergenceWarning, match="max_iter=2 passes in 3 of 3") as seen:
        result = sinkhorn.solve(x, y, a, b, epsilon=1e-3, max_iter=2, init=None)
    assert len(seen) == 1
    assert not result.converged.any()
    P = result.plan()
    violation = np.abs(P.sum(2) - a).sum(1) + np.abs(P.sum(1) - b).sum(1)
    np.testing.assert_allclose(result.marginal_error, violation, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0}, "epsilon must be positive"),
        ({"epsilon": np.inf}, "epsilon must be positive and finite"),
        ({"tol": -1}, "tol must be positive"),
        ({"max_iter": 0}, "max_iter must be a positive integer"),
        ({"reach": 0}, "reach must be positive"),
        ({"x": np.zeros(3)}, r"x must have shape \(..., n, d\)"),
        ({"x": np.full((4, 2), np.nan)}, "x must be finite"),
        ({"y": np.zeros((4, 3))}, "number of coordinates"),
        ({"y": np.zeros((0, 2))}, "y must have at least one point"),
        ({"a": np.full(4, 0.3)}, "a must sum to 1"),
        ({"a": np.array([1.5, -0.5, 0, 0])}, "a must be nonnegative"),
        ({"b": np.full(3, 1 / 3)}, "b must have one entry for each of the 4 points"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    arguments = {"x": np.zeros((4, 2)), "y": np.zeros((4, 2)), "epsilon": 0.1} | change
    for function in (sinkhorn.solve, sinkhorn.w2_squared, sinkhorn.w2, sinkhorn.w2_squared_and_grad):
        with pytest.raises(ValueError, match=message):
            function(**arguments)


def test_init_must_be_a_result_of_the_same_shapes():
    x, y, _, _ = clouds(28)
    with pytest.raises(TypeError, match="init must be a SinkhornResult or a pair"):
        sinkhorn.solve(x, y, epsilon=0.1, init=np.zeros(30))
    with pytest.raises(ValueError, match="init must have potentials of shape"):
        sinkhorn.solve(x, y[:7], epsilon=0.1, init=sinkhorn.solve(x, y, epsilon=0.1))


# Before convergence.


@pytest.mark.parametrize("reach", [None, 1.5])
@pytest.mark.parametrize("max_iter", [1, 2, 5])
@pytest.mark.parametrize("relative", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_of_any_iterate_are_between_certified_bounds(relative, max_iter, reach, dtype):
    for seed in range(5):
        x, y, a, b = clouds(40 + seed, n=60, m=50, d=2)
        if seed % 2:
            x, y = np.round(2 * x), np.round(2 * y)  # ties
        C = cost(x, y)
        x, y = x.astype(dtype), y.astype(dtype)
        a, b = _normalised(a.astype(dtype), b.astype(dtype))
        options = {"epsilon": relative * C.mean(), "max_iter": max_iter, "tol": 1e-9, "reach": reach}
        with pytest.warns(otdist.ConvergenceWarning):
            value, grads = sinkhorn.w2_squared_and_grad(x, y, a.astype(dtype), b.astype(dtype), **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", otdist.ConvergenceWarning)
            cost_value = sinkhorn.solve(x, y, a.astype(dtype), b.astype(dtype), **options).value
        rounding = 64 * np.finfo(dtype).eps * C.max() * (1 / relative if dtype == np.float32 else 1)
        product = a @ C @ b
        floor = ((a @ x - b @ y) ** 2).sum() if reach is None else 0.0
        for found in (value, cost_value):
            assert floor - rounding <= found <= product + rounding
        assert all(np.isfinite(g).all() for g in grads)
        # Mass a_i moves, to somewhere between the points: no farther than they are apart.
        diameter = np.sqrt(max(C.max(), cost(x, x).max(), cost(y, y).max()))
        assert (np.linalg.norm(grads.x, axis=1) <= 4 * (a + rounding) * diameter).all()


def test_where_the_bound_is_the_value_its_gradient_is_the_bounds():
    x, y, a, b = clouds(46, n=30, m=20, zeros=False)
    flat = [z[None] for z in (x, y, a, b)]
    from otdist.sinkhorn import operators

    def bound(x, y, a, b):
        return ((a @ x - b @ y) ** 2).sum()

    step = 1e-6
    shift = a @ x - b @ y
    for k, point in ((0, x), (1, y), (2, a), (3, b)):
        move = np.random.default_rng(k).standard_normal(point.shape)
        if k > 1:
            move -= move.mean()
        ahead, behind = ([z if j != k else z + s * step * move for j, z in enumerate((x, y, a, b))] for s in (1, -1))
        slope = (bound(*ahead) - bound(*behind)) / (2 * step)
        # The function is quadratic or quartic in each argument: central differences are right to step².
        found = (operators._bound_gradient(k, flat, True)[0] * move).sum()
        assert abs(found - slope) <= 1e-8 * (1 + np.abs(shift).max()) * np.abs(move).sum()


def test_warnings_name_the_line_of_the_caller():
    x, y, _, _ = clouds(47, n=60, m=50)
    torch_x = torch.tensor(x, requires_grad=True)
    calls = [
        lambda: sinkhorn.solve(x, y, epsilon=1e-3, max_iter=1),
        lambda: sinkhorn.w2_squared(x, y, epsilon=1e-3, max_iter=1),
        lambda: sinkhorn.w2(torch_x, torch.tensor(y), epsilon=1e-3, max_iter=1),
        lambda: sinkhorn.w2_squared_and_grad(x, y, epsilon=1e-3, max_iter=1),
    ]
    for call in calls:
        with pytest.warns(otdist.ConvergenceWarning) as seen:
            call()
        assert [w.filename for w in seen] == [__file__]


# What follows from the potentials.


def test_transposed_products():
    x, y, a, b = clouds(50, batch=(2,))
    result = sinkhorn.solve(x, y, a, b, epsilon=0.3, tol=1e-9)
    v = np.random.default_rng(0).standard_normal((2, 40, 3))
    expected = result.plan().mT @ v
    np.testing.assert_allclose(result.apply(v, transpose=True), expected, atol=1e-14)
    np.testing.assert_allclose(result.apply(v[..., 0], transpose=True), expected[..., 0], atol=1e-14)
    with pytest.raises(ValueError, match="number of points"):
        result.apply(v)


def test_map_of_new_points():
    x, y, a, b = clouds(51, batch=(2,))
    result = sinkhorn.solve(x, y, a, b, epsilon=0.3, tol=1e-9)
    np.testing.assert_allclose(result.map(x), result.barycentric_map(), rtol=1e-10, atol=1e-12)
    z = np.random.default_rng(0).standard_normal((7, 3)) * 3
    scores = (result.g[:, None] - cost(z[None], y)) / 0.3
    w = b[:, None] * np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(result.map(z), (w @ y) / w.sum(-1, keepdims=True), rtol=1e-10)


def test_start_from_potentials():
    x, y, a, b = clouds(52)
    first = sinkhorn.solve(x, y, a, b, epsilon=0.05)
    again = sinkhorn.solve(x, y, a, b, epsilon=0.05, init=(first.f, first.g))
    assert again.n_iter == 1
    np.testing.assert_allclose(again.value, first.value, rtol=1e-10)
    with pytest.raises(ValueError, match="init must be finite"):
        sinkhorn.solve(x, y, epsilon=0.05, init=(first.f, np.full(30, np.nan)))
    with pytest.raises(ValueError, match="init must have potentials of shape"):
        sinkhorn.solve(x, y, epsilon=0.05, init=(first.g, first.f))


# Unbalanced: masses that differ, and a reach for each side.


def unbalanced(C, a, b, epsilon, rho_x, rho_y, sweeps=20_000):
    """Value and plan by plain damped softmins in the log domain, from the primal definition."""
    damp = [1.0 if np.isinf(rho) else rho / (rho + epsilon) for rho in (rho_x, rho_y)]
    g = np.zeros(len(b))
    with np.errstate(divide="ignore"):
        la, lb = np.log(a), np.log(b)
    for _ in range(sweeps):
        f = -damp[0] * epsilon * logsumexp((g - C) / epsilon + lb, axis=1)
        g = -damp[1] * epsilon * logsumexp((f[:, None] - C) / epsilon + la[:, None], axis=0)
    P = np.exp((f[:, None] + g - C) / epsilon + la[:, None] + lb)
    value = (P * C).sum() + epsilon * kl(P, np.outer(a, b))
    for rho, mass, given in ((rho_x, P.sum(1), a), (rho_y, P.sum(0), b)):
        value += 0.0 if np.isinf(rho) else rho * kl(mass, given)
    return value, P


@pytest.mark.parametrize("reach", [1.0, (1.0, 2.0), (None, 1.0), (0.7, None)])
def test_masses_and_reaches_of_each_side(reach):
    x, y, a, b = clouds(53)
    a, b, C = 3.0 * a, 0.5 * b, cost(x, y)
    rho_x, rho_y = (np.inf if z is None else z**2 for z in (reach if isinstance(reach, tuple) else (reach, reach)))
    value, P = unbalanced(C, a, b, 0.4, rho_x, rho_y)
    found = sinkhorn.solve(x, y, a, b, epsilon=0.4, tol=1e-10, reach=reach)
    assert found.converged
    np.testing.assert_allclose(found.value, value, rtol=1e-8)
    np.testing.assert_allclose(found.plan(), P, atol=1e-8)
    np.testing.assert_allclose(found.transport_cost, (P * C).sum(), rtol=1e-7)


def test_unbalanced_agrees_with_pot():
    x, y, a, b = clouds(54, zeros=False)
    a, b, C = 2.0 * a, 0.7 * b, cost(x, y)
    P = ot.unbalanced.sinkhorn_unbalanced(a, b, C, reg=0.5, reg_m=1.44, stopThr=1e-13, numItermax=20_000, reg_type="kl")
    found = sinkhorn.solve(x, y, a, b, epsilon=0.5, tol=1e-10, reach=1.2)
    np.testing.assert_allclose(found.plan(), P, atol=1e-7)


@pytest.mark.parametrize("function", ["divergence", "solve"])
def test_gradients_by_masses(function):
    x, y, a, b = clouds(55, n=6, m=5, d=2, zeros=False)
    leaves = [torch.tensor(z, requires_grad=True) for z in (x, y, 2 * a, 0.6 * b)]
    options = {"epsilon": 0.4, "tol": 1e-12}
    if function == "divergence":
        call = lambda *z: sinkhorn.w2_squared(*z, **options, reach=1.0)  # noqa: E731
    else:
        call = lambda *z: sinkhorn.solve(*z, **options, reach=(1.0, 1.5)).value  # noqa: E731
    assert torch.autograd.gradcheck(call, leaves)


def test_divergence_of_different_masses_is_its_definition():
    x, y, a, b = clouds(56)
    a, b = 2 * a, 0.6 * b
    options = {"epsilon": 0.4, "tol": 1e-10, "reach": 1.3}
    terms = [sinkhorn.solve(*z, **options).value for z in ((x, y, a, b), (x, x, a, a), (y, y, b, b))]
    # Séjourné et al. (2019), definition 4.
    expected = terms[0] - 0.5 * terms[1] - 0.5 * terms[2] + 0.2 * (a.sum() - b.sum()) ** 2
    np.testing.assert_allclose(sinkhorn.w2_squared(x, y, a, b, **options), expected, rtol=1e-9)
    assert sinkhorn.w2_squared(x, x, a, a, **options) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_of_unbalanced_problems_shares_weights(dtype):
    x, y, a, b = (z.astype(dtype) for z in clouds(57, batch=(3,)))
    options = {"epsilon": 0.4, "reach": 1.3}
    together = sinkhorn.w2_squared(x, y, 2 * a[0], b[0], **options)
    apart = [sinkhorn.w2_squared(u, v, 2 * a[0], b[0], **options) for u, v in zip(x, y, strict=True)]
    np.testing.assert_array_equal(together, apart)


def test_divergence_takes_one_reach_only():
    # With two the divergence of Séjourné et al., each self term with its own side's reach, is not 0 for equal clouds.
    x, _, a, _ = clouds(58, n=6)
    C = cost(x, x)
    terms = [unbalanced(C, a, a, 0.4, *rhos, sweeps=500)[0] for rhos in ((0.25, 4.0), (0.25, 0.25), (4.0, 4.0))]
    assert terms[0] - 0.5 * terms[1] - 0.5 * terms[2] > 1e-3
    for function in (sinkhorn.w2_squared, sinkhorn.w2, sinkhorn.w2_squared_and_grad, sinkhorn.wp):
        with pytest.raises(ValueError, match=r"reach must be the same for both sides; got 0.5 and 2"):
            function(x, x, a, a, epsilon=0.4, reach=(0.5, 2.0))
    same = sinkhorn.w2_squared(x, x + 1, a, a, epsilon=0.4, reach=(1.0, 1.0))
    assert same == sinkhorn.w2_squared(x, x + 1, a, a, epsilon=0.4, reach=1.0)
    prescribed = sinkhorn.w2_squared(x, x + 1, a, a, epsilon=0.4, reach=(None, None))
    assert prescribed == sinkhorn.w2_squared(x, x + 1, a, a, epsilon=0.4)


# Scales.


@pytest.mark.parametrize("scale", [1e154, 1e155, 1e200])
def test_what_has_no_number_is_refused_by_name(scale):
    x, y, _, _ = clouds(60, n=9, m=8)
    for function in (sinkhorn.solve, sinkhorn.w2_squared, sinkhorn.w2):
        with pytest.raises(ValueError, match="epsilon=1 is too small"):
            function(x * scale, y * scale, epsilon=1.0)


def test_bracket_beyond_the_range_of_float32_does_not_say_converged():
    x, y, _, _ = clouds(61, n=20, m=15)
    with pytest.warns(otdist.ConvergenceWarning, match="beyond the range"):
        found = sinkhorn.bracket(*(z.astype(np.float32) * np.float32(1e30) for z in (x, y)))
    assert not found.converged
    assert found.lower == np.finfo(np.float32).max
    assert found.upper == np.inf


@pytest.mark.parametrize("scale", [1e-310, 1e-150, 1e150])
def test_brackets_at_extreme_scales(scale):
    x, y, _, _ = clouds(62, n=20, m=15)
    found = sinkhorn.bracket(x * scale, y * scale)
    exact = ot.emd2([], [], cost(x * scale / scale, y * scale / scale))
    assert found.lower / scale / scale <= exact * (1 + 1e-4) or scale == 1e-310  # subnormal numbers have few digits
    assert np.isfinite(found.lower)
    assert np.isfinite(found.upper)


# Barycenters.


def test_barycenter_of_translates_is_the_translate_by_the_mean():
    # The divergence of a translate from its cloud is the squared shift, whatever ε is.
    x = clouds(70, n=25)[0]
    shifts = np.array([[3.0, 0, 0], [0, 2.0, 0], [-1.0, 1.0, 4.0]])
    weights = np.array([0.5, 0.2, 0.3])
    found = sinkhorn.barycenter([x + s for s in shifts], weights, epsilon=0.05, start=x, tol=1e-7)
    assert found.converged
    # The fixed point is reached to tol of the spread, which is below 2.
    np.testing.assert_allclose(found.points, x + weights @ shifts, atol=1e-5)


def test_barycenter_is_stationary():
    x, y, _, b = clouds(71, n=20, m=15, d=2)
    found = sinkhorn.barycenter([x, y], epsilon=0.5, start=x, masses=[None, b], tol=1e-5, max_iter=2000)
    _, by_x = sinkhorn.w2_squared_and_grad(found.points, x, epsilon=0.5, tol=1e-8)
    _, by_y = sinkhorn.w2_squared_and_grad(found.points, y, None, b, epsilon=0.5, tol=1e-8)
    # A step is n/2 times the gradient of the mean, and moved the root of the mean square by at most tol spreads, which
    # are below 2; plans solved to tol move points by tol diameters, which are below 10.
    step = 20 / 2 * (by_x.x + by_y.x) / 2
    assert np.sqrt((step**2).sum(1).mean()) <= (2 + 10) * 1e-5


def test_barycenter_keeps_the_type_and_says_when_it_did_not_settle():
    x = torch.tensor(clouds(72, n=8)[0], dtype=torch.float32)
    with pytest.warns(otdist.ConvergenceWarning, match="still moved"):
        found = sinkhorn.barycenter([x, 2 * x], epsilon=0.3, start=x, max_iter=1)
    assert found.points.dtype == torch.float32
    assert not found.converged
    with pytest.raises(ValueError, match="number of"):
        sinkhorn.barycenter([x, x], [1.0], epsilon=0.3, start=x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clouds": []}, r"clouds must be a sequence of at least one array"),
        ({"clouds": 3.0}, r"clouds must be a sequence of at least one array; got float"),
        ({"clouds": [torch.zeros(3, 1)] * 2}, r"clouds\[0\] is a torch.Tensor and start is a numpy.ndarray"),
        (
            {"clouds": [np.zeros((3, 1)), np.zeros((3, 2))]},
            r"start and clouds\[1\] must agree in the number of coordinates",
        ),
        ({"clouds": [np.zeros((2, 3, 1))]}, r"clouds\[0\] must have shape \(n, d\), without a batch"),
        ({"start": np.zeros((0, 1))}, r"start must have at least one point"),
        ({"masses": [np.ones(3), None]}, r"masses\[0\] must sum to 1"),
        ({"weights": [0.5, 0.6]}, r"weights must sum to 1"),
    ],
)
def test_barycenter_names_what_is_wrong(change, message):
    given = {"clouds": [np.zeros((3, 1)), np.ones((4, 1))], "start": np.zeros((2, 1)), "epsilon": 0.1, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        sinkhorn.barycenter(**given)
