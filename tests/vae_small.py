"""Data and models small enough to train in a blink."""

from __future__ import annotations

import numpy as np

from otdist_vae import WVAE, networks


def table(n: int = 96, d: int = 6, seed: int = 0) -> np.ndarray:
    """A table (n, d) in [0, 1] whose columns depend on two hidden numbers."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d))
    return (1 / (1 + np.exp(-hidden - 0.1 * rng.normal(size=(n, d))))).astype(np.float32)


def labels(n: int = 96) -> np.ndarray:
    return np.arange(n) % 3


def tiny(regularizer="w2", **options) -> WVAE:
    """A model with one hidden layer of 16 and two latent dimensions."""
    options = {"latent_dim": 2, "encoder": networks.MLP((16,)), "random_state": 0, **options}
    return WVAE(options.pop("latent_dim"), regularizer, options.pop("weight", None), **options)


def fitted(regularizer="w2", x=None, y=None, *, max_epochs=2, fit=None, **options) -> WVAE:
    """`tiny`, trained quietly for a moment."""
    quiet = {"progress": False, "batch_size": 32, **(fit or {})}
    return tiny(regularizer, **options).fit(table() if x is None else x, y, max_epochs=max_epochs, **quiet)
