"""Sinkhorn's compiled passes against dense formulas in extended precision, at sizes that fill up rows and columns."""

import numpy as np
import pytest

from otdist._core.kernels import Kernel
from otdist._core.kinds import FLOATS
from otdist.sinkhorn import kernels
from otdist.sinkhorn.numpy_passes import pack_columns, packed

SIZES = [(1, 1, 1), (5, 3, 2), (6, 16, 4), (13, 17, 1), (49, 100, 3), (97, 520, 7)]


class Dense:
    """A random problem: its plan in extended precision, and its parts as the passes take them."""

    def __init__(self, n, m, d, dtype, *, kept=True, damping=1.0):
        rng = np.random.default_rng(n * m + d)
        self.n, self.m, self.d, self.damping = n, m, d, damping
        x, y = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((m, d)).astype(dtype)
        self.x, self.y = x.astype(float), y.astype(float)
        h, move, b = rng.standard_normal(m), rng.uniform(-15, 15, m), rng.uniform(0.1, 1, m)
        a = rng.uniform(0.1, 1, n)
        if m > 2:
            b[1] = 0.0
        self.a, b = a / a.sum(), b / b.sum()
        scale, self.lanes = dtype(1.7), 64 // np.dtype(dtype).itemsize
        self.N, self.M = N, M = -(-n // 6) * 6, -(-m // self.lanes) * self.lanes
        self.G, self.v = np.full(M, -np.inf, dtype), np.zeros(M, dtype)
        with np.errstate(divide="ignore"):
            self.G[:m] = h + np.log2(b)
        self.v[:m] = np.where(b > 0, np.exp2(move), 0.0)
        weights = np.zeros(N, dtype)
        weights[:n] = self.a
        E = np.empty(N * M if kept else 6 * M, dtype)
        panels = packed(self.y, self.lanes, dtype)
        self.clouds = packed(self.x, 6, dtype), panels, d, float(scale), self.G
        rows = 2.0, self.G, 1, E, self.v, np.empty(N, dtype), weights
        self.dtype = dtype
        self.part = kernels.Part(kernels.absorb[dtype].address, *self.clouds[:4], *rows)

        square = ((self.x[:, None].astype(np.longdouble) - self.y) ** 2).sum(-1)
        self.absorbed = self.G[:m].astype(np.longdouble) - np.longdouble(scale) * square
        z = self.absorbed + np.log2(np.where(b > 0, self.v[:m].astype(np.longdouble), 1.0))
        top = z.max(1, keepdims=True)
        self.F = -damping * (np.log2(np.exp2(z - top).sum(1)) + top[:, 0])
        self.P = self.a[:, None] * np.exp2(self.F[:, None] + z)
        # Exponents are sums of terms as large as these; a rounding of them is one of an entry, relatively.
        self.rounding = float(np.finfo(dtype).eps * (4 + d) * (1 + np.abs(self.absorbed[:, b > 0]).max() + 15))

    def sweep(self, columns=True):
        F, c = np.empty(self.N), np.zeros(self.M)
        work = np.empty(6 + self.M, self.v.dtype)
        kernels.sweep[self.dtype](*self.part, self.damping, int(columns), F, c, work)
        return F[: self.n], c[: self.m]


@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_passes_and_products(size, dtype, kept, damping):
    of = Dense(*size, dtype, kept=kept, damping=damping)
    F, c = of.sweep()
    np.testing.assert_allclose(F, of.F.astype(float), atol=4 * of.rounding)
    np.testing.assert_allclose(c * of.v[: of.m], of.P.sum(0).astype(float), rtol=8 * of.rounding)

    B, columns = pack_columns(of.y, of.v, of.lanes), -(-of.d // 6) * 6
    Py, xP = np.zeros(of.n * of.d), np.zeros(columns * of.M, dtype)
    work = np.empty(6 * 16 + (columns + 1) * 48, dtype)
    kernels.products[dtype](*of.part, F, B, of.x.reshape(-1), Py, xP, work)
    Py, xP = Py.reshape(of.n, of.d), xP.reshape(columns, of.M)
    scale_y, scale_x = of.P @ np.abs(of.y), np.abs(of.x).T @ of.P
    assert (np.abs(Py - of.P @ of.y) <= 16 * of.rounding * scale_y).all()
    assert (np.abs(xP[: of.d, : of.m] * of.v[: of.m] - of.x.T @ of.P) <= 16 * of.rounding * scale_x).all()
    assert not xP[of.d :].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_plans_and_c_transforms(size, dtype):
    of = Dense(*size, dtype)
    F, c = of.sweep(columns=False)
    P, top = np.empty(of.n * of.m), np.empty(of.n)
    assert not c.any()
    kernels.plan_rows[dtype](*of.part, F, P)
    tiny = float(np.finfo(dtype).tiny) * 2**20
    np.testing.assert_allclose(P.reshape(of.n, of.m), of.P.astype(float), rtol=8 * of.rounding, atol=tiny)
    kernels.c_transform[dtype](*of.clouds, top, np.empty(6, dtype))
    np.testing.assert_allclose(top, of.absorbed.max(1).astype(float), atol=of.rounding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_survives(dtype):
    of = Dense(13, 17, 2, dtype)
    of.G[5] = np.nan
    F, c = of.sweep()
    assert np.isnan(F).all()
    assert np.isnan(c).all()


exp2_all, log2_all = (Kernel(f"otdist.sinkhorn.passes.{name}", FLOATS) for name in ("exp2_all", "log2_all"))


@pytest.mark.parametrize("n", [8, 1000])
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
    t = np.array([np.nan, -np.inf, -2000.0, 2000.0, 0.0, 1.0, -1.0, 0.5])
    exp2_all(t)
    np.testing.assert_array_equal(t[:7], [np.nan, 0.0, 0.0, 2.0**1023, 1.0, 2.0, 0.5])
    t = np.array([np.nan, 0.0, -1.0, 2.0**-1022, 2.0**1023, 1.0, 2.0, 4.0])
    log2_all(t)
    np.testing.assert_array_equal(t, [np.nan, np.nan, np.nan, -1022.0, 1023.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 2), (3, 50, 20), (40, 9, 1), (130, 65, 5)])
def test_small_problems_stay_in_their_scratch(monkeypatch, shape, dtype):
    """Compiled loops check no bounds: what lies behind the scratch that they were given must not be written."""
    from otdist import sinkhorn
    from otdist.sinkhorn import numpy_engine

    n, m, d = shape
    rng = np.random.default_rng(0)
    guards = []

    def guarded(number, name, kind):
        room = np.full(number + 64, 7.0, kind)
        guards.append(room[number:])
        return room[:number]

    monkeypatch.setattr(numpy_engine, "_scratch", guarded)
    x, y = rng.standard_normal((2, n, d)).astype(dtype), rng.standard_normal((2, m, d)).astype(dtype)
    sinkhorn.w2_squared_and_grad(x, y, epsilon=0.1)
    assert guards
    assert all((guard == 7.0).all() for guard in guards)
