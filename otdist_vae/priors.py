"""What codes should look like: the standard normal, or a Gaussian mixture with learnable means."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from ._config import catalogue

__all__ = ["Mixture", "Normal", "Prior"]

LOG_2PI = math.log(2 * math.pi)


class Prior(nn.Module):
    """A density p(z) on latent codes of shape (..., d)."""

    def build(self, latent_dim: int, generator: torch.Generator | None = None) -> None:
        """Allocate what is learnable, once the latent dimension is known."""

    @abstractmethod
    def sample(self, n: int, latent_dim: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`n` draws, (n, d), differentiable in the prior's own parameters."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), shape (...)."""

    @abstractmethod
    def moments(self, latent_dim: int) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d)."""


def standard_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I), shape (...) for z of shape (..., d)."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * LOG_2PI)


class Normal(Prior):
    """The standard normal N(0, I)."""

    origin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(()), persistent=False)  # remembers device and dtype

    def sample(self, n: int, latent_dim: int, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, latent_dim, generator=generator, device=self.origin.device, dtype=self.origin.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return standard_log_prob(z)

    def moments(self, latent_dim: int) -> tuple[Tensor, Tensor]:
        eye = torch.eye(latent_dim, device=self.origin.device, dtype=self.origin.dtype)
        return eye.new_zeros(latent_dim), eye


class Mixture(Prior):
    """(1/K) Σ_k N(m_k, I) with learnable means m_k, drawn at first from N(0, spread²·I).

    Parameters
    ----------
    n_components : number of components K.
    spread : standard deviation of the first means; 2 keeps neighbouring unit components apart.
    """

    means: Tensor

    def __init__(self, n_components: int = 10, spread: float = 2.0) -> None:
        super().__init__()
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1; got {n_components}")
        if not spread >= 0:
            raise ValueError(f"spread must be nonnegative; got {spread}")
        self.n_components, self.spread = n_components, spread
        self.register_parameter("means", None)

    def build(self, latent_dim: int, generator: torch.Generator | None = None) -> None:
        first = self.spread * torch.randn(self.n_components, latent_dim, generator=generator)
        self.means = nn.Parameter(first)

    def sample(self, n: int, latent_dim: int, *, generator: torch.Generator | None = None) -> Tensor:
        device, dtype = self.means.device, self.means.dtype
        noise = torch.randn(n, latent_dim, generator=generator, device=device, dtype=dtype)
        which = torch.randint(self.n_components, (n,), generator=generator, device=device)
        return self.means[which] + noise

    def log_prob(self, z: Tensor) -> Tensor:
        each = standard_log_prob(z.unsqueeze(-2) - self.means)
        return each.logsumexp(-1) - math.log(self.n_components)

    def moments(self, latent_dim: int) -> tuple[Tensor, Tensor]:
        mean = self.means.mean(0)
        centred = self.means - mean
        eye = torch.eye(latent_dim, device=mean.device, dtype=mean.dtype)
        return mean, eye + centred.T @ centred / self.n_components


CHOICES = catalogue(Prior, globals())


def __dir__() -> list[str]:
    return __all__
