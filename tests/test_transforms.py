"""Every public differentiable function under every transform of PyTorch: it agrees with eager mode, or is refused.

The functions are found from the modules' ``__all__``: a new one without a row here is a failure.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import otdist
from otdist import covariance, diagonal, exact, gaussian, line, sinkhorn, sliced
from otdist.inference import frechet_distance

# PyTorch's own, at the first use of torch.func.jvp.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def definite(*batch: int) -> torch.Tensor:
    z = normal(*batch, 3, 5)
    return z @ z.mT


class Row(NamedTuple):
    """A function of one tensor, made of a public one; ``refused`` names the transforms that it can't be under."""

    function: Callable[[torch.Tensor], torch.Tensor]
    x: torch.Tensor
    refused: frozenset[str] = frozenset()
    twice: bool = False


MEAN, COV, POINTS, NUMBERS = normal(3), definite(), normal(6, 3), normal(7)
VALUES = frozenset({"func.grad", "vmap", "vmap(grad)", "jvp", "jacfwd", "compile", "compile and backward"})
NONE: frozenset[str] = frozenset()


def symmetric(c: torch.Tensor) -> torch.Tensor:
    return (c + c.mT) / 2


def gaussian_row(
    name: str, twice: bool = False, pick: Any = None, refused: frozenset[str] = NONE, **options: Any
) -> Row:
    function = getattr(gaussian, name)

    def of_covariance(c: torch.Tensor) -> torch.Tensor:
        out = function(MEAN, symmetric(c), MEAN + 1, COV, **options)
        return pick(out) if pick else out

    return Row(of_covariance, definite(), refused, twice)


def structured_row(make: Callable[[torch.Tensor], Any], x: torch.Tensor, twice: bool = False) -> Row:
    return Row(lambda p: gaussian.w2_squared(MEAN, make(p), MEAN + 1, COV), x, twice=twice)


def cloud_row(function: Any, y: torch.Tensor, x: torch.Tensor, refused: frozenset[str] = NONE, **options: Any) -> Row:
    return Row(lambda z: function(z, y, **options), x, refused)


def covs(c: torch.Tensor) -> torch.Tensor:
    return torch.stack([symmetric(c), COV])


MEANS = normal(2, 3)
SMALL = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
UNIT = torch.nn.functional.normalize(SMALL[2], dim=-1)
ROWS = {
    "gaussian.w2_squared": gaussian_row("w2_squared", twice=True),
    "gaussian.w2": gaussian_row("w2", twice=True),
    "gaussian.entropic_cost": gaussian_row("entropic_cost", epsilon=0.5),
    "gaussian.sinkhorn_divergence": gaussian_row("sinkhorn_divergence", epsilon=0.5),
    "gaussian.transport_map": gaussian_row("transport_map", pick=lambda m: m.matrix.square().sum() + m.offset.sum()),
    "gaussian.geodesic": Row(
        lambda c: sum(z.square().sum() for z in gaussian.geodesic(MEAN, symmetric(c), MEAN + 1, COV, 0.3)), definite()
    ),
    "gaussian.pairwise_w2_squared": Row(
        lambda c: gaussian.pairwise_w2_squared(MEANS, covs(c), MEANS + 1, covs(c).flip(0)).sum(), definite(), twice=True
    ),
    "gaussian.mixture_w2_squared": Row(
        lambda c: gaussian.mixture_w2_squared(None, MEANS, covs(c), None, MEANS + 1, covs(COV)), definite()
    ),
    "gaussian.fit": Row(lambda x: sum(z.square().sum() for z in gaussian.fit(x)), normal(6, 3), twice=True),
    "gaussian.barycenter": Row(
        lambda m: gaussian.barycenter(m, covs(COV)).mean.square().sum(), normal(2, 3), twice=True
    ),
    "gaussian.w2_squared_from_samples": cloud_row(gaussian.w2_squared_from_samples, POINTS, normal(6, 3))._replace(
        twice=True
    ),
    "diagonal.w2_squared": Row(lambda m: diagonal.w2_squared(m, m.abs()), normal(3), twice=True),
    "diagonal.w2": Row(lambda m: diagonal.w2(m, m.abs()), normal(3), twice=True),
    "diagonal.pairwise_w2_squared": Row(
        lambda m: diagonal.pairwise_w2_squared(m, m.abs(), MEANS, MEANS.abs()).sum(), normal(2, 3), twice=True
    ),
    "line.w2_squared": cloud_row(line.w2_squared, NUMBERS, normal(7)),
    "line.w2": cloud_row(line.w2, NUMBERS, normal(7)),
    "line.wp": cloud_row(line.wp, NUMBERS, normal(7), p=3),
    "sliced.w2_squared": cloud_row(sliced.w2_squared, POINTS, normal(6, 3), rng=0),
    "sliced.w2": cloud_row(sliced.w2, POINTS, normal(6, 3), rng=0),
    "sliced.w2_squared, small": cloud_row(sliced.w2_squared, SMALL[0], SMALL[1], directions=UNIT),
    "sliced.w2, small": cloud_row(sliced.w2, SMALL[0], SMALL[1], directions=UNIT),
    "sliced.estimate": Row(
        lambda x: sliced.estimate(x, POINTS, directions=32, rng=0).value, normal(6, 3), refused=VALUES
    ),
    "sliced.max_w2_squared": Row(lambda x: sliced.max_w2_squared(x, POINTS, rng=0).value, normal(6, 3), refused=VALUES),
    "sliced.wp": cloud_row(sliced.wp, POINTS, normal(6, 3), rng=0, p=3),
    "sliced.spherical_w2_squared": Row(
        lambda x: sliced.spherical_w2_squared(
            x / x.norm(dim=-1, keepdim=True), POINTS / POINTS.norm(dim=-1, keepdim=True), directions=8, rng=0
        ),
        normal(6, 3),
        refused=VALUES,
    ),
    "exact.wp": cloud_row(exact.wp, POINTS, normal(6, 3), p=3),
    "exact.w2_squared": cloud_row(exact.w2_squared, POINTS, normal(6, 3)),
    "exact.w2": cloud_row(exact.w2, POINTS, normal(6, 3)),
    "sinkhorn.w2_squared": cloud_row(sinkhorn.w2_squared, POINTS, normal(6, 3), epsilon=0.5, tol=1e-10),
    "sinkhorn.w2": cloud_row(sinkhorn.w2, POINTS, normal(6, 3), epsilon=0.5, tol=1e-10),
    "sinkhorn.wp": cloud_row(sinkhorn.wp, POINTS, normal(6, 3), p=1, epsilon=0.5, tol=1e-10),
    "sinkhorn.solve": Row(
        lambda x: sinkhorn.solve(x, POINTS, epsilon=0.5, tol=1e-10).value, normal(6, 3), refused=VALUES
    ),
    "covariance.Diagonal": structured_row(covariance.Diagonal, normal(3).abs() + 0.1, True),
    "covariance.Isotropic": structured_row(lambda v: covariance.Isotropic(v, 3), torch.tensor(0.7).double(), True),
    "covariance.Factor": structured_row(covariance.Factor, normal(3, 2)),
    "covariance.Circulant": structured_row(lambda s: covariance.Circulant(s, 3), normal(2).abs() + 0.1, True),
    "covariance.Kronecker": structured_row(
        lambda c: covariance.Kronecker(torch.ones(1, 1).double(), symmetric(c)), COV, True
    ),
    "inference.frechet_distance": Row(
        lambda x: frechet_distance(x, normal_points, correction="jackknife"), normal(40, 3), twice=True
    ),
    "otdist.pad_clouds": Row(
        lambda x: exact.w2_squared(*otdist.pad_clouds([x, x[:4]])[:1], POINTS, otdist.pad_clouds([x, x[:4]])[1]).sum(),
        normal(6, 3),
    ),
    "otdist.w2_squared": Row(lambda m: otdist.w2_squared(posterior(m), prior()), normal(3), twice=True),
    "otdist.w2": Row(lambda m: otdist.w2(posterior(m), prior()), normal(3), twice=True),
}
normal_points = normal(40, 3)


def posterior(m: torch.Tensor) -> Any:
    base = torch.distributions.Normal(m, 0.5 + m.square(), validate_args=False)
    return torch.distributions.Independent(base, 1, validate_args=False)


def prior() -> Any:
    zero = torch.zeros(3, dtype=torch.float64)
    return torch.distributions.Independent(torch.distributions.Normal(zero, zero + 1), 1, validate_args=False)


# Functions without a derivative: their results are plans, draws, or tests on values.
PLAIN = {
    *("exact.solve", "gaussian.mixture_plan", "gaussian.mixture_map", "sliced.barycenter", "sinkhorn.barycenter"),
    *("exact.plan", "sliced.directions", "sinkhorn.bracket", "otdist.register_w2", "otdist.warm_up"),
    *("inference.two_sample_test", "inference.confidence_interval"),
}


def gradient(function: Any, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def check_backward(f: Any, x: torch.Tensor) -> None:
    assert torch.isfinite(gradient(f, x)).all()


def check_func_grad(f: Any, x: torch.Tensor) -> None:
    torch.testing.assert_close(torch.func.grad(f)(x), gradient(f, x))


def check_vmap(f: Any, x: torch.Tensor) -> None:
    torch.testing.assert_close(torch.func.vmap(f)(torch.stack([x, 1.1 * x])), torch.stack([f(x), f(1.1 * x)]))


def check_vmap_of_grad(f: Any, x: torch.Tensor) -> None:
    found = torch.func.vmap(torch.func.grad(f))(torch.stack([x, 1.1 * x]))
    torch.testing.assert_close(found, torch.stack([gradient(f, x), gradient(f, 1.1 * x)]))


def check_jvp(f: Any, x: torch.Tensor) -> None:
    t = torch.cos(x)
    value, tangent = torch.func.jvp(f, (x,), (t,))
    torch.testing.assert_close((value, tangent), (f(x), (gradient(f, x) * t).sum()))


def check_forward_ad(f: Any, x: torch.Tensor) -> None:
    t = torch.cos(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, t))).tangent
    torch.testing.assert_close(tangent, (gradient(f, x) * t).sum())


def check_jacfwd(f: Any, x: torch.Tensor) -> None:
    torch.testing.assert_close(torch.func.jacfwd(f)(x), gradient(f, x))


def check_hessian(f: Any, x: torch.Tensor) -> None:
    found = torch.func.hessian(f)(x)
    h = 1e-4 * torch.cos(x)
    along = (gradient(f, x + h) - gradient(f, x - h)) / 2e-4
    # Central differences of gradients: rounding eps / h and truncation h² of third derivatives.
    expected = torch.tensordot(found, torch.cos(x), x.ndim)
    torch.testing.assert_close(expected, along, rtol=1e-5, atol=1e-5 * float(found.abs().max()))


def compiled(f: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, backend="aot_eager")


def check_compile(f: Any, x: torch.Tensor) -> None:
    torch.testing.assert_close(compiled(f)(x), f(x))


def check_compile_and_backward(f: Any, x: torch.Tensor) -> None:
    torch.testing.assert_close(gradient(compiled(f), x), gradient(f, x))


def check_checkpoint(f: Any, x: torch.Tensor) -> None:
    found = gradient(lambda z: checkpoint(f, z, use_reentrant=False), x)
    torch.testing.assert_close(found, gradient(f, x))


def check_autocast(f: Any, x: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient(f, x)
    assert torch.equal(found, gradient(f, x))


def check_deepcopy_and_threads(f: Any, x: torch.Tensor) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda z: gradient(f, z), [copy.deepcopy(x) for _ in range(4)]))
    expected = gradient(f, x)
    for g in found:
        torch.testing.assert_close(g, expected)


TRANSFORMS = {
    "backward": check_backward,
    "func.grad": check_func_grad,
    "vmap": check_vmap,
    "vmap(grad)": check_vmap_of_grad,
    "jvp": check_jvp,
    "forward_ad": check_forward_ad,
    "jacfwd": check_jacfwd,
    "hessian": check_hessian,
    "compile": check_compile,
    "compile and backward": check_compile_and_backward,
    "checkpoint": check_checkpoint,
    "autocast": check_autocast,
    "deepcopy and threads": check_deepcopy_and_threads,
}
REFUSALS = (NotImplementedError, RuntimeError, TypeError, ValueError)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ROWS)
def test_a_transform_is_right_or_refused(name, transform):
    row, check = ROWS[name], TRANSFORMS[transform]
    refused = transform in row.refused or (transform == "hessian" and not row.twice)
    if refused:
        with pytest.raises(REFUSALS, match=r"derivative|needs? values|not differentiable"):
            check(row.function, row.x)
    else:
        check(row.function, row.x)


def test_no_public_function_is_forgotten():
    public = {f"otdist.{name}" for name in otdist.__all__}
    modules = (gaussian, diagonal, line, sliced, sinkhorn, exact, otdist.inference, covariance)
    for module in modules:
        public |= {f"{module.__name__}.{name}".removeprefix("otdist.") for name in module.__all__}
    functions = set()
    for name in public:
        holder, _, last = name.partition(".")
        found = getattr(otdist if holder == "otdist" else getattr(otdist, holder), last)
        of_results = isinstance(found, type) and not issubclass(found, covariance.Covariance)
        if callable(found) and not of_results and not last.endswith("_and_grad"):
            functions.add(name)
    assert functions - set(ROWS) - PLAIN - {"covariance.Covariance"} == set()
