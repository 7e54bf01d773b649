"""One dimension: against linear programs and known answers, at ties, kinks and ends of the number line."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import transport_cost
from strategies import seeds

from otdist import line
from otdist.line import monotone

EPS = np.finfo(float).eps
sizes = st.integers(1, 9)
NOTHING = np.zeros((0, 0))


def weights(rng: np.random.Generator, n: int, *, zeros: bool = False) -> np.ndarray:
    w = rng.random(n) + 0.01
    if zeros and n > 1:
        w[rng.permutation(n)[: n // 2]] = 0
    return w / w.sum()


@given(seed=seeds, n=sizes, m=sizes, p=st.sampled_from([1, 1.5, 2, 3]), zeros=st.booleans())
def test_the_linear_program(seed, n, m, p, zeros):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-4, 5, n) * 1.0, rng.standard_normal(m)
    a, b = weights(rng, n, zeros=zeros), weights(rng, m, zeros=zeros)
    cost = np.abs(x[:, None] - y) ** p
    # The program is solved to HiGHS's feasibility tolerance of 1e-7.
    assert line.wp(x, y, a, b, p=p) ** p == pytest.approx(transport_cost(cost, a, b), abs=1e-6 * cost.max())
    uniform = transport_cost(cost, np.full(n, 1 / n), np.full(m, 1 / m))
    assert line.wp(x, y, p=p) ** p == pytest.approx(uniform, abs=1e-6 * cost.max())


@given(seed=seeds, n=sizes, m=sizes)
def test_scipy_agrees_for_p_1(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.standard_normal(n), rng.standard_normal(m), weights(rng, n), weights(rng, m)
    assert line.wp(x, y, a, b) == pytest.approx(scipy.stats.wasserstein_distance(x, y, a, b), abs=100 * EPS * (n + m))


@given(seed=seeds, n=sizes, m=sizes)
def test_equal_weights_are_no_weights(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(n), rng.standard_normal(m)
    both = line.w2_squared(x, y, np.full(n, 1 / n), np.full(m, 1 / m))
    assert both == pytest.approx(line.w2_squared(x, y), abs=100 * EPS * (n + m))
    assert line.w2_squared(x, y, b=np.full(m, 1 / m)) == pytest.approx(both, abs=100 * EPS * (n + m))


@given(seed=seeds, n=st.integers(2, 6))
def test_a_repeated_point_is_a_heavier_one(seed, n):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(n), rng.standard_normal(n + 2)
    twice = np.concatenate([x, x[:1]])
    heavy = np.ones(n)
    heavy[0] = 2
    value, grads = line.w2_squared_and_grad(twice, y)
    merged, merged_grads = line.w2_squared_and_grad(x, y, heavy / heavy.sum())
    assert value == pytest.approx(merged, abs=100 * EPS * n)
    # The tied points share the gradient of the heavy one equally.
    np.testing.assert_allclose(grads.x[[0, -1]], merged_grads.x[0] / 2, atol=100 * EPS * n)
    np.testing.assert_allclose(grads.x[1:-1], merged_grads.x[1:], atol=100 * EPS * n)


@pytest.mark.parametrize("p", [1.0, 2.0, 2.5])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 4), (2, 7)])
@pytest.mark.parametrize("weighted", [(), ("a",), ("a", "b")])
def test_gradcheck(p, n, m, weighted):
    rng = np.random.default_rng(n * m)
    drawn = {"x": rng.standard_normal(n), "y": rng.standard_normal(m), "a": weights(rng, n), "b": weights(rng, m)}
    names = ("x", "y", *weighted)
    args = [torch.tensor(drawn[k], requires_grad=True) for k in names]
    assert torch.autograd.gradcheck(lambda *v: line.wp(**dict(zip(names, v, strict=True)), p=p), args)


def test_gradients_by_weights_are_those_of_the_twin():
    rng = np.random.default_rng(0)
    x, y, a, b = rng.standard_normal((3, 6)), rng.standard_normal(5), weights(rng, 6), weights(rng, 5)
    value, grads = line.w2_squared_and_grad(x, y, a, b)
    args = [torch.tensor(z, requires_grad=True) for z in (x, y, a, b)]
    out = line.w2_squared(*args)
    out.sum().backward()
    np.testing.assert_allclose(value, out.detach())
    for ours, theirs in zip(grads, args, strict=True):
        np.testing.assert_allclose(ours, theirs.grad, atol=100 * EPS)


def test_equal_measures_have_no_gradient_by_weights():
    x, a = np.array([0.3, -1.0, 0.3, 2.0]), np.array([0.1, 0.4, 0.2, 0.3])
    value, grads = line.w2_squared_and_grad(x, x, a, a)
    assert value == 0
    for g in grads:
        np.testing.assert_array_equal(g, 0)


def test_potentials_are_feasible_and_tight():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 4, (3, 7)) * 1.0, rng.integers(0, 4, (3, 5)) * 1.0
    a, b = np.stack([weights(rng, 7, zeros=True) for _ in range(3)]), np.stack([weights(rng, 5) for _ in range(3)])
    found = monotone.transport(x.copy(), y.copy(), a, b, p=2.0, needs_input_grad=(False, False, True, True))
    f, g = found.a_potentials, found.b_potentials
    cost = (x[:, :, None] - y[:, None, :]) ** 2
    offset = found.cost - (f * a).sum(1) - (g * b).sum(1)  # both start at 0; together they are known up to a constant
    assert (f[:, :, None] + g[:, None, :] + offset[:, None, None] <= cost + 1000 * EPS).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "values", ["normal", "ties", "offset", "signed zeros", "huge", "subnormal", "sorted", "outlier"]
)
def test_permutations(values, dtype):
    from otdist.line.sort import sort_rows

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 2000)).astype(dtype)
    tiny = np.finfo(dtype).smallest_subnormal
    rows = {
        "normal": rows,
        "ties": rows.round(1),
        "offset": rows + dtype(1e6),  # float64 keys tie in nearly all the bits that they keep
        "signed zeros": np.where(rows > 0.5, dtype(0), dtype(-0.0)),
        "huge": np.where(rows > 1, np.inf, rows * (np.finfo(dtype).max / 10)),
        "subnormal": (rows * 100).astype(int).astype(dtype) * tiny,
        "sorted": np.sort(rows, axis=1)[:, ::-1].copy(),
        "outlier": np.where(rows > 3, dtype(1e30), dtype(1) + rows * np.finfo(dtype).eps),
    }[values]
    ordered, order = sort_rows(rows.copy())
    np.testing.assert_array_equal(ordered, np.sort(rows, axis=1))
    np.testing.assert_array_equal(np.take_along_axis(rows, order, axis=1), ordered)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.broadcast_to(np.arange(rows.shape[1]), rows.shape))


@pytest.mark.parametrize(("n", "m"), [(6, 6), (7, 4), (1, 3)])
@pytest.mark.parametrize("rows_of_weights", [(0, 0), (1, 0), (1, 1), (3, 3)])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_array_operations_and_compiled_loops_agree(monkeypatch, n, m, rows_of_weights, p):
    """What short rows, a GPU and long rows run: ties and zero weights included."""
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, 5, (3, n)) * 1.0, rng.integers(0, 5, (3, m)) * 1.0
    a, b = (
        np.stack([weights(rng, size, zeros=True) for _ in range(k)]) if k else NOTHING
        for k, size in zip(rows_of_weights, (n, m), strict=True)
    )
    needs = (True, True, len(a) > 0, len(b) > 0)
    by_numpy = monotone.transport(x.copy(), y.copy(), a, b, p=p, needs_input_grad=needs)
    by_torch = monotone.transport(*(torch.tensor(z) for z in (x, y, a, b)), p=p, needs_input_grad=needs)
    monkeypatch.setattr(monotone, "_FEW", 0)
    by_loops = monotone.transport(x.copy(), y.copy(), a, b, p=p, needs_input_grad=needs)
    for u, v, w in zip(by_loops, by_torch, by_numpy, strict=True):
        assert (u is None) == (v is None) == (w is None)
        if u is not None:
            np.testing.assert_allclose(u, v.numpy(), atol=1000 * EPS * 4**p)
            np.testing.assert_allclose(u, w, atol=1000 * EPS * 4**p)


def test_float32_loses_nothing_to_a_common_offset():
    rng = np.random.default_rng(2)
    x = (1e4 + rng.standard_normal(1000)).astype(np.float32)
    y = (1e4 + 3 * rng.standard_normal(1000)).astype(np.float32)
    exact = np.mean((np.sort(x.astype(float)) - np.sort(y.astype(float))) ** 2)
    assert line.w2_squared(x, y) == pytest.approx(exact, rel=2.0**-22)


def test_large_rows_are_split_over_threads_and_come_out_the_same():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 100_000))
    a = weights(rng, 100_000)
    value, grads = line.w2_squared_and_grad(x, y, a)
    order_x, order_y = np.argsort(x), np.argsort(y)
    levels = np.union1d(np.cumsum(a[order_x]), np.arange(1, 100_001) / 100_000)
    mass = np.diff(levels, prepend=0.0)
    middle = levels - mass / 2
    i = np.minimum(np.searchsorted(np.cumsum(a[order_x]), middle), 99_999)
    gap = x[order_x][i] - y[order_y][np.minimum((middle * 100_000).astype(int), 99_999)]
    assert value == pytest.approx((mass * gap**2).sum(), rel=1e-9)  # cumulative weights are off by n eps
    assert grads.x.sum() == pytest.approx(2 * ((a * x).sum() - y.mean()), abs=1e-9)
    assert (grads.a @ a) == pytest.approx(0, abs=1e-9)


def test_many_threads_at_once():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 40, 5000))
    expected = line.w2_squared(x, y)
    found: list = []
    threads = [threading.Thread(target=lambda: found.append(line.w2_squared(x, y))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8
    for f in found:
        np.testing.assert_array_equal(f, expected)


def _in_child(x, y, queue):
    queue.put(line.w2_squared(x, y))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that is the point
@pytest.mark.skipif(sys.platform != "linux", reason="fork is Linux's")
def test_after_a_fork():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 40, 5000))
    expected = line.w2_squared(x, y)  # the parent's pool is running
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(x, y, queue))
    child.start()
    found = queue.get()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, expected)


def test_a_failure_in_a_thread_reaches_the_caller():
    from otdist._core import threads

    def fail(k):
        if k == 7:
            raise RuntimeError("seven")

    with pytest.raises(RuntimeError, match="seven"):
        threads.map(fail, range(100))
    done: list = []
    threads.map(done.append, range(100))
    assert sorted(done) == list(range(100))


def test_torch_threads_bound_the_pool():
    from otdist._core import threads

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert threads.size() == 1
    finally:
        torch.set_num_threads(before)


def test_refusals():
    x = np.zeros(3)
    with pytest.raises(ValueError, match=r"p must be at least 1; got 0\.5"):
        line.wp(x, x, p=0.5)
    with pytest.raises(ValueError, match=r"a must sum to 1 along its last axis; got a sum of 3"):
        line.w2_squared(x, x, np.ones(3))
    with pytest.raises(ValueError, match=r"b must be nonnegative; got -0.5"):
        line.w2_squared(x, x, b=np.array([1.0, 0.5, -0.5]))
    with pytest.raises(ValueError, match=r"y must have at least one point; got shape \(0,\)"):
        line.w2_squared(x, np.zeros(0))
    with pytest.raises(ValueError, match="a must have one entry for each of the 3 points"):
        line.w2_squared(x, x, np.ones(2) / 2)
    with pytest.raises(ValueError, match="the batch shapes must broadcast"):
        line.w2_squared(np.zeros((2, 3)), np.zeros((3, 3)))


def test_a_square_beyond_the_numbers_is_infinite_and_the_distance_is_not():
    for scale, n in ((1e200, 3), (1e200, 10_000)):
        x, y = np.full(n, scale), np.full(n, -scale)
        assert line.w2_squared(x, y) == np.inf
        assert line.w2(x, y) == pytest.approx(2 * scale, rel=10 * EPS)
        assert line.wp(x, y, p=7.3) == pytest.approx(2 * scale, rel=100 * EPS)
    assert line.w2_squared(np.full(3, 1e30, np.float32), np.full(3, -1e30, np.float32)) == np.inf


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_gradients_of_the_distance_at_the_ends_of_the_number_line(p):
    """A distance has degree 1: its gradient by points is the same at every scale, by weights it grows with it."""
    rng = np.random.default_rng(6)
    x, y, a = rng.standard_normal(5), rng.standard_normal(4), weights(rng, 5)
    found = []
    for scale in (1.0, 2.0**-600, 2.0**600):
        args = [torch.tensor(z, requires_grad=True) for z in (x * scale, y * scale, a)]
        line.wp(*args, p=p).backward()
        found.append((args[0].grad, args[2].grad / scale))
    for by_x, by_a in found[1:]:
        torch.testing.assert_close(by_x, found[0][0])
        torch.testing.assert_close(by_a, found[0][1])


def test_weights_beside_an_empty_batch():
    x, a = np.zeros((0, 3)), np.full(3, 1 / 3)
    assert line.w2_squared(x, np.zeros(3), a, a).shape == (0,)
    value, grads = line.w2_squared_and_grad(x, np.zeros(3), a, a)
    assert value.shape == (0,)
    assert grads.x.shape == (0, 3)
    np.testing.assert_array_equal(grads.a, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_beyond_the_range_of_squares_nothing_is_nan(dtype, library):
    """Value and gradients by weights have degree 2: infinite where they are not 0, with the sign that they have."""
    rng = np.random.default_rng(8)
    scale = 2.0**600 if dtype == np.float64 else 2.0**90
    x, y = (rng.integers(-2, 3, n).astype(dtype) for n in (5, 3))  # levels of the distribution functions that meet
    a, b = (np.full(n, 1 / n, dtype) for n in (5, 3))
    x, y = x * dtype(scale), y * dtype(scale)
    as_given = torch.from_numpy if library == "torch" else np.asarray
    for weights_given in ((), (a,), (a, b)):
        value = line.w2_squared(*map(as_given, (x, y, *weights_given)))
        assert float(value) == np.inf
        assert np.isfinite(float(line.w2(*map(as_given, (x, y, *weights_given)))))
    value, grads = line.w2_squared_and_grad(x, y, a, b)
    _, small = line.w2_squared_and_grad(x / scale, y / scale, a, b)
    assert value == np.inf
    np.testing.assert_allclose(grads.x, small.x * dtype(scale), rtol=1e-6)
    for found, true in ((grads.a, small.a), (grads.b, small.b)):
        sure = abs(true) > 1e-3
        np.testing.assert_array_equal(found[sure], np.sign(true[sure]) * np.inf)
        assert not np.isnan(found).any()


def test_a_mean_of_squares_whose_sum_overflows():
    x = np.full(100, 2.0**511)
    assert line.w2_squared(x, np.zeros(100)) == 2.0**1022
    assert line.w2_squared(x, np.zeros(99)) == pytest.approx(2.0**1022, rel=1e-14)


def test_far_points_without_weight_are_not_seen():
    far, none = np.array([0.0, 1.0, 2.0**600]), np.array([0.5, 0.5, 0.0])
    for n in (3, 9000):  # array operations, compiled loops
        y = np.full(n, 2.0)
        value, grads = line.w2_squared_and_grad(far, y, none)
        np.testing.assert_allclose([value, line.w2_squared(far, y, none)], 2.5, rtol=100 * EPS * n)
        np.testing.assert_allclose(grads.x, [-2.0, -1.0, 0.0], rtol=100 * EPS * n)
        np.testing.assert_allclose(grads.a, [1.5, -1.5, np.inf], rtol=100 * EPS * n)


def test_infinite_gradients_that_a_batch_shares_are_refused_if_they_have_no_sum():
    x, y = np.array([[0.0, 2.0**600], [2.0**600, 0.0]]), np.array([0.0, 2.0**599, 3.0])
    with pytest.raises(ValueError, match="the gradient by a is beyond the range of float64"):
        line.w2_squared_and_grad(x, y, np.array([0.5, 0.5]))
