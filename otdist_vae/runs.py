"""A run's folder: its configuration, checkpoints, curves, model, table of metrics and pictures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from . import _storage, batches, data, plots, samplers
from .model import WVAE
from .settings import DEFAULTS, MODEL_DEFAULTS, read_config

CONFIG, METRICS, TABLE = "config.yaml", "metrics.json", "metrics.md"
REPORTS = ("evaluation.json", "evaluation.md", "evaluation.png", "doctor.md")
PICTURES = ("samples.png", "reconstructions.png", "latent.png", "curves.png")


def build(config: dict[str, Any]) -> WVAE:
    """The model a configuration describes."""
    options = {key: config[key] for key in MODEL_DEFAULTS if config.get(key) is not None}
    return WVAE(random_state=config["seed"], **options)


def train(config: dict[str, Any], folder: Path, *, resume: bool, overwrite: bool = False) -> WVAE:
    """Train as `config` (complete with DEFAULTS) says and leave everything in `folder`."""
    from .checkpoints import CHECKPOINT
    from .options import OPTION_NAMES, Options

    if config["data"] is None:
        raise ValueError("data must be given: 'digits' or a file or folder")
    model = build(config)
    examples = data.load(str(config["data"]))
    if config["conditional"] and examples.y is None:
        raise ValueError(f"conditional needs labels, but {config['data']} has none")
    options = Options(**{key: config[key] for key in OPTION_NAMES if key in config})
    if overwrite and folder.is_dir():
        clear(folder)
    _storage.prepare(folder)
    described = {k: v for k, v in model.describe().items() if k != "random_state"}
    whole = {**config, **described, **asdict(options)}
    (folder / CONFIG).write_text(yaml.safe_dump(json.loads(json.dumps(whole)), sort_keys=False), "utf-8")
    try:
        model.fit(
            examples.x,
            examples.y if config["conditional"] else None,
            max_epochs=config["max_epochs"],
            validation=config["validation"],
            folder=folder,
            resume="auto" if resume else None,
            **asdict(options),
        )
    except (TypeError, ValueError):
        if not (folder / CHECKPOINT).exists():  # refused before anything was learned: leave nothing in the way
            (folder / CONFIG).unlink()
        raise
    model.save(folder)
    report(model, examples, folder, config)
    return model


def occupied(folder: Path) -> bool:
    """Whether something is in the way of a new run."""
    return folder.is_dir() and any(folder.iterdir())


def clear(folder: Path) -> None:
    """Remove what a former run left; other files stay."""
    from .callbacks import CURVES
    from .checkpoints import CHECKPOINT

    names = (CONFIG, METRICS, TABLE, CURVES, CHECKPOINT, _storage.DESCRIPTION, _storage.WEIGHTS, *PICTURES, *REPORTS)
    for name in names:
        (folder / name).unlink(missing_ok=True)


@dataclass
class Loaded:
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


def read(folder: Path, source: str | None = None) -> Loaded:
    """A finished run's model and data; `source` names other data, all of it then held out.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder holds no finished run, or the data cannot be read or do not fit the model.
    """
    model = WVAE.load(folder)
    path = folder / CONFIG
    config = {**DEFAULTS, **(read_config(path) if path.is_file() else {})}
    if source is None and config["data"] is None:
        raise ValueError(f"{folder} does not say what it was trained on (no {CONFIG}); name the data")
    examples = data.load(str(source or config["data"]))
    if model.classes is not None and examples.y is None:
        raise ValueError(f"the model is class-conditional, and {source or config['data']} has no labels")
    everything = np.arange(len(examples.x))
    if source is not None:
        return Loaded(model, config, examples, everything[:0], everything)
    if not isinstance(config["validation"], float):
        return Loaded(model, config, examples, everything, everything)
    kept, held = batches.split(len(examples.x), config["validation"], model.seed)
    return Loaded(model, config, examples, kept, held)


def report(model: WVAE, examples: data.Examples, folder: Path, config: dict[str, Any]) -> None:
    """Pictures and the table of metrics."""
    held = np.arange(len(examples.x))
    if isinstance(config["validation"], float):
        held = batches.split(len(examples.x), config["validation"], model.seed)[1]
    x, y = examples.x[held], None if examples.y is None else examples.y[held]
    classes = y if model.classes is not None else None
    shown = slice(0, 50)
    rebuilt = np.asarray(model.reconstruct(x, classes))
    per_class = None if model.classes is None else np.resize(model.classes, 100)
    drawn = np.asarray(model.sample(100, per_class, sampler=config.get("sampler")))
    limits = (float(examples.x.min()), float(examples.x.max()))
    if plots.is_image(x.shape[1:]):
        name = config.get("sampler") or model.default_sampler
        plots.save(
            plots.images(drawn, limits=limits, title=f"samples, codes from the {samplers.DENSITIES[name]}"),
            folder / "samples.png",
        )
        plots.save(plots.pairs(x[shown], rebuilt[shown], limits=limits), folder / "reconstructions.png")
    else:
        plots.save(plots.clouds(x, drawn, title="samples"), folder / "samples.png")
        plots.save(plots.clouds(x, rebuilt, title="reconstructions"), folder / "reconstructions.png")
    codes = np.asarray(model.encode(examples.x, examples.y if model.classes is not None else None))
    plots.save(plots.latent(codes, examples.y), folder / "latent.png")
    plots.save(plots.curves(model.history, penalty=penalty_name(model)), folder / "curves.png")
    write_metrics(folder, metrics(model, x, rebuilt, codes))


def penalty_name(model: WVAE) -> str:
    """The regularizer and its scope, as pictures and tables call it."""
    return f"{type(model.regularizer).__name__} ({model.regularizer.scope})"


def metrics(model: WVAE, x: np.ndarray, rebuilt: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """The run's numbers: held-out reconstruction, the losses of the last epoch, the codes' moments, the times."""
    last = model.history[-1]
    return {
        "regularizer": type(model.regularizer).__name__,
        "scope": model.regularizer.scope,
        "weight": model.weight,
        "weight against the summed squared error": model.effective_weight(),
        "held-out mean squared error": float(np.mean((np.asarray(x, dtype=np.float64) - rebuilt) ** 2)),
        **{k: v for k, v in last.items() if k not in ("weight", "seconds")},
        "mean code variance": float(codes.var(0).mean()),
        "mean code norm": float(np.linalg.norm(codes.mean(0))),
        **{k: v for k, v in model.report.items() if k != "epochs"},
    }


def write_metrics(folder: Path, values: dict[str, Any]) -> None:
    """metrics.json, and the same as a table in metrics.md."""
    (folder / METRICS).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    (folder / TABLE).write_text(table(values), "utf-8")


def table(values: dict[str, Any]) -> str:
    """A two-column Markdown table; nested values get rows of their own."""
    rows = ["| metric | value |", "|---|---|"]
    for key, value in values.items():
        for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:.6g}" if isinstance(number, float) else str(number)
            rows.append(f"| {key.replace('_', ' ')}{' ' + inner if inner else ''} | {shown} |")
    return "\n".join(rows) + "\n"


def evaluate(folder: Path, source: str | None = None, sampler: str | None = None) -> str:
    """Evaluate a run on its held-out part or on other data; leaves evaluation.json, .md and .png, returns the table."""
    from . import evaluation

    loaded = read(folder, source)
    x, y = loaded.part(loaded.held)
    reference = loaded.examples.x[loaded.kept] if source is None else read(folder).examples.x
    model, name = loaded.model, sampler or loaded.config.get("sampler") or loaded.model.default_sampler
    result = evaluation.evaluate(model, x, y, reference=reference, sampler=name)
    whole = {"sampler": name, "held-out examples": len(x), "metrics": result}
    (folder / "evaluation.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", "utf-8")
    text = f"samples: codes from the {samplers.DENSITIES[name]}\n\n{evaluation.table(result)}"
    (folder / "evaluation.md").write_text(text, "utf-8")
    drawn = np.asarray(model.sample(64, None if y is None else np.resize(y, 64), sampler=name))
    plots.save(_comparison_picture(x, drawn, np.asarray(reference)), folder / "evaluation.png")
    return text


def _comparison_picture(x: np.ndarray, drawn: np.ndarray, reference: np.ndarray) -> Any:
    """Held-out data, samples, and the training example nearest to each sample."""
    if not plots.is_image(x.shape[1:]):
        return plots.clouds(x, drawn, title="held-out data and samples")
    from scipy.spatial.distance import cdist

    flat = [part.reshape(len(part), -1).astype(float) for part in (drawn, reference)]
    nearest = reference[cdist(*flat).argmin(axis=1)]
    limits = (float(x.min()), float(x.max()))
    return plots.panels({"held-out data": x[:64], "samples": drawn, "nearest training example": nearest}, limits=limits)


def doctor(folder: Path) -> str:
    """Examine a run; leaves doctor.md and returns what it says."""
    from . import diagnostics

    loaded = read(folder)
    (x, y), (held, held_y) = loaded.part(loaded.kept), loaded.part(loaded.held)
    measured = diagnostics.measure(loaded.model, x, held, y, held_y)
    text = diagnostics.report(measured, diagnostics.diagnose(loaded.model, measured))
    (folder / "doctor.md").write_text(text, "utf-8")
    return text
