"""log p(x | z): the reconstruction term, summed over features and averaged over nothing."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._config import catalogue


class Likelihood(nn.Module):
    """How data scatter about the decoder's output."""

    @abstractmethod
    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        """−log p(x | z), summed over features: (batch,) from two (batch, ...) tensors."""

    @abstractmethod
    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """The normalised log-density, (batch,): what held-out likelihoods are estimated with."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """E[x | z], shape as `output`."""


class Gaussian(Likelihood):
    """N(x; output, scale²·I), constants left out: Σ (x − output)² / (2 scale²), the squared error in nats.

    Parameters
    ----------
    scale : standard deviation of the noise, in the units the network sees. None learns one number for all
        features, and keeps its log-density term (σ-VAE, Rybkin, Daniilidis & Levine 2021, arXiv 2006.13202).
    """

    log_scale: Tensor

    def __init__(self, scale: float | None = 0.1) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise ValueError(f"scale must be positive or None (learned); got {scale}")
        self.scale = scale
        if scale is None:
            self.log_scale = nn.Parameter(torch.zeros(()))

    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        squared_error = (output - x).square().flatten(1)
        if self.scale is not None:
            return squared_error.sum(1) / (2 * self.scale**2)
        half = 0.5 * squared_error * torch.exp(-2 * self.log_scale)
        return (half + self.log_scale).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return output

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        n_features = output.flatten(1).shape[1]
        constant = 0.5 * math.log(2 * math.pi)
        if self.scale is not None:
            constant += math.log(self.scale)
        return -self.negative_log_likelihood(output, x) - n_features * constant


class Bernoulli(Likelihood):
    """Bernoulli(x; sigmoid(output)) for x in [0, 1]: the binary cross-entropy, in nats."""

    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(output, x, reduction="none").flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        return -self.negative_log_likelihood(output, x)


CHOICES = catalogue(Likelihood, globals())
