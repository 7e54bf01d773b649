"""A run's folder: its configuration, checkpoints, curves, model, table of metrics and pictures.

A new run is trained in the folder itself. A run that replaces or prolongs another is trained in ``unfinished`` beneath
it, and takes its place when it is whole: whatever happens before, the old run is there, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _storage, batches, data, plots, samplers, staging
from ._storage import CHECKPOINT, CONFIG, CURVES
from .model import WVAE
from .options import SETTING_NAMES, Options, hardware
from .rows import as_rows
from .settings import DEFAULTS as DEFAULTS
from .settings import MODEL_DEFAULTS, checked, read_config

if TYPE_CHECKING:
    from .starting import Start

METRICS, TABLE = "metrics.json", "metrics.md"
REPORTS = ("evaluation.json", "evaluation.md", "evaluation.png", "doctor.md", "report.html")
PICTURES = ("samples.png", "reconstructions.png", "latent.png", "curves.png")
MADE = (CONFIG, METRICS, TABLE, CURVES, CHECKPOINT, _storage.DESCRIPTION, _storage.WEIGHTS, *PICTURES)
LOGS = ("tensorboard", "wandb")  # folders that loggers make
TARGET = "OTDIST_VAE_TARGET"  # tells the processes that Lightning starts where the first of them trains


def build(config: dict[str, Any]) -> WVAE:
    """The model a configuration describes."""
    options = {key: config[key] for key in MODEL_DEFAULTS if config.get(key) is not None}
    return WVAE(random_state=config["seed"], **options)


def examples_of(config: dict[str, Any]) -> data.Examples:
    """The data that a configuration names: all of them, or the `limit` that its seed draws."""
    if config["data"] is None:
        raise ValueError("data must be given: 'digits' or a file or folder")
    examples = data.load(config["data"])
    limit = config.get("limit")
    if limit is None or limit >= len(examples.x):
        return examples
    chosen = np.sort(np.random.default_rng([config["seed"], 2**32]).permutation(len(examples.x))[:limit])
    return data.Examples(examples.x[chosen], None if examples.y is None else examples.y[chosen], examples.columns)


def train(config: dict[str, Any], folder: Path, *, resume: bool, overwrite: bool = False) -> WVAE:
    """Train as `config` says and leave everything in `folder`.

    Raises
    ------
    ValueError, TypeError, OSError, ArithmeticError, MemoryError
        What is wrong; the folder then holds what it held before.
    """
    config = checked(config)
    model, options = build(config), Options(**{key: config[key] for key in SETTING_NAMES if key in config})
    hardware(options)
    examples = examples_of(config)
    if config["conditional"] and examples.y is None:
        raise ValueError(f"conditional needs labels, but {config['data']} has none")
    target = _target(folder, resume, overwrite)
    checkpoint = _checkpoint(folder, target) if resume else None
    warm = config["warm_start"] is not None and checkpoint is None
    if warm:
        config["warm_start"] = str(Path(config["warm_start"]).absolute())
        _start_from(model, Path(config["warm_start"]))
    described = {k: v for k, v in model.describe().items() if k != "random_state"}
    whole = {**config, **described, **options.described(), "data": _lasting(config["data"])}
    from .starting import Start  # with Lightning, which takes long to import: reading a run does without it

    start = Start(target, whole, checkpoint, fresh=overwrite)
    with _nothing_lost(start):
        model.fit(
            examples.x,
            examples.y if config["conditional"] else None,
            max_epochs=config["max_epochs"],
            validation=config["validation"],
            folder=target,
            resume=checkpoint,
            warm_start=warm,
            **{**options.__dict__, "callbacks": [start]},
        )
        if is_first_process():
            model.save(target)
    if is_first_process():
        _finish(model, examples, config, target, folder, keep_logs=resume)
    return model


def _finish(
    model: WVAE, examples: data.Examples, config: dict[str, Any], target: Path, folder: Path, *, keep_logs: bool
) -> None:
    """Pictures and tables; then the new run takes the old one's place, also if it is a picture that cannot be drawn."""
    try:
        report(model, examples, target, config)
    except OSError:  # a full disk: --resume auto ends it
        raise
    except Exception:
        if target != folder:
            _install(folder, keep_logs)
        raise
    if target != folder:
        _install(folder, keep_logs)


def is_first_process() -> bool:
    """Whether this process writes, and is not one of those that Lightning starts beside it."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def _target(folder: Path, resume: bool, overwrite: bool) -> Path:
    """Where to train: in the folder itself, or in `unfinished` where it holds something to be kept until then."""
    if TARGET in os.environ and not is_first_process():
        return Path(os.environ[TARGET])
    if folder.is_dir():
        staging.recover(folder)
    unfinished = staging.staged(folder)
    taken = occupied(folder) if overwrite else (folder / _storage.DESCRIPTION).exists()
    return unfinished if taken or (resume and (unfinished / CONFIG).exists()) else folder


def config_of(folder: Path) -> Path:
    """The configuration of the run that was begun last in a folder."""
    unfinished = staging.staged(folder) / CONFIG
    return unfinished if unfinished.is_file() else folder / CONFIG


def _checkpoint(folder: Path, target: Path) -> Path | None:
    """What to go on from: the target's own checkpoint, or if no run was begun there, that of the folder's run."""
    if (target / CHECKPOINT).exists():
        return target / CHECKPOINT
    begun = target == folder or (target / CONFIG).exists()
    return folder / CHECKPOINT if not begun and (folder / CHECKPOINT).exists() else None


def _lasting(source: str) -> str:
    """The data's name in the configuration: absolute, so that the run can be read from any folder."""
    return source if source == "digits" else str(Path(source).absolute())


def _start_from(model: WVAE, folder: Path) -> None:
    former = WVAE.load(folder)
    model.network, model.classes = former.network, former.classes


@contextmanager
def _nothing_lost(start: Start) -> Iterator[None]:
    """If training fails, the target's configuration is as before, and what was made without a checkpoint is gone."""
    os.environ[TARGET] = str(start.target)
    try:
        yield
    except BaseException as error:
        if is_first_process() and not getattr(error, "checkpoint", None):
            start.undo()
        raise
    finally:
        del os.environ[TARGET]


def _install(folder: Path, keep_logs: bool) -> None:
    new, old = (path / _storage.WEIGHTS for path in (staging.staged(folder), folder))
    same = old.is_file() and old.read_bytes() == new.read_bytes()
    logs = () if keep_logs else LOGS
    staging.install(folder, (*MADE, *logs, *(() if same else REPORTS)))


def occupied(folder: Path) -> bool:
    """Whether something is in the way of a new run."""
    return folder.is_dir() and any(folder.iterdir())


@dataclass
class LoadedRun:
    """A run read back: its model, configuration, and data in the parts it was trained with."""

    model: WVAE
    config: dict[str, Any]
    examples: data.Examples
    kept: np.ndarray
    held: np.ndarray

    def part(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """x and, for a class-conditional model, y of some examples."""
        y = None if self.model.classes is None or self.examples.y is None else self.examples.y[index]
        return self.examples.x[index], y


def read(folder: Path, source: str | None = None) -> LoadedRun:
    """A finished run's model and data; `source` names other data, all of it then held out.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder holds no finished run, or the data cannot be read or do not fit the model.
    """
    model, path = WVAE.load(folder), folder / CONFIG
    config = checked(read_config(path) if path.is_file() else {})
    if source is not None:
        config = {**config, "data": source, "limit": None}
    elif config["data"] is None:
        raise ValueError(f"{folder} does not say what it was trained on (no {CONFIG}); name the data")
    else:
        config["data"] = _found(config["data"], folder)
    examples = examples_of(config)
    _check_fit(model, examples, config["data"])
    everything = np.arange(len(examples.x))
    if source is not None:
        return LoadedRun(model, config, examples, everything[:0], everything)
    if not config["validation"]:
        return LoadedRun(model, config, examples, everything, everything)
    kept, held = batches.split(len(examples.x), config["validation"], model.seed)
    return LoadedRun(model, config, examples, kept, held)


def _found(source: str, folder: Path) -> str:
    """The data of a run, also where an older configuration names them relative to the folder that was current then."""
    for path in (Path(source), folder / source, folder.parent / source):
        if source == "digits" or path.exists():
            return source if source == "digits" else str(path)
    raise FileNotFoundError(
        f"{source}, which {folder} was trained on, is not there; say in {folder / CONFIG} where it is"
    )


def _check_fit(model: WVAE, examples: data.Examples, source: str) -> None:
    shape = model.fitted_network().sample_shape
    if examples.x.shape[1:] != shape:
        raise ValueError(f"{source} has examples of shape {examples.x.shape[1:]}, and the model is for {shape}")
    as_rows(examples.x, minimum=0)  # refuses NaN
    if model.classes is None:
        return
    if examples.y is None:
        raise ValueError(f"the model is class-conditional, and {source} has no labels")
    strange = np.setdiff1d(examples.y, model.classes)
    if len(strange):
        raise ValueError(f"{source} has the class {strange[0]}, which the model was not trained on")


def report(model: WVAE, examples: data.Examples, folder: Path, config: dict[str, Any]) -> None:
    """Pictures and the table of metrics."""
    held = np.arange(len(examples.x))
    if config["validation"]:
        held = batches.split(len(examples.x), config["validation"], model.seed)[1]
    x, classes = examples.x[held], None
    if model.classes is not None and examples.y is not None:
        classes = examples.y[held]
    shown = slice(0, 50)
    rebuilt = np.asarray(model.reconstruct(x, classes))
    per_class = None if model.classes is None else np.resize(model.classes, 100)
    drawn = np.asarray(model.sample(100, per_class, sampler=config.get("sampler")))
    limits = (float(examples.x.min()), float(examples.x.max()))
    if plots.is_image(x.shape[1:]):
        name = model.sampler_name(config.get("sampler"))
        plots.save(
            plots.images(drawn, limits=limits, title=f"samples, codes from the {samplers.DENSITIES[name]}"),
            folder / "samples.png",
        )
        plots.save(plots.pairs(x[shown], rebuilt[shown], limits=limits), folder / "reconstructions.png")
    else:
        plots.save(plots.clouds(x, drawn, title="samples"), folder / "samples.png")
        plots.save(plots.clouds(x, rebuilt, title="reconstructions"), folder / "reconstructions.png")
    codes = np.asarray(model.encode(examples.x, examples.y if model.classes is not None else None))
    plots.save(plots.latent(codes, examples.classes_to_show()), folder / "latent.png")
    plots.save(plots.curves(model.history, penalty=penalty_name(model)), folder / "curves.png")
    write_metrics(folder, metrics(model, x, rebuilt, codes))


def penalty_name(model: WVAE) -> str:
    """The regularizer and its scope, as pictures and tables call it."""
    return f"{type(model.regularizer).__name__} ({model.regularizer.scope})"


def metrics(model: WVAE, x: np.ndarray, rebuilt: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """The run's numbers: held-out reconstruction, the losses of the last epoch, the codes' moments, the times."""
    last = model.history[-1]
    error, share = reconstruction_error(x, rebuilt)
    return {
        "regularizer": type(model.regularizer).__name__,
        "scope": model.regularizer.scope,
        "weight": model.weight,
        "weight against the summed squared error": model.effective_weight(),
        "held-out root mean squared error, in the data's units": error,
        "held-out squared error over the data's variance": share,
        **{k: v for k, v in last.items() if k not in ("weight", "seconds")},
        "mean code variance": float(codes.var(0).mean()),
        "mean code norm": float(np.linalg.norm(codes.mean(0))),
        "samples": str(model.sampler_choice),
        **{k: v for k, v in model.report.items() if k not in ("epochs", "sampler")},
    }


def reconstruction_error(x: Any, rebuilt: Any) -> tuple[float, float | None]:
    """Root mean squared error in the data's units, and its square over the variance; None for data that do not vary."""
    x, rebuilt = np.asarray(x, dtype=np.float64), np.asarray(rebuilt, dtype=np.float64)
    squared, variance = float(((x - rebuilt) ** 2).mean()), float(x.var(0).mean())
    return squared**0.5, squared / variance if variance > 1e-12 * float((x**2).mean()) else None


def write_metrics(folder: Path, values: dict[str, Any]) -> None:
    """metrics.json, and the same as a table in metrics.md."""
    _storage.write_atomically(folder / METRICS, (json.dumps(values, indent=2) + "\n").encode())
    _storage.write_atomically(folder / TABLE, table(values).encode())


def table(values: dict[str, Any]) -> str:
    """A two-column Markdown table; nested values get rows of their own."""
    rows = ["| metric | value |", "|---|---|"]
    for key, value in values.items():
        for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:.6g}" if isinstance(number, float) else str(number)
            rows.append(f"| {key.replace('_', ' ')}{' ' + inner if inner else ''} | {shown} |")
    return "\n".join(rows) + "\n"


@dataclass
class Report:
    """What a command says of a run, and the files that hold it."""

    text: str
    files: dict[str, bytes]

    def write(self, folder: Path) -> None:
        """Write the files into the run's folder, each whole or not at all. Raises OSError."""
        for name, content in self.files.items():
            _storage.write_atomically(folder / name, content)


def evaluate(
    folder: Path, source: str | None = None, sampler: str | None = None, features: str | None = None
) -> Report:
    """Evaluate a run on its held-out part or on other data: the table; evaluation.json, .md and .png."""
    from . import evaluation
    from .features import NAMES

    if features not in (None, *NAMES):
        raise ValueError(f"features must be one of {', '.join(NAMES)}; got {features!r}")
    if sampler not in (None, *samplers.NAMES):
        raise ValueError(f"sampler must be one of {', '.join(samplers.NAMES)}; got {sampler!r}")
    loaded = read(folder, source)
    x, y = loaded.part(loaded.held)
    trained = loaded if source is None else read(folder)
    part = loaded.kept if source is None else slice(None)
    reference, labels = trained.examples.x[part], None if trained.examples.y is None else trained.examples.y[part]
    model, name = loaded.model, loaded.model.sampler_name(sampler or loaded.config["sampler"])
    features = features or evaluation.feature_spaces.default(labels)
    result = evaluation.evaluate(model, x, y, reference=reference, reference_y=labels, features=features, sampler=name)
    whole = {"sampler": name, "features": features, "held-out examples": len(x), "metrics": result}
    where = f"samples: codes from the {samplers.DENSITIES[name]}; distances in features: {features}"
    text = f"{where}\n\n{evaluation.table(result)}"
    drawn = np.asarray(model.sample(64, None if y is None else np.resize(y, 64), sampler=name))
    files = {
        "evaluation.json": (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode(),
        "evaluation.md": text.encode(),
        "evaluation.png": plots.png(_comparison_picture(x, drawn, np.asarray(reference))),
    }
    return Report(text, files)


def _comparison_picture(x: np.ndarray, drawn: np.ndarray, reference: np.ndarray) -> Any:
    """Held-out data, samples, and the training example nearest to each sample."""
    if not plots.is_image(x.shape[1:]):
        return plots.clouds(x, drawn, title="held-out data and samples")
    from scipy.spatial.distance import cdist

    flat = [part.reshape(len(part), -1).astype(float) for part in (drawn, reference)]
    nearest = reference[cdist(*flat).argmin(axis=1)]
    limits = (float(x.min()), float(x.max()))
    return plots.panels({"held-out data": x[:64], "samples": drawn, "nearest training example": nearest}, limits=limits)


def doctor(folder: Path) -> Report:
    """Examine a run: what is wrong with it; doctor.md."""
    from . import diagnostics

    loaded = read(folder)
    (x, y), (held, held_y) = loaded.part(loaded.kept), loaded.part(loaded.held)
    measured = diagnostics.measure(loaded.model, x, held, y, held_y, sampler=loaded.config["sampler"])
    text = diagnostics.report(measured, diagnostics.diagnose(loaded.model, measured))
    return Report(text, {"doctor.md": text.encode()})
