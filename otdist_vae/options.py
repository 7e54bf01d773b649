"""How to train: batches, optimiser, precision, hardware."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

LOGGERS = ("csv", "tensorboard", "wandb")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true")


@dataclass
class Options:
    """How to train; every field is a keyword of :meth:`otdist_vae.WVAE.fit`.

    Attributes
    ----------
    batch_size
        Examples per step, over all processes together.
    learning_rate
        Of Adam.
    weight_decay
        Of AdamW.
    gradient_clip
        Largest gradient norm, or None.
    early_stopping
        Epochs without a lower validation loss before stopping, or None. The best weights are kept.
    precision
        Lightning's name: "32-true", "bf16-mixed", "16-mixed", "64-true". Distances stay in float32 or better.
    accelerator, devices, num_nodes, strategy
        Passed to Lightning; under DDP the processes share each batch.
    logger
        "csv" (metrics.csv in the run's folder), and beside it "tensorboard" or "wandb" where installed.
    checkpoint_every
        Epochs between checkpoints.
    progress
        True for a bar, False for silence, None for a bar on a terminal and silence elsewhere.
    """

    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    early_stopping: int | None = None
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    logger: str = "csv"
    checkpoint_every: int = 1
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "checkpoint_every", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        for name in ("gradient_clip", "early_stopping"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive or None; got {getattr(self, name)}")
        if self.logger not in LOGGERS:
            raise ValueError(f"logger must be one of {', '.join(LOGGERS)}; got {self.logger!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}")


OPTION_NAMES = tuple(field.name for field in fields(Options))
