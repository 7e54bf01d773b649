"""The derivative contract of the Sinkhorn divergence and of the entropic cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otdist import sinkhorn

TIGHT = {"epsilon": 0.4, "tol": 1e-12}


def leaves(seed=0, batch=(2,), zeros=False):
    """Clouds and weights in float64 that want gradients."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((*batch, 7, 2)), rng.standard_normal((5, 2)) * 0.7 + 0.5
    a, b = rng.dirichlet(np.ones(7), batch), rng.dirichlet(np.ones(5))
    if zeros:
        a[..., 0] = 0
        a /= a.sum(-1, keepdims=True)
    return [torch.tensor(z, requires_grad=True) for z in (x, y, a, b)]


@pytest.mark.parametrize("reach", [None, 1.0])
def test_gradcheck(reach):
    x, y, a, b = leaves()
    check = torch.autograd.gradcheck
    assert check(lambda *z: sinkhorn.w2_squared(*z, **TIGHT, reach=reach), (x, y, a, b))
    assert check(lambda *z: sinkhorn.w2(*z, **TIGHT, reach=reach), (x, y))
    assert check(lambda *z: sinkhorn.solve(*z, **TIGHT, reach=reach).value, (x, y, a, b))


def test_gradcheck_of_points_without_weight():
    x, y, a, b = leaves(1, zeros=True)
    assert torch.autograd.gradcheck(lambda x, y: sinkhorn.w2_squared(x, y, a.detach(), b.detach(), **TIGHT), (x, y))


def test_gradient_by_a_weight_that_is_zero():
    # One-sided: mass can only be added. The potential is continued there, so that its derivative is right.
    x, y, a, b = (z.detach().numpy() for z in leaves(2, batch=(), zeros=True))
    step = 1e-6
    moved = a + step * np.eye(7)[0]
    value, grads = sinkhorn.w2_squared_and_grad(x, y, a, b, **TIGHT)
    after = sinkhorn.w2_squared(x, y, moved / moved.sum(), b, **TIGHT)
    # The remainder is step/2 times a second derivative, of order cost²/ε.
    assert abs((after - value) / step - grads.a[0]) <= 100 * step * np.abs(grads.a).max() ** 2 / TIGHT["epsilon"]


def test_gradient_error_is_of_the_order_of_the_tolerance():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((200, 3)), rng.standard_normal((180, 3)) + 1
    _, exact = sinkhorn.w2_squared_and_grad(x, y, epsilon=0.3, tol=1e-11)
    for tol in (1e-2, 1e-3, 1e-4):
        _, grads = sinkhorn.w2_squared_and_grad(x, y, epsilon=0.3, tol=tol)
        diameter = 10
        assert np.abs(grads.x - exact.x).sum(0).max() <= 2 * diameter * 10 * tol


def test_numpy_and_torch_agree():
    x, y, a, b = leaves(4)
    value = sinkhorn.w2_squared(x, y, a, b, **TIGHT)
    value.sum().backward()
    mine, grads = sinkhorn.w2_squared_and_grad(*(z.detach().numpy() for z in (x, y, a, b)), **TIGHT)
    np.testing.assert_allclose(value.detach(), mine, rtol=1e-13)  # sums of weights add up in another order
    for tensor, grad in zip((x, y, a, b), grads, strict=True):
        np.testing.assert_allclose(tensor.grad, grad, rtol=1e-12, atol=1e-15)


def test_func_grad_and_vmap():
    x, y, _, _ = (z.detach() for z in leaves(5))

    def loss(x, y):
        return sinkhorn.w2_squared(x, y, **TIGHT)

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(x, y)
    alone = torch.stack([torch.func.grad(loss)(z, y) for z in x])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)


def test_compile_without_a_graph_break():
    x, y, _, _ = leaves(6)

    def loss(x, y):
        return sinkhorn.w2_squared(x, y, **TIGHT).sum()

    expected = torch.autograd.grad(loss(x, y), (x, y))
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x, y), (x, y))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_second_derivatives_are_refused():
    x, y, _, _ = leaves(7)
    (grad,) = torch.autograd.grad(sinkhorn.w2_squared(x, y, **TIGHT).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_in_is_type_out(dtype):
    x, y = (z.detach().to(dtype).requires_grad_() for z in leaves(8)[:2])
    value = sinkhorn.w2(x, y, epsilon=0.4)
    value.sum().backward()
    assert value.dtype == x.grad.dtype == dtype
    result = sinkhorn.solve(x.detach(), y.detach(), epsilon=0.4)
    outputs = (result.value, result.f, result.g, result.plan(), result.barycentric_map(), *result.bounds())
    assert all(isinstance(z, torch.Tensor) and z.dtype == dtype for z in outputs)
    assert result.converged.dtype == torch.bool


def test_root_has_gradient_zero_at_zero():
    x = leaves(9)[0]
    sinkhorn.w2(x, x.detach().clone(), epsilon=0.1).sum().backward()
    assert (x.grad == 0).all()


def test_memory_does_not_grow_with_the_iterations():
    x, y, _, _ = leaves(10)
    value = sinkhorn.w2_squared(x, y, epsilon=1e-3, tol=1e-6)
    saved = [t for t in value.grad_fn.saved_tensors if t is not None]
    assert sum(t.numel() for t in saved) <= 4 * (x.numel() + y.numel())


def test_a_cloud_in_one_place_has_the_potential_of_its_empty_points():
    # The term of the cloud with itself is 0 up to rounding, of either sign: its derivative by a weight of 0 counts.
    place, empty, other = (
        np.array([-0.42957532, -0.83528792]),
        np.array([-0.17769641, -0.74531563]),
        np.array([0.15, -0.57]),
    )
    x = np.stack([place, place, place, empty, place])
    a = np.array([0, 0.4, 0.4, 0, 0.2])
    _, grads = sinkhorn.w2_squared_and_grad(x, other[None], a, np.ones(1), epsilon=4.0, tol=1e-12)
    # All plans are known: f_xy = |x - other|², f_xx = |x - place|², up to constants.
    potential = ((x - other) ** 2).sum(1) - ((x - place) ** 2).sum(1)
    np.testing.assert_allclose(grads.a, potential - potential @ a, atol=1e-12)


@pytest.mark.parametrize("function", [sinkhorn.w2_squared, lambda *z, **k: sinkhorn.solve(*z, **k).value])
def test_gradients_by_weights_beyond_the_range_of_float32_are_not_nan(function):
    # The potential at the point without weight is a squared distance of 1e53.
    x, y = (torch.tensor([[1.6e26], [-1.6e26]]) for _ in "xy")
    a, b = (torch.tensor([1.0, 0.0], requires_grad=True) for _ in "ab")
    function(x, y, a, b, epsilon=7.7e54).backward()
    assert not a.grad.isnan().any()
    assert not b.grad.isnan().any()
