"""Where z is drawn from after training: the prior, or a Gaussian or a mixture fitted to the codes of the training data.

`fit` makes the three of them, one of each for every class, and `choose` takes the one that held-out codes prefer.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .priors import LOG_2PI, Prior

__all__ = ["Choice", "GaussianMixture", "choose", "draw", "fit"]

DENSITIES = {"prior": "prior", "gaussian": "fitted Gaussian", "mixture": "fitted mixture"}
NAMES = ("auto", *DENSITIES)
# tried in turn, each half as many again, until BIC has risen twice
COMPONENTS = (2, 3, 4, 6, 9, 14, 21, 32)
MOST = 5000  # codes that a mixture is fitted to: more of them hardly move 32 components, and EM's time grows with them
FLOOR = 1e-3  # of the codes' own variance: no component becomes a spike on one code


@dataclass
class GaussianMixture:
    """Σ_k weights_k N(means_k, covs_k): (k,), (k, d) and (k, d, d). Covariances may be singular.

    >>> one = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    >>> round(float(one.log_prob(torch.zeros(2))), 4)
    -1.8379
    """

    weights: Tensor
    means: Tensor
    covs: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws, (n, d)."""
        ends = self.weights.cumsum(0)[:-1]
        which = torch.searchsorted(ends, torch.rand(n, generator=generator, dtype=ends.dtype), right=True)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        values, vectors = torch.linalg.eigh(self.covs)
        roots = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
        return self.means[which] + (roots[which] @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density (...) at z (..., d); in directions without variance, that of a millionth of the largest."""
        values, vectors = torch.linalg.eigh(self.covs)
        values = values.clamp_min(1e-6 * float(values.max().clamp_min(1e-30)))
        white = torch.einsum("...kd,kde->...ke", z.unsqueeze(-2) - self.means, vectors) / values.sqrt()
        each = -0.5 * (white.square() + LOG_2PI).sum(-1) - 0.5 * values.log().sum(-1)
        return torch.logsumexp(each + self.weights.log(), -1)

    def bic(self, x: Tensor) -> float:
        """The Bayesian information criterion on codes (n, d), smaller being better (Schwarz 1978)."""
        k, d = self.means.shape
        free = k * (1 + d + d * (d + 1) / 2) - 1
        return free * math.log(len(x)) - 2 * float(self.log_prob(x).sum())


def check(sampler: str | None) -> None:
    """Raises ValueError unless None or a sampler's name."""
    if sampler not in (None, *NAMES):
        raise ValueError(f"sampler must be one of {', '.join(NAMES)}; got {sampler!r}")


Fitted = dict[str, list[GaussianMixture]]


def fit(codes: Tensor, classes: Tensor | None, n_classes: int, seed: int) -> Fitted:
    """ "gaussian" and "mixture" fitted to codes (n, d), a list of one for each class (of one without classes).

    A class's Gaussian has its own mean, and a covariance that counts the mean covariance within classes as d further
    observations: five examples of a class do not say what eight dimensions do. The number of components of a mixture
    minimises BIC (Schwarz 1978).

    Raises
    ------
    ValueError
        If there are fewer than 2 codes, or a class has none.
    """
    points = codes.double()
    groups = [points] if classes is None else [points[classes == k] for k in range(n_classes)]
    if len(points) < 2 or min(map(len, groups)) < 1:
        raise ValueError(f"a fitted density needs at least 2 codes, and one of each class; got {len(points)}")
    if classes is None:
        gaussians = [_gaussian(points)]
    else:
        within = sum((_scatter(group) for group in groups), torch.zeros(())) / max(1, len(points) - len(groups))
        gaussians = [_gaussian(group, within) for group in groups]
    return {
        "gaussian": gaussians,
        "mixture": [_mixture(g, one, seed) for g, one in zip(groups, gaussians, strict=True)],
    }


def _scatter(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred


def _gaussian(x: Tensor, within: Tensor | None = None) -> GaussianMixture:
    n, d = x.shape
    cov = _scatter(x) / (n - 1) if within is None else (_scatter(x) + d * within) / (n - 1 + d)
    return GaussianMixture(torch.ones(1, dtype=x.dtype), x.mean(0, keepdim=True), cov[None])


def _mixture(x: Tensor, one: GaussianMixture, seed: int) -> GaussianMixture:
    """The mixture of least BIC; `one` Gaussian where more do not pay."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Estimator

    x = x[torch.linspace(0, len(x) - 1, min(MOST, len(x))).long()]
    n, d = x.shape
    floor = FLOOR * max(float(x.var(0, correction=0).mean()), 1e-30)
    own = _gaussian(x).covs + floor * torch.eye(d, dtype=x.dtype) if n > 1 else one.covs
    best, least, rises = one, GaussianMixture(one.weights, x.mean(0, keepdim=True), own).bic(x), 0
    for k in COMPONENTS:
        if n < 2 * k * (d + 1) or rises == 2:
            break
        with warnings.catch_warnings():
            # codes that collapsed have fewer distinct points than components: BIC then refuses the mixture
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = Estimator(k, reg_covar=floor, random_state=seed, max_iter=200, tol=1e-3).fit(x.numpy())
        parts = (torch.from_numpy(part) for part in (found.weights_, found.means_, found.covariances_))
        mixture = GaussianMixture(*parts)
        bic = mixture.bic(x)
        best, least, rises = (mixture, bic, 0) if bic < least else (best, least, rises + 1)
    return best


# --- which one --------------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """The density that held-out codes prefer.

    Attributes
    ----------
    name : "prior", "gaussian" or "mixture".
    scores : the mean log-density of held-out codes under each, in nats; greater is better.
    n_components : of the mixture, over all classes together.
    """

    name: str
    scores: dict[str, float]
    n_components: int

    def __str__(self) -> str:
        scores = ", ".join(f"{DENSITIES[name]} {score:.2f}" for name, score in self.scores.items())
        many = f" of {self.n_components} components" if self.name == "mixture" else ""
        return f"codes from the {DENSITIES[self.name]}{many} (nats per held-out code: {scores})"


def choose(fitted: Fitted, prior: Prior, codes: Tensor, classes: Tensor | None) -> Choice:
    """The density with the greatest mean log-density of held-out codes (n, d), or a simpler one as good.

    The prior is simpler than a Gaussian, a Gaussian than a mixture. As good means: the mean difference is within one
    standard error of it. This log-density is what a sampler adds to the bound on log p(x): among densities of z, codes
    are likeliest under the one nearest the aggregate posterior in Kullback-Leibler divergence.
    """
    with torch.no_grad():
        each = {"prior": prior.log_prob(codes).double()}
        for name, densities in fitted.items():
            each[name] = _log_prob(densities, codes.double(), classes)
    means = {name: float(values.mean()) for name, values in each.items()}
    best = max(means, key=means.__getitem__)
    for name, values in each.items():  # from the simplest
        difference = each[best] - values
        if means[best] - means[name] <= float(difference.std(correction=0)) / math.sqrt(len(codes)):
            return Choice(name, means, sum(len(m.weights) for m in fitted["mixture"]))
    raise AssertionError("the best is as good as itself")


def _log_prob(densities: Sequence[GaussianMixture], codes: Tensor, classes: Tensor | None) -> Tensor:
    if classes is None:
        return densities[0].log_prob(codes)
    values = torch.empty(len(codes), dtype=codes.dtype)
    for k, density in enumerate(densities):
        values[classes == k] = density.log_prob(codes[classes == k])
    return values


def draw(
    name: str, n: int, classes: Tensor | None, *, fitted: Fitted, prior: Prior, latent_dim: int, rng: torch.Generator
) -> Tensor:
    """`n` codes (n, d) from "prior", "gaussian" or "mixture", of the classes (n,) if there are some."""
    if name == "prior":
        return prior.sample(n, latent_dim, generator=rng).detach()
    if name not in fitted:
        raise ValueError(f"sampler must be one of {', '.join(NAMES)}; got {name!r}")
    if classes is None:
        return fitted[name][0].sample(n, rng).float()
    z = torch.empty(n, latent_dim)
    for k in classes.unique().tolist():
        z[classes == k] = fitted[name][k].sample(int((classes == k).sum()), rng).float()
    return z


# --- as tensors, for a saved model ------------------------------------------------------------------------------------


def to_tensors(fitted: Fitted) -> dict[str, Tensor]:
    """Flat names to tensors: ``density.mixture.3.means`` is of class 3."""
    return {
        f"density.{name}.{k}.{part}": getattr(one, part).clone()  # a mixture of one is the Gaussian itself
        for name, densities in fitted.items()
        for k, one in enumerate(densities)
        for part in ("weights", "means", "covs")
    }


def from_tensors(tensors: Mapping[str, Tensor], n_classes: int) -> Fitted:
    """The inverse of `to_tensors`. Raises KeyError if a part is missing."""
    return {
        name: [
            GaussianMixture(*(tensors[f"density.{name}.{k}.{part}"] for part in ("weights", "means", "covs")))
            for k in range(max(1, n_classes))
        ]
        for name in ("gaussian", "mixture")
    }


def __dir__() -> list[str]:
    return __all__
