"""Every distance on JAX arrays, under jit, grad and vmap; collected where JAX is installed (``otdist[jax]``)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from cases import CASES

import otdist
from otdist import exact, gaussian, line, sinkhorn, sliced

try:
    import jax
except ImportError:
    jax = None

if jax is not None:
    import jax.numpy as jnp

    every_case = pytest.mark.parametrize("case", CASES, ids=str)
    EPS = np.finfo(float).eps

    @pytest.fixture(autouse=True)
    def double_precision():
        with jax.enable_x64(True):
            yield

    def draw(case, seed):
        rng = np.random.default_rng(seed)
        return case.draw(rng, 3), case.draw(rng, 3)

    def on_jax(case, name, x, y):
        arrays = tuple(jnp.asarray(v) for v in case.interleave(x, y))
        return (lambda *a: getattr(case.module, name)(*a, **case.options)), arrays

    @every_case
    @pytest.mark.parametrize("name", ["w2_squared", "w2"])
    def test_eager_and_jit_give_what_numpy_gives(case, name):
        x, y = draw(case, 0)
        function, arrays = on_jax(case, name, x, y)
        expected = getattr(case, name)(x, y)
        for found in (function(*arrays), jax.jit(function)(*arrays)):
            assert isinstance(found, jax.Array)
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, expected, rtol=100 * EPS)

    @every_case
    def test_gradients_are_those_of_the_numpy_twin(case):
        x, y = draw(case, 1)
        function, arrays = on_jax(case, "w2_squared", x, y)
        value, expected = case.w2_squared_and_grad(x, y)
        positions = tuple(range(len(arrays)))
        for transformed in (jax.value_and_grad(function, positions), jax.jit(jax.value_and_grad(function, positions))):
            found, grads = transformed(*arrays)
            np.testing.assert_allclose(found, value, rtol=100 * EPS)
            for ours, theirs in zip(grads, (g for g in expected if g is not None), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        root = jax.grad(on_jax(case, "w2", x, y)[0])(*arrays)
        np.testing.assert_allclose(root, expected[0] / (2 * value**0.5), rtol=1e-12, atol=1e-12)
        assert not np.isnan(jax.grad(on_jax(case, "w2", x, x)[0])(*on_jax(case, "w2", x, x)[1])).any()

    @every_case
    def test_vmap_and_a_shared_argument(case):
        rng = np.random.default_rng(2)
        xs, y = [case.draw(rng, 3) for _ in range(4)], case.draw(rng, 3)
        x = tuple(jnp.stack(a) for a in zip(*xs, strict=True))
        y_on_jax = tuple(map(jnp.asarray, y))

        def distance(*a):
            return case.w2_squared(a, y_on_jax)

        expected = np.array([case.w2_squared(a, y) for a in xs])
        np.testing.assert_allclose(jax.vmap(distance)(*x), expected, rtol=1000 * EPS)
        grads = jax.jit(jax.vmap(jax.grad(distance)))(*x)
        slopes = np.array([case.w2_squared_and_grad(a, y)[1][0] for a in xs])
        np.testing.assert_allclose(grads, slopes, rtol=1e-9, atol=1e-12)
        # A batch beside a shared argument: its gradient is the sum.
        total = jax.grad(lambda *b: case.w2_squared(x, b).sum())(*y_on_jax)
        batch = tuple(np.stack(a) for a in zip(*xs, strict=True))
        which = len(x) if case.interleave(("x",), ("y",))[1] == "y" else 0
        np.testing.assert_allclose(total, case.w2_squared_and_grad(batch, y)[1][which], rtol=1e-9, atol=1e-12)

    @every_case
    def test_what_is_refused(case):
        x, y = draw(case, 3)
        _, arrays = on_jax(case, "w2_squared", x, y)
        with pytest.raises(TypeError, match=r"is a numpy\.ndarray beside a jax\.Array"):
            case.module.w2_squared(arrays[0], *case.interleave(x, y)[1:], **case.options)
        with pytest.raises(TypeError, match=r"(x|mean_x) is a jax\.Array"):
            case.module.w2_squared_and_grad(*arrays, **case.options)
        poisoned = arrays[0].at[(0,) * arrays[0].ndim].set(jnp.nan)
        with pytest.raises(ValueError, match="must be finite"):
            case.module.w2_squared(poisoned, *arrays[1:], **case.options)

    POINTS = np.random.default_rng(5).standard_normal((2, 6, 3))
    GAUSSIANS = tuple(moment for z in POINTS for moment in (z.mean(0), np.cov(z.T)))
    ON_SPHERE = POINTS / np.linalg.norm(POINTS, axis=-1, keepdims=True)
    OTHERS = {
        "line.wp": (partial(line.wp, p=3), (POINTS[0, :, 0], POINTS[1, :, 0])),
        "line.wp, p = 1": (line.wp, (POINTS[0, :, 0], POINTS[1, :4, 0])),
        "exact.wp": (partial(exact.wp, p=3), tuple(POINTS)),
        "exact.wp, d = 1": (partial(exact.wp, p=3), tuple(POINTS[..., :1])),
        "sliced.wp": (partial(sliced.wp, p=3, rng=0), tuple(POINTS)),
        "sliced.wp, huge": (partial(sliced.wp, p=3, rng=0), tuple(1e200 * POINTS)),
        "sliced.wp, weights": (partial(sliced.wp, p=1, rng=0), (*POINTS, np.arange(1, 7) / 21)),
        "sliced.spherical_w2_squared": (partial(sliced.spherical_w2_squared, rng=0), tuple(ON_SPHERE)),
        "gaussian.entropic_cost": (partial(gaussian.entropic_cost, epsilon=0.5), GAUSSIANS),
        "gaussian.sinkhorn_divergence": (partial(gaussian.sinkhorn_divergence, epsilon=0.5), GAUSSIANS),
        "gaussian.w2_squared_from_samples": (gaussian.w2_squared_from_samples, tuple(POINTS)),
    }

    @pytest.mark.parametrize("name", OTHERS)
    def test_the_other_distances_agree_with_pytorch(name):
        function, arrays = OTHERS[name]
        leaves = [torch.tensor(z, requires_grad=True) for z in arrays]
        value = function(*leaves)
        expected = torch.autograd.grad(value, leaves)
        positions = tuple(range(len(arrays)))
        on_jax = [jnp.asarray(z) for z in arrays]
        eager = function(*on_jax)
        assert isinstance(eager, jax.Array)
        found, grads = jax.jit(jax.value_and_grad(function, positions))(*on_jax)
        for v in (eager, found):
            np.testing.assert_allclose(v, value.detach(), rtol=1000 * EPS)
        for ours, theirs in zip(grads, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11 * float(theirs.abs().max()))
        twice = [jnp.stack([z, z]) for z in on_jax]
        batched = jax.vmap(jax.grad(function))(*twice)
        np.testing.assert_allclose(batched[1], grads[0], rtol=1e-11, atol=1e-11 * abs(grads[0]).max())

    def test_what_takes_no_jax_says_so():
        x = jnp.asarray(POINTS[0])
        for function in (exact.plan, sliced.estimate, partial(sinkhorn.solve, epsilon=1.0)):
            with pytest.raises(TypeError, match=r"x is a jax\.Array, which this function does not take; w2 and w2_sq"):
                function(x, x)

    def test_clouds_of_different_sizes_as_a_batch():
        rng = np.random.default_rng(4)
        clouds, y = [rng.standard_normal((n, 2)) for n in (4, 2)], rng.standard_normal((5, 2))

        def total(*given):
            x, a = otdist.pad_clouds(given)
            return exact.w2_squared(x, y_on_jax, a).sum()

        on_jax, y_on_jax = [jnp.asarray(x) for x in clouds], jnp.asarray(y)
        assert all(isinstance(z, jax.Array) and z.dtype == jnp.float64 for z in otdist.pad_clouds(on_jax))
        assert [z.dtype for z in otdist.pad_clouds([x.astype(jnp.bfloat16) for x in on_jax])] == ["bfloat16", "float32"]
        expected = [exact.w2_squared_and_grad(x, y) for x in clouds]
        value, grads = jax.jit(jax.value_and_grad(total, (0, 1)))(*on_jax)
        np.testing.assert_allclose(value, sum(v for v, _ in expected), rtol=100 * EPS)
        for ours, (_, theirs) in zip(grads, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.x, rtol=1e-12, atol=1e-12)
        with pytest.raises(TypeError, match=r"clouds\[1\] is a numpy\.ndarray beside a jax\.Array"):
            otdist.pad_clouds([on_jax[0], clouds[1]])
