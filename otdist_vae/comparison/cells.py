"""One cell of a comparison: train and measure one model, or classify with additional examples."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import augmentation, data, evaluation, features, runs, samplers
from ..model import WVAE
from ..options import OPTION_NAMES
from . import partition
from .baselines import BASELINES
from .classifiers import Labelled, scores
from .protocol import CELLS, MODELS, NOTHING, TEST_SHARE, VALIDATION_SHARE, Cell, Protocol, read_json, write_json

METRIC = "Fréchet distance"  # what weights are chosen by; smaller is better
SECONDS = "processor seconds"  # of a cell; all else in it is the same whenever and wherever it is computed
FAILED = "failed"  # why a cell has no numbers
Result = dict[str, Any]


def parts(examples: data.Examples, seed: int) -> partition.Parts:
    """The training and the test part of a seed."""
    return partition.split(len(examples.x), examples.classes_to_show(), TEST_SHARE, seed)


def finished(folder: Path, cell: Cell) -> Result | None:
    """What a cell found, or None if it is still to be computed."""
    path = folder / CELLS / f"{cell.key}.json"
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except ValueError:
        return None


def compute(protocol: Protocol, cell: Cell, examples: data.Examples, folder: Path) -> Result:
    """Do a cell's work and keep what it found in ``cells``; of work that fails, why.

    Raises
    ------
    OSError
        If it cannot be kept.
    """
    start = time.process_time()
    work = {"tune": _tune, "fit": _fit, "augment": _augment}[cell.kind]
    try:
        result = work(protocol, cell, examples, folder)
    except OSError:
        raise
    except Exception as error:  # a loss that is no number, a matrix that has no root: the others can be compared
        result = {FAILED: f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}
    result[SECONDS] = round(time.process_time() - start, 2)
    write_json(folder / CELLS / f"{cell.key}.json", result)
    return result


# --- weights ----------------------------------------------------------------------------------------------------------


def chosen_factor(protocol: Protocol, name: str, seed: int, folder: Path) -> float:
    """The factor whose samples were nearest to this seed's validation data; 1 where none was tried.

    Raises
    ------
    ValueError
        If all that were tried failed.
    """
    if not protocol.factors or name not in protocol.weighed():
        return 1.0
    scores: dict[float, float] = {}
    for cell in protocol.cells("tune"):
        if (cell.name, cell.seed) == (name, seed) and cell.factor is not None:
            found = finished(folder, cell)
            assert found is not None, cell
            if FAILED not in found:
                scores[cell.factor] = float(found["score"])
    if not scores:
        raise ValueError("every weight that was tried failed")
    return min(scores, key=scores.__getitem__)


def _model(protocol: Protocol, name: str, seed: int, factor: float) -> WVAE:
    config = {**protocol.config, "regularizer": name, "seed": seed}
    return runs.build({**config, "weight": factor * runs.build(config).weight})


def _train(protocol: Protocol, model: WVAE, x: np.ndarray, y: np.ndarray | None) -> WVAE:
    config = protocol.config
    options = {"progress": False, **{key: config[key] for key in OPTION_NAMES if key in config}}
    return model.fit(x, y, max_epochs=config["max_epochs"], validation=None, **options)


_SPACES: dict[tuple[str, str, int], features.Features] = {}


def _space(protocol: Protocol, kind: str, seed: int, x: np.ndarray, y: np.ndarray | None) -> features.Features:
    """The features of a seed's data; the regularizers follow one another, so that the last one made is kept."""
    key = (protocol.fingerprint, kind, seed)
    if key not in _SPACES:
        _SPACES.clear()
        _SPACES[key] = features.make(None, x, y, random_state=seed)
    return _SPACES[key]


def _tune(protocol: Protocol, cell: Cell, examples: data.Examples, folder: Path) -> Result:
    """Train on three quarters of the training part and score on the last, with weight x factor."""
    train, _ = parts(examples, cell.seed)
    x, y, shown = examples.x, examples.y, examples.classes_to_show()
    inner = partition.split(len(train), None if shown is None else shown[train], VALIDATION_SHARE, cell.seed)
    kept, held = (train[part] for part in inner)
    classes = y if protocol.config["conditional"] else None
    model = _model(protocol, cell.name, cell.seed, cell.factor or 1.0)
    _train(protocol, model, x[kept], None if classes is None else classes[kept])
    space = _space(protocol, "tune", cell.seed, x[kept], None if y is None else y[kept])
    sampler, n = protocol.config["sampler"], min(len(held), evaluation.MOST)
    drawn = np.asarray(model.sample(n, None if classes is None else classes[held[:n]], sampler=sampler))
    real = space(x[held])
    distance = evaluation.frechet_distance(real, space(drawn)) / (float(real.var(0).sum()) or 1.0)
    if not math.isfinite(distance):
        raise FloatingPointError(f"the {METRIC} is {distance}")
    return {"score": distance, "weight": model.weight}


# --- generation -------------------------------------------------------------------------------------------------------


def _fit(protocol: Protocol, cell: Cell, examples: data.Examples, folder: Path) -> Result:
    """Train on the training part, keep the model, and evaluate it on the test part."""
    train, test = parts(examples, cell.seed)
    x, y = examples.x, examples.y
    classes = y if protocol.config["conditional"] else None
    factor = chosen_factor(protocol, cell.name, cell.seed, folder)
    model = _model(protocol, cell.name, cell.seed, factor)
    _train(protocol, model, x[train], None if classes is None else classes[train])
    model.save(folder / MODELS / f"{cell.name}-{cell.seed}")
    metrics = evaluation.evaluate(
        model,
        x[test],
        None if classes is None else classes[test],
        reference=x[train],
        reference_y=None if y is None else y[train],
        features=_space(protocol, "fit", cell.seed, x[train], None if y is None else y[train]),
        sampler=protocol.config["sampler"],
        random_state=cell.seed,
    )
    density = samplers.DENSITIES[model.sampler_name(protocol.config["sampler"])]
    return {"metrics": metrics, "codes from": density, "factor": factor, "weight": model.weight}


# --- augmentation -----------------------------------------------------------------------------------------------------


def _augment(protocol: Protocol, cell: Cell, examples: data.Examples, folder: Path) -> Result:
    """What classifiers, trained on a few labelled examples and as many made from them, reach on the test part."""
    train, test = parts(examples, cell.seed)
    assert examples.y is not None
    assert cell.labels is not None
    few = train[partition.labelled(examples.y[train], cell.labels, cell.seed)]
    given, held = (Labelled(examples.x[part], examples.y[part]) for part in (few, test))
    made = _additional(protocol, cell, given, folder)
    return {"scores": {method: scores(given, new, held, cell.seed) for method, new in made.items()}}


def _additional(protocol: Protocol, cell: Cell, given: Labelled, folder: Path) -> dict[str, Labelled | None]:
    """As many new examples, by the method that made them; a simple baseline has one method."""
    if cell.name == NOTHING:
        return {"": None}
    if cell.name in BASELINES:
        return {"": Labelled(BASELINES[cell.name](*given, np.random.default_rng([cell.seed, 2**29])), given.y)}
    factor = chosen_factor(protocol, cell.name, cell.seed, folder)
    model = _train(protocol, _model(protocol, cell.name, cell.seed, factor), *given)
    sampler = protocol.config["sampler"]
    made: dict[str, Labelled | None] = {}
    for method in augmentation.METHODS:
        new, labels = model.augment(*given, method=method, sampler=sampler)
        assert labels is not None
        made[method] = Labelled(np.asarray(new), labels)
    return made
