"""The comparison as tables: the same rows for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..regularizers import CHOICES
from .cells import METRIC
from .protocol import TEST_SHARE, VALIDATION_SHARE
from .results import RECONSTRUCTION, Results, Test, spelled, values

SIGNIFICANT = 0.05


class Table(NamedTuple):
    """A title, what must be known to read it, headings and rows of text."""

    title: str
    note: str
    headings: list[str]
    rows: list[list[str]]


def all_tables(results: Results) -> list[Table]:
    """Every table that has something to say."""
    found = [generation(results), _tests(results, "generation")]
    found += [augmentation(results, labels) for labels in results.protocol.labels]
    found += [_tests(results, "augmentation"), _tests(results, "augmentation by regularizer")]
    return [table for table in found if table.rows]


def cell(found: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    if not found:
        return "—"
    spread = f" ± {np.std(found, ddof=1):.2g}" if len(found) > 1 else ""
    return f"{np.mean(found):.3g}{spread}"


def generation(results: Results) -> Table:
    """Means and standard deviations over the seeds, and real against real in the last row."""
    metrics = list(dict.fromkeys(m for fits in results.fits.values() for fit in fits for m in fit["metrics"]))
    tuned = bool(results.protocol.factors)
    rows = []
    for name, fits in results.fits.items():
        kind, densities = CHOICES[name], sorted({fit["codes from"] for fit in fits})
        weight = cell([fit["weight"] for fit in fits])
        found = [cell(values(fits, metric)) for metric in metrics]
        rows.append([kind.__name__, kind.scope, weight, ", ".join(densities), *found])
    first = next(iter(results.fits.values()))
    rows.append(["real against real", "", "", "", *(cell(values(first, metric, "floor")) for metric in metrics)])
    note = (
        f"Mean ± standard deviation over {_seeds(results)}. Weights "
        + ("chosen for each seed on validation data." if tuned else "are the defaults or the given one.")
        + " The last row is what real examples reach against other real ones."
    )
    return Table("Samples and reconstructions", note, ["regularizer", "scope", "weight", "codes from", *metrics], rows)


def augmentation(results: Results, labels: int) -> Table:
    """Accuracies in per cent, by source and classifier."""
    mine = {key[1:]: found for key, found in results.accuracy.items() if key[0] == labels}
    classifiers = list(dict.fromkeys(key[2] for key in mine))
    sources = list(dict.fromkeys(key[:2] for key in mine))
    rows = [
        [spelled(*source), *(cell([100 * v for v in mine[(*source, c)]]) for c in classifiers)] for source in sources
    ]
    note = f"Per cent of the test part classified rightly, {labels} labelled examples and as many made from them."
    return Table(f"Augmentation of {labels} labels", note, ["made by", *classifiers], rows)


TITLES = {
    "generation": "Each regularizer against the first",
    "augmentation": "Points of accuracy gained over no additional examples",
    "augmentation by regularizer": "Points of accuracy gained over the first regularizer",
}


def _tests(results: Results, family: str) -> Table:
    found = [test for test in results.tests if test.family == family]
    headings = ["contrast", "of", "difference [95%]", "d [95%]", "p", "p, Holm", "p, Wilcoxon"]
    note = (
        f"Paired differences over {_seeds(results)}: corrected resampled t-test (Nadeau and Bengio) with its interval, "
        f"Cohen's d of the pairs, Holm's adjustment over the {len(found)} tests of this table, Wilcoxon's signed-rank "
        "test beside it, unadjusted."
    )
    return Table(TITLES[family], note, headings, [_test_row(test) for test in found])


def _test_row(test: Test) -> list[str]:
    f = test.found
    labels = "" if test.labels is None else f", {test.labels} labels"
    effect = "—" if f.effect is None else f"{f.effect:.2g} [{f.effect_low:.2g}, {f.effect_high:.2g}]"
    interval = "" if f.low is None else f" [{f.low:+.3g}, {f.high:+.3g}]"
    difference = f"{f.difference:+.3g}{interval}"
    p = [f"{value:.2g}" for value in (f.p, test.holm, f.wilcoxon)]
    return [f"{test.name} − {test.against}", f"{test.what}{labels}", difference, effect, *p]


def _seeds(results: Results) -> str:
    n = results.protocol.seeds
    return f"{n} paired seeds" if n > 1 else "one seed, which tests nothing"


# --- words ------------------------------------------------------------------------------------------------------------


def verdict(results: Results) -> list[str]:
    """What the tests show, in sentences."""
    if results.protocol.seeds < 2:
        return ["One seed shows no difference to be other than chance: nothing is tested."]
    lines = []
    for metric, better in ((METRIC, "lower is better"), (RECONSTRUCTION, "lower is better")):
        tests = [t for t in results.tests if t.family == "generation" and t.what == metric]
        if tests:
            lines.append(f"{metric} ({better}) against {tests[0].against}: {_sorted_out(tests, 'lower', 'higher')}.")
    tests = [t for t in results.tests if t.family == "augmentation"]
    if tests:
        lines.append(f"Accuracy against no additional examples: {_sorted_out(tests, 'lower', 'higher')}.")
    tests = [t for t in results.tests if t.family == "augmentation by regularizer"]
    if tests:
        lines.append(f"Accuracy against {results.protocol.names[0]}: {_sorted_out(tests, 'lower', 'higher')}.")
    return lines


def _sorted_out(tests: list[Test], below: str, above: str) -> str:
    """Which differences are shown at 5% after Holm's adjustment, and how many are not."""
    shown = [t for t in tests if t.holm < SIGNIFICANT]
    parts = []
    for word, sign in ((below, -1), (above, 1)):
        mine = [_named(t) for t in shown if t.found.difference * sign > 0]
        if mine:
            parts.append(f"{word} for {', '.join(mine)}" if len(mine) <= 12 else f"{word} in {len(mine)} contrasts")
    rest = len(tests) - len(shown)
    parts.append(f"no difference shown in {rest} of {len(tests)} contrasts" if rest else "every difference is shown")
    return "; ".join(parts)


def _named(test: Test) -> str:
    return test.name if test.labels is None else f"{test.name} ({test.what}, {test.labels} labels)"


def method(results: Results) -> str:
    """How it was done, in a paragraph."""
    p = results.protocol
    tuned = (
        f"For each seed and regularizer the weight was chosen among {', '.join(f'{f:g}' for f in p.factors)} times its "
        f"default by the {METRIC} of samples to {VALIDATION_SHARE:.0%} of the training part; the final model was then "
        "trained on the whole of it. Models for augmentation use the same factor. "
        if p.factors
        else ""
    )
    return (
        f"Each seed holds out {TEST_SHARE:.0%} of the data for testing, the same for all regularizers, and nothing is "
        f"chosen on them. {tuned}Standard errors allow for the overlap of the splits. Tests are of two metrics fixed "
        "beforehand, and of accuracies where examples are added; differences that are not shown stay in the tables."
    )


def markdown(results: Results, command: str) -> str:
    """All tables, with the words before them."""
    parts = [*(f"- {line}" for line in verdict(results)), "", method(results)]
    if command:
        parts += ["", f"Made by `{command}`."]
    for table in all_tables(results):
        parts += ["", f"### {table.title}", "", table.note, "", *_markdown_rows(table)]
    return "\n".join(parts) + "\n"


def _markdown_rows(table: Table) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return [line(table.headings), "|---" * len(table.headings) + "|", *map(line, table.rows)]
