"""How to train: batches, optimiser, precision, hardware."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from .typed import shown, typed

__all__ = ["Options", "hardware"]

LOGGERS = ("csv", "tensorboard", "wandb")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true")
PYTHON_ONLY = {"python_only": True}  # the mark of a field that no configuration file can hold

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda groups, **rates: torch.optim.SGD(groups, momentum=0.9, **rates),
    "rmsprop": torch.optim.RMSprop,
}
# the factor of the learning rate at a fraction of the run in [0, 1]
RATE_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
}


@dataclass
class Options:
    """How to train; every field is a keyword of :meth:`otdist_vae.WVAE.fit`.

    Attributes
    ----------
    batch_size
        Examples per step, over all processes together. A DataLoader's own, if one is fitted and this is not given.
    learning_rate
        Of the optimizer.
    weight_decay
        Of the optimizer; decoupled from the gradient under "adamw".
    optimizer
        "adamw", "adam", "sgd" (momentum 0.9), "rmsprop", or in Python a function of parameter groups, as
        :class:`torch.optim.Optimizer` takes them, that gives an optimizer with its own learning rate.
    rate_schedule
        How the learning rate moves over `max_epochs`: "constant", "linear" or "cosine" down to 0, or in Python a
        function from an optimizer to a torch.optim.lr_scheduler, stepped after each epoch.
    max_steps
        Steps of the optimizer, rounded up to whole epochs; with `max_epochs`, whichever ends first. None is no limit.
    gradient_clip
        Largest gradient norm, or None.
    early_stopping
        Epochs without a lower validation loss before stopping, or None. The best weights are kept.
    precision
        Lightning's name: "32-true", "bf16-mixed", "16-mixed", "64-true". Distances stay in float32 or better.
    device
        "cpu", "cuda", "cuda:1" or "mps": where to train, instead of `accelerator` and `devices`.
    accelerator, devices, num_nodes, strategy
        Passed to Lightning; under DDP the processes share each batch.
    logger
        "csv" (metrics.csv in the run's folder), and beside it "tensorboard" or "wandb" where installed, or in Python
        one of Lightning's loggers or a list of them.
    callbacks
        Lightning callbacks of your own; Python only.
    checkpoint_every
        Epochs between checkpoints.
    progress
        True for a bar, False for silence, None for a bar on a terminal and silence elsewhere.
    """

    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    optimizer: Any = "adamw"
    rate_schedule: Any = "constant"
    max_steps: int | None = None
    gradient_clip: float | None = None
    early_stopping: int | None = None
    precision: str = "32-true"
    device: str | None = None
    accelerator: Any = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: Any = "auto"
    logger: Any = "csv"
    callbacks: Sequence[Any] = field(default=(), metadata=PYTHON_ONLY)
    checkpoint_every: int = 1
    progress: bool | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            setattr(self, each.name, typed(each.name, getattr(self, each.name), str(each.type)))
        for name in ("batch_size", "checkpoint_every", "learning_rate", "num_nodes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        for name in ("gradient_clip", "early_stopping", "max_steps"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive or None; got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be nonnegative; got {self.weight_decay}")
        _known("precision", self.precision, PRECISIONS)
        for name, choices in (("optimizer", OPTIMIZERS), ("rate_schedule", RATE_SCHEDULES)):
            if not callable(getattr(self, name)):
                _known(name, getattr(self, name), tuple(choices))
        if isinstance(self.logger, str):
            _known("logger", self.logger, LOGGERS)
        self._check_callbacks()

    def _check_callbacks(self) -> None:
        given = self.callbacks if isinstance(self.callbacks, (list, tuple)) else [self.callbacks]
        if not given:
            return
        from lightning.pytorch.callbacks import Callback

        for callback in given:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks must be a list of Lightning callbacks; got {shown(callback)}")

    def described(self) -> dict[str, Any]:
        """The options as plain values, for a configuration; objects by the name of their class."""
        kept = [f.name for f in fields(self) if not f.metadata.get("python_only")]
        return {name: _plain(getattr(self, name)) for name in kept}


def _known(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {shown(value)}")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


OPTION_NAMES = tuple(each.name for each in fields(Options))
SETTING_NAMES = tuple(each.name for each in fields(Options) if not each.metadata.get("python_only"))


# --- hardware ---------------------------------------------------------------------------------------------------------


def hardware(options: Options) -> tuple[Any, Any]:
    """Lightning's accelerator and devices, checked against what this machine has.

    Raises
    ------
    ValueError
        Naming the option, and how many devices there are.
    """
    from lightning.pytorch.accelerators import AcceleratorRegistry

    accelerator, devices = _from_device(options)
    if not isinstance(accelerator, str):
        return accelerator, devices
    known = sorted({"auto", "gpu", *AcceleratorRegistry.available_accelerators()})
    _known("accelerator", accelerator, tuple(known))
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    there = {name: n for name, n in counts.items() if n}
    if accelerator in ("gpu", *counts) and not (there if accelerator == "gpu" else there.get(accelerator)):
        raise ValueError(f"accelerator {accelerator!r}: this machine has none")
    if accelerator == "auto":
        accelerator = next(iter(there), "cpu")
    _check_devices(devices, _n_devices(accelerator, there), accelerator)
    return accelerator, devices


def _from_device(options: Options) -> tuple[Any, Any]:
    if options.device is None:
        return options.accelerator, options.devices
    try:
        device = torch.device(options.device)
    except RuntimeError:
        raise ValueError(f"device must be 'cpu', 'cuda', 'cuda:1', 'mps' or the like; got {options.device!r}") from None
    if device.type == "cpu":
        return "cpu", 1
    return device.type, [device.index or 0]


def _n_devices(accelerator: str, there: dict[str, int]) -> int | None:
    """How many devices there are; None where only Lightning knows."""
    if accelerator == "cpu":
        return os.cpu_count() or 1
    return max(there.values()) if accelerator == "gpu" else there.get(accelerator)


def _check_devices(devices: Any, n: int | None, accelerator: str) -> None:
    if devices == "auto" or n is None:
        return
    text = isinstance(devices, str)
    if text:
        try:
            devices = [int(part) for part in devices.split(",")] if "," in devices else int(devices)
        except ValueError:
            raise ValueError(f"devices must be a number, 'auto' or a list of numbers; got {devices!r}") from None
    if isinstance(devices, (list, tuple)):
        fit = bool(devices) and all(type(k) is int and 0 <= k < n for k in devices) and accelerator != "cpu"
    else:
        fit = type(devices) is int and ((devices == -1 and accelerator != "cpu") or 1 <= devices <= n)
    if not fit:
        raise ValueError(f"devices must be 1 to {n}, as many as this machine has ({accelerator}); got {shown(devices)}")


def __dir__() -> list[str]:
    return __all__
