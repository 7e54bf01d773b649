"""PyTorch's distribution objects, described."""

from __future__ import annotations

from typing import Any

from .._core import backend
from .._core.backend import Array
from ..covariance import Diagonal, Factor
from ..covariance.base import unchecked
from . import torch_univariate
from .descriptions import Description, Gaussian, Mixture, Product

SUPPORTED = (
    "Normal, MultivariateNormal, LowRankMultivariateNormal; "
    + ", ".join(name for name in torch_univariate.FAMILIES if name != "Normal")
    + "; Independent and affine TransformedDistribution of these; MixtureSameFamily of Gaussians"
)


def read(x: Any) -> Description | None:
    """A distribution as what it is compared by, or None if it is not one that we know."""
    library = backend.torch_module().distributions
    if isinstance(x, library.Normal):
        return Gaussian(0, x.loc, scale=x.scale)
    if isinstance(x, library.MultivariateNormal):
        # The parameter that was given is the leaf; a covariance goes in as it is, anything else by its factor.
        given = x.__dict__.get("covariance_matrix")
        return Gaussian(1, x.loc, cov=unchecked(Factor, x.scale_tril) if given is None else given)
    if isinstance(x, library.LowRankMultivariateNormal):
        return Gaussian(1, x.loc, cov=x.covariance_matrix)
    if isinstance(x, library.Independent):
        base = read(x.base_dist)
        return None if base is None else base.join(x.reinterpreted_batch_ndims)
    if isinstance(x, library.MixtureSameFamily):
        return _mixture(x)
    univariate = torch_univariate.read(x)
    if univariate is not None:
        return Product(univariate)
    return _transformed(library, x) if isinstance(x, library.TransformedDistribution) else None


def _mixture(x: Any) -> Mixture | None:
    part = read(x.component_distribution)
    if not isinstance(part, Gaussian) or part.joined:
        return None
    weights = x.mixture_distribution.probs
    if part.event == 0:
        return Mixture(0, weights, part.mean[..., None], unchecked(Diagonal, part.scale[..., None] ** 2))  # type: ignore[index]
    return Mixture(1, weights, part.mean, part.covariance)


def _transformed(library: Any, x: Any) -> Description | None:
    described = read(x.base_dist)
    for transform in x.transforms:
        for loc_scale in _affine(library.transforms, transform):
            if described is None or loc_scale is None:
                return None
            described = described.affine(*loc_scale)
    return described


def _affine(transforms: Any, t: Any) -> list[tuple[Any, Any] | None]:
    """A transform as a sequence of (loc, scale); None stands for one that is not affine."""
    if isinstance(t, transforms.AffineTransform):
        return [(t.loc, t.scale)]
    if isinstance(t, transforms.ComposeTransform):
        return [pair for part in t.parts for pair in _affine(transforms, part)]
    if isinstance(t, transforms.IndependentTransform):
        return _affine(transforms, t.base_transform)
    if isinstance(t, transforms._InverseTransform):
        inverse = _affine(transforms, t.inv)[::-1]
        return [None if pair is None else (-pair[0] / pair[1], 1 / pair[1]) for pair in inverse]
    return [None]


def parameter(x: Any) -> Array | None:
    """One of the tensors that a distribution consists of, which tells dtype and device."""
    torch = backend.torch_module()
    values = list(vars(x).values())
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    parts = (parameter(value) for value in values if isinstance(value, torch.distributions.Distribution))
    return next((found for found in parts if found is not None), None)
