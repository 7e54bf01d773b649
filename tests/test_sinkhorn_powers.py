"""Entropic transport of the cost |x - y|^p: `sinkhorn.wp`."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.special import logsumexp

from otdist import exact, sinkhorn

TIGHT = {"epsilon": 0.3, "tol": 1e-11}
POWERS = (1, 1.5, 2)


def clouds(seed, n=12, m=9, d=3, batch=()):
    """Two clouds with weights of which one each is 0."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((*batch, n, d)), rng.standard_normal((*batch, m, d)) * 0.7 + 0.5
    a, b = rng.dirichlet(np.ones(n), batch or None), rng.dirichlet(np.ones(m), batch or None)
    a[..., 2], b[..., 3] = 0, 0
    return x, y, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)


def costs(x, y, p):
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1)) ** p


def kl(P, Q):
    live = P > 0
    return (P[live] * np.log(P[live] / Q[live])).sum() - P.sum() + Q.sum()


def term(C, a, b, epsilon, rho=np.inf):
    """The primal value at the end of plain softmins, averaged where both sides share their potential."""
    damp = 1.0 if np.isinf(rho) else rho / (rho + epsilon)
    g, moved = np.zeros(len(b)), 1.0
    with np.errstate(divide="ignore"):
        la, lb = np.log(a), np.log(b)
    for _ in range(5000):
        if moved <= 1e-13 * C.max():
            break
        f = -damp * epsilon * logsumexp((g - C) / epsilon + lb, axis=1)
        following = -damp * epsilon * logsumexp((f[:, None] - C) / epsilon + la[:, None], axis=0)
        following = 0.5 * (following + f) if C.shape[0] == C.shape[1] and (C == C.T).all() else following
        moved, g = np.abs(following - g).max(), following
    P = np.exp((f[:, None] + g - C) / epsilon + la[:, None] + lb)
    value = (P * C).sum() + epsilon * kl(P, np.outer(a, b))
    return value if np.isinf(rho) else value + rho * (kl(P.sum(1), a) + kl(P.sum(0), b))


def divergence(x, y, a, b, p, epsilon, rho=np.inf):
    terms = [term(costs(u, v, p), s, t, epsilon, rho) for u, v, s, t in ((x, y, a, b), (x, x, a, a), (y, y, b, b))]
    mass = 0.5 * epsilon * (a.sum() - b.sum()) ** 2
    return terms[0] - 0.5 * terms[1] - 0.5 * terms[2] + mass


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("d", [1, 2, 9])
def test_values_are_those_of_the_log_domain_reference(p, d):
    x, y, a, b = clouds(d, d=d)
    for epsilon in (0.4, 3.0):
        expected = divergence(x, y, a, b, p, epsilon)
        found = sinkhorn.wp(x, y, a, b, p=p, epsilon=epsilon, tol=1e-11)
        assert found**p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", POWERS)
def test_unbalanced_values_are_those_of_the_log_domain_reference(p):
    x, y, a, b = clouds(10)
    a, b = 1.3 * a, 0.8 * b
    found = sinkhorn.wp(x, y, a, b, p=p, **TIGHT, reach=1.2)
    assert found**p == pytest.approx(divergence(x, y, a, b, p, 0.3, 1.2**p), rel=1e-9)


@pytest.mark.parametrize("p", POWERS)
def test_values_agree_with_pot(p):
    x, y, _, _ = clouds(11)
    total = 0.0
    for share, u, v in ((1, x, y), (-0.5, x, x), (-0.5, y, y)):
        a, b, C = (*(np.full(len(z), 1 / len(z)) for z in (u, v)), costs(u, v, p))
        P = ot.sinkhorn(a, b, C, 1.0, method="sinkhorn_log", stopThr=1e-13, numItermax=100_000)
        total += share * ((P * C).sum() + 1.0 * kl(P, np.outer(a, b)))
    assert sinkhorn.wp(x, y, p=p, epsilon=1.0, tol=1e-11) ** p == pytest.approx(total, rel=1e-9)


def test_two_is_w2():
    x, y, a, b = clouds(12)
    assert sinkhorn.wp(x, y, a, b, p=2, epsilon=0.3) == sinkhorn.w2(x, y, a, b, epsilon=0.3)


@pytest.mark.parametrize("p", POWERS)
def test_it_goes_to_the_exact_distance(p):
    # 0 <= OT_ε - OT <= ε log n, where ε log n bounds the mutual information of plans; twice half of it from the selves.
    x, y = clouds(13)[:2]
    epsilon = 1e-3
    gap = sinkhorn.wp(x, y, p=p, epsilon=epsilon, tol=1e-9) ** p - exact.wp(x, y, p=p) ** p
    assert abs(gap) <= epsilon * np.log(len(x))


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("reach", [None, 1.0])
def test_gradients_by_points_and_weights(p, batch, reach):
    x, y, a, b = clouds(14, n=6, m=5, d=2, batch=batch)
    x[..., 0, :], a[..., 2], b[..., 3] = y[..., 0, :], 0.1, 0.2  # a coinciding pair: smooth in p > 1, a kink in p = 1
    leaves = [torch.tensor(z / z.sum(-1, keepdims=True) if k > 1 else z) for k, z in enumerate((x, y, a, b))]
    for leaf in leaves:
        leaf.requires_grad_()

    def function(x, y, a, b):
        return sinkhorn.wp(x, y, a / a.sum(-1)[..., None], b / b.sum(-1)[..., None], p=p, **TIGHT, reach=reach)

    # Central differences of |t| at 0 are 0, as is the subgradient taken there; P changes by order t.
    assert torch.autograd.gradcheck(function, leaves, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_clouds_are_at_distance_zero_with_gradient_zero(p, dtype):
    x, _, a, _ = clouds(15)
    x, a = torch.tensor(x, dtype=dtype, requires_grad=True), torch.tensor(a, dtype=dtype, requires_grad=True)
    value = sinkhorn.wp(x, x.detach(), a, a.detach(), p=p, epsilon=0.3)
    value.backward()
    assert value == 0
    assert value.dtype == dtype
    assert not x.grad.any()
    assert not a.grad.any()


@pytest.mark.parametrize("p", POWERS)
def test_single_points_are_at_their_distance(p):
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    y = torch.zeros(1, 2, dtype=torch.float64)
    value = sinkhorn.wp(x, y, p=p, epsilon=0.7)
    value.backward()
    eps = np.finfo(float).eps
    assert value.item() == pytest.approx(5.0, rel=10 * eps)
    np.testing.assert_allclose(x.grad, [[0.6, 0.8]], rtol=20 * eps)
    assert sinkhorn.wp(y.numpy(), np.zeros((4, 2)), p=p, epsilon=0.7) == 0


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("scale", [2.0**-400, 2.0**-100, 2.0**100, 2.0**400])
def test_scales_come_out(p, scale):
    x, y, a, b = clouds(16)
    found = sinkhorn.wp(x * scale, y * scale, a, b, p=p, epsilon=0.3 * scale**p, tol=1e-9)
    assert found == pytest.approx(scale * sinkhorn.wp(x, y, a, b, p=p, epsilon=0.3, tol=1e-9), rel=1e-10)


def test_near_the_end_of_the_range():
    # Squares would be infinite, distances are not.
    x, y, _, _ = clouds(17)
    found = sinkhorn.wp(x * 2.0**900, y * 2.0**900, epsilon=0.3 * 2.0**900, tol=1e-9)
    assert found == pytest.approx(2.0**900 * sinkhorn.wp(x, y, epsilon=0.3, tol=1e-9), rel=1e-10)
    with pytest.raises(ValueError, match="epsilon=1e-300 is too small"):
        sinkhorn.wp(x * 2.0**900, y * 2.0**900, epsilon=1e-300)


@pytest.mark.parametrize("limits", [{"LARGE": 1}, {"STORED_BYTES": 0}, {"STORED_BYTES": 0, "TILE": 1, "LARGE": 1}])
def test_regimes_agree(monkeypatch, limits):
    from otdist.sinkhorn import numpy_passes

    x, y, a, b = clouds(18, n=91, m=70)
    x = torch.tensor(x, requires_grad=True)

    def solved():
        value = sinkhorn.wp(x, *map(torch.tensor, (y, a, b)), **TIGHT)
        return value.detach(), torch.autograd.grad(value, x)[0]

    whole = solved()
    for name, limit in limits.items():
        monkeypatch.setattr(numpy_passes, name, limit)
    for mine, theirs in zip(solved(), whole, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)


@pytest.mark.parametrize("p", [1, 1.5])
@pytest.mark.parametrize("reach", [np.inf, 1.0])
def test_torch_operators_agree_with_the_compiled_passes(monkeypatch, p, reach):
    from otdist.sinkhorn import operators, torch_engine

    options = {"epsilon": 0.3, "tol": 1e-10, "max_iter": 1000, "reach": reach, "power": p}
    arrays = clouds(19, batch=(2,))
    expected = operators.divergence.value_and_grad(*arrays, **options)
    monkeypatch.setattr(operators, "engine_for", lambda x: torch_engine)
    value, grads = operators._divergence(*map(torch.tensor, arrays), needs_input_grad=(True,) * 4, **options)
    np.testing.assert_allclose(value, expected[0], rtol=1e-9)
    for k, (mine, theirs) in enumerate(zip(grads, expected[1], strict=True)):
        gap = mine.numpy() - theirs
        free = k > 1 and np.isinf(reach)
        assert np.abs(gap - gap.mean(-1, keepdims=True) if free else gap).max() <= 1e-8


def test_batches_broadcast_and_may_be_empty():
    x, y, a, _ = clouds(20, batch=(3,))
    together = sinkhorn.wp(x, y[0], a, epsilon=0.3)
    assert together.shape == (3,)
    np.testing.assert_array_equal(together, [sinkhorn.wp(u, y[0], w, epsilon=0.3) for u, w in zip(x, a, strict=True)])
    assert sinkhorn.wp(x[:0], y[0], epsilon=0.3).shape == (0,)
    assert sinkhorn.wp(x.astype(np.float32), y.astype(np.float32), epsilon=0.3).dtype == np.float32


@pytest.mark.parametrize("p", [0.5, 2.5, np.nan, np.inf, "two"])
def test_other_powers_are_refused(p):
    x, y, _, _ = clouds(21)
    with pytest.raises((ValueError, TypeError), match=r"^p must be"):
        sinkhorn.wp(x, y, p=p, epsilon=0.3)


def test_why_powers_above_two_are_refused():
    # Σ w_i w_j |x_i - x_j|^4 of weights without a sum or a mean is positive: at a large ε the divergence is -1/2 of it.
    x, a, b = np.arange(3.0)[:, None], np.array([0.3, 0.4, 0.3]), np.array([0.4, 0.2, 0.4])
    assert divergence(x, x, a, b, 4, 1e3) < -0.01
