"""One cell of a comparison: train and measure one model, or classify with additional examples."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import augmentation, batches, data, evaluation, features, runs, samplers
from ..model import WVAE
from ..options import OPTION_NAMES
from .baselines import BASELINES
from .protocol import CELLS, MODELS, NOTHING, TEST_SHARE, VALIDATION_SHARE, Cell, Protocol, read_json, write_json

METRIC = "Fréchet distance"  # what weights are chosen by; smaller is better
SECONDS = "processor seconds"  # of a cell; all else in it is the same whenever and wherever it is computed
Result = dict[str, Any]


class Parts(NamedTuple):
    """Indices of the training and the test part of a seed."""

    train: np.ndarray
    test: np.ndarray


def parts(n: int, seed: int) -> Parts:
    """The same for every regularizer."""
    return Parts(*batches.split(n, TEST_SHARE, seed))


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
    """Do a cell's work and keep what it found in ``cells``."""
    start = time.process_time()
    work = {"tune": _tune, "fit": _fit, "augment": _augment}[cell.kind]
    result = work(protocol, cell, examples, folder)
    result[SECONDS] = round(time.process_time() - start, 2)
    write_json(folder / CELLS / f"{cell.key}.json", result)
    return result


# --- weights ----------------------------------------------------------------------------------------------------------


def chosen_factor(protocol: Protocol, name: str, seed: int, folder: Path) -> float:
    """The factor whose samples were nearest to this seed's validation data; 1 where none was tried."""
    scores = {}
    for cell in protocol.cells("tune"):
        if (cell.name, cell.seed) == (name, seed) and cell.factor is not None:
            found = finished(folder, cell)
            assert found is not None, cell
            scores[cell.factor] = float(found["score"])
    return min(scores, key=scores.__getitem__) if scores else 1.0


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
    train, _ = parts(len(examples.x), cell.seed)
    kept, held = (train[part] for part in batches.split(len(train), VALIDATION_SHARE, cell.seed))
    x, y = examples.x, examples.y
    classes = y if protocol.config["conditional"] else None
    model = _model(protocol, cell.name, cell.seed, cell.factor or 1.0)
    _train(protocol, model, x[kept], None if classes is None else classes[kept])
    space = _space(protocol, "tune", cell.seed, x[kept], None if y is None else y[kept])
    sampler, n = protocol.config["sampler"], min(len(held), evaluation.MOST)
    drawn = np.asarray(model.sample(n, None if classes is None else classes[held[:n]], sampler=sampler))
    real = space(x[held])
    distance = evaluation.frechet_distance(real, space(drawn)) / (float(real.var(0).sum()) or 1.0)
    return {"score": distance, "weight": model.weight}


# --- generation -------------------------------------------------------------------------------------------------------


def _fit(protocol: Protocol, cell: Cell, examples: data.Examples, folder: Path) -> Result:
    """Train on the training part, keep the model, and evaluate it on the test part."""
    train, test = parts(len(examples.x), cell.seed)
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
    """Accuracies on the test part of classifiers trained on a few labelled examples and as many made from them."""
    train, test = parts(len(examples.x), cell.seed)
    assert examples.y is not None
    assert cell.labels is not None
    few = train[labelled(examples.y[train], cell.labels, cell.seed)]
    x, y = examples.x[few], examples.y[few]
    found = {}
    for method, made in _additional(protocol, cell, x, y, folder).items():
        accuracies = classify(x, y, made, (examples.x[test], examples.y[test]), cell.seed)
        found[method] = accuracies
    return {"accuracy": found}


def labelled(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Indices of n examples, the classes in their proportions, one at least of each; the same for every source.

    >>> y = np.repeat([0, 1], [90, 10])
    >>> np.bincount(y[labelled(y, 20, seed=0)]).tolist()
    [18, 2]
    """
    rng = np.random.default_rng([seed, 2**30])
    classes, counts = np.unique(y, return_counts=True)
    quota = np.maximum(1, np.floor(n * counts / len(y)).astype(int))
    while quota.sum() < n:  # the classes furthest below their share first
        short = np.where(quota < counts, n * counts / len(y) - quota, -np.inf)
        quota[int(short.argmax())] += 1
    chosen = [rng.permutation(np.flatnonzero(y == label))[:k] for label, k in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def _additional(
    protocol: Protocol, cell: Cell, x: np.ndarray, y: np.ndarray, folder: Path
) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """As many new examples, by the method that made them; a simple baseline has one method."""
    if cell.name == NOTHING:
        return {"": None}
    if cell.name in BASELINES:
        return {"": (BASELINES[cell.name](x, y, np.random.default_rng([cell.seed, 2**29])), y)}
    factor = chosen_factor(protocol, cell.name, cell.seed, folder)
    model = _train(protocol, _model(protocol, cell.name, cell.seed, factor), x, y)
    sampler = protocol.config["sampler"]
    made: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
    for method in augmentation.METHODS:
        new, labels = model.augment(x, y, method=method, sampler=sampler)
        assert labels is not None
        made[method] = (np.asarray(new), labels)
    return made


def classify(
    x: np.ndarray,
    y: np.ndarray,
    made: tuple[np.ndarray, np.ndarray] | None,
    test: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> dict[str, float]:
    """The share of test examples that each classifier, trained on the examples and those made, gets right.

    Images are scaled to the range, columns of tables to the deviation, of the real examples.
    """
    shift, scale = (x.min(), np.ptp(x)) if x.ndim > 2 else (x.mean(0), x.std(0))
    scale = np.where(scale > 0, scale, 1)

    def flat(examples: np.ndarray) -> np.ndarray:
        return ((examples - shift) / scale).reshape(len(examples), -1)

    inputs, labels = flat(x), y
    if made is not None:
        inputs, labels = np.concatenate([inputs, flat(made[0])]), np.concatenate([y, made[1]])
    held = flat(test[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a solver that stops at its limit is part of the comparison
        return {
            name: float(classifier.fit(inputs, labels).score(held, test[1]))
            for name, classifier in _classifiers(seed).items()
        }


def _classifiers(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {
        "logistic regression": LogisticRegression(max_iter=1000),
        "RBF SVM": SVC(),
        "random forest": RandomForestClassifier(200, random_state=seed),
    }
