"""What an encoder says of z: a point, or a Gaussian with diagonal, full or circulant covariance.

A family (``Diagonal()``) says how many numbers the encoder must predict and turns them into the batch's posterior,
an object with ``mean``, ``rsample(noise)``, ``log_prob(z)``, ``kl()`` and ``w2_squared()``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributions
from torch.nn import functional

import otdist

from ._config import catalogue
from .priors import LOG_2PI

__all__ = [
    "BatchPosterior",
    "Circulant",
    "CirculantGaussian",
    "Deterministic",
    "Diagonal",
    "DiagonalGaussian",
    "Dirac",
    "Full",
    "FullGaussian",
    "Posterior",
    "TorchPosterior",
]

SOFTPLUS_INVERSE_OF_ONE = math.log(math.expm1(1.0))  # raw 0 stands for scale 1, the prior's


def positive(raw: Tensor) -> Tensor:
    """softplus, shifted so that 0 -> 1: grows only linearly, so a wild encoder output does not overflow."""
    return functional.softplus(raw + SOFTPLUS_INVERSE_OF_ONE)


# --- the batch's posterior --------------------------------------------------------------------------------------------


class BatchPosterior(ABC):
    """q(z | x) for a batch: `mean` (batch, d) and the methods below; distances are to N(0, I)."""

    mean: Tensor

    @abstractmethod
    def rsample(self, noise: Tensor) -> Tensor:
        """Codes from standard normal noise of shape (..., batch, d), differentiable in the parameters."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x), (..., batch), for z of shape (..., batch, d)."""

    @abstractmethod
    def kl(self) -> Tensor:
        """KL(q(z | x) ‖ N(0, I)), (batch,)."""

    @abstractmethod
    def w2_squared(self) -> Tensor:
        """W2²(q(z | x), N(0, I)), (batch,)."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Marginal variances, (batch, d)."""


class TorchPosterior(BatchPosterior):
    """One that torch.distributions knows: its density and divergences are those of the library, and of otdist."""

    @abstractmethod
    def distribution(self) -> distributions.Distribution:
        """q(z | x) with batch shape (batch,) and event shape (d,)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return self.distribution().log_prob(z)

    def kl(self) -> Tensor:
        return distributions.kl_divergence(self.distribution(), self._standard_normal())

    def w2_squared(self) -> Tensor:
        return otdist.w2_squared(self.distribution(), self._standard_normal())

    def _standard_normal(self) -> distributions.Distribution:
        zeros = self.mean.new_zeros(self.mean.shape[-1])
        return _independent(zeros, torch.ones_like(zeros))


def _independent(mean: Tensor, scale: Tensor) -> distributions.Distribution:
    # what an encoder says is valid by construction, and looking would cost as much as the divergence
    one_by_one = distributions.Normal(mean, scale, validate_args=False)
    return distributions.Independent(one_by_one, 1, validate_args=False)


@dataclass
class Dirac(BatchPosterior):
    """All mass at `mean` (batch, d)."""

    mean: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        return self.mean + torch.zeros_like(noise)

    def log_prob(self, z: Tensor) -> Tensor:
        raise ValueError("a deterministic posterior has no density; use a diagonal, full or circulant one")

    def kl(self) -> Tensor:
        raise ValueError("KL of a deterministic posterior is infinite; use a diagonal, full or circulant one")

    def w2_squared(self) -> Tensor:
        return self.mean.square().sum(-1) + self.mean.shape[-1]

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.mean)


@dataclass
class DiagonalGaussian(TorchPosterior):
    """N(mean, diag(scale²)); `scale` (batch, d) is a standard deviation."""

    mean: Tensor
    scale: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        return self.mean + self.scale * noise

    def distribution(self) -> distributions.Distribution:
        return _independent(self.mean, self.scale)

    @property
    def variance(self) -> Tensor:
        return self.scale.square()


@dataclass
class FullGaussian(TorchPosterior):
    """N(mean, root rootᵀ); `root` (batch, d, d) is lower triangular with a positive diagonal."""

    mean: Tensor
    root: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        return self.mean + (self.root @ noise.unsqueeze(-1)).squeeze(-1)

    def distribution(self) -> distributions.Distribution:
        return distributions.MultivariateNormal(self.mean, scale_tril=self.root, validate_args=False)

    def _standard_normal(self) -> distributions.Distribution:
        d = self.mean.shape[-1]
        eye = torch.eye(d, dtype=self.mean.dtype, device=self.mean.device)
        return distributions.MultivariateNormal(self.mean.new_zeros(d), scale_tril=eye, validate_args=False)

    @property
    def variance(self) -> Tensor:
        return self.root.square().sum(-1)


@dataclass
class CirculantGaussian(BatchPosterior):
    """A stationary Gaussian field on a periodic grid: the covariance is circulant, with eigenvalues `spectrum`.

    `mean` (batch, d) is the field, flattened; `spectrum` (batch, *grid) the eigenvalues on the whole FFT grid, where
    s[k] = s[−k]. Circulant and identity commute, so W2² = |mean|² + Σ_k (√s_k − 1)² and nothing d x d is formed.
    """

    mean: Tensor
    spectrum: Tensor

    def _filter(self, field: Tensor, gain: Tensor) -> Tensor:
        """Multiply by `gain` in the Fourier domain: F* diag(gain) F, symmetric because gain[k] = gain[−k]."""
        grid = self.spectrum.shape[1:]
        axes = tuple(range(-len(grid), 0))
        waves = torch.fft.rfftn(field.reshape(*field.shape[:-1], *grid), dim=axes)
        half = gain[..., : grid[-1] // 2 + 1]
        return torch.fft.irfftn(waves * half, s=grid, dim=axes).flatten(-len(grid))

    def rsample(self, noise: Tensor) -> Tensor:
        return self.mean + self._filter(noise, self.spectrum.sqrt())

    def log_prob(self, z: Tensor) -> Tensor:
        white = self._filter(z - self.mean, self.spectrum.rsqrt())
        return -0.5 * (white.square() + LOG_2PI).sum(-1) - 0.5 * self._log_eigenvalues()

    def kl(self) -> Tensor:
        trace = self.spectrum.flatten(1).sum(1)
        return 0.5 * (self.mean.square().sum(-1) + trace - self.mean.shape[-1] - self._log_eigenvalues())

    def w2_squared(self) -> Tensor:
        return otdist.diagonal.w2_squared(self.mean, self.spectrum.sqrt().flatten(1))

    def _log_eigenvalues(self) -> Tensor:
        return self.spectrum.log().flatten(1).sum(1)

    @property
    def variance(self) -> Tensor:
        return self.spectrum.flatten(1).mean(1, keepdim=True).expand_as(self.mean)


# --- families ---------------------------------------------------------------------------------------------------------


class Posterior(ABC):
    """A family of posteriors: how many numbers it takes, and what they mean."""

    @abstractmethod
    def n_outputs(self, latent_dim: int) -> int:
        """How many numbers an encoder predicts for each example."""

    @abstractmethod
    def __call__(self, raw: Tensor, latent_dim: int) -> BatchPosterior:
        """The batch's posterior from the encoder's output, (batch, n_outputs)."""


class Deterministic(Posterior):
    """z is a function of x: what Wasserstein auto-encoders (aggregate regularizers) use."""

    def n_outputs(self, latent_dim: int) -> int:
        return latent_dim

    def __call__(self, raw: Tensor, latent_dim: int) -> Dirac:
        return Dirac(raw)


class Diagonal(Posterior):
    """N(m, diag(σ²)): 2 d numbers."""

    def n_outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def __call__(self, raw: Tensor, latent_dim: int) -> DiagonalGaussian:
        return DiagonalGaussian(raw[:, :latent_dim], positive(raw[:, latent_dim:]))


class Full(Posterior):
    """N(m, LLᵀ) with L lower triangular, its diagonal positive: d + d (d + 1)/2 numbers."""

    def n_outputs(self, latent_dim: int) -> int:
        return latent_dim + latent_dim * (latent_dim + 1) // 2

    def __call__(self, raw: Tensor, latent_dim: int) -> FullGaussian:
        mean, diagonal, below = raw.split([latent_dim, latent_dim, latent_dim * (latent_dim - 1) // 2], dim=1)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1, device=raw.device)
        root = torch.diag_embed(positive(diagonal))
        # 1/√d keeps the sum of a row's squares near 1 at the start, whatever d
        root[:, rows, columns] = below / math.sqrt(latent_dim)
        return FullGaussian(mean, root)


class Circulant(Posterior):
    """A stationary Gaussian random field on a periodic 1-D or 2-D grid; the encoder predicts the field's mean and the
    log-spectrum of its covariance on the real FFT grid.

    Parameters
    ----------
    shape : the grid, e.g. (16,) or (4, 4), with latent_dim points; None is the 1-D grid (latent_dim,).
    """

    def __init__(self, shape: Any = None) -> None:
        self.shape = None if shape is None else [int(n) for n in shape]
        if self.shape is not None and not (1 <= len(self.shape) <= 2 and min(self.shape) >= 1):
            raise ValueError(f"shape must be one or two positive sizes; got {tuple(self.shape)}")

    def grid(self, latent_dim: int) -> list[int]:
        grid = self.shape or [latent_dim]
        if math.prod(grid) != latent_dim:
            raise ValueError(
                f"shape must have latent_dim = {latent_dim} points; got {tuple(grid)} with {math.prod(grid)}"
            )
        return grid

    def n_outputs(self, latent_dim: int) -> int:
        *rows, columns = self.grid(latent_dim)
        return latent_dim + math.prod(rows) * (columns // 2 + 1)

    def __call__(self, raw: Tensor, latent_dim: int) -> CirculantGaussian:
        *rows, columns = self.grid(latent_dim)
        half = positive(raw[:, latent_dim:]).reshape(-1, *rows, columns // 2 + 1)
        mirrored = half[..., 1 : (columns + 1) // 2].flip(-1)  # s[−k] = s[k] along the last axis
        whole = torch.cat([half, self._reverse_rows(mirrored)], -1)
        # a real field needs s[−k] = s[k] in every column; average the two (a no-op in one dimension)
        reflected = self._reverse_rows(whole[..., self._negated(columns, raw.device)])
        return CirculantGaussian(raw[:, :latent_dim], 0.5 * (whole + reflected))

    @staticmethod
    def _negated(n: int, device: torch.device) -> Tensor:
        return (-torch.arange(n, device=device)) % n

    def _reverse_rows(self, spectrum: Tensor) -> Tensor:
        if spectrum.dim() == 2:
            return spectrum
        return spectrum[:, self._negated(spectrum.shape[1], spectrum.device)]


CHOICES = catalogue(Posterior, globals())


def __dir__() -> list[str]:
    return __all__
