"""Public functions as functions of tensors alone: what is compared between the CPU and a device, and counted there.

`ROWS` are differentiable, `PLAIN` are not. Where a name has a comma, what follows tells the case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import otdist
from otdist import covariance, diagonal, exact, gaussian, inference, line, sinkhorn, sliced

_GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_GENERATOR, dtype=torch.float64)


def definite(*batch: int) -> Tensor:
    z = normal(*batch, 4, 6)
    return z @ z.mT


def simplex(n: int) -> Tensor:
    return normal(n).softmax(0)


class Row(NamedTuple):
    """Tensors, a function of them, and how far a device may be from the CPU: relative to the largest entry."""

    inputs: tuple[Tensor, ...]
    function: Callable[..., Any]
    rtol: float = 1e-9


MEANS = normal(4), normal(4)
BATCH = normal(3, 4), definite(3), normal(3, 4), definite(3)
CLOUDS = normal(40, 3), normal(30, 3) + 0.5
CLOUDS32 = tuple(z.float() for z in CLOUDS)
WEIGHTS = simplex(40), simplex(30)
SAME_SIZE = normal(40, 3), normal(40, 3) + 0.5
CLOUD_BATCH = normal(5, 40, 3), normal(5, 40, 3) + 0.5
NUMBERS = normal(50), normal(40) + 1
WIDE = normal(3, 33, 50)
LOW_RANK = normal(4, 2)


def gaussians(f: Any, **options: Any) -> Row:
    def function(*z: Tensor) -> Any:
        return f(z[0], symmetric(z[1]), z[2], symmetric(z[3]), **options)

    return Row((MEANS[0], definite(), MEANS[1], definite()), function)


def batched(f: Any) -> Row:
    return Row(BATCH, lambda m, a, n, b: f(m, symmetric(a), n, symmetric(b)))


def symmetric(c: Tensor) -> Tensor:
    return (c + c.mT) / 2


def structured(make: Any, parameter: Tensor) -> Row:
    return Row(
        (MEANS[0], parameter, MEANS[1], definite()),
        lambda m, p, n, c: gaussian.w2_squared(m, make(p), n, symmetric(c)),
    )


def total(found: Any) -> Tensor:
    return sum((z.square().sum() for z in found), torch.zeros(()))


def clouds(f: Any, inputs: Any = CLOUDS, **options: Any) -> Row:
    return Row(inputs, lambda *z: f(*z, **options))


ROWS = {
    "gaussian.w2_squared": gaussians(gaussian.w2_squared),
    "gaussian.w2_squared, batch": batched(gaussian.w2_squared),
    "gaussian.w2_squared, singular": Row(
        (MEANS[0], LOW_RANK, MEANS[1], definite()),
        lambda m, r, n, c: gaussian.w2_squared(m, r @ r.mT, n, symmetric(c)),
        rtol=1e-6,
    ),
    "gaussian.w2": gaussians(gaussian.w2),
    "gaussian.entropic_cost": gaussians(gaussian.entropic_cost, epsilon=0.5),
    "gaussian.sinkhorn_divergence": gaussians(gaussian.sinkhorn_divergence, epsilon=0.5),
    "gaussian.transport_map": gaussians(
        lambda *z: total((gaussian.transport_map(*z).matrix, gaussian.transport_map(*z).offset))
    ),
    "gaussian.geodesic": gaussians(lambda *z: total(gaussian.geodesic(*z, 0.3))),
    "gaussian.pairwise_w2_squared": batched(gaussian.pairwise_w2_squared),
    "gaussian.mixture_w2_squared": batched(lambda *z: gaussian.mixture_w2_squared(None, z[0], z[1], None, *z[2:])),
    "gaussian.fit": Row((CLOUDS[0],), lambda x: total(gaussian.fit(x))),
    "gaussian.barycenter": Row((BATCH[0],), lambda m: total((gaussian.barycenter(m, _like(m, BATCH[1])).mean,))),
    "gaussian.w2_squared_from_samples": clouds(gaussian.w2_squared_from_samples),
    "covariance.Diagonal": structured(covariance.Diagonal, normal(4).abs() + 0.1),
    "covariance.Isotropic": structured(lambda v: covariance.Isotropic(v, 4), torch.tensor(0.7).double()),
    "covariance.Factor": structured(covariance.Factor, LOW_RANK),
    "covariance.Circulant": structured(lambda s: covariance.Circulant(s, 4), normal(3).abs() + 0.1),
    "covariance.Kronecker": structured(
        lambda c: covariance.Kronecker(symmetric(c), symmetric(c)),
        normal(2, 2) @ torch.eye(2).double() * 0.1 + 2 * torch.eye(2).double(),
    ),
    "diagonal.w2_squared": Row((MEANS[0], MEANS[1].abs()), lambda m, s: diagonal.w2_squared(m, s)),
    "diagonal.w2": Row((MEANS[0], MEANS[1].abs()), lambda m, s: diagonal.w2(m, s)),
    "diagonal.pairwise_w2_squared": Row(
        (BATCH[0], BATCH[2].abs()), lambda m, s: diagonal.pairwise_w2_squared(m, s, m + 1, s)
    ),
    "line.w2_squared": clouds(line.w2_squared, NUMBERS),
    "line.w2_squared, weighted": clouds(line.w2_squared, (*NUMBERS, simplex(50), simplex(40))),
    "line.w2": clouds(line.w2, NUMBERS),
    "line.wp": clouds(line.wp, NUMBERS, p=3),
    "sliced.w2_squared": clouds(sliced.w2_squared, rng=0),
    "sliced.w2_squared, batch": clouds(sliced.w2_squared, CLOUD_BATCH, rng=0),
    "sliced.w2_squared, weighted": clouds(sliced.w2_squared, (*CLOUDS, *WEIGHTS), rng=0),
    "sliced.w2": clouds(sliced.w2, rng=0),
    "sliced.wp": clouds(sliced.wp, rng=0, p=3),
    "sliced.estimate": clouds(lambda *z: sliced.estimate(*z, directions=64, rng=0).value),
    "sliced.max_w2_squared": clouds(lambda *z: sliced.max_w2_squared(*z, rng=0).value)._replace(rtol=1e-5),
    "sliced.spherical_w2_squared": clouds(
        lambda x, y: sliced.spherical_w2_squared(unit(x), unit(y), directions=8, rng=0), SAME_SIZE
    ),
    "exact.w2_squared": clouds(exact.w2_squared),
    "exact.w2": clouds(exact.w2),
    "exact.wp": clouds(exact.wp, p=3),
    "sinkhorn.w2_squared": clouds(sinkhorn.w2_squared, epsilon=0.3, tol=1e-9)._replace(rtol=1e-7),
    "sinkhorn.w2_squared, float32": clouds(sinkhorn.w2_squared, CLOUDS32, epsilon=0.3)._replace(rtol=1e-2),
    "sinkhorn.w2_squared, batch": clouds(sinkhorn.w2_squared, CLOUD_BATCH, epsilon=0.3, tol=1e-9)._replace(rtol=1e-7),
    "sinkhorn.w2_squared, small epsilon": clouds(sinkhorn.w2_squared, epsilon=0.01, tol=1e-9)._replace(rtol=1e-7),
    "sinkhorn.w2_squared, weighted": clouds(sinkhorn.w2_squared, (*CLOUDS, *WEIGHTS), epsilon=0.3, tol=1e-9)._replace(
        rtol=1e-7
    ),
    "sinkhorn.w2_squared, unbalanced": clouds(sinkhorn.w2_squared, epsilon=0.3, tol=1e-9, reach=1.0)._replace(
        rtol=1e-7
    ),
    "sinkhorn.w2": clouds(sinkhorn.w2, epsilon=0.3, tol=1e-9)._replace(rtol=1e-7),
    "sinkhorn.wp": clouds(sinkhorn.wp, epsilon=0.3, tol=1e-9)._replace(rtol=1e-7),
    "sinkhorn.solve": clouds(lambda *z: sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).value)._replace(rtol=1e-7),
    "inference.frechet_distance": clouds(lambda *z: inference.frechet_distance(*z, correction="jackknife"), SAME_SIZE),
    "otdist.w2_squared": Row((MEANS[0], MEANS[1]), lambda m, s: otdist.w2_squared(posterior(m, s), prior(m))),
    "otdist.pad_clouds": Row(CLOUDS, lambda x, y: otdist.pad_clouds([x, y])[0].square().sum()),
    "otdist.w2": Row((MEANS[0], MEANS[1]), lambda m, s: otdist.w2(posterior(m, s), prior(m))),
}

# Functions without a derivative.
PLAIN = {
    "gaussian.barycenter, covariance": Row(BATCH[:2], lambda m, c: gaussian.barycenter(m, symmetric(c)).cov),
    "gaussian.barycenter, wide": Row((WIDE,), lambda z: gaussian.barycenter(z[..., 0], z @ z.mT).cov),
    "gaussian.barycenter, wide and singular": Row(
        (WIDE,), lambda z: gaussian.barycenter(z[..., 0], z[..., :20] @ z[..., :20].mT, tol=1e-2).cov
    ),
    "sinkhorn.solve().plan": clouds(lambda *z: sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).plan())._replace(rtol=1e-7),
    "sinkhorn.solve().apply": clouds(lambda *z: sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).apply(z[1]))._replace(
        rtol=1e-7
    ),
    "sinkhorn.solve().barycentric_map": clouds(
        lambda *z: sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).barycentric_map()
    )._replace(rtol=1e-7),
    "sinkhorn.solve().map": clouds(lambda *z: sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).map(z[0] + 1))._replace(
        rtol=1e-7
    ),
    "sinkhorn.solve().bounds": clouds(
        lambda *z: torch.stack(sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).bounds())
    )._replace(rtol=1e-7),
    "sinkhorn.solve().transport_cost": clouds(
        lambda *z: sinkhorn.solve(*z, epsilon=0.3, tol=1e-9).transport_cost
    )._replace(rtol=1e-7),
    "sinkhorn.bracket": clouds(lambda *z: torch.stack(sinkhorn.bracket(*z)[:2]))._replace(rtol=1e-2),
    "sinkhorn.barycenter": clouds(lambda x, y: sinkhorn.barycenter([x, y], epsilon=0.5, start=x).points)._replace(
        rtol=1e-2
    ),
    "inference.two_sample_test": clouds(
        lambda *z: torch.tensor(inference.two_sample_test(*z, n_permutations=99, rng=0))
    ),
    "exact.plan": clouds(exact.plan),
}


def _like(x: Tensor, constant: Tensor) -> Tensor:
    return torch.as_tensor(constant.numpy(), device=x.device)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def posterior(m: Tensor, s: Tensor) -> Any:
    base = torch.distributions.Normal(m, 0.5 + s.square(), validate_args=False)
    return torch.distributions.Independent(base, 1, validate_args=False)


def prior(m: Tensor) -> Any:
    zero = torch.zeros_like(m)
    base = torch.distributions.Normal(zero, zero + 1, validate_args=False)
    return torch.distributions.Independent(base, 1, validate_args=False)
