"""The comparison as tables: the same rows for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..regularizers import CHOICES
from .cells import METRIC, Result
from .protocol import NOTHING, TEST_SHARE, VALIDATION_SHARE
from .results import RECONSTRUCTION, SCORES, Results, Source, Test, paired, spelled, values

SIGNIFICANT = 0.05


class Table(NamedTuple):
    """A title, what must be known to read it, headings and rows of text."""

    title: str
    note: str
    headings: list[str]
    rows: list[list[str]]


def summary(results: Results) -> list[Table]:
    """The tables that are read: of augmentation the differences with their intervals."""
    found = [generation(results), _tests(results, "generation")]
    for score in SCORES:
        for labels in results.protocol.labels:
            found += [gains(results, score, labels), gains(results, f"{score} by regularizer", labels)]
    return [table for table in [*found, failures(results)] if table.rows]


def all_tables(results: Results) -> list[Table]:
    """Every table that has something to say: the tests behind the differences too."""
    families = [f"{score}{by}" for score in SCORES for by in ("", BY_REGULARIZER)]
    tests = [_tests(results, family) for family in families]
    return [*summary(results), *(table for table in tests if table.rows)]


def cell(found: Mapping[int, float]) -> str:
    """Mean ± standard deviation over the seeds."""
    values = list(found.values())
    if not values:
        return "—"
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{spread}"


def generation(results: Results) -> Table:
    """Means and standard deviations over the seeds, and real against real in the last row."""
    metrics = list(dict.fromkeys(m for fits in results.fits.values() for fit in fits.values() for m in fit["metrics"]))
    tuned = bool(results.protocol.factors)
    rows: list[list[str]] = []
    floors: dict[int, Result] = {}
    for name, fits in results.fits.items():
        kind, densities = CHOICES[name], sorted({fit["codes from"] for fit in fits.values()})
        weighed = name in results.protocol.weighed()
        weight = cell({seed: fit["weight"] for seed, fit in fits.items()}) if weighed else "—"
        found = [cell(values(fits, metric)) for metric in metrics]
        rows.append([kind.__name__, kind.scope, weight, ", ".join(densities), *found])
        floors |= fits  # the same for all regularizers
    rows.append(["real against real", "", "", "", *(cell(values(floors, metric, "floor")) for metric in metrics)])
    note = (
        f"Mean ± standard deviation over {_seeds(results)}. Weights "
        + ("chosen for each seed on validation data." if tuned else "are the defaults or the given one.")
        + " The last row is what real examples reach against other real ones."
    )
    return Table("Samples and reconstructions", note, ["regularizer", "scope", "weight", "codes from", *metrics], rows)


def gains(results: Results, family: str, labels: int) -> Table:
    """Differences with so many labels, against none or against the first regularizer, by source and classifier."""
    score, against_first = family.removesuffix(BY_REGULARIZER), family.endswith(BY_REGULARIZER)
    found = {key: values for key, values in results.scores[score].items() if key[0].labels == labels}
    sources = list(dict.fromkeys(source for source, _ in found))
    classifiers = list(dict.fromkeys(classifier for _, classifier in found))
    nothing, first = Source(labels, NOTHING, ""), results.protocol.names[0]
    rows = [] if against_first else [_without(results, score, nothing, classifiers)]
    for source in sources:
        base = source._replace(name=first) if against_first else nothing
        if base in sources and source.name not in (NOTHING, base.name) and bool(source.method) >= against_first:
            cells = [_gain(results, family, source, base, classifier) for classifier in classifiers]
            rows.append([spelled(source.name, source.method), *cells])
    return Table(f"{TITLES[family]}, {labels} labels", _note(results, family, labels), ["made by", *classifiers], rows)


def _note(results: Results, family: str, labels: int) -> str:
    score = family.removesuffix(BY_REGULARIZER)
    what = {"accuracy": "points of accuracy", "log-loss": "nats of log-loss (less is better)"}[score]
    said = f"Differences in {what} with 95% intervals, {labels} labelled examples and as many made from them, "
    if family == score:
        said += f"against none; the first row has the {'per cent' if score == 'accuracy' else 'nats'} without any. "
    else:
        said += f"against {CHOICES[results.protocol.names[0]].__name__}'s, made by the same method. "
    return said + f"A star: p < {SIGNIFICANT:g} after Holm's adjustment over all numbers of labels."


def _without(results: Results, score: str, nothing: Source, classifiers: list[str]) -> list[str]:
    found, unit = results.scores[score], SCORES[score]
    return [NOTHING, *(cell({k: unit * v for k, v in found.get((nothing, name), {}).items()}) for name in classifiers)]


def _gain(results: Results, family: str, source: Source, base: Source, classifier: str) -> str:
    score = family.removesuffix(BY_REGULARIZER)
    found = results.scores[score]
    differences = SCORES[score] * paired(found.get((source, classifier), {}), found.get((base, classifier), {}))
    if not len(differences):
        return "—"
    asked = (family, classifier, source.labels, spelled(source.name, source.method))
    star, interval = "", ""
    for test in results.tests:
        if (test.family, test.what, test.labels, test.name) == asked:
            star = "*" if test.holm < SIGNIFICANT else ""
            interval = "" if test.found.low is None else f" [{test.found.low:+.2f}, {test.found.high:+.2f}]"
    return f"{differences.mean():+.2f}{star}{interval}"


def failures(results: Results) -> Table:
    """What failed, and why: its seed is missing in the pairs that need it."""
    rows = [[str(cell), why] for cell, why in results.failures.items()]
    return Table(
        "What failed", "Left out of the tables above, with whatever it would be paired with.", ["", "why"], rows
    )


BY_REGULARIZER = " by regularizer"
TITLES = {
    "generation": "Each regularizer against the first",
    "accuracy": "Accuracy gained over no additional examples",
    "accuracy by regularizer": "Accuracy gained over the first regularizer",
    "log-loss": "Log-loss against no additional examples",
    "log-loss by regularizer": "Log-loss against the first regularizer",
}


def _tests(results: Results, family: str) -> Table:
    found = [test for test in results.tests if test.family == family]
    headings = ["contrast", "of", "pairs", "difference [95%]", "d [95%]", "p", "p, Holm", "p, Wilcoxon"]
    note = (
        f"Paired differences over {_seeds(results)}: corrected resampled t-test (Nadeau and Bengio) with its interval, "
        f"Cohen's d of the pairs, Holm's adjustment over the {len(found)} tests of this table, Wilcoxon's signed-rank "
        "test beside it, unadjusted."
    )
    title = TITLES[family] if family == "generation" else f"{TITLES[family]}: tests"
    return Table(title, note, headings, [_test_row(test) for test in found])


def _test_row(test: Test) -> list[str]:
    f = test.found
    labels = "" if test.labels is None else f", {test.labels} labels"
    effect = "—" if f.effect is None else f"{f.effect:.2g} [{f.effect_low:.2g}, {f.effect_high:.2g}]"
    interval = "" if f.low is None else f" [{f.low:+.3g}, {f.high:+.3g}]"
    difference = f"{f.difference:+.3g}{interval}"
    p = [f"{value:.2g}" for value in (f.p, test.holm, f.wilcoxon)]
    return [f"{test.name} − {test.against}", f"{test.what}{labels}", str(f.k), difference, effect, *p]


def _seeds(results: Results) -> str:
    n = results.protocol.seeds
    return f"{n} paired seeds" if n > 1 else "one seed, which tests nothing"


# --- words ------------------------------------------------------------------------------------------------------------


FAMILIES = (
    ("accuracy", "Accuracy", "lower", "higher"),
    ("accuracy by regularizer", "Accuracy", "lower", "higher"),
)


def verdict(results: Results) -> list[str]:
    """What the tests show, in sentences."""
    if results.protocol.seeds < 2:
        return ["One seed shows no difference to be other than chance: nothing is tested."]
    lines = []
    for metric, better in ((METRIC, "lower is better"), (RECONSTRUCTION, "lower is better")):
        tests = [t for t in results.tests if t.family == "generation" and t.what == metric]
        if tests:
            lines.append(f"{metric} ({better}) against {tests[0].against}: {_sorted_out(tests, 'lower', 'higher')}.")
    for family, what, below, above in FAMILIES:
        tests = [t for t in results.tests if t.family == family]
        if tests:
            base = "no additional examples" if family == "accuracy" else CHOICES[results.protocol.names[0]].__name__
            lines.append(f"{what} against {base}: {_sorted_out(tests, below, above)}.")
    if results.failures:
        lines.append(f"{len(results.failures)} pieces of work failed and are left out; the last table says why.")
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
        f"Each seed holds out {TEST_SHARE:.0%} of the data for testing, of each class its share, the same for all "
        f"regularizers, and nothing is chosen on them. {tuned}Standard errors allow for the overlap of the splits. "
        "Tests are of two metrics fixed beforehand, and of accuracies and log-losses where examples are added; what is "
        "not shown to differ stays in the tables."
    )


def markdown(results: Results, command: str) -> str:
    """The tables that are read, with the words before them."""
    parts = [*(f"- {line}" for line in verdict(results)), "", method(results)]
    if command:
        parts += ["", f"Made by `{command}`."]
    for table in summary(results):
        parts += ["", f"### {table.title}", "", table.note, "", *_markdown_rows(table)]
    return "\n".join(parts) + "\n"


def _markdown_rows(table: Table) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return [line(table.headings), "|---" * len(table.headings) + "|", *map(line, table.rows)]
