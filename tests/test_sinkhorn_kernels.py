"""Sinkhorn's kernels against dense formulas in extended precision, at sizes that fill up rows and columns."""

import numpy as np
import pytest

from otdist.sinkhorn import softmin
from otdist.sinkhorn.exp2 import exp2_all, log2_all

SIZES = [(1, 1, 1), (5, 3, 2), (6, 16, 4), (13, 17, 1), (49, 100, 3), (97, 520, 7)]


class Dense:
    """A random problem: its plan in extended precision, and its parts as the kernels take them."""

    def __init__(self, n, m, d, dtype, *, kept=True, strength=1.0):
        rng = np.random.default_rng(n * m + d)
        self.n, self.m, self.d = n, m, d
        x, y = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((m, d)).astype(dtype)
        self.x, self.y = x.astype(float), y.astype(float)
        h, move, b = rng.standard_normal(m), rng.uniform(-15, 15, m), rng.uniform(0.1, 1, m)
        a = rng.uniform(0.1, 1, n)
        if m > 2:
            b[1] = 0.0
        self.a, b = a / a.sum(), b / b.sum()
        scale, lanes = dtype(1.7), 64 // np.dtype(dtype).itemsize
        N, M = -(-n // 6) * 6, -(-m // lanes) * lanes
        groups, panels = np.empty((N // 6, d, 6), dtype), np.empty((M // lanes, d, lanes), dtype)
        softmin.pack(self.x, 6, groups)
        softmin.pack(self.y, lanes, panels)
        self.G, self.v = np.full(M, -np.inf, dtype), np.zeros(M, dtype)
        with np.errstate(divide="ignore"):
            self.G[:m] = h + np.log2(b)
        self.v[:m] = np.where(b > 0, np.exp2(move), 0.0)
        self.E, self.shift = np.empty(N * M if kept else 6 * M, dtype), np.empty(N, dtype)
        self.part = groups.ravel(), panels.ravel(), d, scale, self.G, True, self.E, self.v, self.shift
        self.a_work = np.zeros(N, dtype)
        self.a_work[:n] = self.a

        square = ((self.x[:, None].astype(np.longdouble) - self.y) ** 2).sum(-1)
        self.absorbed = self.G[:m].astype(np.longdouble) - np.longdouble(scale) * square
        z = self.absorbed + np.log2(np.where(b > 0, self.v[:m].astype(np.longdouble), 1.0))
        top = z.max(1, keepdims=True)
        self.F = -strength * (np.log2(np.exp2(z - top).sum(1)) + top[:, 0])
        self.P = self.a[:, None] * np.exp2(self.F[:, None] + z)
        # Exponents are sums of terms as large as these; a rounding of them is one of an entry, relatively.
        self.rounding = float(np.finfo(dtype).eps * (4 + d) * (1 + np.abs(self.absorbed[:, b > 0]).max() + 15))


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_passes_and_products(size, dtype, kept, strength):
    of = Dense(*size, dtype, kept=kept, strength=strength)
    F, c = np.empty(of.n), np.zeros(of.m)
    softmin.sweep(of.part, of.a_work, strength, True, F, c)
    np.testing.assert_allclose(F, of.F.astype(float), atol=4 * of.rounding)
    np.testing.assert_allclose(c * of.v[: of.m], of.P.sum(0).astype(float), rtol=8 * of.rounding)

    lanes = 64 // np.dtype(dtype).itemsize
    B = np.empty(-(-of.d // lanes) * lanes * len(of.v), dtype)
    softmin.pack_columns(of.y, of.v, B)
    Py, Ptx = np.zeros((of.n, of.d)), np.zeros((-(-of.d // 6) * 6, len(of.v)), dtype)
    softmin.products(of.part, of.a_work, F, B, of.x, Py, Ptx)
    scale_y, scale_x = of.P @ np.abs(of.y), np.abs(of.x).T @ of.P
    assert (np.abs(Py - of.P @ of.y) <= 16 * of.rounding * scale_y).all()
    assert (np.abs(Ptx[: of.d, : of.m] * of.v[: of.m] - of.x.T @ of.P) <= 16 * of.rounding * scale_x).all()
    assert not Ptx[of.d :].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_plans_and_peaks(size, dtype):
    of = Dense(*size, dtype)
    F, c, P, top = np.empty(of.n), np.zeros(of.m), np.empty((of.n, of.m), dtype), np.empty(of.n)
    softmin.sweep(of.part, of.a_work, 1.0, False, F, c)
    assert not c.any()
    softmin.plan_rows(of.part, of.a_work, F, P)
    np.testing.assert_allclose(P, of.P.astype(float), rtol=8 * of.rounding, atol=float(np.finfo(dtype).tiny) * 2**20)
    softmin.peaks(*of.part[:5], top)
    np.testing.assert_allclose(top, of.absorbed.max(1).astype(float), atol=of.rounding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_survives(dtype):
    of = Dense(13, 17, 2, dtype)
    of.G[5] = np.nan
    F, c = np.empty(of.n), np.zeros(of.m)
    softmin.sweep(of.part, of.a_work, 1.0, True, F, c)
    assert np.isnan(F).all()
    assert np.isnan(c).all()


@pytest.mark.parametrize("n", [1, 8, 1001])
def test_powers_and_logarithms(n):
    t = np.random.default_rng(n).uniform(-1000, 1000, n)
    power, logarithm = t.copy(), np.exp2(t)
    exp2_all(power)
    np.testing.assert_allclose(power, np.exp2(t.astype(np.longdouble)).astype(float), rtol=4 * np.finfo(float).eps)
    log2_all(logarithm)
    np.testing.assert_allclose(logarithm, t, rtol=4 * np.finfo(float).eps, atol=4 * np.finfo(float).eps)
    near = 1 + 1e-6 * t / 1000
    expected = np.log2(near.astype(np.longdouble)).astype(float)
    log2_all(near)
    np.testing.assert_allclose(near, expected, rtol=8 * np.finfo(float).eps)


def test_powers_and_logarithms_at_the_ends():
    t = np.array([np.nan, -np.inf, -2000.0, 2000.0])
    exp2_all(t)
    np.testing.assert_array_equal(t, [np.nan, 0.0, 0.0, 2.0**1023])
    t = np.array([np.nan, 0.0, -1.0, 2.0**-1022, 2.0**1023, 1.0])
    log2_all(t)
    np.testing.assert_array_equal(t, [np.nan, np.nan, np.nan, -1022.0, 1023.0, 0.0])
