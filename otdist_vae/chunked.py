"""A trained network over any number of examples: in chunks, without gradients, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .autoencoder import Autoencoder

CHUNK = 1024  # examples sent through the network together


def encode(network: Autoencoder, rows: Tensor, indices: Tensor | None, rng: torch.Generator | None = None) -> Tensor:
    """Posterior means, or with `rng` one draw from each posterior, (n, d)."""

    def one(x: Tensor, y: Tensor | None) -> Tensor:
        posterior = network.posterior(network.scaled(x), y)
        if rng is None:
            return posterior.mean
        return posterior.rsample(torch.randn(posterior.mean.shape, generator=rng, dtype=posterior.mean.dtype))

    return _in_chunks(one, rows, indices, (network.latent_dim,), network.scale.dtype)


def decode(network: Autoencoder, codes: Tensor, indices: Tensor | None) -> Tensor:
    """E[x | z] in data units, (n, ...)."""
    return _in_chunks(network.decode, codes, indices, network.sample_shape, network.scale.dtype)


def _in_chunks(function: Any, rows: Tensor, indices: Tensor | None, shape: tuple[int, ...], dtype: Any) -> Tensor:
    """`function` over the rows, CHUNK at a time, without gradients."""
    out = torch.empty(len(rows), *shape, dtype=dtype)
    with torch.no_grad():
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            out[part] = function(rows[part], None if indices is None else indices[part])
    return out
