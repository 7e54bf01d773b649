"""What every distance of the library must satisfy, whatever it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import CASES, Case, Measure
from hypothesis import given
from strategies import dimensions, scales, seeds
from torch.autograd import forward_ad

from otdist import ConvergenceWarning, gaussian, sinkhorn

# PyTorch's own, at the first use of torch.func.jvp.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
every_case = pytest.mark.parametrize("case", CASES, ids=str)
EPS = np.finfo(float).eps


def pair(case: Case, seed: int, d: int) -> tuple[Measure, Measure]:
    rng = np.random.default_rng(seed)
    return case.draw(rng, d), case.draw(rng, d)


def size(*measures: Measure) -> float:
    """The scale of the numbers that go in: rounding is relative to it (1 covers the standard draws)."""
    return 1.0 + sum(float(np.abs(a).sum()) for m in measures for a in m)


def tensors(measure: Measure, **options) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(a, **options) for a in measure)


@every_case
@given(seed=seeds, d=dimensions)
def test_identity_of_indiscernibles(case, seed, d):
    x, y = pair(case, seed, d)
    assert 0 <= case.w2(x, x) <= 100 * EPS * size(x)
    assert case.w2_squared(x, y) > 0


@every_case
@given(seed=seeds, d=dimensions)
def test_symmetry(case, seed, d):
    x, y = pair(case, seed, d)
    assert abs(case.w2_squared(x, y) - case.w2_squared(y, x)) <= 100 * EPS * size(x, y) ** 2


@pytest.mark.parametrize("case", [case for case in CASES if case.metric], ids=str)
@given(seed=seeds, d=dimensions)
def test_triangle_inequality(case, seed, d):
    rng = np.random.default_rng(seed)
    x, y, z = (case.draw(rng, d) for _ in range(3))
    assert case.w2(x, z) <= case.w2(x, y) + case.w2(y, z) + 100 * EPS * size(x, y, z)


@every_case
@given(seed=seeds, d=dimensions)
def test_a_common_translation_changes_nothing(case, seed, d):
    x, y = pair(case, seed, d)
    shift = np.random.default_rng(seed).standard_normal(d)
    moved = case.w2_squared(case.translate(x, shift), case.translate(y, shift))
    assert abs(moved - case.w2_squared(x, y)) <= 1000 * EPS * size(x, y) ** 2


@every_case
@given(seed=seeds, d=dimensions, factor=scales)
def test_scaling(case, seed, d, factor):
    x, y = pair(case, seed, d)
    squares = {k: factor**2 * case.options[k] for k in ("epsilon",) if k in case.options}  # in squared units too
    stretched = case.w2_squared(case.stretch(x, factor), case.stretch(y, factor), **squares)
    assert abs(stretched / factor**2 - case.w2_squared(x, y)) <= 1000 * EPS * size(x, y) ** 2


@every_case
@given(seed=seeds, d=dimensions)
def test_w2_is_the_root_of_w2_squared(case, seed, d):
    x, y = pair(case, seed, d)
    assert abs(case.w2(x, y) ** 2 - case.w2_squared(x, y)) <= 100 * EPS * size(x, y) ** 2


@every_case
def test_numpy_and_torch_give_the_same_numbers(case):
    x, y = pair(case, 0, 4)
    ours = case.w2_squared(x, y)
    theirs = case.w2_squared(tensors(x), tensors(y))
    assert isinstance(ours, np.floating)
    assert isinstance(theirs, torch.Tensor)
    assert theirs.dtype == torch.float64
    assert abs(float(theirs) - float(ours)) <= 10 * EPS * size(x, y) ** 2


@every_case
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_in_is_dtype_out(case, dtype):
    x, y = pair(case, 1, 3)
    out = case.w2_squared(*(tuple(a.astype(dtype) for a in m) for m in (x, y)))
    assert out.dtype == dtype
    torch_out = case.w2_squared(*(tensors(m, dtype=getattr(torch, dtype)) for m in (x, y)))
    assert torch_out.dtype == getattr(torch, dtype)
    # Rounding the arguments moves the value by as much as eps times its own scale and a derivative of order 1.
    assert abs(float(out) - case.w2_squared(x, y)) <= 10 * np.finfo(dtype).eps * size(x, y) ** 2


@every_case
def test_bfloat16_is_computed_in_float32(case):
    x, y = (tensors(m, dtype=torch.bfloat16) for m in pair(case, 1, 3))
    out = case.w2_squared(x, y)
    exact = case.w2_squared(*(tuple(a.float() for a in m) for m in (x, y)))
    assert out.dtype == torch.bfloat16
    assert out == exact.to(torch.bfloat16)


@every_case
def test_a_batch_is_its_members(case):
    rng = np.random.default_rng(2)
    xs, ys = [case.draw(rng, 3) for _ in range(5)], [case.draw(rng, 3) for _ in range(2)]
    x = tuple(np.stack(a) for a in zip(*xs, strict=True))
    y = tuple(np.stack(a)[:, None] for a in zip(*ys, strict=True))
    out = case.w2_squared(x, y)
    assert out.shape == (2, 5)
    single = np.array([[case.w2_squared(a, b) for a in xs] for b in ys])
    np.testing.assert_allclose(out, single, rtol=1000 * EPS, atol=100 * EPS)


@every_case
def test_an_empty_batch_gives_an_empty_result(case):
    x, y = pair(case, 3, 3)
    empty = tuple(np.zeros((0, *a.shape)) for a in x)
    assert case.w2_squared(empty, y).shape == (0,)
    assert case.w2(tensors(empty), tensors(y)).shape == (0,)


@every_case
def test_gradcheck(case):
    args = case.interleave(*(tensors(m, requires_grad=True) for m in pair(case, 4, 3)))
    assert torch.autograd.gradcheck(lambda *a: case.module.w2_squared(*a, **case.options), args)
    assert torch.autograd.gradcheck(lambda *a: case.module.w2(*a, **case.options), args)


@every_case
def test_second_derivatives_are_right_or_refused(case):
    args = case.interleave(*(tensors(m, requires_grad=True) for m in pair(case, 5, 3)))
    if case.twice:
        assert torch.autograd.gradgradcheck(lambda *a: case.module.w2_squared(*a, **case.options), args)
    else:
        grads = torch.autograd.grad(case.module.w2_squared(*args, **case.options), args, create_graph=True)
        with pytest.raises(NotImplementedError, match="second derivative"):
            torch.autograd.grad(sum(g.sum() for g in grads), args)


@every_case
def test_the_gradient_vanishes_at_equal_measures(case):
    x, _ = pair(case, 6, 3)
    for distance in (case.module.w2_squared, case.module.w2):
        args = case.interleave(tensors(x, requires_grad=True), tensors(x, requires_grad=True))
        distance(*args, **case.options).backward()
        for a in args:
            # w2 divides a rounding error by a rounding error, unless it is exactly zero: then it must be finite.
            assert torch.isfinite(a.grad).all()
            if distance is case.module.w2_squared:
                assert a.grad.abs().max() <= 1000 * EPS * size(x)


@every_case
def test_the_numpy_twin_returns_what_autograd_does(case):
    rng = np.random.default_rng(7)
    x = tuple(np.stack(a) for a in zip(*(case.draw(rng, 3) for _ in range(4)), strict=True))
    y = case.draw(rng, 3)
    value, grads = case.w2_squared_and_grad(x, y)
    args = case.interleave(tensors(x, requires_grad=True), tensors(y, requires_grad=True))
    out = case.module.w2_squared(*args, **case.options)
    out.sum().backward()
    np.testing.assert_allclose(value, out.detach().numpy(), rtol=100 * EPS)
    given = [a for a in grads if a is not None]
    assert len(given) == len(args)
    for ours, theirs in zip(given, args, strict=True):
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


@every_case
def test_func_grad_and_vmap(case):
    rng = np.random.default_rng(8)
    x = tensors(tuple(np.stack(a) for a in zip(*(case.draw(rng, 3) for _ in range(4)), strict=True)))
    y = tensors(case.draw(rng, 3))

    def distance(*arrays):
        return case.w2_squared(arrays, y)

    torch.testing.assert_close(torch.func.vmap(distance)(*x), distance(*x))
    grads = torch.func.vmap(torch.func.grad(distance, argnums=tuple(range(len(x)))))(*x)
    leaves = tuple(a.clone().requires_grad_() for a in x)
    distance(*leaves).sum().backward()
    for g, leaf in zip(grads, leaves, strict=True):
        torch.testing.assert_close(g, leaf.grad)


@every_case
def test_every_backward_pass_gives_the_same(case):
    # The last one may overwrite what was saved for it; those before may not.
    x, y = (tensors(m, requires_grad=True) for m in pair(case, 7, 3))
    before = [z.clone() for z in (*x, *y)]
    value = case.w2_squared(x, y)
    first = torch.autograd.grad(3 * value, (*x, *y), retain_graph=True)
    two = torch.tensor([1.0, 3.0], dtype=value.dtype)
    batched = torch.autograd.grad(value, (*x, *y), two, retain_graph=True, is_grads_batched=True)
    last = torch.autograd.grad(3 * value, (*x, *y))
    for a, b, c in zip(first, batched, last, strict=True):
        assert not c.requires_grad
        assert torch.equal(a, b[1])
        assert torch.equal(a, c)
    assert all(torch.equal(a, b) for a, b in zip(before, (*x, *y), strict=True))


@every_case
def test_compiles_into_one_graph(case):
    x, y = (tensors(m, requires_grad=True) for m in pair(case, 9, 3))
    args = case.interleave(x, y)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: case.module.w2_squared(*a, **case.options), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(case.module.w2_squared(*args, **case.options), args)
    for g, e in zip(torch.autograd.grad(compiled(*args), args), expected, strict=True):
        torch.testing.assert_close(g, e)


@every_case
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_by_name(case, bad):
    x, y = pair(case, 10, 3)
    poisoned = x[0].copy()
    poisoned.flat[0] = bad
    with pytest.raises(ValueError, match=r"(mean_x|x) must be finite; got 1 NaN or infinite"):
        case.w2_squared((poisoned, *x[1:]), y)


@every_case
def test_mixtures_of_types_are_refused_by_name(case):
    x, y = pair(case, 11, 3)
    with pytest.raises(TypeError, match=r"torch\.Tensor and \w+ is a numpy\.ndarray"):
        case.w2_squared(tensors(x), y)
    masked = (np.ma.masked_array(x[0], np.zeros(x[0].shape, bool)), *x[1:])
    with pytest.raises(TypeError, match=r"(x|mean_x) must not be a masked array"):
        case.w2_squared(masked, y)
    with pytest.raises(TypeError, match=r"w2_squared_and_grad is for NumPy arrays, and (x|mean_x) is a torch\.Tensor"):
        case.w2_squared_and_grad(tensors(x), tensors(y))


@every_case
@pytest.mark.parametrize("narrow", ["float16", "float32"])
def test_floating_dtypes_are_promoted(case, narrow):
    x, y = pair(case, 11, 3)
    rough = tuple(a.astype(narrow) for a in x)
    out = case.w2_squared(rough, y)
    assert out.dtype == np.float64
    assert out == case.w2_squared(tuple(a.astype(np.float64) for a in rough), y)
    theirs = case.w2_squared(tensors(rough), tensors(y))
    assert theirs.dtype == torch.float64
    half = case.w2_squared(tensors(x, dtype=torch.bfloat16), tensors(y, dtype=torch.float32))
    assert half.dtype == torch.float32


@every_case
def test_promoted_arguments_get_gradients_of_their_own_dtype(case):
    x, y = pair(case, 11, 3)
    x, y = tensors(x, dtype=torch.float32, requires_grad=True), tensors(y, requires_grad=True)
    case.w2_squared(x, y).backward()
    assert {a.grad.dtype for a in x} == {torch.float32}
    assert {a.grad.dtype for a in y} == {torch.float64}


@every_case
def test_forward_mode_agrees_with_the_gradient(case):
    x, y = (tensors(m) for m in pair(case, 13, 3))
    arguments = case.interleave(x, y)
    # Tangents along which covariances stay symmetric: differences of two draws of the same kind.
    tangents = tuple(
        torch.as_tensor(a) - b for a, b in zip(case.interleave(*pair(case, 14, 3)), arguments, strict=True)
    )
    for function in (case.module.w2_squared, case.module.w2):
        leaves = tuple(a.clone().requires_grad_() for a in arguments)
        value = function(*leaves, **case.options)
        value.backward()
        expected = sum((a.grad * t).sum() for a, t in zip(leaves, tangents, strict=True))
        forward = torch.func.jvp(lambda *a, f=function: f(*a, **case.options), arguments, tangents)
        torch.testing.assert_close(forward, (value.detach(), expected))
        for context in (torch.no_grad(), torch.enable_grad()):
            with forward_ad.dual_level(), context:
                duals = (forward_ad.make_dual(a, t) for a, t in zip(arguments, tangents, strict=True))
                tangent = forward_ad.unpack_dual(function(*duals, **case.options)).tangent
            torch.testing.assert_close(tangent, expected)


@every_case
def test_hessians_agree_or_are_refused(case):
    x, y = (tensors(m) for m in pair(case, 15, 2))

    def along(v):  # one argument, symmetric where it has to be
        return case.w2_squared((*x[:-1], (v + v.mT) / 2 if case.name == "gaussian" else v), y)

    forward_over_reverse = torch.func.hessian(along)
    reverse_twice = torch.func.jacrev(torch.func.jacrev(along))
    reverse_over_forward = torch.func.jacrev(torch.func.jacfwd(along))
    if not case.twice:
        for hessian in (forward_over_reverse, reverse_twice, reverse_over_forward):
            with pytest.raises(NotImplementedError, match="second derivative"):
                hessian(x[-1])
        return
    expected = torch.autograd.functional.hessian(along, x[-1])
    for hessian in (forward_over_reverse, reverse_twice, reverse_over_forward):
        torch.testing.assert_close(hessian(x[-1]), expected)
    twice_forward = torch.func.jacfwd(torch.func.jacfwd(along))
    if case.name == "diagonal":  # PyTorch's own operators
        torch.testing.assert_close(twice_forward(x[-1]), expected)
    else:
        with pytest.raises(NotImplementedError, match="forward mode twice"):
            twice_forward(x[-1])


def test_warnings_point_at_the_line_of_the_caller():
    x = np.random.default_rng(0).standard_normal((20, 2))
    calls = (
        lambda: sinkhorn.w2_squared(x, 3 * x + 1, epsilon=1e-3, max_iter=1),
        lambda: sinkhorn.w2_squared(
            torch.tensor(x, requires_grad=True), torch.tensor(3 * x + 1), epsilon=1e-3, max_iter=1
        ),
        lambda: gaussian.barycenter(x[:2], np.array([np.diag([1.0, 9.0]), [[2.0, 1.0], [1.0, 2.0]]]), max_iter=1),
    )
    for call in calls:
        with pytest.warns(ConvergenceWarning) as found:
            call()
        assert {w.filename for w in found} == {__file__}


@every_case
def test_nothing_global_is_touched(case):
    x, y = (tensors(m, requires_grad=True) for m in pair(case, 12, 3))
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.is_grad_enabled(), torch.get_num_threads()  # noqa: NPY002
    case.w2_squared(x, y).backward()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == before[2:]
