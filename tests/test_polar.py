"""The polar factor by products: its schedules, and the Bures distance from it against more digits."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from oracles import bures_squared, matrix_root, relative_error

from bench.polar_schedule import schedule
from otdist.gaussian import bures, polar


def ill_conditioned(d, condition, rng):
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    cov = (q * np.geomspace(1, 1 / condition, d)) @ q.T
    return (cov + cov.T) / 2


@pytest.mark.parametrize("lower", polar.SCHEDULES)
def test_the_schedules_are_derived_and_end_at_1(lower):
    np.testing.assert_allclose(polar.SCHEDULES[lower], schedule(lower), rtol=1e-13)
    with mp.workdps(40):
        z = [mp.mpf(v) for v in np.geomspace(lower, 1, 2001)]
        for a, b, c in polar.SCHEDULES[lower]:
            z = [v * (a + b * v**2 + c * v**4) for v in z]
        assert max(abs(v - 1) for v in z) <= 2.0**-54


@pytest.mark.parametrize(("d", "n"), [(1, 1), (3, 4), (40, 2)])
@pytest.mark.parametrize("lower", polar.SCHEDULES)
def test_polar_factors_are_the_ones_of_singular_values(d, n, lower):
    rng = np.random.default_rng(d)
    u, _ = np.linalg.qr(rng.standard_normal((n, d, d)))
    v, _ = np.linalg.qr(rng.standard_normal((n, d, d)))
    sigma = np.geomspace(1, 1.01 * lower, d)
    found = polar.polar_factor(torch.tensor((u * sigma) @ v.mT), lower).numpy()
    assert np.abs(found @ found.mT - np.eye(d)).max() <= 8 * d * 2.0**-52
    # A polar factor moves by eps over the sum of the two least singular values.
    assert np.abs(found - u @ v.mT).max() <= 8 * d * 2.0**-52 / lower


def test_bounds_of_singular_values_hold():
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(np.stack([ill_conditioned(6, 10.0**k, rng) for k in range(8)])) for _ in range(2))
    roots = polar.Roots(x, y, torch.ones(8, dtype=torch.bool), (torch.zeros(8), torch.zeros(8)))
    sigma = torch.linalg.svdvals(roots.cross)
    assert (roots.largest >= sigma[:, 0] * (1 - 1e-15)).all()
    assert (roots.smallest * roots.largest <= sigma[:, -1] * (1 + 1e-6)).all()
    assert (roots.smallest * roots.largest * 6**0.5 >= sigma[:, -1] * (1 - 1e-6)).all()


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e9])
@pytest.mark.parametrize("near", [False, True])
def test_values_and_gradients_have_the_digits_of_their_condition(condition, near):
    rng = np.random.default_rng(3)
    x = ill_conditioned(5, condition, rng)
    y = x * (1 + 1e-5) + 1e-5 * x @ x if near else ill_conditioned(5, condition, rng)
    value, (grad_x, grad_y) = bures.bures_squared.kernel(
        torch.tensor(x)[None], torch.tensor(y)[None], needs_input_grad=(True, True)
    )
    expected = bures_squared(x, y)
    # |R - S Q| is known to some eps |R|: its square, to that relative to itself.
    rounding = 64 * 2.0**-52 * (1 + float(mp.sqrt(np.trace(x) / expected)))
    assert relative_error(value[0], expected) <= rounding
    with mp.workdps(60):
        root = matrix_root(mp.matrix(x.tolist()))
        inner = matrix_root(root * mp.matrix(y.tolist()) * root)
        transport = np.array((root**-1 * inner * root**-1).tolist(), float).reshape(5, 5)
        back = np.array((root * inner**-1 * root).tolist(), float).reshape(5, 5)
    for grad, matrix in ((grad_x, transport), (grad_y, back)):
        gap = np.abs(grad[0].numpy() - (np.eye(5) - matrix)).max()
        assert gap <= 64 * 2.0**-52 * condition * max(1.0, np.abs(matrix).max())


def test_singular_pairs_of_a_batch_go_the_other_way():
    rng = np.random.default_rng(5)
    x = np.stack([ill_conditioned(4, 10.0, rng) for _ in range(4)])
    y = x[::-1].copy()
    x[1] = np.diag([1.0, 2.0, 0.0, 0.0])
    y[2] = x[2]
    x[3, 0, 0] = np.nan
    value, grads = bures.bures_squared.kernel(torch.tensor(x), torch.tensor(y), needs_input_grad=(True, True))
    expected, by = bures.bures_squared.kernel(x[:3], y[:3], needs_input_grad=(True, True))
    np.testing.assert_allclose(value[:3], expected, rtol=1e-12)
    assert value[2] == 0
    for mine, theirs in zip(grads, by, strict=True):
        np.testing.assert_allclose(mine[:3], theirs, atol=1e-11)
        assert torch.isnan(mine[3]).all()
