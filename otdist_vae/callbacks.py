"""What happens around an epoch: its row of the history, the best weights, checkpoints, curves and the progress bar."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

from ._storage import CHECKPOINT, CURVES, write_atomically


class BestWeights(Callback):
    """Stands first: closes the epoch's books and, under early stopping, keeps the best weights so far."""

    def __init__(self, keep_best: bool) -> None:
        self.keep_best = keep_best
        self.best_loss = float("inf")
        self.best_weights: dict[str, Tensor] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.finish_epoch()
        loss = getattr(module, "validation", {}).get("val_loss")
        if self.keep_best and loss is not None and loss < self.best_loss:
            self.best_loss = loss
            self.best_weights = {k: v.detach().clone() for k, v in module.model.state_dict().items()}

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["otdist_vae_best"] = {"loss": self.best_loss, "weights": self.best_weights}

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        best = checkpoint["otdist_vae_best"]
        self.best_loss, self.best_weights = best["loss"], best["weights"]


class CheckpointWriter(Checkpoint):
    """Saves once everything else of the epoch is done: Lightning calls a Checkpoint last, after EarlyStopping."""

    def __init__(self, folder: Path, every: int, last_epoch: int) -> None:
        self.folder, self.every, self.last_epoch = folder, every, last_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 or epoch >= self.last_epoch or trainer.should_stop:
            trainer.save_checkpoint(self.folder / CHECKPOINT)
        if trainer.is_global_zero:
            write_curves(self.folder / CURVES, module.history)


class ProgressBar(Callback):
    """One bar over the epochs."""

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        self.bar = tqdm(total=self.max_epochs, initial=trainer.current_epoch, unit="epoch", dynamic_ncols=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        row = module.history[-1]
        shown = {k: f"{row[k]:.4g}" for k in ("loss", "val_loss", "reconstruction", "penalty") if k in row}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


def write_curves(path: Path, history: list[dict[str, float]]) -> None:
    """The history as CSV, one row an epoch."""
    if not history:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())
