"""The Bures distance of small pairs by Triton's kernel, in its interpreter, against eigenvalues.

Run by `test_triton`, as `triton_interpreted` is.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from otdist import gaussian
from otdist.gaussian import bures, triton_pairs

CPU = torch.device("cpu")
EPS = 2.0**-52
TRACES = 1e-70, 1e70


def covariances(n: int, d: int, smallest: float = 0.1) -> Tensor:
    """Random rotations of spectra from `smallest` to 1."""
    generator = torch.Generator().manual_seed(n + d)
    turned = torch.linalg.qr(torch.randn(n, d, d, generator=generator, dtype=torch.float64)).Q
    found = turned * torch.logspace(float(np.log10(smallest)), 0, d, dtype=torch.float64) @ turned.mT
    return (found + found.mT) / 2


@pytest.mark.parametrize("d", [1, 3, 17])
def test_pairs_are_those_of_the_library_on_a_cpu(d):
    x, y = covariances(2, d), covariances(3, d)[1:] * 3
    value, slopes, good = triton_pairs.value_and_slopes(x, y, EPS, TRACES)
    nothing = np.zeros(d)
    expected, grads = gaussian.w2_squared_and_grad(nothing, x.numpy(), nothing, y.numpy())
    assert good.all()
    np.testing.assert_allclose(value, expected, rtol=100 * d * EPS)
    for ours, theirs in zip(slopes, (grads.cov_x, grads.cov_y), strict=True):
        assert torch.equal(ours, ours.mT)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=100 * d * EPS * np.abs(theirs).max() / 0.1)


def test_one_covariance_may_be_everybodys():
    x, y = covariances(1, 4), covariances(2, 4)
    for one, two in ((x, y), (y, x)):
        value, slopes, _ = triton_pairs.value_and_slopes(one, two, EPS, TRACES)
        whole = triton_pairs.value_and_slopes(*(z.expand(2, 4, 4) for z in (one, two)), EPS, TRACES)
        assert torch.equal(value, whole[0])
        assert all(map(torch.equal, slopes, whole[1]))


def test_worse_conditions_take_the_longer_schedule_and_the_worst_are_refused():
    y = covariances(1, 4)
    for smallest, fits in ((1e-9, True), (1e-14, False), (1e-18, False)):
        x = covariances(2, 4, smallest)
        value, _, good = triton_pairs.value_and_slopes(x, y, EPS, TRACES)
        assert good.tolist() == [fits] * 2
        if fits:
            expected = [float(gaussian.w2_squared(np.zeros(4), z.numpy(), np.zeros(4), y[0].numpy())) for z in x]
            np.testing.assert_allclose(value, expected, rtol=1e-9)
        else:
            assert not triton_pairs.value_and_slopes(y, x, EPS, TRACES)[2].any()
    x = covariances(1, 4, 1e-11)  # either will do, but not their product
    assert triton_pairs.value_and_slopes(x, y, EPS, TRACES)[2].all()
    assert not triton_pairs.value_and_slopes(x, 2 * x, EPS, TRACES)[2].any()


@pytest.mark.parametrize(("scale", "fits"), [(1e-90, False), (1e-12, True), (1e12, True), (1e90, False)])
def test_sizes_matter_only_where_squares_leave_the_range(scale, fits):
    y = covariances(1, 4)
    assert triton_pairs.value_and_slopes(y * scale, 3 * y * scale, EPS, TRACES)[2].tolist() == [fits]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's; a card is silent
@pytest.mark.parametrize("needs", [(True, True), (False, True)])
def test_the_whole_of_a_batch_with_pairs_of_all_kinds(monkeypatch, needs):
    """Regular, equal, singular, and not a number, which only a transform lets in."""
    x, y = covariances(4, 3), covariances(5, 3)[1:]
    x[1], x[2, 2], x[2, :, 2], x[3, 0, 0] = y[1], 0.0, 0.0, torch.nan
    results = []
    for usable in (True, False):
        monkeypatch.setattr(triton_pairs, "usable", lambda z, usable=usable: usable)
        results.append(bures._solve_stack(x, y, EPS, needs, True))
    (value, slopes), (expected, theirs) = results
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0, equal_nan=True)
    assert value[1] == 0
    assert [z is not None for z in slopes] == list(needs)
    for one, two in zip(slopes, theirs, strict=True):
        if one is not None:
            assert two is not None
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_agreement_is_asked_of_the_kernel_of_pairs(monkeypatch, caplog):
    assert all(triton_pairs._agrees.__wrapped__(CPU, wide) for wide in (False, True))
    exact = triton_pairs.value_and_slopes
    faults = (
        lambda value, slopes, good: (value, slopes, ~good),
        lambda value, slopes, good: (value, slopes[::-1], good),
    )
    for wrong in faults:
        monkeypatch.setattr(triton_pairs, "value_and_slopes", lambda *z, wrong=wrong: wrong(*exact(*z)))
        assert not triton_pairs._agrees.__wrapped__(CPU, False)
    assert caplog.text.count("are wrong on cpu") == 2
