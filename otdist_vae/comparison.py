"""Regularizers against each other: the same data, network and seeds, paired tests, a table and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import batches, data, evaluation, plots, runs, samplers
from .regularizers import CHOICES

MADE = ("comparison.json", "comparison.md", "comparison.png", "models")
METRIC = "Fréchet distance"  # what the paired tests are about; smaller is better
SHOWN = 36


def compare(
    config: dict[str, Any],
    names: Sequence[str] | None,
    seeds: int,
    folder: Path,
    *,
    progress: Callable[[str], None] = lambda line: None,
) -> str:
    """Train and evaluate every regularizer once for each seed; leaves comparison.json, .md and .png in `folder`.

    Each seed draws its own test part (30%), the same for all regularizers. Returns the table.

    Raises
    ------
    ValueError
        For an unknown regularizer or fewer than one seed.
    """
    names = list(CHOICES) if names is None else list(names)
    for name in names:
        if name not in CHOICES:
            raise ValueError(f"regularizers must be among {', '.join(CHOICES)}; got {name!r}")
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1; got {seeds}")
    examples = runs.examples_of(config)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    pictures: dict[str, np.ndarray] = {}
    densities: dict[str, str] = {}
    for seed in range(seeds):
        for name in names:
            metrics, drawn, density = _one(config, name, seed, examples, folder / "models" / f"{name}-{seed}")
            results[name].append(metrics)
            densities[name] = density
            pictures.setdefault(f"{CHOICES[name].__name__}, codes from the {density}", drawn)
            progress(f"seed {seed}, {name}: {METRIC} {metrics[METRIC]['model']:.4g}")
    tests = paired_tests({name: [r[METRIC]["model"] for r in rows] for name, rows in results.items()})
    text = table(results, densities, tests)
    whole = {"results": results, "tests": tests}
    (folder / "comparison.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "comparison.md").write_text(text, "utf-8")
    if plots.is_image(examples.x.shape[1:]):
        limits = (float(examples.x.min()), float(examples.x.max()))
        plots.save(
            plots.panels({"data": examples.x[:SHOWN], **pictures}, limits=limits, across=5, columns=6),
            folder / "comparison.png",
        )
    return text


def _one(
    config: dict[str, Any], name: str, seed: int, examples: data.Examples, folder: Path
) -> tuple[dict[str, Any], np.ndarray, str]:
    """One run's metrics, samples, and where their codes come from; the model stays in `folder`."""
    from .options import OPTION_NAMES

    kept, held = batches.split(len(examples.x), 0.3, seed)
    labels = examples.y if config["conditional"] else None
    kept_y, held_y = (None, None) if labels is None else (labels[kept], labels[held])
    model = runs.build({**config, "regularizer": name, "seed": seed})
    options = {"progress": False, **{key: config[key] for key in OPTION_NAMES if key in config}}
    model.fit(examples.x[kept], kept_y, max_epochs=config["max_epochs"], validation=None, **options)
    model.save(folder)
    metrics = evaluation.evaluate(
        model,
        examples.x[held],
        held_y,
        reference=examples.x[kept],
        reference_y=None if examples.y is None else examples.y[kept],
        sampler=config["sampler"],
        random_state=seed,
    )
    classes = None if held_y is None else np.sort(held_y[:SHOWN])
    drawn = np.asarray(model.sample(SHOWN, classes, sampler=config["sampler"]))
    return metrics, drawn, samplers.DENSITIES[model.sampler_name(config["sampler"])]


def paired_tests(values: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Each regularizer against the first: mean difference, corrected resampled t-test, Wilcoxon, Holm-adjusted.

    Splits of one data set overlap, so the variance of a difference is (1/k + test/train)·s² (Nadeau & Bengio 2003).
    Empty for fewer than two seeds.
    """
    from scipy import stats

    (first, base), *others = values.items()
    if len(base) < 2:
        return []
    rows: list[dict[str, Any]] = []
    for name, mine in others:
        differences = np.subtract(mine, base)
        k, spread = len(differences), float(differences.var(ddof=1))
        t = float(differences.mean()) / math.sqrt((1 / k + 0.3 / 0.7) * spread) if spread else math.inf
        p = 2 * float(stats.t.sf(abs(t), k - 1)) if differences.any() else 1.0
        rank = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
        rows.append({"against": first, "name": name, "difference": float(differences.mean()), "p": p, "wilcoxon": rank})
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p, Holm"] = adjusted
    return rows


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false rejection is controlled (Holm 1979).

    >>> [round(q, 6) for q in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * float(p[k])))
        adjusted[int(k)] = largest
    return adjusted


def table(results: dict[str, list[dict[str, Any]]], densities: dict[str, str], tests: list[dict[str, Any]]) -> str:
    """Means and standard deviations over the seeds, the floor in the last row, and the paired tests."""
    columns = list(next(iter(results.values()))[0])
    for rows in results.values():
        columns += [c for c in rows[0] if c not in columns]
    lines = ["| regularizer | scope | codes from | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    for name, rows in results.items():
        cells = [_cell([r[c]["model"] for r in rows if c in r]) for c in columns]
        kind = CHOICES[name]
        lines.append(f"| {kind.__name__} | {kind.scope} | {densities[name]} | " + " | ".join(cells) + " |")
    first = next(iter(results.values()))
    floor = [_cell([r[c]["floor"] for r in first if r.get(c, {}).get("floor") is not None]) for c in columns]
    lines.append("| real against real | | | " + " | ".join(floor) + " |")
    for row in tests:
        lines.append(
            f"\n{row['name']} − {row['against']}: {METRIC} {row['difference']:+.4g}, "
            f"corrected t-test p = {row['p']:.2g} (Holm {row['p, Holm']:.2g}), Wilcoxon p = {row['wilcoxon']:.2g}"
        )
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[Any]) -> str:
    if not values:
        return "—"
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{spread}"
