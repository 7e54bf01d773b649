"""Exact transport: against linear programs, with its duals, at equal and degenerate clouds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import transport_cost
from strategies import seeds

from otdist import exact, line, sliced

EPS = np.finfo(float).eps
sizes = st.integers(1, 7)


def clouds(seed: int, n: int, m: int, d: int = 2):
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    return rng.standard_normal((n, d)), rng.standard_normal((m, d)), a / a.sum(), b / b.sum()


def squared_distances(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


@given(seed=seeds, n=sizes, m=sizes)
def test_the_linear_program(seed, n, m):
    x, y, a, b = clouds(seed, n, m)
    if n > 2:
        a[0] = 0
        a /= a.sum()
    cost = squared_distances(x, y)
    # The program is solved to HiGHS's feasibility tolerance of 1e-7.
    assert exact.w2_squared(x, y, a, b) == pytest.approx(transport_cost(cost, a, b), abs=1e-6 * cost.max())


@given(seed=seeds, n=sizes, m=sizes)
def test_the_plan_has_its_marginals_and_the_value_is_its_cost(seed, n, m):
    x, y, a, b = clouds(seed, n, m)
    plan = exact.plan(x, y, a, b)
    assert (plan >= 0).all()
    np.testing.assert_allclose(plan.sum(1), a, atol=10 * EPS)
    np.testing.assert_allclose(plan.sum(0), b, atol=10 * EPS)
    assert (plan * squared_distances(x, y)).sum() == pytest.approx(exact.w2_squared(x, y, a, b), rel=100 * EPS)


@given(seed=seeds, n=st.integers(2, 7), m=st.integers(2, 7))
def test_potentials_prove_the_value(seed, n, m):
    x, y, a, b = clouds(seed, n, m)
    a[0] = 0
    a /= a.sum()
    value, grads = exact.w2_squared_and_grad(x, y, a, b)
    cost = squared_distances(x, y)
    # Each side's gradient is its potential, shifted to mean 0; the shifts add up to the value.
    gap = cost - grads.a[:, None] - grads.b - value
    assert gap.min() >= -1000 * EPS * cost.max()


@given(seed=seeds)
def test_between_its_neighbours(seed):
    x, y, a, b = clouds(seed, 6, 5, 3)
    theta = sliced.directions(20, 3, rng=seed)
    largest = max(line.w2_squared(x @ t, y @ t, a, b) for t in theta)
    value = exact.w2_squared(x, y, a, b)
    assert largest <= value * (1 + 100 * EPS)
    assert value <= (a @ squared_distances(x, y) @ b) * (1 + 100 * EPS)


def test_one_dimension_is_the_line():
    x, y, a, b = clouds(0, 6, 5, 1)
    ours, grads = exact.w2_squared_and_grad(x, y, a, b)
    theirs, line_grads = line.w2_squared_and_grad(x[:, 0], y[:, 0], a, b)
    assert ours == theirs
    np.testing.assert_array_equal(grads.x[:, 0], line_grads.x)
    np.testing.assert_array_equal(grads.b, line_grads.b)


@pytest.mark.parametrize(("n", "m", "d"), [(4, 4, 2), (5, 3, 3), (3, 4, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(n, m, d, weighted):
    args = [torch.tensor(z, requires_grad=True) for z in clouds(1, n, m, d)][: 4 if weighted else 2]
    assert torch.autograd.gradcheck(exact.w2_squared, args)


def test_equal_clouds_in_another_order_have_no_gradient():
    x, _, a, _ = clouds(2, 6, 6)
    order = np.array([3, 1, 0, 5, 4, 2])
    value, grads = exact.w2_squared_and_grad(x, x[order], a, a[order])
    assert value == 0
    for g in grads:
        np.testing.assert_array_equal(g, 0)


def test_duplicated_points():
    x = np.repeat(np.eye(2), [3, 1], axis=0)
    y = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    value, grads = exact.w2_squared_and_grad(x, y)
    assert value == pytest.approx(2 / 4 * 2)  # two quarters of the mass go from e1 to e2
    assert np.isfinite(np.concatenate([grads.x, grads.y])).all()


def test_single_points_and_batches():
    assert exact.w2_squared(np.zeros((1, 2)), np.array([[3.0, 4.0]])) == 25
    x, y, a, _ = clouds(3, 4, 5)
    xs = np.stack([x, x + 1, 2 * x])
    batch = exact.w2_squared(xs, y, a)
    np.testing.assert_array_equal(batch, [exact.w2_squared(z, y, a) for z in xs])
    assert exact.plan(xs, y, a).shape == (3, 4, 5)


def test_float32_in_is_float32_out_and_computed_in_float64():
    x, y, a, b = (z.astype(np.float32) for z in clouds(4, 6, 5))
    shift = np.float32(4096)
    # A common shift that float32 rounds: the same clouds as rounded give the same value to the last digits.
    moved = exact.w2_squared(x + shift, y + shift, a, b)
    reference = exact.w2_squared(
        (x + shift).astype(float), (y + shift).astype(float), *(w.astype(float) for w in (a, b))
    )
    assert moved.dtype == np.float32
    assert moved == pytest.approx(reference, rel=1e-6)
    assert exact.plan(torch.tensor(x), torch.tensor(y)).dtype == torch.float32


def test_too_large_is_refused_before_it_is_tried():
    x = np.broadcast_to(np.zeros(2), (1_000_000, 2))
    with pytest.raises(MemoryError, match=r"1000000 and 1000000 points needs .* GiB .* sinkhorn\.bracket"):
        exact.w2_squared(x, x)


def test_plans_are_refused_where_there_are_no_values():
    x = torch.zeros((3, 4, 2))
    with pytest.raises(RuntimeError, match=r"exact\.plan needs values"):
        torch.func.vmap(lambda z: exact.plan(z, z))(x)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_gradcheck_for_every_exponent(p):
    args = [torch.tensor(z, requires_grad=True) for z in clouds(5, 4, 5)]
    assert torch.autograd.gradcheck(lambda *v: exact.wp(*v, p=p), args)


def test_points_that_coincide_pull_nothing():
    x = np.array([[0.0, 0.0], [1.0, 1.0]])
    y = torch.tensor(np.array([[0.0, 0.0], [4.0, 5.0]]))
    moved = torch.tensor(x, requires_grad=True)
    exact.wp(moved, y).backward()
    np.testing.assert_allclose(moved.grad, [[0, 0], [-0.3, -0.4]], atol=10 * EPS)
    same = torch.tensor(x, requires_grad=True)
    exact.w2(same, torch.tensor(x)).backward()
    np.testing.assert_array_equal(same.grad, 0)


def test_an_overflowing_square_is_infinite_and_the_distance_is_not():
    x = np.array([[1e200, 0.0], [0.0, 0.0]])
    assert exact.w2_squared(x, -x) == np.inf
    assert exact.w2(x, -x) == pytest.approx(1e200)  # in one step to the left each


def test_solve_gives_the_plan_by_its_entries_in_the_type_of_the_points():
    x, y, a, b = (torch.tensor(z, dtype=torch.float32) for z in clouds(6, 5, 4))
    found = exact.solve(x, y, a, b)
    dense = torch.zeros(5, 4).index_put((found.plan.rows, found.plan.columns), found.plan.mass)
    torch.testing.assert_close(dense, exact.plan(x, y, a, b))
    assert found.f.dtype == found.cost.dtype == torch.float32
    torch.testing.assert_close(found.cost, exact.w2_squared(x, y, a, b))
    with pytest.raises(ValueError, match=r"exact\.solve takes one pair of clouds .* got x \(2, 5, 2\)"):
        exact.solve(torch.stack([x, x]), y)
    with pytest.raises(ValueError, match=r"p must be at least 1; got 0\.5"):
        exact.solve(x, y, p=0.5)


def in_a_new_process(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_the_compiled_solver_alone_and_the_package_give_the_same():
    program = """
import sys, os, warnings
import numpy as np
filters, environment, state = list(warnings.filters), dict(os.environ), np.random.get_state()[1].tolist()
from otdist.exact import pot
rng = np.random.default_rng(0)
a, b, cost = np.full(6, 1 / 6), rng.dirichlet(np.ones(5)), rng.random((6, 5))
first = pot.network_simplex(a, b, cost, 2**40)
assert not any(name.split(".")[0] in ("ot", "torch", "_otdist_pot") for name in sys.modules), "something was left"
pot._compiled.cache_clear()
pot._load = lambda: None
second = pot.network_simplex(a, b, cost, 2**40)
assert "ot" in sys.modules
assert all(np.array_equal(x, y) for x, y in zip(first[:2], second[:2])) and first[2] is second[2] is None
assert warnings.filters == filters and dict(os.environ) == environment
assert np.random.get_state()[1].tolist() == state
import ot
assert np.array_equal(ot.emd(a, b, cost), first[0]) and ot.lp.emd_wrap.emd_c
assert np.allclose(ot.emd_1d(np.arange(3.0), np.arange(3.0) + 1, metric="cityblock"), np.eye(3) / 3)
print("right")
"""
    assert in_a_new_process(program) == "right\n"


def test_the_package_is_used_where_it_is_loaded_already():
    program = """
import ot, numpy as np
from otdist.exact import pot
assert pot._compiled() is ot.lp.emd_wrap
print("right")
"""
    assert in_a_new_process(program) == "right\n"


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize(("dtype", "scale"), [(np.float64, 2.0**600), (np.float32, 2.0**90)])
def test_beyond_the_range_of_squares_nothing_is_nan(d, dtype, scale):
    """Value, potentials and gradients by weights have degree 2: infinite where they are not 0; plans have degree 0."""
    rng = np.random.default_rng(9)
    x, y = (rng.integers(-2, 3, (n, d)).astype(dtype) for n in (5, 3))
    a, b = (np.full(n, 1 / n, dtype) for n in (5, 3))
    large = [(z * scale).astype(dtype) for z in (x, y)]
    value, grads = exact.w2_squared_and_grad(*large, a, b)
    _, small = exact.w2_squared_and_grad(x, y, a, b)
    assert value == exact.w2_squared(*large) == np.inf
    assert exact.w2(*large) == pytest.approx(scale * exact.w2(x, y), rel=1e-6)
    for found, true in ((grads.a, small.a), (grads.b, small.b)):
        sure = abs(true) > 1e-3
        np.testing.assert_array_equal(found[sure], np.sign(true[sure]) * np.inf)
    solved = exact.solve(*large)
    np.testing.assert_array_equal(exact.plan(*large), exact.plan(x, y))
    assert solved.cost == np.inf
    assert not any(np.isnan(z).any() for z in (*grads, solved.f, solved.g))
    # Equal measures are at distance 0 at every scale.
    assert exact.w2_squared(large[0], large[0][::-1]) == exact.solve(large[0], large[0]).cost == 0
