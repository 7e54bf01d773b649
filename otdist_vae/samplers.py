"""Where z is drawn from after training: the prior, or a density fitted to the codes of the training data."""

from __future__ import annotations

import torch
from torch import Tensor

from .priors import Prior

DENSITIES = {"prior": "prior", "gaussian": "fitted Gaussian", "mixture": "fitted mixture"}
NAMES = tuple(DENSITIES)


def draw(
    name: str,
    n: int,
    *,
    prior: Prior,
    codes: Tensor,
    generator: torch.Generator,
    n_components: int = 10,
) -> Tensor:
    """`n` codes (n, d) from the prior, from the Gaussian fitted to `codes` (m, d), or from a fitted mixture."""
    if name == "prior":
        return prior.sample(n, codes.shape[1], generator=generator).detach()
    if name == "gaussian":
        return _gaussian(n, codes, generator)
    if name == "mixture":
        return _mixture(n, codes, generator, n_components)
    raise ValueError(f"sampler must be one of {', '.join(NAMES)}; got {name!r}")


def _gaussian(n: int, codes: Tensor, generator: torch.Generator) -> Tensor:
    if len(codes) < 2:
        raise ValueError(f"a fitted Gaussian needs at least 2 codes; got {len(codes)}")
    centred = (codes - codes.mean(0)) / (len(codes) - 1) ** 0.5
    # a draw is mean + centredᵀ w with w standard normal in the codes' own space: no d x d root, singular or not
    noise = torch.randn(n, len(codes), generator=generator, dtype=codes.dtype)
    return codes.mean(0) + noise @ centred


def _mixture(n: int, codes: Tensor, generator: torch.Generator, n_components: int) -> Tensor:
    from sklearn.mixture import GaussianMixture

    k = min(n_components, max(1, len(codes) // (2 * codes.shape[1])))
    points = codes.double().numpy()
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    # the floor on variances is a thousandth of the codes' own, so that a thin component does not become a spike
    floor = 1e-3 * max(float(points.var(0).mean()), 1e-38)
    fitted = GaussianMixture(k, reg_covar=floor, random_state=seed, max_iter=200, tol=1e-3).fit(points)
    drawn, _ = fitted.sample(n)
    order = torch.randperm(n, generator=generator)  # scikit-learn returns them component by component
    return torch.from_numpy(drawn).to(codes.dtype)[order]
