"""The sliced distance's error against the number of directions, ours and POT's plain Monte Carlo.

    python -m bench.directions                   # writes docs/pictures/sliced-directions.png and prints the table

Each point is the root mean square error over independent draws, relative to the truth: exact for dilated clouds, from
very many directions otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from otdist import sliced

COUNTS = (8, 16, 32, 64, 128, 256, 512)
TRUTH_DIRECTIONS = 200_000


def problems() -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    """Named pairs of clouds with their sliced distance."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 8)) * np.geomspace(3, 0.3, 8)
    x -= x.mean(0)
    yield "dilated Gaussian, d = 8", x, 2 * x, float((x**2).sum() / len(x) / 8)
    for d in (2, 16):
        x, y = rng.standard_normal((2, 300, d)) * np.exp(rng.uniform(0, 1.5, (2, 1, d)))
        yield f"Gaussians, d = {d}", x, y, float(sliced.w2_squared(x, y, directions=TRUTH_DIRECTIONS, rng=0))
    images, labels = load_digits(return_X_y=True)
    x, y = images[labels < 5][:300] / 16, images[labels >= 5][:300] / 16
    truth = float(sliced.w2_squared(x, y, directions=TRUTH_DIRECTIONS, rng=0))
    yield "digits 0-4 against 5-9, d = 64", x, y, truth


def ours(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> float:
    return float(sliced.w2_squared(x, y, directions=count, rng=seed))


def pot(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> float:
    import ot

    return float(ot.sliced_wasserstein_distance(x, y, n_projections=count, seed=seed)) ** 2


def relative_error(distance, x: np.ndarray, y: np.ndarray, truth: float, count: int, draws: int) -> float:
    values = np.array([distance(x, y, count, seed) for seed in range(draws)])
    return float(np.sqrt(np.mean((values / truth - 1) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = list(problems())
    figure, axes = plt.subplots(1, len(found), figsize=(3 * len(found), 3.4), sharex=True)
    print("| clouds | directions | otdist | POT | ratio |\n|---|---|---|---|---|")
    for axis, (name, x, y, truth) in zip(axes, found, strict=True):
        errors = {
            label: [relative_error(f, x, y, truth, count, options.draws) for count in COUNTS]
            for label, f in (("otdist", ours), ("POT, plain Monte Carlo", pot))
        }
        for count, mine, theirs in zip(COUNTS, *errors.values(), strict=True):
            print(f"| {name} | {count} | {mine:.1e} | {theirs:.1e} | {theirs / mine:.1f} |", flush=True)
        for label, values in errors.items():
            axis.loglog(COUNTS, values, "o-", ms=3, label=label)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("directions")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("relative error of SW2²")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(options.out / "sliced-directions.png", dpi=90)


if __name__ == "__main__":
    main()
