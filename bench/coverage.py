"""How often value ± 1.96 standard errors of `sliced.estimate` holds the sliced distance of the two clouds.

    python -m bench.coverage                     # prints the table; --trials 2000

95% is promised; more is safe, less than 93% is not accepted (91% at 16 to 32 directions). The truth is an estimate from
very many directions, whose own error is stated as a share of a trial's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from otdist import sliced

TRUTH_DIRECTIONS = 200_000
COUNTS = (2, 4, 8, 16, 24, 32, 64, 128)


def clouds() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Named pairs of clouds: Gaussian, heavy-tailed, of unequal sizes, lattices, of low rank, and images of digits."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    for d in (2, 3, 8, 16, 64):
        scales = np.exp(rng.uniform(0, 1.5, (2, 1, d)))
        x, y = rng.standard_normal((2, 200, d)) * scales
        yield f"Gaussian, d = {d}", x, y
    yield "Student t with 3 degrees of freedom, d = 5", rng.standard_t(3, (200, 5)), 2 * rng.standard_t(3, (150, 5))
    lattice = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)
    yield "lattice, stretched, d = 3", lattice, lattice * np.array([1.0, 2.0, 0.5])
    cube = np.stack(np.meshgrid(*[np.arange(2.0)] * 5), -1).reshape(-1, 5)
    yield "corners of a cube against a Gaussian, d = 5", cube, rng.standard_normal((32, 5))
    low = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 10)), rng.standard_normal((40, 1)) * np.ones(10)
    yield "ranks 2 and 1, d = 10", *low
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    yield "digits 0-4 against 5-9, d = 64", images[labels < 5][:200], images[labels >= 5][:200]


def coverage(
    x: np.ndarray, y: np.ndarray, count: int, trials: int, truth: sliced.Estimate
) -> tuple[float, float, float]:
    """The share of covered trials, the error's root mean square relative to the truth, the truth's share of it."""
    found = [sliced.estimate(x, y, directions=count, rng=seed) for seed in range(trials)]
    values, errors = np.array([f.value for f in found]), np.array([f.standard_error for f in found])
    covered = np.abs(values - truth.value) <= 1.96 * errors
    spread = float(np.sqrt(np.mean((values - truth.value) ** 2)))
    return float(covered.mean()), spread / float(truth.value), float(truth.standard_error) / spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    trials = parser.parse_args().trials
    print("| clouds | directions | covered | relative error | truth's own error |\n|---|---|---|---|---|")
    for name, x, y in clouds():
        truth = sliced.estimate(x, y, directions=TRUTH_DIRECTIONS, rng=2**40)
        for count in COUNTS:
            share, error, own = coverage(x, y, count, trials, truth)
            print(f"| {name} | {count} | {share:.1%} | {error:.1e} | {own:.0%} of it |", flush=True)


if __name__ == "__main__":
    main()
