"""What runs on a GPU: the same kernels in PyTorch's namespace, exercised here on CPU tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import covariance

from otdist import covariance as covariance_structures
from otdist.gaussian import bures, entropic, procrustes


def covariances(seed, *ranks):
    rng = np.random.default_rng(seed)
    return np.stack([covariance(4, rng, rank=r) for r in ranks])


def check(operator, *arrays, needs_input_grad, tolerance=1e-10, **options):
    """Values and gradients of a kernel in both namespaces."""
    value, grads = operator.kernel(*arrays, needs_input_grad=needs_input_grad, **options)
    tensors = [torch.from_numpy(a) for a in arrays]
    twin, twin_grads = operator.kernel(*tensors, needs_input_grad=needs_input_grad, **options)
    assert isinstance(twin, torch.Tensor)
    np.testing.assert_allclose(twin.numpy(), value, atol=tolerance)
    for g, t in zip(grads, twin_grads, strict=True):
        assert (g is None) == (t is None)
        if g is not None:
            np.testing.assert_allclose(t.numpy(), g, atol=100 * tolerance)


@pytest.mark.parametrize("needs", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("ranks", [(4, 4, 4), (4, 2, 4)])
def test_bures(needs, ranks):
    x, y = covariances(0, *ranks), covariances(1, 4, 4, 4)
    y[2] = x[2]  # one pair of equals: the refined route
    check(bures.bures_squared, x, y, needs_input_grad=needs, tolerance=1e-10 if 2 not in ranks else 1e-7)


def test_second_derivatives_of_bures():
    x, y, g, h = (covariances(s, 4, 4) for s in range(4))
    ours = bures.bures_squared.second_derivative(x, y, cotangents=(g, h))
    theirs = bures.bures_squared.second_derivative(
        *map(torch.from_numpy, (x, y)), cotangents=tuple(map(torch.from_numpy, (g, h)))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b.numpy(), a, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("needs", [(False, False), (True, True)])
def test_roots(needs):
    rng = np.random.default_rng(2)
    r, s = rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 5, 4))
    check(procrustes.bures_squared_from_roots, r, s, needs_input_grad=needs)
    cov = np.stack([covariance(5, rng) for _ in range(3)])
    check(procrustes.bures_squared_from_root_and_cov, r, cov, needs_input_grad=needs)
    structure = (covariance_structures.Diagonal,)
    operator = procrustes.bures_squared_from_root_and(structure, (1,))
    check(operator, r, rng.uniform(0.5, 2, (3, 5)), needs_input_grad=needs)


@pytest.mark.parametrize("needs", [(False, False), (True, True)])
def test_entropic(needs):
    check(entropic.entropic_bures, covariances(3, 4, 2), covariances(4, 4, 4), needs_input_grad=needs, epsilon=0.3)


def test_nan_propagates():
    x = torch.stack([torch.eye(3), torch.full((3, 3), torch.nan)]).double()
    value, grads = bures.bures_squared.kernel(x, torch.eye(3).double().expand(2, 3, 3), needs_input_grad=(True, False))
    assert value[0] == 0
    assert torch.isnan(value[1])
    assert torch.isnan(grads[0][1]).all()
