"""w2(p, q) on distribution objects: a drop-in for the KL divergence."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from strategies import covariance
from torch.distributions import (
    AffineTransform,
    Beta,
    Categorical,
    Chi2,
    ComposeTransform,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Independent,
    Kumaraswamy,
    Laplace,
    LogNormal,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Pareto,
    StudentT,
    TransformedDistribution,
    Uniform,
    VonMises,
    Weibull,
    kl_divergence,
)

import otdist
from otdist import gaussian
from otdist.distributions import registry


def normal(seed, *shape):
    rng = np.random.default_rng(seed)
    return Normal(
        torch.tensor(rng.standard_normal(shape), requires_grad=True),
        torch.tensor(rng.uniform(0.5, 2, shape), requires_grad=True),
    )


def cov(seed, d=3):
    return torch.tensor(covariance(d, np.random.default_rng(seed)))


def test_normals_are_compared_element_by_element_as_kl_does():
    p, q = normal(0, 4, 3), normal(1, 3)
    out = otdist.w2_squared(q, p)
    assert out.shape == kl_divergence(q, p).shape == (4, 3)
    torch.testing.assert_close(out, (p.loc - q.loc) ** 2 + (p.scale - q.scale) ** 2)
    out.sum().backward()
    torch.testing.assert_close(q.scale.grad, (2 * (q.scale - p.scale)).sum(0).detach())


@pytest.mark.parametrize("joined", [1, 2, 3])
def test_independent_normals_add_up(joined):
    p, q = Independent(normal(0, 5, 4, 3), joined), Independent(normal(1, 5, 4, 3), joined)
    out = otdist.w2_squared(p, q)
    assert out.shape == kl_divergence(p, q).shape
    each = otdist.w2_squared(p.base_dist, q.base_dist)
    torch.testing.assert_close(out, each.sum(tuple(range(-joined, 0))))
    torch.testing.assert_close(otdist.w2(p, q), out.sqrt())


@pytest.mark.parametrize("parameter", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_multivariate_normals_by_any_parameter(parameter):
    x, y = cov(0), cov(1)
    argument = {"covariance_matrix": x, "precision_matrix": x.inverse(), "scale_tril": torch.linalg.cholesky(x)}
    leaf = argument[parameter].clone().requires_grad_()
    mean = torch.zeros(3, dtype=torch.float64)
    p = MultivariateNormal(mean, **{parameter: leaf})
    q = MultivariateNormal(mean + 1, covariance_matrix=y)
    out = otdist.w2_squared(p, q)
    torch.testing.assert_close(out, gaussian.w2_squared(mean, x, mean + 1, y))
    out.backward()
    assert torch.isfinite(leaf.grad).all()


def test_structures_mix():
    d = Independent(normal(0, 2, 3), 1)
    full = MultivariateNormal(torch.zeros(3, dtype=torch.float64), scale_tril=torch.linalg.cholesky(cov(1)))
    low = LowRankMultivariateNormal(
        torch.ones(3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    )
    mean = d.mean.detach()
    diag = torch.diag_embed(d.base_dist.scale.detach() ** 2)
    for other in (full, low):
        expected = gaussian.w2_squared(mean, diag, other.mean, other.covariance_matrix)
        torch.testing.assert_close(otdist.w2_squared(d, other).detach(), expected)
        torch.testing.assert_close(otdist.w2(other, d).detach() ** 2, expected)


def test_products_of_vectors():
    base = MultivariateNormal(torch.zeros(4, 3, dtype=torch.float64), covariance_matrix=cov(0))
    other = MultivariateNormal(torch.ones(4, 3, dtype=torch.float64), covariance_matrix=cov(1))
    out = otdist.w2_squared(Independent(base, 1), Independent(other, 1))
    torch.testing.assert_close(out, otdist.w2_squared(base, other).sum())


def test_the_distance_of_a_distribution_to_itself_has_a_finite_gradient():
    p = Independent(normal(0, 3), 1)
    otdist.w2(p, p).backward()
    assert torch.isfinite(p.base_dist.loc.grad).all()


def test_scipy():
    rng = np.random.default_rng(0)
    x, y = covariance(3, rng), covariance(3, rng)
    p, q = scipy.stats.multivariate_normal(np.zeros(3), x), scipy.stats.multivariate_normal(np.ones(3), y)
    assert otdist.w2_squared(p, q) == gaussian.w2_squared(np.zeros(3), x, np.ones(3), y)
    a, b = scipy.stats.norm(loc=[0.0, 1.0], scale=2.0), scipy.stats.norm(1.0, 3.0)
    np.testing.assert_array_equal(otdist.w2_squared(a, b), [2.0, 1.0])


@pytest.mark.parametrize(
    ("p", "q", "names"),
    [
        (VonMises(0.0, 1.0), Normal(0.0, 1.0), "torch.distributions.von_mises.VonMises and .*Normal"),
        (Normal(0.0, 1.0), scipy.stats.norm(0, 1), "Normal and scipy.stats.* of norm"),
        (scipy.stats.norm(0, 1), scipy.stats.poisson(2.0), "of norm and scipy.* of poisson"),
        (
            Normal(torch.zeros(3), torch.ones(3)),
            Independent(Normal(torch.zeros(3), torch.ones(3)), 1),
            r"Independent\(",
        ),
        (1.0, Normal(0.0, 1.0), "builtins.float and"),
    ],
)
def test_unsupported_pairs_name_both_types(p, q, names):
    with pytest.raises(NotImplementedError, match=names):
        otdist.w2(p, q)


def test_a_drop_in_for_the_kl_divergence_trains():
    loc = torch.full((8,), 3.0, requires_grad=True)
    log_scale = torch.zeros(8, requires_grad=True)
    prior = Independent(Normal(torch.zeros(8), torch.ones(8)), 1)
    optimiser = torch.optim.Adam([loc, log_scale], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        loss = otdist.w2_squared(Independent(Normal(loc, log_scale.exp()), 1), prior)
        loss.backward()
        optimiser.step()
    assert loss.detach() < 1e-3


# --- dtypes, subclasses, transforms -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["normal", "laplace", "multivariate"])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float16),
    ],
)
def test_dtypes_promote_as_pytorch_promotes(family, one, two):
    def make(dtype, shift):
        loc, scale = torch.full((3,), shift, dtype=dtype), torch.full((3,), 1 + shift, dtype=dtype)
        if family == "multivariate":
            return MultivariateNormal(loc, scale_tril=torch.diag_embed(scale), validate_args=False)
        return (Normal if family == "normal" else Laplace)(loc, scale)

    p, q = make(one, 1.0), make(two, 0.5)
    for distance in (otdist.w2_squared, otdist.w2):
        assert distance(p, q).dtype == torch.promote_types(one, two)
    exact = otdist.w2_squared(make(torch.float64, 1.0), make(torch.float64, 0.5))
    eps = max(torch.finfo(one).eps, torch.finfo(two).eps)
    assert (otdist.w2_squared(p, q) - exact).abs().max() <= 10 * eps


def test_under_autocast():
    linear = torch.nn.Linear(3, 3)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    prior = MultivariateNormal(torch.zeros(3), torch.eye(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loc = linear(x)
        assert loc.dtype == torch.bfloat16
        flat = otdist.w2_squared(Independent(Normal(loc, torch.ones_like(loc)), 1), Independent(Normal(0 * x, 1.0), 1))
        full = otdist.w2_squared(MultivariateNormal(loc.float(), scale_tril=0.1 * torch.eye(3)), prior)
    assert flat.dtype == full.dtype == torch.float32
    expected = loc.detach().double().square().sum(-1) + 3 * 0.9**2
    # In float32 throughout: the scale .1 times itself in bfloat16 would be off by 2^-9.
    torch.testing.assert_close(full.detach().double(), expected, rtol=1e-6, atol=0)
    (flat.sum() + full.sum()).backward()
    assert torch.isfinite(linear.weight.grad).all()


def test_subclasses_are_what_they_are_derived_from():
    class Posterior(Normal):
        pass

    class Full(MultivariateNormal):
        pass

    p, q = normal(0, 3), normal(1, 3)
    torch.testing.assert_close(otdist.w2_squared(Posterior(p.loc, p.scale), q), otdist.w2_squared(p, q))
    zero = torch.zeros(3, dtype=torch.float64)
    x, y = MultivariateNormal(zero, cov(0)), MultivariateNormal(zero, cov(1))
    torch.testing.assert_close(otdist.w2_squared(Full(zero, cov(0)), y), otdist.w2_squared(x, y))


def affine_maps(shift, scale):
    """The same map, z -> shift + scale z, in the ways that torch has for it."""
    plain = AffineTransform(shift, scale)
    yield "plain", [plain]
    yield "inverse", [AffineTransform(-shift / scale, 1 / scale).inv]
    yield "composed", [ComposeTransform([AffineTransform(0.0, scale), AffineTransform(shift, 1.0)])]
    yield "composed inverse", [ComposeTransform([AffineTransform(-shift, 1.0), AffineTransform(0.0, 1 / scale)]).inv]
    yield "in sequence", [AffineTransform(0.0, -scale), AffineTransform(shift, -1.0)]


@pytest.mark.parametrize("scale", [2.0, -0.5])
@pytest.mark.parametrize("kind", ["normal", "laplace", "gumbel", "multivariate", "mixture"])
def test_affine_transforms(kind, scale):
    mean = torch.tensor([0.3, -1.0], dtype=torch.float64)
    std = torch.tensor([0.7, 1.5], dtype=torch.float64)
    vector_scale = scale * torch.tensor([1.0, 1.5], dtype=torch.float64)
    base, expected = {
        "normal": lambda: (Normal(mean, std), Normal(1 + scale * mean, abs(scale) * std)),
        "laplace": lambda: (Laplace(mean, std), Laplace(1 + scale * mean, abs(scale) * std)),
        "gumbel": lambda: (Gumbel(mean, std), None),
        "multivariate": lambda: (
            MultivariateNormal(mean, cov(0, 2)),
            MultivariateNormal(1 + vector_scale * mean, torch.outer(vector_scale, vector_scale) * cov(0, 2)),
        ),
        "mixture": lambda: (
            MixtureSameFamily(Categorical(std), Normal(mean, std)),
            MixtureSameFamily(Categorical(std), Normal(1 + scale * mean, abs(scale) * std)),
        ),
    }[kind]()
    factor = vector_scale if kind == "multivariate" else torch.tensor(scale, dtype=torch.float64)
    found = {
        name: TransformedDistribution(base, maps)
        for name, maps in affine_maps(torch.ones((), dtype=torch.float64), factor)
    }
    other = MultivariateNormal(mean, cov(1, 2)) if kind == "multivariate" else Normal(mean, std)
    reference = found["plain"] if expected is None else expected
    for name, made in found.items():
        torch.testing.assert_close(otdist.w2_squared(made, other), otdist.w2_squared(reference, other), msg=name)
    if expected is None:  # mirrored: against the distance of the mirror images
        mirrored = otdist.w2_squared(found["plain"], Normal(1 + scale * mean, abs(scale) * std))
        torch.testing.assert_close(mirrored, scale**2 * otdist.w2_squared(base, Normal(mean, std)))


def test_affine_transforms_of_vectors():
    base = normal(0, 4, 3)
    move = AffineTransform(torch.ones(3), torch.tensor([1.0, -2.0, 3.0]), event_dim=1)
    q = Independent(normal(1, 3), 1)
    expected = Independent(Normal(move.loc + move.scale * base.loc, move.scale.abs() * base.scale), 1)
    torch.testing.assert_close(
        otdist.w2_squared(TransformedDistribution(base, [move]), q), otdist.w2_squared(expected, q)
    )


def test_a_transform_that_is_not_affine_is_refused():
    base = normal(0, 3)
    bent = TransformedDistribution(base, [torch.distributions.transforms.TanhTransform()])
    with pytest.raises(NotImplementedError, match=r"TransformedDistribution.*affine TransformedDistribution of these"):
        otdist.w2_squared(bent, base)


# --- mixtures -----------------------------------------------------------------------------------------------------


def mixture(seed, kind, batch=()):
    rng = np.random.default_rng(seed)
    weights = torch.tensor(rng.dirichlet(np.ones(2), batch), requires_grad=True)
    if kind == "normal":
        return MixtureSameFamily(Categorical(weights), normal(seed, *batch, 2))
    if kind == "independent":
        return MixtureSameFamily(Categorical(weights), Independent(normal(seed, *batch, 2, 3), 1))
    means = torch.tensor(rng.standard_normal((*batch, 2, 3)))
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, cov(seed)))


@pytest.mark.parametrize("batch", [(), (4,)])
@pytest.mark.parametrize("kind", ["normal", "independent", "multivariate"])
def test_mixtures_are_compared_by_their_components(kind, batch):
    p, q = mixture(0, kind, batch), mixture(1, kind, batch)
    parts = [m.component_distribution for m in (p, q)]
    out = otdist.w2_squared(p, q)
    assert out.shape == batch
    # Two components each: the plan has one free number, and the cost is linear in it.
    a, b = (m.mixture_distribution.probs[..., 0] for m in (p, q))
    pair = [
        [otdist.w2_squared(_component(parts[0], i, batch), _component(parts[1], j, batch)) for j in (0, 1)]
        for i in (0, 1)
    ]
    ends = [
        t * pair[0][0] + (a - t) * pair[0][1] + (b - t) * pair[1][0] + (1 - a - b + t) * pair[1][1]
        for t in (torch.minimum(a, b), (a + b - 1).clip(0, None))
    ]
    torch.testing.assert_close(out, torch.minimum(*ends))
    out.sum().backward()
    torch.testing.assert_close(otdist.w2(p, q) ** 2, out)


def _component(d, i, batch):
    if isinstance(d, Independent):
        return Independent(_component(d.base_dist, (i, slice(None)), batch), 1)
    index = (..., *(i if isinstance(i, tuple) else (i,)))
    if isinstance(d, Normal):
        return Normal(d.loc[index], d.scale[index])
    return MultivariateNormal(d.loc[..., i, :], d.covariance_matrix[..., i, :, :])


def test_a_gaussian_is_a_mixture_of_one():
    p, q = mixture(0, "independent"), Independent(normal(1, 3), 1)
    each = otdist.w2_squared(p.component_distribution, q)
    expected = (p.mixture_distribution.probs * each).sum()
    torch.testing.assert_close(otdist.w2_squared(p, q), expected)
    torch.testing.assert_close(otdist.w2_squared(q, p), expected)


# --- on the line --------------------------------------------------------------------------------------------------

D = {"dtype": torch.float64}


def t(*numbers):
    return [torch.tensor(x, **D) for x in numbers]


# One of each family in PyTorch, and the same in SciPy.
LINE = {
    "Normal": (lambda: Normal(*t(0.3, 1.2)), scipy.stats.norm(0.3, 1.2)),
    "Laplace": (lambda: Laplace(*t(0.3, 1.2)), scipy.stats.laplace(0.3, 1.2)),
    "Uniform": (lambda: Uniform(*t(-1.0, 2.5)), scipy.stats.uniform(-1.0, 3.5)),
    "Gumbel": (lambda: Gumbel(*t(0.3, 1.2)), scipy.stats.gumbel_r(0.3, 1.2)),
    "Exponential": (lambda: Exponential(*t(1.7)), scipy.stats.expon(scale=1 / 1.7)),
    "HalfNormal": (lambda: HalfNormal(*t(1.2)), scipy.stats.halfnorm(scale=1.2)),
    "LogNormal": (lambda: LogNormal(*t(0.1, 0.6)), scipy.stats.lognorm(0.6, scale=np.exp(0.1))),
    "Weibull": (lambda: Weibull(*t(1.3, 2.2)), scipy.stats.weibull_min(2.2, scale=1.3)),
    "Pareto": (lambda: Pareto(*t(1.3, 2.6)), scipy.stats.pareto(2.6, scale=1.3)),
    "Kumaraswamy": (lambda: Kumaraswamy(*t(1.4, 2.3)), None),
    "Gamma": (lambda: Gamma(*t(2.3, 1.7)), scipy.stats.gamma(2.3, scale=1 / 1.7)),
    "Chi2": (lambda: Chi2(*t(3.5)), scipy.stats.chi2(3.5)),
    "Beta": (lambda: Beta(*t(0.7, 2.3)), scipy.stats.beta(0.7, 2.3)),
    "StudentT": (lambda: StudentT(*t(3.5, 0.3, 1.2)), scipy.stats.t(3.5, 0.3, 1.2)),
}
every_family = pytest.mark.parametrize("name", LINE)


@every_family
def test_the_distance_to_a_point_is_the_second_moment(name):
    # Known from the family's own mean and variance, by no quantile function.
    p = LINE[name][0]()
    width = 1e-13
    point = Laplace(*t(0.4, width)) if name == "Normal" else Normal(*t(0.4, width))
    expected = float(p.variance + (p.mean - 0.4) ** 2)
    assert float(otdist.w2_squared(p, point)) == pytest.approx(expected, rel=1e-10)


@every_family
def test_torch_and_scipy_agree_on_the_line(name):
    (make, ours), (make_other, other) = LINE[name], LINE["Weibull" if name == "Laplace" else "Laplace"]
    if ours is None:
        return
    value = float(otdist.w2_squared(make(), make_other()))
    assert float(otdist.w2_squared(ours, other)) == pytest.approx(value, rel=1e-9)
    assert float(otdist.w2_squared(other, ours)) == pytest.approx(value, rel=1e-9)
    assert float(otdist.w2(ours, other)) ** 2 == pytest.approx(value, rel=1e-9)


@every_family
def test_a_closed_form_is_the_quadrature(name):
    # Both of one family, with other parameters, against SciPy's quantiles, whose families are not recognised.
    make, ours = LINE[name]
    if ours is None or name in ("Normal", "Chi2", "Beta", "StudentT"):
        return
    other = torch.distributions.AffineTransform(0.5, 2.0)
    stretched = TransformedDistribution(make(), [other])
    loc, scale = ours.kwds.get("loc", 0.0), ours.kwds.get("scale", 1.0)
    if name in ("Laplace", "Uniform", "Gumbel"):
        loc, scale = ours.args[-2:]
    shape = {"LogNormal": (0.6,), "Weibull": (2.2,), "Pareto": (2.6,), "Gamma": (2.3,)}.get(name, ())
    expected = float(otdist.w2_squared(ours, ours.dist(*shape, loc=0.5 + 2 * loc, scale=2 * scale)))
    assert float(otdist.w2_squared(make(), stretched)) == pytest.approx(expected, rel=1e-9)


def test_log_normals_have_a_closed_form():
    p, q = LogNormal(*t(0.1, 0.6)), LogNormal(*t(-0.3, 0.9))
    expected = otdist.w2_squared(
        scipy.stats.lognorm(0.6, scale=np.exp(0.1)), scipy.stats.lognorm(0.9, scale=np.exp(-0.3))
    )
    assert float(otdist.w2_squared(p, q)) == pytest.approx(float(expected), rel=1e-9)
    near = LogNormal(*t(0.1 + 1e-9, 0.6))  # W2² = (e^1e-9 - 1)² E x²
    assert float(otdist.w2_squared(p, near)) == pytest.approx(1e-18 * float(p.variance + p.mean**2), rel=1e-6)


@every_family
def test_gradients_on_the_line(name):
    make = LINE[name][0]
    kind, p = type(make()), make()
    fields = [f for f in ("df", "loc", "low", "high", "scale", "rate", "alpha") if f in p.arg_constraints]
    fields += [f for f in ("concentration", "concentration1", "concentration0") if f in p.arg_constraints]
    leaves = [torch.tensor(float(getattr(p, f)), requires_grad=True, **D) for f in fields]
    other = LINE["Weibull" if name == "Laplace" else "Laplace"][0]()

    def distance(*values):
        return otdist.w2_squared(kind(**dict(zip(fields, values, strict=True)), validate_args=False), other)

    assert torch.autograd.gradcheck(distance, leaves)
    batched = [leaf.detach().expand(3) for leaf in leaves]
    grads = torch.func.vmap(torch.func.grad(distance))(*batched)
    (expected,) = torch.autograd.grad(distance(*leaves), leaves[:1])
    torch.testing.assert_close(grads, expected.expand(3))


SHAPES = [0.05, 0.7, 1.0, 3.0, 30.0, 400.0]


@pytest.mark.parametrize("name", ["Gamma", "Beta", "StudentT"])
def test_shape_parameters_over_their_range(name):
    # The distance to the point 0 is the second moment, whose derivatives are known.
    one = torch.ones((), **D)
    a, b = (z.flatten().requires_grad_() for z in torch.meshgrid(*2 * [torch.tensor(SHAPES, **D)], indexing="ij"))
    if name == "Gamma":
        p, leaves = Gamma(a, one), [a]
    elif name == "Beta":
        p, leaves = Beta(a, b), [a, b]
    else:
        df = (2 + a.detach()).requires_grad_()
        p, leaves = StudentT(df), [df]
    moment = p.variance + (0 if name == "StudentT" else p.mean**2)
    value = otdist.w2_squared(p, Normal(0 * one, 1e-200 * one, validate_args=False))
    # Levels end at 1e-300, beyond which a heavy tail has some of its second moment left.
    missing = 1e-300 ** (1 - 2 / leaves[0].detach()) if name == "StudentT" else torch.zeros(())
    assert ((value - moment).abs() <= (1e-10 + missing) * moment).all()
    found, expected = (torch.autograd.grad(z.sum(), leaves, retain_graph=True) for z in (value, moment))
    for ours, theirs, shape in zip(found, expected, leaves, strict=True):
        error = 1e-8 * torch.maximum(theirs.abs(), moment / shape)
        assert ((ours - theirs).abs() <= error + moment * missing * 691 * 2 / shape**2).all()


@pytest.mark.parametrize(
    ("frozen", "error"),
    [
        # From above, SciPy knows these to levels of 1e-16; what is missing of f is 1e-16 to the power 1 - 4 / 7.
        (scipy.stats.pearson3(1), 1e-10),
        (scipy.stats.rice(1), 1e-10),
        (scipy.stats.f(5, 7), 1e-6),
        (scipy.stats.beta(4.8, 2.0), 1e-10),
        (scipy.stats.beta(0.35, 5.6), 1e-10),
        (scipy.stats.triang(0.3), 1e-6),
        (scipy.stats.trapezoid(0.2, 0.5), 1e-6),
    ],
    ids=lambda z: getattr(getattr(z, "dist", None), "name", ""),
)
def test_tails_and_kinks_of_scipy(frozen, error):
    moment = frozen.var() + frozen.mean() ** 2
    assert float(otdist.w2_squared(frozen, scipy.stats.norm(0, 1e-200))) == pytest.approx(moment, rel=error)


def test_batches_on_the_line():
    p = Gamma(torch.tensor([[1.0], [2.0]], **D), torch.tensor([1.0, 2.0, 3.0], **D))
    q = Laplace(torch.zeros(3, **D), torch.ones(3, **D))
    out = otdist.w2_squared(p, q)
    assert out.shape == (2, 3)
    one = otdist.w2_squared(Gamma(*t(2.0, 3.0)), Laplace(*t(0.0, 1.0)))
    assert float(out[1, 2]) == pytest.approx(float(one), rel=1e-12)
    joined = otdist.w2_squared(Independent(p, 1), Independent(q, 1))
    torch.testing.assert_close(joined, out.sum(-1))
    mixed = otdist.w2_squared(Independent(p, 1), Independent(Normal(torch.zeros(3), torch.ones(3)), 1))
    assert mixed.shape == (2,)
    assert mixed.dtype == torch.float64


def test_an_infinite_variance_is_refused():
    with pytest.raises(ValueError, match=r"StudentT has a finite variance, and so a W2, only for df > 2; got 2"):
        otdist.w2_squared(StudentT(2.0), Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=r"Pareto has a finite variance, and so a W2, only for alpha > 2; got 1\.5"):
        otdist.w2_squared(Pareto(1.0, 1.5), Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="cauchy has no finite variance"):
        otdist.w2_squared(scipy.stats.cauchy(), scipy.stats.norm())


# --- register_w2 --------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_FORMULAS", {})


@pytest.mark.usefixtures("clean_registry")
def test_registered_formulas():
    class Ring(VonMises):
        pass

    @otdist.register_w2(VonMises, Normal)
    def on_the_circle(p, q):
        return (p.loc - q.loc) ** 2 + 100

    @otdist.register_w2(Ring, Normal)
    def on_the_ring(p, q):
        return (p.loc - q.loc) ** 2 + 200

    n = Normal(torch.ones(3), 1.0)
    assert (otdist.w2_squared(VonMises(0.0, 1.0), n) == 101).all()
    assert (otdist.w2_squared(n, VonMises(0.0, 1.0)) == 101).all()
    assert (otdist.w2_squared(Ring(0.0, 1.0), n) == 201).all()
    assert otdist.w2(n, Ring(0.0, 1.0))[0] == pytest.approx(201**0.5)
    together = otdist.w2_squared(Independent(Ring(torch.zeros(3), 1.0), 1), Independent(n, 1))
    assert together == 603
    assert otdist.w2_squared(n, n).sum() == 0
    with pytest.raises(NotImplementedError, match=r"otdist.register_w2: \(VonMises, Normal\), \(Ring, Nor"):
        otdist.w2_squared(Ring(0.0, 1.0), Laplace(0.0, 1.0))


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_formula_goes_before_what_is_built_in():
    otdist.register_w2(Normal, Normal)(lambda p, q: torch.tensor(7.0))
    assert otdist.w2_squared(Normal(0.0, 1.0), Normal(0.0, 1.0)) == 7


@pytest.mark.usefixtures("clean_registry")
def test_an_ambiguous_pair_warns():
    class A:
        pass

    class B(A):
        pass

    otdist.register_w2(B, A)(lambda p, q: 1.0)
    otdist.register_w2(A, B)(lambda p, q: 2.0)
    assert otdist.w2_squared(B(), A()) == 1.0
    with pytest.warns(RuntimeWarning, match=r"both \(B, A\) and \(A, B\) are registered"):
        otdist.w2_squared(B(), B())
    otdist.register_w2(B, B)(lambda p, q: 3.0)
    assert otdist.w2_squared(B(), B()) == 3.0
    with pytest.raises(TypeError, match="kind_p must be a class; got 'Normal'"):
        otdist.register_w2("Normal", Normal)


# --- transforms of the caller's function --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda m, s: Independent(Normal(m, s, validate_args=False), 1, validate_args=False),
        lambda m, s: Independent(Laplace(m, s, validate_args=False), 1, validate_args=False),
        lambda m, s: MultivariateNormal(m, scale_tril=torch.diag_embed(s), validate_args=False),
    ],
    ids=["normal", "laplace", "multivariate"],
)
def test_under_compile_vmap_and_grad(make):
    rng = np.random.default_rng(0)
    mean, scale = torch.tensor(rng.standard_normal((4, 3))), torch.tensor(rng.uniform(0.5, 2, (4, 3)))
    q = Independent(Normal(torch.zeros(3, **D), torch.ones(3, **D)), 1)

    def distance(m, s):
        return otdist.w2_squared(make(m, s), q)

    expected = distance(mean, scale)
    torch._dynamo.reset()
    compiled = torch.compile(distance, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(mean, scale), expected)
    leaves = [mean.clone().requires_grad_(), scale.clone().requires_grad_()]
    grads = torch.autograd.grad(distance(*leaves).sum(), leaves)
    for g, e in zip(torch.autograd.grad(compiled(*leaves).sum(), leaves), grads, strict=True):
        torch.testing.assert_close(g, e)
    torch.testing.assert_close(torch.func.vmap(distance)(mean, scale), expected)
    each = torch.func.vmap(torch.func.grad(distance, argnums=(0, 1)))(mean, scale)
    for g, e in zip(each, grads, strict=True):
        torch.testing.assert_close(g, e)


@pytest.mark.parametrize("parameter", ["covariance_matrix", "precision_matrix", "scale_tril"])
@pytest.mark.parametrize("expanded", [False, True])
def test_the_gradient_reaches_the_parameter_that_was_given(parameter, expanded):
    x = cov(0)
    argument = {"covariance_matrix": x, "precision_matrix": x.inverse(), "scale_tril": torch.linalg.cholesky(x)}
    q = MultivariateNormal(torch.ones(3, **D), covariance_matrix=cov(1))
    leaf = argument[parameter].clone().requires_grad_()

    def distance(value):
        value = value if parameter == "scale_tril" else (value + value.mT) / 2
        p = MultivariateNormal(torch.zeros(3, **D), **{parameter: value}, validate_args=False)
        return otdist.w2_squared(p.expand((2,)) if expanded else p, q).sum()

    assert torch.autograd.gradcheck(distance, leaf)


def test_what_was_expanded_is_shared():
    p = normal(0, 3)
    out = otdist.w2_squared(p.expand((4, 3)), normal(1, 3))
    assert out.shape == (4, 3)
    out.sum().backward()
    torch.testing.assert_close(p.loc.grad, (4 * 2 * (p.loc - normal(1, 3).loc)).detach())


def test_events_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="number of coordinates"):
        otdist.w2_squared(Independent(normal(0, 3), 1), Independent(normal(1, 1), 1))
