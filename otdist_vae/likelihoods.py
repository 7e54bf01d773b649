"""log p(x | z): the reconstruction term, summed over features and averaged over nothing."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._config import catalogue

__all__ = ["Bernoulli", "Gaussian", "Likelihood"]


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
    """N(x; output, scale²·I), constants left out: Σ (x − output)² / (2 scale²) + D log scale, in nats.

    Parameters
    ----------
    scale : standard deviation of the noise, in the units the network sees. None takes it from the data: while training
        the root mean squared error of each batch, which maximises its likelihood (the optimal σ-VAE of Rybkin,
        Daniilidis & Levine 2021, arXiv 2006.13202), and afterwards the running mean of that. So one nat is one nat on
        any data, and a weight of the penalty means the same for tables and for images. With a number the constant
        D log scale is left out.
    """

    MOMENTUM = 0.02  # the running mean looks back about 50 batches
    SMALLEST = 1e-3  # deviations of reconstructions that are exact; a quarter of a grey level of 256
    log_scale: Tensor
    n_batches: Tensor

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise ValueError(f"scale must be positive or None (taken from the data); got {scale}")
        self.scale = scale
        if scale is None:
            self.register_buffer("log_scale", torch.zeros(()))
            self.register_buffer("n_batches", torch.zeros(()))

    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        squared_error = (output - x).square().flatten(1)
        if self.scale is not None:
            return squared_error.sum(1) / (2 * self.scale**2)
        log_scale = self._of_batch(squared_error) if self.training else self.log_scale
        return 0.5 * squared_error.sum(1) * torch.exp(-2 * log_scale) + squared_error.shape[1] * log_scale

    @torch.no_grad()
    def _of_batch(self, squared_error: Tensor) -> Tensor:
        """log of the batch's root mean squared error. No gradient is lost: at the maximum there is none."""
        mean = squared_error.mean()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)  # the processes share a batch in equal parts
            mean /= torch.distributed.get_world_size()
        found = 0.5 * mean.clamp_min(self.SMALLEST**2).log()
        self.n_batches += 1
        self.log_scale += (1 / self.n_batches).clamp_min(self.MOMENTUM) * (found - self.log_scale)
        return found

    def mean(self, output: Tensor) -> Tensor:
        return output

    def deviation(self) -> float:
        """The noise's standard deviation: given, or found in training."""
        return float(self.log_scale.exp()) if self.scale is None else self.scale

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        scale = self.deviation()
        squared_error = (output - x).square().flatten(1)
        constant = 0.5 * math.log(2 * math.pi) + math.log(scale)
        return -squared_error.sum(1) / (2 * scale**2) - squared_error.shape[1] * constant


class Bernoulli(Likelihood):
    """Bernoulli(x; sigmoid(output)) for x in [0, 1]: the binary cross-entropy, in nats."""

    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(output, x, reduction="none").flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        return -self.negative_log_likelihood(output, x)


CHOICES = catalogue(Likelihood, globals())


def __dir__() -> list[str]:
    return __all__
