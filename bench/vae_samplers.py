"""Where should codes come from? The models of a finished comparison, sampled from the prior, a Gaussian and a mixture.

    python -m bench.vae_samplers COMPARISON --out samplers.md

Every model is sampled three times and held against its seed's test part, as the comparison did: the Fréchet distance in
the features of a classifier over the data's variance. The mixture is held against the two others, and samples from the
prior against those of the first regularizer. Differences are paired by seed, with 95% intervals corrected for the
overlap of the splits; a star says p < 0.05 after Holm's adjustment over the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from otdist_vae import WVAE, evaluation, features, runs, samplers
from otdist_vae.comparison import MODELS, Contrast, contrast, holm, partition, protocol
from otdist_vae.regularizers import CHOICES

OVERLAP = protocol.TEST_SHARE / (1 - protocol.TEST_SHARE)


class Distances(NamedTuple):
    """Of one model: by sampler, and what it would take by itself."""

    by_sampler: dict[str, float]
    chosen: str
    seed: int


def measure(folder: Path) -> dict[str, list[Distances]]:
    """By regularizer, one for each seed whose model was kept."""
    asked = protocol.read(folder)
    examples = runs.examples_of(asked.config)
    found: dict[str, list[Distances]] = {name: [] for name in asked.names}
    for seed in range(asked.seeds):
        parts = partition.split(len(examples.x), examples.classes_to_show(), protocol.TEST_SHARE, seed)
        labels = None if examples.y is None else examples.y[parts.kept]
        space = features.make(None, examples.x[parts.kept], labels, random_state=seed)
        held = parts.held[: evaluation.MOST]
        real, classes = space(examples.x[held]), examples.y[held] if asked.config["conditional"] else None
        for name in asked.names:
            path = folder / MODELS / f"{name}-{seed}"
            if path.is_dir():
                found[name].append(_of_model(WVAE.load(path), space, real, classes, seed))
    return found


def _of_model(model: WVAE, space: features.Features, real: np.ndarray, classes: Any, seed: int) -> Distances:
    variance = float(real.var(0).sum())
    distances = {}
    for sampler in samplers.DENSITIES:
        drawn = space(np.asarray(model.sample(len(real), classes, sampler=sampler, random_state=seed)))
        distances[sampler] = evaluation.frechet_distance(real, drawn) / variance
    return Distances(distances, model.default_sampler, seed)


def table(found: dict[str, list[Distances]]) -> str:
    """Means and deviations over the seeds; the mixture against each of the others, and priors against the first."""
    first = next(iter(found))
    head = ["regularizer", *samplers.DENSITIES.values(), "taken by `auto`"]
    head += ["mixture − prior", "mixture − Gaussian", f"prior − {CHOICES[first].__name__}'s prior"]
    differences = {name: _differences(rows, found[first]) for name, rows in found.items()}
    tests = {
        (name, k): contrast(values, OVERLAP)
        for name, columns in differences.items()
        for k, values in enumerate(columns)
        if len(values) > 1 and (name, k) != (first, 2)
    }
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, rows in found.items():
        cells = [CHOICES[name].__name__, *_summary(rows)]
        for k, column in enumerate(differences[name]):
            shown = _difference(column, tests.get((name, k)), adjusted.get((name, k), 1.0))
            cells.append("—" if (name, k) == (first, 2) else shown)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _summary(rows: list[Distances]) -> list[str]:
    """Mean and deviation of each sampler, and how often each was taken."""
    values = ([d.by_sampler[sampler] for d in rows] for sampler in samplers.DENSITIES)
    means = [f"{np.mean(v):.3g} ± {np.std(v, ddof=min(1, len(v) - 1)):.2g}" for v in values]
    taken = [d.chosen for d in rows]
    return [*means, ", ".join(f"{s} {taken.count(s)}" for s in samplers.DENSITIES if s in taken)]


def _difference(values: list[float], test: Contrast | None, adjusted: float) -> str:
    """The mean with its interval, and a star where it is shown to differ from 0."""
    if not values:
        return ""
    interval = f" [{test.low:+.3f}, {test.high:+.3f}]" if test and test.low is not None else ""
    return f"{np.mean(values):+.3f}{'*' if adjusted < 0.05 else ''}{interval}"


def _differences(rows: list[Distances], base: list[Distances]) -> list[list[float]]:
    """By seed: the mixture minus the prior and minus the Gaussian, and the prior minus that of `base`."""
    prior, gaussian, mixture = ([d.by_sampler[name] for d in rows] for name in ("prior", "gaussian", "mixture"))
    firsts = {b.seed: b.by_sampler["prior"] for b in base}
    against_first = [d.by_sampler["prior"] - firsts[d.seed] for d in rows if d.seed in firsts]
    return [*([m - o for m, o in zip(mixture, other, strict=True)] for other in (prior, gaussian)), against_first]


def main() -> None:
    """Measure, write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = table(measure(arguments.comparison))
    arguments.out.write_text(text, "utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
