"""The settings of a run: their names, defaults and choices, read off the signatures of WVAE, fit and Options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from . import likelihoods, networks, posteriors, priors, regularizers, samplers, schedules
from .model import WVAE
from .options import OPTION_NAMES, Options


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function that have a default, and it."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.default is not p.empty}


MODEL_DEFAULTS = {name: value for name, value in _defaults(WVAE).items() if name != "random_state"}
FIT_DEFAULTS = {name: _defaults(WVAE.fit)[name] for name in ("max_epochs", "validation")}
RUN_DEFAULTS: dict[str, Any] = {"data": None, "conditional": False, "seed": 0, "sampler": None}
DEFAULTS = {**RUN_DEFAULTS, **FIT_DEFAULTS, **MODEL_DEFAULTS}
CHOICES = {
    "regularizer": tuple(regularizers.CHOICES),
    "posterior": tuple(posteriors.CHOICES),
    "prior": tuple(priors.CHOICES),
    "encoder": tuple(networks.CHOICES),
    "decoder": tuple(networks.CHOICES),
    "likelihood": tuple(likelihoods.CHOICES),
    "schedule": tuple(schedules.CHOICES),
    "sampler": samplers.NAMES,
}


def default(name: str) -> Any:
    """The default of a setting."""
    return DEFAULTS[name] if name in DEFAULTS else asdict(Options())[name]


def known_keys() -> list[str]:
    """Every key a configuration may have."""
    return [*DEFAULTS, *OPTION_NAMES]


def read_config(path: Path) -> dict[str, Any]:
    """A YAML configuration, checked key by key.

    Raises
    ------
    ValueError
        If it is no YAML mapping or has a key that nothing understands.
    """
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a mapping of settings; got {type(config).__name__}")
    check_keys(config, str(path))
    return config


def check_keys(config: dict[str, Any], where: str) -> None:
    """Raises ValueError naming the first unknown key and the known ones."""
    known = known_keys()
    for key in config:
        if key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}; known are {', '.join(known)}")
