"""Every distance between point clouds on the inputs that break such code, through public functions alone.

Lattices, ties, duplicates, planar clouds, common grids, weights of 0 and equal measures. Values are held against
linear programs and a dense Sinkhorn iteration; gradients against one-sided slopes of those. By weights the least cost
is convex: a slope is right if it lies between the two one-sided ones, and at a weight of 0 only one of them exists. By
points it is a minimum of smooth functions: concave kinks.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import logsumexp
from strategies import seeds

from otdist import exact, line, sinkhorn, sliced

EPS = np.finfo(float).eps
# The programs are solved to 1e-10 in each constraint (HiGHS's smallest tolerance), over costs and weights of order 1.
PROGRAM = 1e-9
KINDS = ("lattice", "grid", "duplicates", "planar", "equal")
exponents = st.sampled_from([1.0, 1.5, 2.0, 3.0])
kinds = st.sampled_from(KINDS)


def clouds(rng: np.random.Generator, kind: str, d: int) -> tuple[np.ndarray, ...]:
    """Two clouds (n, d), (m, d) and their weights, multiples of one fraction, of which some are 0."""
    n, m = rng.integers(1, 7, 2)
    if kind == "lattice":
        x, y = rng.integers(0, 3, (n, d)) * 0.5, rng.integers(0, 3, (m, d)) * 0.5
    elif kind == "grid":  # histograms on the same bins
        m = n
        x = y = np.stack([np.arange(n) * 0.25] + [np.zeros(n)] * (d - 1), 1)
    elif kind == "duplicates":
        x = rng.standard_normal((n, d))[rng.integers(0, n, n)]
        y = np.concatenate([x[: m // 2], rng.standard_normal((m - min(n, m // 2), d))])
    elif kind == "planar":  # on a line in space
        x, y = (rng.integers(-2, 3, (size, 1)) * np.linspace(1, 0.5, d) for size in (n, m))
    else:
        x = rng.standard_normal((n, d))
        y = x.copy()
    a, b = (fractions(rng, len(z)) for z in (x, y))
    return x, y, a, a.copy() if kind == "equal" else b


def fractions(rng: np.random.Generator, n: int) -> np.ndarray:
    counts = rng.integers(0, 3, n)
    counts[rng.integers(n)] += 1
    return counts / counts.sum()


def costs(x: np.ndarray, y: np.ndarray, p: float) -> np.ndarray:
    return np.linalg.norm(x[:, None] - y, axis=-1) ** p


def least_cost(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The linear program of transport, written out and solved by HiGHS."""
    n, m = cost.shape
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    tolerances = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog(cost.ravel(), A_eq=marginals, b_eq=np.concatenate([a, b]), method="highs-ds", options=tolerances)
    assert found.status == 0
    return found.fun


def change(rng: np.random.Generator, w: np.ndarray) -> np.ndarray:
    """A direction in which weights may change: it sums to 0 and takes nothing where there is nothing."""
    v = rng.integers(-2, 3, len(w)) * 1.0
    v[w == 0] = abs(v[w == 0])
    v[rng.choice(np.flatnonzero(w > 0))] -= v.sum()
    return v


def holds_between_slopes(value, w: np.ndarray, gradient: np.ndarray, v: np.ndarray, slack: float) -> None:
    """`gradient` along v, against the one-sided slopes of the convex `value` at weights w; v may only lead forward."""
    h = 1e-4  # below the distance to the next kink: weights are fractions with denominators up to 20
    here, slope = value(w), gradient @ v
    assert slope <= (value(w + h * v) - here) / h + slack
    if not v[w == 0].any():
        assert slope >= (here - value(w - h * v)) / h - slack


def line_along(theta: np.ndarray, p: float):
    """The least cost of projections, by linear programs: the mean over the directions."""

    def value(x, y, a, b):
        return np.mean([least_cost(costs((x @ t)[:, None], (y @ t)[:, None], p), a, b) for t in theta])

    return value


def exactly(p: float):
    return lambda x, y, a, b: least_cost(costs(x, y, p), a, b)


def distances(d: int, *, also_sliced: bool = True):
    """Each distance with its gradients and what it must be, for p = 2 and clouds in d dimensions."""
    theta = np.vstack([np.eye(d), np.ones((1, d)) / d**0.5])[: d + 1]
    fixed = partial(sliced.w2_squared_and_grad, directions=theta)
    found = [(exact.w2_squared_and_grad, exactly(2))]
    if also_sliced:
        found.append((fixed, line_along(theta, 2)))
    if d == 1:
        found.append((lambda x, y, a, b: flat(line.w2_squared_and_grad(x[:, 0], y[:, 0], a, b)), exactly(2)))
    return found


def flat(answer):
    value, grads = answer
    return value, grads._replace(x=grads.x[:, None], y=grads.y[:, None])


@given(seed=seeds, kind=kinds, d=st.integers(1, 3))
def test_values(seed, kind, d):
    args = clouds(np.random.default_rng(seed), kind, d)
    for distance, oracle in distances(d):
        assert distance(*args)[0] == pytest.approx(oracle(*args), abs=20 * PROGRAM)


@given(seed=seeds, kind=kinds, d=st.integers(1, 2), p=exponents)
def test_values_for_every_exponent(seed, kind, d, p):
    x, y, a, b = clouds(np.random.default_rng(seed), kind, d)
    oracle = least_cost(costs(x, y, p), a, b)
    assert exact.wp(x, y, a, b, p=p) ** p == pytest.approx(oracle, abs=100 * PROGRAM)
    if d == 1:
        assert line.wp(x[:, 0], y[:, 0], a, b, p=p) ** p == pytest.approx(oracle, abs=100 * PROGRAM)


@given(seed=seeds, kind=kinds, d=st.integers(1, 3), side=st.sampled_from(["a", "b"]))
def test_gradients_by_weights_lie_between_one_sided_slopes(seed, kind, d, side):
    rng = np.random.default_rng(seed)
    x, y, a, b = clouds(rng, kind, d)
    w = {"a": a, "b": b}[side]
    v = change(rng, w)
    for distance, oracle in distances(d):
        gradient = getattr(distance(x, y, a, b)[1], side)

        def value(changed, oracle=oracle):
            return oracle(x, y, *((changed, b) if side == "a" else (a, changed)))

        holds_between_slopes(value, w, gradient, v, slack=1e5 * PROGRAM)


@given(seed=seeds, d=st.integers(1, 3))
def test_a_weight_of_zero_has_the_slope_of_moving_weight_to_it(seed, d):
    """Where no partial sums agree there is one slope only, and the gradient is it, not merely below it."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 6, 2)
    x, y = rng.integers(0, 4, (n, d)) * 1.0, rng.integers(0, 4, (m, d)) + 0.5  # never equal: there the gradient is 0
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    a[rng.permutation(n)[: n // 2]], b[rng.permutation(m)[: m // 2]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    v = change(rng, a)
    h = 1e-5
    for distance, oracle in distances(d, also_sliced=False):  # projections may be equal where clouds are not
        forward = (oracle(x, y, a + h * v, b) - oracle(x, y, a, b)) / h
        assert distance(x, y, a, b)[1].a @ v == pytest.approx(forward, abs=PROGRAM / h)


@given(seed=seeds, kind=st.sampled_from(["lattice", "grid", "duplicates", "planar"]), d=st.integers(1, 3))
def test_gradients_by_points_lie_between_one_sided_slopes(seed, kind, d):
    rng = np.random.default_rng(seed)
    x, y, a, b = clouds(rng, kind, d)
    v, h = rng.integers(-1, 2, x.shape) * 1.0, 1e-4
    for distance, oracle in distances(d):
        here, ahead, behind = (oracle(x + s * v, y, a, b) for s in (0, h, -h))
        slope = (distance(x, y, a, b)[1].x * v).sum()
        slack = 2 * h * d + 1e5 * PROGRAM  # the cost of a plan has second derivative 2 Σ a |v|²
        assert (ahead - here) / h - slack <= slope <= (here - behind) / h + slack


@given(seed=seeds, kind=kinds, d=st.integers(1, 3), p=exponents)
def test_the_potentials_of_exact_prove_its_plan(seed, kind, d, p):
    x, y, a, b = clouds(np.random.default_rng(seed), kind, d)
    found, cost = exact.solve(x, y, a, b, p=p), costs(x, y, p)
    rows, columns, mass = found.plan
    scale = 1000 * EPS * (1 + cost.max())
    assert (mass > 0).all()
    assert len(mass) < len(x) + len(y)
    np.testing.assert_allclose(np.bincount(rows, mass, len(x)), a, atol=10 * EPS)
    np.testing.assert_allclose(np.bincount(columns, mass, len(y)), b, atol=10 * EPS)
    assert (cost - found.f[:, None] - found.g).min() >= -scale
    assert found.f @ a + found.g @ b == pytest.approx(mass @ cost[rows, columns], abs=scale)
    assert found.cost == pytest.approx(mass @ cost[rows, columns], abs=scale)


@given(seed=seeds, d=st.integers(1, 3))
def test_equal_measures_have_no_gradient_but_by_weights_of_zero(seed, d):
    x, _, a, _ = clouds(np.random.default_rng(seed), "equal", d)
    for distance, _ in distances(d):
        value, grads = distance(x, x, a, a)
        assert abs(value) <= 100 * EPS * (1 + (x**2).sum())
        for g in (grads.x, grads.y, grads.a[a > 0], grads.b[a > 0]):
            assert abs(g).max() <= 100 * EPS * (1 + abs(x).sum()) ** 2
        assert min(grads.a.min(), grads.b.min()) >= -100 * EPS * (1 + abs(x).sum()) ** 2


# Sinkhorn is smooth: its slopes are compared with quotients of a dense iteration in the log domain.


def divergence(x, y, a, b, epsilon: float) -> float:
    """The debiased divergence by its definition, iterated until nothing changes; points without weight are left out."""

    def entropic(x, y, a, b):
        x, y, a, b = x[a > 0], y[b > 0], a[a > 0], b[b > 0]
        cost, f, g = costs(x, y, 2), np.zeros(len(x)), np.zeros(len(y))
        for _ in range(2000):
            before = f
            f = -epsilon * logsumexp((g - cost) / epsilon + np.log(b), axis=1)
            g = -epsilon * logsumexp((f[:, None] - cost) / epsilon + np.log(a)[:, None], axis=0)
            if abs(f - before).max() <= 1e-13:
                break
        return f @ a + g @ b

    return entropic(x, y, a, b) - entropic(x, x, a, a) / 2 - entropic(y, y, b, b) / 2


@given(seed=seeds, kind=kinds)
def test_sinkhorn_values_and_slopes(seed, kind):
    rng = np.random.default_rng(seed)
    x, y, a, b = clouds(rng, kind, 2)
    x, y = x / 2, y / 2  # so that the dense iteration ends
    epsilon, h = 4.0, 1e-4
    value, grads = sinkhorn.w2_squared_and_grad(x, y, a, b, epsilon=epsilon, tol=1e-12)
    here = divergence(x, y, a, b, epsilon)
    assert value == pytest.approx(here, abs=1e-9)
    v = rng.integers(-1, 2, x.shape) * 1.0
    ahead, behind = (divergence(x + s * v, y, a, b, epsilon) for s in (h, -h))
    # Central differences of order 2, third derivatives of order |v|³ d^1.5 (max |x - y| / epsilon)³ and below.
    assert (grads.x * v).sum() == pytest.approx((ahead - behind) / (2 * h), abs=1e-5)
    w, h = change(rng, a), 1e-5
    one, two = (divergence(x, y, a + s * w, b, epsilon) for s in (h, 2 * h))
    # One-sided differences of order 2: forward is the only way at a weight of 0.
    assert grads.a @ w == pytest.approx((4 * one - two - 3 * here) / (2 * h), abs=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 7.3])
@pytest.mark.parametrize("exponent", [-1060, -600, 500, 1000])
def test_scales_at_the_ends_of_the_number_line(p, exponent):
    """Powers of two scale without rounding; down at 2^-1060, where numbers are subnormal, 14 bits are left."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(-4, 5, (2, 9, 2)) * 1.0
    a = rng.random(9)
    a /= a.sum()
    scaled = [np.ldexp(z, exponent) for z in (x, y)]
    relative = 2.0**-11 if exponent < -1000 else 1e-12
    for ours, flat in ((exact.wp, False), (line.wp, True)):
        plain, large = ([z[:, 0] for z in pair] if flat else pair for pair in ((x, y), scaled))
        expected = float(np.ldexp(ours(*plain, a, p=p), exponent))
        assert ours(*large, a, p=p) == pytest.approx(expected, rel=relative, abs=0)
