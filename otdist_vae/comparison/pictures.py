"""The comparison's pictures: samples, differences with intervals, and accuracy against the number of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .. import data, plots
from ..model import WVAE
from ..regularizers import CHOICES
from .protocol import MODELS, NOTHING, Protocol
from .results import Results, Source, paired, spelled

SHOWN = 36
SHOWN_METHOD = "posterior"  # of augmentation, the default


def draw(results: Results, examples: data.Examples, folder: Path) -> dict[str, bytes]:
    """Every picture that has something to show, as PNG by its name."""
    found = {}
    if plots.is_image(examples.x.shape[1:]):
        found["comparison.png"] = plots.png(samples(results, examples, folder))
    if any(test.family == "generation" for test in results.tests):
        found["comparison-differences.png"] = plots.png(differences(results))
    if results.scores["accuracy"]:
        found["comparison-augmentation.png"] = plots.png(augmentation(results))
    return found


def samples(results: Results, examples: data.Examples, folder: Path) -> Figure:
    """Data, and samples of each regularizer's model of its first seed."""
    grids = {"data": examples.x[:SHOWN]}
    for name, fits in results.fits.items():
        for seed, fit in list(fits.items())[:1]:
            model = WVAE.load(folder / MODELS / f"{name}-{seed}")
            grids[f"{CHOICES[name].__name__}, {fit['codes from']}"] = _drawn(results.protocol, model)
    limits = (float(examples.x.min()), float(examples.x.max()))
    return plots.panels(grids, limits=limits, across=min(3, len(grids)), columns=6)


def _drawn(protocol: Protocol, model: WVAE) -> np.ndarray:
    classes = None if model.classes is None else np.sort(np.resize(model.classes, SHOWN))
    return np.asarray(model.sample(SHOWN, classes, sampler=protocol.config["sampler"]))


def differences(results: Results) -> Figure:
    """Of the tested metrics, each regularizer minus the first, with 95% intervals."""
    tests = [test for test in results.tests if test.family == "generation"]
    metrics = list(dict.fromkeys(test.what for test in tests))
    names = list(dict.fromkeys(test.name for test in tests))
    figure = Figure(figsize=(4.5 * len(metrics), 1.2 + 0.35 * len(names)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for test in (t for t in tests if t.what == metric):
            f, row = test.found, names.index(test.name)
            ends = [f.difference if end is None else end for end in (f.low, f.high)]
            axes.plot(ends, [row, row], color="C0", linewidth=2)
            axes.plot([f.difference], [row], "o", color="C0", markerfacecolor="C0" if test.holm < 0.05 else "white")
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set_yticks(range(len(names)), [CHOICES[name].__name__ for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(f"{metric}, minus {CHOICES[tests[0].against].__name__}'s", fontsize=9)
        axes.set_xlabel("95% intervals; filled: p < 0.05 after Holm", fontsize=8)
    return figure


def augmentation(results: Results) -> Figure:
    """Points of accuracy gained over no additional examples, against the number of labels, for each classifier."""
    found = results.scores["accuracy"]
    classifiers = list(dict.fromkeys(classifier for _, classifier in found))
    wanted = [s[1:] for s, _ in found if s.name != NOTHING and s.method in ("", SHOWN_METHOD)]
    figure = Figure(figsize=(4.2 * len(classifiers), 4), layout="constrained")
    grid = figure.subplots(1, len(classifiers), squeeze=False, sharey=True)[0]
    for axes, classifier in zip(grid, classifiers, strict=True):
        for k, (name, method) in enumerate(dict.fromkeys(wanted)):
            _gains(axes, results, (name, method, classifier), k)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set_xticks(range(len(results.protocol.labels)), [str(n) for n in results.protocol.labels])
        axes.set_xlim(-0.5, len(results.protocol.labels) - 0.5)
        axes.set_xlabel("labelled examples")
        axes.set_title(classifier, fontsize=10)
    grid[0].set_ylabel("points of accuracy gained")
    figure.legend(*grid[0].get_legend_handles_labels(), fontsize=8, ncols=5, loc="outside lower center")
    return figure


def _gains(axes: object, results: Results, key: tuple[str, str, str], k: int) -> None:
    name, method, classifier = key
    found = results.scores["accuracy"]
    means, errors = [], []
    for labels in results.protocol.labels:
        mine = found.get((Source(labels, name, method), classifier), {})
        gain = 100 * paired(mine, found.get((Source(labels, NOTHING, ""), classifier), {}))
        means.append(gain.mean() if len(gain) else np.nan)
        errors.append(gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else 0.0)
    simple = not method
    where = np.arange(len(means)) + 0.05 * k - 0.25
    axes.errorbar(  # type: ignore[attr-defined]
        where,
        means,
        errors,
        marker="." if simple else "o",
        linestyle=":" if simple else "-",
        color=f"C{k % 10}",
        label=spelled(name, method),
        linewidth=1.2,
        markersize=5,
    )
