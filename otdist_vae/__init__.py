"""Wasserstein variational auto-encoders: one model, many latent regularizers.

>>> from otdist_vae import WVAE, regularizers
>>> model = WVAE(latent_dim=8, regularizer=regularizers.Sliced(directions=64), weight=10.0)
>>> model.regularizer.scope
'aggregate'
"""

from . import data, likelihoods, networks, posteriors, priors, regularizers, samplers, schedules
from .model import WVAE

__all__ = [
    "WVAE",
    "data",
    "likelihoods",
    "networks",
    "posteriors",
    "priors",
    "regularizers",
    "samplers",
    "schedules",
]
