"""Digits of the Gaussian distance against condition and against nearness, ours and the rivals', judged by mpmath.

    python -m bench.gaussian_accuracy            # writes docs/pictures/gaussian-accuracy.png and prints the table

Each point is the worst relative error of W2² over three random pairs at d = 12.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

from bench import rivals
from bench.problems import Problem

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from oracles import bures_squared, relative_error
from strategies import covariance

D, REPEATS = 12, 3
CONDITIONS = np.logspace(1, 14, 14)
STEPS = np.logspace(0, -8, 17)


def ours(x: np.ndarray, y: np.ndarray) -> float:
    from otdist import gaussian

    return float(gaussian.w2_squared(np.zeros(D), x, np.zeros(D), y))


def by(contender: rivals.Contender):
    """A rival as a function of two covariances."""

    def squared(x: np.ndarray, y: np.ndarray) -> float:
        inputs = {"mean_x": np.zeros(D), "cov_x": x, "mean_y": np.zeros(D), "cov_y": y}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a rival warns of shows in its error
            return float(contender.answers(contender.prepare(Problem(inputs, {}))())["value"])

    return squared


def worst(function, pairs) -> float:
    """The largest relative error; NaN and infinities count as an error of 1 or more."""
    errors = [relative_error(value, true) if np.isfinite(value := function(x, y)) else 1.0 for x, y, true in pairs]
    return max(max(errors), 1e-17)


def by_condition(condition: float):
    rng = np.random.default_rng(0)
    for _ in range(REPEATS):
        x, y = covariance(D, rng, condition=condition), covariance(D, rng, condition=condition)
        yield x, y, bures_squared(x, y)


def by_step(step: float):
    rng = np.random.default_rng(1)
    for _ in range(REPEATS):
        x, e = covariance(D, rng), covariance(D, rng, condition=3.0)
        y = x + step * e
        yield x, y, bures_squared(x, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    contenders = {"otdist": ours}
    for name, rival in (
        ("POT", rivals.pot_bures),
        ("scipy sqrtm (pytorch-fid)", rivals.scipy_fid),
        ("torchmetrics eigvals", rivals.torchmetrics_fid),
    ):
        if rival.installed:
            contenders[name] = by(rival)
        else:
            print(f"{name} is not installed")
    panels = (
        ("condition of both covariances", CONDITIONS, by_condition),
        ("t, in Y = X + t E", STEPS, by_step),
    )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, (label, grid, make) in zip(axes, panels, strict=True):
        problems = [list(make(g)) for g in grid]
        print(f"\n| {label} | " + " | ".join(contenders) + " |\n|" + "---|" * (1 + len(contenders)))
        errors = {name: [worst(f, pairs) for pairs in problems] for name, f in contenders.items()}
        for k, g in enumerate(grid):
            print(f"| {g:.0e} | " + " | ".join(f"{errors[name][k]:.0e}" for name in contenders) + " |")
        for name in contenders:
            axis.loglog(grid, errors[name], "o-", ms=3, label=name, lw=2 if name == "otdist" else 1)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[1].invert_xaxis()
    axes[0].set_ylabel("relative error of W2²")
    axes[0].legend(fontsize=8)
    axes[0].set_title(f"ill-conditioned (d = {D}, float64)", fontsize=10)
    axes[1].set_title("nearly equal", fontsize=10)
    figure.tight_layout()
    figure.savefig(folder / "gaussian-accuracy.png", dpi=90)


if __name__ == "__main__":
    main()
