"""What the finished cells say together: values by regularizer and seed, and the tests of the whole family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .cells import METRIC, SECONDS, Result, finished
from .protocol import NOTHING, TEST_SHARE, Cell, Protocol
from .statistics import Contrast, contrast, holm

RECONSTRUCTION = "unexplained variance"
TESTED = (METRIC, RECONSTRUCTION)  # fixed beforehand; other metrics are shown, not tested
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


class Results(NamedTuple):
    """All of a comparison.

    Attributes
    ----------
    protocol : what was asked.
    fits : by regularizer, one for each seed.
    accuracy : by (labels, source, method, classifier), one for each seed.
    tests : of both families, each with its own Holm adjustment.
    """

    protocol: Protocol
    fits: dict[str, list[Result]]
    accuracy: dict[tuple[int, str, str, str], list[float]]
    tests: list[Test]


def collect(protocol: Protocol, folder: Path) -> Results:
    """Read all cells, which must be finished."""
    fits: dict[str, list[Result]] = {name: [] for name in protocol.names}
    for cell in protocol.cells("fit"):
        fits[cell.name].append(_whole(folder, cell))
    accuracy: dict[tuple[int, str, str, str], list[float]] = {}
    for cell in protocol.cells("augment"):
        for method, found in _whole(folder, cell)["accuracy"].items():
            for classifier, value in found.items():
                accuracy.setdefault((cell.labels or 0, cell.name, method, classifier), []).append(value)
    return Results(protocol, fits, accuracy, [*generation_tests(fits), *augmentation_tests(protocol, accuracy)])


def _whole(folder: Path, cell: Cell) -> Result:
    found = finished(folder, cell)
    if found is None:
        raise ValueError(f"the comparison in {folder} lacks the cell {cell}")
    return {key: value for key, value in found.items() if key != SECONDS}


def values(rows: Sequence[Result], metric: str, column: str = "model") -> list[float]:
    """A metric's values over the seeds, "model" or "floor", where there are some."""
    found = [row["metrics"].get(metric, {}).get(column) for row in rows]
    return [float(value) for value in found if value is not None]


class _Asked(NamedTuple):
    what: str
    labels: int | None
    name: str
    against: str
    differences: np.ndarray


def _family(family: str, asked: list[_Asked]) -> list[Test]:
    """The tests with Holm's adjustment over all of them; none for fewer than two seeds."""
    asked = [each for each in asked if len(each.differences) > 1]
    found = [contrast(each.differences.tolist(), OVERLAP) for each in asked]
    adjusted = holm([each.p for each in found])
    return [
        Test(family, a.what, a.labels, a.name, a.against, f, p) for a, f, p in zip(asked, found, adjusted, strict=True)
    ]


def generation_tests(fits: dict[str, list[Result]]) -> list[Test]:
    """Each regularizer against the first: samples and reconstructions."""
    first, *others = fits
    asked = []
    for metric in TESTED:
        base = values(fits[first], metric)
        for name in others:
            mine = values(fits[name], metric)
            asked.append(_Asked(metric, None, name, first, np.subtract(mine, base)))
    return _family("generation", asked)


def augmentation_tests(protocol: Protocol, accuracy: dict[tuple[int, str, str, str], list[float]]) -> list[Test]:
    """Points of accuracy: every source against none, and each regularizer against the first by the same method."""
    first, *others = protocol.names
    against_nothing, against_first = [], []
    for (labels, name, method, classifier), mine in accuracy.items():
        points = 100 * np.asarray(mine)
        if name != NOTHING:
            base = 100 * np.asarray(accuracy[labels, NOTHING, "", classifier])
            against_nothing.append(_Asked(classifier, labels, spelled(name, method), NOTHING, points - base))
        if name in others:
            base = 100 * np.asarray(accuracy[labels, first, method, classifier])
            named = spelled(first, method)
            against_first.append(_Asked(classifier, labels, spelled(name, method), named, points - base))
    return [*_family("augmentation", against_nothing), *_family("augmentation by regularizer", against_first)]


def spelled(name: str, method: str) -> str:
    """A source with its method."""
    return f"{name}, {method}" if method else name


def as_json(results: Results) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    accuracy = [
        {"labels": labels, "source": name, "method": method, "classifier": classifier, "accuracy": found}
        for (labels, name, method, classifier), found in results.accuracy.items()
    ]
    tests = [{**test._asdict(), "found": test.found._asdict()} for test in results.tests]
    return {"results": results.fits, "augmentation": accuracy, "tests": tests}


def as_rows(results: Results) -> list[list[Any]]:
    """A long table, its headings first: one value a line."""
    rows: list[list[Any]] = [["part", "name", "method", "labels", "what", "seed", "value", "error", "floor"]]
    for name, fits in results.fits.items():
        for seed, fit in enumerate(fits):
            rows.append(["weight", name, "", "", "weight", seed, fit["weight"], "", ""])
            for metric, found in fit["metrics"].items():
                cells = [found["model"], found["error"], found["floor"]]
                rows.append(["generation", name, "", "", metric, seed, *("" if c is None else c for c in cells)])
    for (labels, name, method, classifier), found in results.accuracy.items():
        for seed, value in enumerate(found):
            rows.append(["augmentation", name, method, labels, classifier, seed, value, "", ""])
    return rows
