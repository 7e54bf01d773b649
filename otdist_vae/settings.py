"""The settings of a run: their names, types, defaults and choices, read off the signatures of WVAE, fit and Options."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from . import likelihoods, networks, posteriors, priors, regularizers, samplers, schedules
from .model import WVAE
from .options import SETTING_NAMES, Options
from .typed import argument_annotations, argument_defaults, shown, typed

NOT_SETTINGS = ("conditional", "random_state")  # of the model: the run has its own
MODEL_DEFAULTS = {name: value for name, value in argument_defaults(WVAE).items() if name not in NOT_SETTINGS}
FIT_DEFAULTS = {name: argument_defaults(WVAE.fit)[name] for name in ("max_epochs", "validation")}
RUN_DEFAULTS: dict[str, Any] = {
    "data": None,
    "limit": None,
    "conditional": False,
    "seed": 0,
    "sampler": None,
    "warm_start": None,
}
DEFAULTS = {**RUN_DEFAULTS, **FIT_DEFAULTS, **MODEL_DEFAULTS}
CHOICES = {
    "regularizer": regularizers.CHOICES,
    "posterior": posteriors.CHOICES,
    "prior": priors.CHOICES,
    "encoder": networks.CHOICES,
    "decoder": networks.CHOICES,
    "likelihood": likelihoods.CHOICES,
    "schedule": schedules.CHOICES,
    "sampler": samplers.NAMES,
}
ANNOTATIONS = {
    **argument_annotations(WVAE),
    **argument_annotations(WVAE.fit),
    **{each.name: str(each.type) for each in fields(Options)},
    "accelerator": "str",
    "strategy": "str",
    "optimizer": "str",
    "rate_schedule": "str",
    "logger": "str",
    "data": "str | None",
    "limit": "int | None",
    "conditional": "bool",
    "seed": "int",
    "sampler": "str | None",
    "warm_start": "str | None",
    "validation": "float | None",
}
LARGEST_FILE = 2**20  # bytes of a configuration; a hand cannot write more


def default(name: str) -> Any:
    """The default of a setting."""
    return DEFAULTS[name] if name in DEFAULTS else getattr(Options(), name)


def known_keys() -> list[str]:
    """Every key a configuration may have."""
    return [*DEFAULTS, *SETTING_NAMES]


def parse(text: str, where: str) -> Any:
    """A YAML text's value; anchors are not followed, since a few of them can stand for a billion values.

    Raises
    ------
    ValueError
        Naming `where` and what is wrong, in one line.
    """
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                raise ValueError(f"{where}: YAML aliases (*{token.value:.40}) are not read")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where} is not readable YAML: {' '.join(str(error).split())[:200]}") from None


def read_config(path: Path) -> dict[str, Any]:
    """A YAML configuration, checked key by key.

    Raises
    ------
    OSError, ValueError
        If it is no YAML mapping or has a key that nothing understands.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too many for a configuration")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not readable YAML: {error}") from None
    config = parse(text, str(path))
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
            raise ValueError(f"{where}: unknown setting {shown(key)}; known are {', '.join(known)}")


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """A whole configuration, missing settings from DEFAULTS, each value of its type.

    Raises
    ------
    ValueError
        Naming the setting, the rule and what arrived.

    Examples
    --------
    >>> checked({"learning_rate": "1e-3", "max_epochs": 5})["learning_rate"]
    0.001
    >>> checked({"sampler": "weird"})
    Traceback (most recent call last):
    ValueError: sampler must be one of auto, prior, gaussian, mixture; got 'weird'
    """
    whole = {
        key: typed(key, value, ANNOTATIONS.get(key, "Any"), from_text=True)
        for key, value in {**DEFAULTS, **config}.items()
    }
    if whole["sampler"] not in (None, *samplers.NAMES):
        raise ValueError(f"sampler must be one of {', '.join(samplers.NAMES)}; got {shown(whole['sampler'])}")
    for key, least in (("seed", 0), ("max_epochs", 1), ("limit", 2)):
        if whole[key] is not None and whole[key] < least:
            raise ValueError(f"{key} must be at least {least}; got {whole[key]}")
    if not 0 <= (whole["validation"] or 0) < 1:
        raise ValueError(f"validation must be a fraction between 0 and 1; got {whole['validation']}")
    return whole
