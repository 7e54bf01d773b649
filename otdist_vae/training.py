"""The training run: Lightning's loop around `autoencoder.losses`, checkpoints that survive a kill, and its report."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from . import autoencoder
from ._storage import prepare
from .batches import Batches
from .callbacks import BestWeights, CheckpointWriter, ProgressBar
from .checkpoints import CHECKPOINT, AtomicCheckpointIO, read_checkpoint
from .options import OPTIMIZERS, RATE_SCHEDULES, Options, hardware
from .schedules import Schedule
from .threads import is_small_step, one_thread

STAGES = ("forward", "regularizer", "backward")


REMEDY = "lower learning_rate or set gradient_clip"


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; `checkpoint` is where it can go on, or None if nothing was saved."""

    def __init__(self, checkpoint: Path | None, module: LitAutoencoder) -> None:
        super().__init__(f"interrupted; last checkpoint: {checkpoint or 'none'}")
        self.checkpoint, self.module = checkpoint, module


@dataclass
class Run:
    """One run: what identifies it (compared before resuming), how long it is, and where it lives."""

    batches: Batches
    held_out: Batches | None
    max_epochs: int
    weight: float
    schedule: Schedule
    seed: int
    folder: Path | None
    identity: dict[str, Any]
    options: Options
    resume: Path | None = None


class LitAutoencoder(pl.LightningModule):
    """The Lightning side of an Autoencoder. All its randomness comes from one generator, saved in the checkpoint."""

    def __init__(self, model: autoencoder.Autoencoder, run: Run, loaders: list[Batches]) -> None:
        super().__init__()
        self.model = model
        self.run, self.loaders, self.steps_per_epoch = run, loaders, len(loaders[0])
        self.history: list[dict[str, float]] = []
        self.stage_seconds = dict.fromkeys(STAGES, 0.0)
        self.n_steps = 0
        self._sums: dict[str, Tensor] = {}
        self._val_sums: dict[str, Tensor] = {}
        self._rng: torch.Generator | None = None
        self._restored: dict[str, Any] = {}
        self._stage_start = 0.0

    def setup(self, stage: str) -> None:
        for loader in self.loaders:
            sampler = loader.batch_indices
            sampler.world, sampler.rank = self.trainer.world_size, self.trainer.global_rank

    # -- randomness --

    @property
    def rng(self) -> torch.Generator:
        if self._rng is None:
            self._rng = torch.Generator(self.device).manual_seed(self.run.seed)
            if "generator" in self._restored and self.device.type == "cpu":
                self._rng.set_state(self._restored["generator"])
        return self._rng

    def _noise(self, n: int, rng: torch.Generator) -> Tensor:
        """This process's share of the noise of the whole batch: the same whatever the number of processes."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        whole = torch.randn(
            n * world, self.model.latent_dim, generator=rng, device=self.device, dtype=self.model.scale.dtype
        )
        return whole[rank * n : (rank + 1) * n]

    def _gather(self, codes: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return codes
        return _AllGather.apply(codes)

    # -- steps --

    def on_train_epoch_start(self) -> None:
        self.loaders[0].batch_indices.epoch = self.current_epoch
        self._sums = {}
        self._epoch_start = time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        x, y = batch
        epoch = self.current_epoch + batch_idx / self.steps_per_epoch
        factor = self.run.weight * self.run.schedule(epoch)
        self._start_stage()
        noise = self._noise(len(x), self.rng)
        terms = autoencoder.losses(
            self.model, x, y, noise, rng=self.rng, gather=self._gather, end_stage=self._end_stage
        )
        loss = terms.reconstruction + factor * terms.penalty
        self._record(self._sums, loss, terms, len(x))
        return loss if terms.adversary is None else loss + terms.adversary

    @staticmethod
    def _record(sums: dict[str, Tensor], loss: Tensor, terms: autoencoder.Losses, n: int) -> None:
        values = {"loss": loss, "reconstruction": terms.reconstruction, "penalty": terms.penalty}
        if terms.adversary is not None:
            values["adversary"] = terms.adversary
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + n * value.detach()
        sums["n"] = sums.get("n", 0.0) + torch.tensor(float(n), device=loss.device)

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        n = sums["n"]
        means = torch.stack([value / n for name, value in sums.items() if name != "n"])
        if self.trainer.world_size > 1:
            means = self.all_gather(means).mean(0)
        return dict(zip((name for name in sums if name != "n"), means.tolist(), strict=True))

    def finish_epoch(self) -> None:
        """Add the epoch's row to the history; called by the first callback, since callbacks come before this module."""
        row = {"epoch": self.current_epoch, **self._means(self._sums)}
        row["weight"] = self.run.weight * self.run.schedule(self.current_epoch + 1)
        row |= getattr(self, "validation", {})
        row["seconds"] = time.perf_counter() - self._epoch_start
        if not all(map(_finite, row.values())):
            raise FloatingPointError(f"the loss became {row['loss']} in epoch {self.current_epoch}: {REMEDY}")
        self.history.append(row)
        if self.trainer.loggers:
            self.log_dict({k: v for k, v in row.items() if not k.startswith(("val_", "epoch"))}, sync_dist=True)

    # -- where the time goes; on a GPU the queue hides it, so it is measured on a CPU only --

    def _start_stage(self) -> None:
        self._stage_start = time.perf_counter()

    def _end_stage(self, stage: str) -> None:
        now = time.perf_counter()
        self.stage_seconds[stage] += now - self._stage_start
        self._stage_start = now

    def on_before_backward(self, loss: Tensor) -> None:
        self._start_stage()

    def on_after_backward(self) -> None:
        self._end_stage("backward")
        self.n_steps += 1

    def report(self) -> dict[str, Any]:
        """Epochs, steps, seconds an epoch, and the step's milliseconds by part."""
        steps = max(self.n_steps, 1)
        seconds = sorted(row["seconds"] for row in self.history)
        return {
            "epochs": len(self.history),
            "steps": self.n_steps,
            "seconds_per_epoch": seconds[len(seconds) // 2] if seconds else 0.0,
            "step_milliseconds": {stage: 1e3 * total / steps for stage, total in self.stage_seconds.items()},
        }

    # -- optimiser and checkpoint --

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        run, options = self.run, self.run.options
        own = [p for name, p in self.model.named_parameters() if not name.startswith("regularizer.")]
        groups: list[dict[str, Any]] = [{"params": own}]
        adversary = list(self.model.regularizer.parameters())
        if adversary:
            rate = getattr(self.model.regularizer, "learning_rate", None) or 0.5 * options.learning_rate
            groups.append({"params": adversary, "lr": rate})
        optimizer = _optimizer(groups, options)
        if callable(options.rate_schedule):
            return [optimizer], [options.rate_schedule(optimizer)]
        factor = RATE_SCHEDULES[options.rate_schedule]
        return [optimizer], [LambdaLR(optimizer, lambda epoch: factor(min(epoch / run.max_epochs, 1.0)))]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["otdist_vae"] = {
            "identity": self.run.identity,
            "generator": self.rng.get_state(),
            "global_generator": torch.get_rng_state(),
            "history": self.history,
            "split": self.stage_seconds,
            "n_steps": self.n_steps,
            "finished": self.trainer.should_stop,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint["otdist_vae"]
        self.history = list(self._restored["history"])
        self.stage_seconds, self.n_steps = dict(self._restored["split"]), self._restored["n_steps"]

    def on_train_start(self) -> None:
        if self._restored:
            torch.set_rng_state(self._restored["global_generator"])


def _optimizer(groups: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    if not callable(options.optimizer):
        return OPTIMIZERS[options.optimizer](groups, lr=options.learning_rate, weight_decay=options.weight_decay)
    optimizer = options.optimizer(groups)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must give a torch.optim.Optimizer; it gave a {type(optimizer).__name__}")
    return optimizer


class _AllGather(torch.autograd.Function):
    """The codes of all processes, in order of rank. Each process gets back the sum of all processes' gradients for its
    own codes; DDP's mean over the processes then makes the gradient of the whole."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor) -> Tensor:
        world, ctx.rank, ctx.n = torch.distributed.get_world_size(), torch.distributed.get_rank(), len(codes)
        parts = [torch.empty_like(codes) for _ in range(world)]
        torch.distributed.all_gather(parts, codes.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[ctx.rank * ctx.n : (ctx.rank + 1) * ctx.n]


class ValidatedLitAutoencoder(LitAutoencoder):
    """The same with held-out data: Lightning asks for these hooks only where there are some."""

    def validation_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> None:
        x, y = batch
        rng = torch.Generator(self.device).manual_seed(batch_idx)  # the same noise at every epoch
        terms = autoencoder.losses(self.model, x, y, self._noise(len(x), rng), rng=rng, gather=self._gather)
        self._record(self._val_sums, terms.reconstruction + self.run.weight * terms.penalty, terms, len(x))

    def on_validation_epoch_start(self) -> None:
        self._val_sums = {}

    def on_validation_epoch_end(self) -> None:
        self.validation = {f"val_{k}": v for k, v in self._means(self._val_sums).items()}
        self.log_dict(self.validation, sync_dist=True)


def _finite(value: float) -> bool:
    return value - value == 0


def train(model: autoencoder.Autoencoder, run: Run) -> LitAutoencoder:
    """Run the loop; `model` is changed in place. Returns the module, with the history and the time of the stages.

    Nothing is written before Lightning's trainer, with its hardware, its logger and its callbacks, is made.

    Raises
    ------
    Interrupted
        On Ctrl-C.
    FloatingPointError
        If the loss is no longer finite.
    ValueError
        If Lightning refuses an option.
    MemoryError
        If a step asks for more memory than there is.
    """
    module = _module(model, run)
    small = is_small_step(model, run.batches.batch_indices.batch_size)
    if run.resume is not None:
        saved = read_checkpoint(run.resume)["otdist_vae"]
        if saved["finished"]:  # stopped early then, and so now
            run.max_epochs = min(run.max_epochs, len(saved["history"]))
    with _preserving_global_state(run.seed), _refusals_of_lightning(), one_thread(small):
        best, trainer = _trainer(run)
        if run.folder is not None:
            prepare(run.folder)
        try:
            trainer.fit(module, run.batches, run.held_out, ckpt_path=run.resume)
        except (KeyboardInterrupt, SystemExit) as stop:
            if isinstance(stop, SystemExit) and not trainer.interrupted:
                raise
            last = None if run.folder is None else run.folder / CHECKPOINT
            _ready_for_inference(model)
            raise Interrupted(last if last and last.exists() else None, module) from None
    if best.best_weights is not None:
        model.load_state_dict(best.best_weights)
    _ready_for_inference(model)
    return module


def _module(model: autoencoder.Autoencoder, run: Run) -> LitAutoencoder:
    if run.held_out is None:
        return LitAutoencoder(model, run, [run.batches])
    return ValidatedLitAutoencoder(model, run, [run.batches, run.held_out])


@contextlib.contextmanager
def _refusals_of_lightning() -> Iterator[None]:
    """Lightning's own exceptions, and torch's of memory, as the built-in ones they are."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if (
            isinstance(error, torch.OutOfMemoryError)
            or "allocate memory" in str(error)
            or "enough memory" in str(error)
        ):
            raise MemoryError(f"a training step does not fit in memory: {error}") from error
        if "loading state_dict" in str(error):
            raise ValueError(f"the checkpoint is of another network: {error}") from error
        raise


def _ready_for_inference(model: autoencoder.Autoencoder) -> None:
    """On the CPU, evaluating, in a dtype that NumPy has."""
    model.to("cpu").eval()
    if model.scale.dtype == torch.bfloat16:
        model.float()


def _trainer(run: Run) -> tuple[BestWeights, pl.Trainer]:
    options = run.options
    accelerator, devices = hardware(options)
    best = BestWeights(keep_best=bool(options.early_stopping))
    callbacks: list[Callback] = [best, *options.callbacks]
    if options.early_stopping and run.held_out is not None:
        callbacks.append(EarlyStopping("val_loss", patience=options.early_stopping, check_on_train_epoch_end=True))
    if options.progress or (options.progress is None and sys.stderr.isatty()):
        callbacks.append(ProgressBar(run.max_epochs))
    if run.folder is not None:
        callbacks.append(CheckpointWriter(run.folder, options.checkpoint_every, run.max_epochs))
    trainer = pl.Trainer(
        max_epochs=run.max_epochs,
        accelerator=accelerator,
        devices=devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=options.precision,
        gradient_clip_val=options.gradient_clip,
        callbacks=callbacks,
        logger=_logger(options.logger, run.folder),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.folder,
        enable_checkpointing=run.folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    return best, trainer


def _logger(name: Any, folder: Path | None) -> Any:
    """The extra logger, by name unless it is one; the CSV of every run is the CheckpointWriter's."""
    if not isinstance(name, str):
        return name
    if name == "csv":
        return False
    if folder is None:
        raise ValueError(f"logger {name!r} needs folder=")
    from lightning.pytorch import loggers

    try:
        if name == "tensorboard":
            return loggers.TensorBoardLogger(folder, name="tensorboard", version="")
        return loggers.WandbLogger(save_dir=folder, project="otdist-vae")
    except ModuleNotFoundError as error:
        raise ValueError(f"logger {name!r} is not installed: {error}") from None


@contextlib.contextmanager
def _preserving_global_state(seed: int) -> Iterator[None]:
    """Lightning sets grad mode, a signal handler and log lines; the world after a fit is the world before it.

    Inside, torch's own generator starts from the run's seed, for modules with dropout.
    """
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    main_thread_handler = signal.getsignal(signal.SIGINT)
    log.setLevel(logging.WARNING)
    devices = list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13's pytree for a class that is on its way out
            warnings.filterwarnings("ignore", r".*LeafSpec.*", FutureWarning)
            torch.manual_seed(seed)
            yield
    finally:
        log.setLevel(level)
        if signal.getsignal(signal.SIGINT) is not main_thread_handler and main_thread_handler is not None:
            with contextlib.suppress(ValueError):  # only the main thread may set it
                signal.signal(signal.SIGINT, main_thread_handler)
