"""Wasserstein variational auto-encoders: one model, many latent regularizers.

>>> from otdist_vae import WVAE, regularizers
>>> model = WVAE(latent_dim=8, regularizer=regularizers.Sliced(directions=64), weight=10.0)
>>> model.regularizer.scope
'aggregate'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        comparison,
        data,
        diagnostics,
        evaluation,
        export,
        features,
        likelihoods,
        networks,
        options,
        posteriors,
        priors,
        regularizers,
        samplers,
        schedules,
        training,
    )
    from .model import WVAE

__all__ = [
    "WVAE",
    "comparison",
    "data",
    "diagnostics",
    "evaluation",
    "export",
    "features",
    "likelihoods",
    "networks",
    "options",
    "posteriors",
    "priors",
    "regularizers",
    "samplers",
    "schedules",
    "training",
]


def __getattr__(name: str) -> Any:
    # on first use: torch takes seconds to import, and `otdist-vae --help` needs none of it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module(f"{__name__}.model").WVAE if name == "WVAE" else import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("otdist", "otdist_vae"):
            raise
        raise ModuleNotFoundError(
            f'{__name__} needs {error.name}: pip install "otdist[vae]"', name=error.name
        ) from error


def __dir__() -> list[str]:
    return __all__
