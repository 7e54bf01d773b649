"""What the finished cells say together: values by regularizer and seed, and the tests of the whole family."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .cells import FAILED, METRIC, SECONDS, Result, finished
from .protocol import KINDS, NOTHING, TEST_SHARE, Cell, Protocol
from .statistics import Contrast, contrast, holm

RECONSTRUCTION = "unexplained variance"
TESTED = (METRIC, RECONSTRUCTION)  # fixed beforehand; other metrics are shown, not tested
SCORES = {"accuracy": 100, "log-loss": 1}  # of classifiers, and in which units differences are told
OVERLAP = TEST_SHARE / (1 - TEST_SHARE)  # Nadeau and Bengio's test/train


class Test(NamedTuple):
    """One contrast: `name` minus `against`, for a metric, or a classifier with so many labels."""

    family: str
    what: str
    labels: int | None
    name: str
    against: str
    found: Contrast
    holm: float


class Source(NamedTuple):
    """What classifiers learn from: so many labels, and examples made by a regularizer's model or in a simple way."""

    labels: int
    name: str
    method: str


BySeed = dict[int, float]


class Results(NamedTuple):
    """All of a comparison. A seed is missing where its cell failed.

    Attributes
    ----------
    protocol : what was asked.
    fits : by regularizer and seed.
    scores : "accuracy" and "log-loss", by source, classifier and seed.
    tests : of all families, each with its own Holm adjustment.
    failures : what failed, and why.
    """

    protocol: Protocol
    fits: dict[str, dict[int, Result]]
    scores: dict[str, dict[tuple[Source, str], BySeed]]
    tests: list[Test]
    failures: dict[Cell, str]


def collect(protocol: Protocol, folder: Path) -> Results:
    """Read all cells, which must be finished."""
    cells = {cell: _whole(folder, cell) for kind in KINDS for cell in protocol.cells(kind)}
    failures = {cell: str(found[FAILED]) for cell, found in cells.items() if FAILED in found}
    fits: dict[str, dict[int, Result]] = {name: {} for name in protocol.names}
    scores: dict[str, dict[tuple[Source, str], BySeed]] = {score: {} for score in SCORES}
    for cell, found in cells.items():
        if cell in failures:
            continue
        if cell.kind == "fit":
            fits[cell.name][cell.seed] = found
        for method, by_classifier in found.get("scores", {}).items():
            for classifier, values in by_classifier.items():
                key = Source(cell.labels or 0, cell.name, method), classifier
                for score, value in values.items():
                    scores[score].setdefault(key, {})[cell.seed] = value
    tests = generation_tests(fits)
    for score in SCORES:
        tests += augmentation_tests(protocol, score, scores[score])
    return Results(protocol, fits, scores, tests, failures)


def _whole(folder: Path, cell: Cell) -> Result:
    found = finished(folder, cell)
    if found is None:
        raise ValueError(f"the comparison in {folder} lacks the cell {cell}")
    return {key: value for key, value in found.items() if key != SECONDS}


def values(fits: dict[int, Result], metric: str, column: str = "model") -> BySeed:
    """A metric's values by seed, "model" or "floor", where there are some."""
    found = {seed: fit["metrics"].get(metric, {}).get(column) for seed, fit in fits.items()}
    return {seed: float(value) for seed, value in found.items() if value is not None}


def paired(mine: BySeed, base: BySeed) -> np.ndarray:
    """Differences (k,), of the seeds that both have."""
    return np.array([mine[seed] - base[seed] for seed in mine if seed in base])


class _Asked(NamedTuple):
    what: str
    labels: int | None
    name: str
    against: str
    differences: np.ndarray


def _family(family: str, asked: list[_Asked]) -> list[Test]:
    """The tests with Holm's adjustment over all of them; none for fewer than two pairs."""
    asked = [each for each in asked if len(each.differences) > 1 and np.isfinite(each.differences).all()]
    found = [contrast(each.differences.tolist(), OVERLAP) for each in asked]
    adjusted = holm([each.p for each in found])
    return [
        Test(family, a.what, a.labels, a.name, a.against, f, p) for a, f, p in zip(asked, found, adjusted, strict=True)
    ]


def generation_tests(fits: dict[str, dict[int, Result]]) -> list[Test]:
    """Each regularizer against the first: samples and reconstructions."""
    first, *others = fits
    asked = [
        _Asked(metric, None, name, first, paired(values(fits[name], metric), values(fits[first], metric)))
        for metric in TESTED
        for name in others
    ]
    return _family("generation", asked)


def augmentation_tests(protocol: Protocol, score: str, found: dict[tuple[Source, str], BySeed]) -> list[Test]:
    """Every source against none, and each regularizer against the first by the same method."""
    first, *others = protocol.names
    against_nothing, against_first = [], []
    for (source, classifier), mine in found.items():
        labels, name, method = source
        said, base = spelled(name, method), found.get((Source(labels, NOTHING, ""), classifier), {})
        if name != NOTHING:
            gains = SCORES[score] * paired(mine, base)
            against_nothing.append(_Asked(classifier, labels, said, NOTHING, gains))
        if name in others and first in protocol.augmented:
            base = found.get((Source(labels, first, method), classifier), {})
            gains = SCORES[score] * paired(mine, base)
            against_first.append(_Asked(classifier, labels, said, spelled(first, method), gains))
    return [*_family(score, against_nothing), *_family(f"{score} by regularizer", against_first)]


def spelled(name: str, method: str) -> str:
    """A source with its method."""
    return f"{name}, {method}" if method else name


def as_json(results: Results) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    fits = {name: [{"seed": seed, **fit} for seed, fit in found.items()] for name, found in results.fits.items()}
    scores = [
        {
            **source._asdict(),
            "classifier": classifier,
            "score": score,
            "seeds": list(found),
            "values": [*found.values()],
        }
        for score, by_source in results.scores.items()
        for (source, classifier), found in by_source.items()
    ]
    tests = [{**test._asdict(), "found": test.found._asdict()} for test in results.tests]
    failures = [{**cell._asdict(), "why": why} for cell, why in results.failures.items()]
    return {"results": fits, "augmentation": scores, "tests": tests, "failures": failures}


def as_rows(results: Results) -> list[list[Any]]:
    """A long table, its headings first: one value a line."""
    rows: list[list[Any]] = [["part", "name", "method", "labels", "what", "score", "seed", "value", "error", "floor"]]
    for name, fits in results.fits.items():
        for seed, fit in fits.items():
            rows.append(["weight", name, "", "", "weight", "", seed, fit["weight"], "", ""])
            for metric, found in fit["metrics"].items():
                cells = [found["model"], found["error"], found["floor"]]
                rows.append(["generation", name, "", "", metric, "", seed, *("" if c is None else c for c in cells)])
    for score, by_source in results.scores.items():
        for (source, classifier), values in by_source.items():
            for seed, value in values.items():
                where = [source.name, source.method, source.labels, classifier, score, seed]
                rows.append(["augmentation", *where, value, "", ""])
    return rows
