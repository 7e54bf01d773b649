"""The network as torch sees it: data -> posterior -> code -> data, and the two terms of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import networks
from .likelihoods import Likelihood
from .posteriors import BatchPosterior, Posterior
from .priors import Prior
from .regularizers import Regularizer, at_least_float32
from .scaling import DataUnits


@dataclass
class Components:
    """What a model is made of, before the data's shape is known."""

    latent_dim: int
    posterior: Posterior
    prior: Prior
    likelihood: Likelihood
    regularizer: Regularizer
    encoder: networks.Architecture | nn.Module
    decoder: networks.Architecture | nn.Module


class Autoencoder(nn.Module):
    """Encoder, decoder, prior, likelihood and regularizer of one model, with the data's scaling inside."""

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, components: Components, sample_shape: tuple[int, ...], n_classes: int, units: DataUnits) -> None:
        """For data of this shape; `units` says how the network's numbers are tied to the data's."""
        super().__init__()
        self.latent_dim, self.sample_shape, self.n_classes = components.latent_dim, sample_shape, n_classes
        self.family = components.posterior
        self.prior, self.likelihood, self.regularizer = components.prior, components.likelihood, components.regularizer
        n_outputs = components.posterior.n_outputs(components.latent_dim)
        self.encoder = networks.build_encoder(components.encoder, sample_shape, n_outputs, n_classes)
        self.decoder = networks.build_decoder(components.decoder, components.latent_dim, sample_shape, n_classes)
        self.prior.build(components.latent_dim)
        self.regularizer.build(components.latent_dim)
        for name, value in units._asdict().items():
            self.register_buffer(name, value.clone())

    def scaled(self, x: Tensor) -> Tensor:
        """Data units to the network's."""
        return (x.to(self.scale.dtype) - self.shift) / self.scale

    def unscaled(self, x: Tensor) -> Tensor:
        """The network's units to data units."""
        return x * self.scale + self.shift

    def one_hot(self, y: Tensor | None) -> Tensor | None:
        """Class indices (batch,) as (batch, n_classes), or None for a model without classes."""
        if not self.n_classes or y is None:
            return None
        return functional.one_hot(y, self.n_classes).to(self.scale.dtype)

    def posterior(self, scaled: Tensor, y: Tensor | None) -> BatchPosterior:
        """q(z | x) of scaled data (batch, *shape), its numbers in float32 at least."""
        raw = self.encoder(scaled, self.one_hot(y))
        return self.family(at_least_float32(raw), self.latent_dim)

    def output(self, z: Tensor, y: Tensor | None) -> Tensor:
        """The decoder's output for codes (batch, d): what the likelihood is centred on, before its mean."""
        return at_least_float32(self.decoder(z.to(self.scale.dtype), self.one_hot(y)))

    def decode(self, z: Tensor, y: Tensor | None) -> Tensor:
        """E[x | z] in data units."""
        inside = self.unscaled(self.likelihood.mean(self.output(z, y)))
        return torch.clamp(inside, self.low, self.high)


@dataclass
class Losses:
    """The terms of one step: all scalars, in nats or squared units; `codes` are this process's own."""

    reconstruction: Tensor
    penalty: Tensor
    adversary: Tensor | None
    posterior: BatchPosterior
    codes: Tensor


def losses(
    model: Autoencoder,
    x: Tensor,
    y: Tensor | None,
    noise: Tensor,
    *,
    rng: torch.Generator,
    gather: Callable[[Tensor], Tensor] = lambda codes: codes,
    end_stage: Callable[[str], None] = lambda name: None,
) -> Losses:
    """Reconstruction (summed over features, averaged over the batch) and penalty of one batch.

    `gather` joins the codes of all processes, with gradients, for a regularizer that compares the whole batch with
    the prior. `end_stage` is told when the forward pass and the regularizer are done.
    """
    scaled = model.scaled(x)
    posterior = model.posterior(scaled, y)
    # distances lose their digits in half precision
    with torch.autocast(x.device.type, enabled=False):
        codes = posterior.rsample(noise)
    output = model.output(codes, y)
    with torch.autocast(x.device.type, enabled=False):
        reconstruction = model.likelihood.negative_log_likelihood(output, scaled).mean()
        end_stage("forward")
        regularizer, prior = model.regularizer, model.prior
        together = gather(codes) if regularizer.scope == "aggregate" else codes
        penalty = _penalty(regularizer, posterior, together, prior, rng)
        adversary = regularizer.adversary(together, prior, rng)
        end_stage("regularizer")
    return Losses(reconstruction, penalty, adversary, posterior, codes)


def _penalty(
    regularizer: Regularizer, posterior: BatchPosterior, codes: Tensor, prior: Prior, rng: torch.Generator
) -> Tensor:
    try:
        return regularizer(posterior, codes, prior, rng=rng)
    except ValueError:
        if bool(torch.isfinite(codes).all()):
            raise
        raise FloatingPointError("the codes became infinite or NaN: lower learning_rate or set gradient_clip") from None


def n_features(model: Autoencoder) -> int:
    """Features of one example."""
    return math.prod(model.sample_shape)
