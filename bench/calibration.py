"""How tests and intervals keep what they promise: `python -m bench.calibration` writes docs/measured/calibration.md.

Size and power of the two-sample test, coverage of the intervals, bias of the corrected Fréchet distances: shares and
means over simulated pairs of samples whose true distance is known.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from otdist import gaussian, inference, sliced

LEVEL = 0.05
Pair = tuple[np.ndarray, np.ndarray]


def normals(d: int, shift: float, scale: float) -> Callable[[int, np.random.Generator], Pair]:
    """Two samples of N(0, I) and N(shift/√d, scale² I): |shift|² + d (scale - 1)² apart."""

    def draw(n: int, rng: np.random.Generator) -> Pair:
        return rng.standard_normal((n, d)), scale * rng.standard_normal((n, d)) + shift / d**0.5

    return draw


def trials(draw: Callable[..., Pair], n: int, count: int) -> Iterator[tuple[int, Pair]]:
    for seed in range(count):
        yield seed, draw(n, np.random.default_rng([n, seed]))


def rejections(draw: Callable[..., Pair], n: int, count: int) -> float:
    """The share of pairs that the test tells apart at 5%."""
    p = [
        inference.two_sample_test(x, y, n_permutations=99, rng=seed).p_value for seed, (x, y) in trials(draw, n, count)
    ]
    return float(np.mean(np.array(p) <= LEVEL))


def coverage(draw: Callable[..., Pair], truth: float, n: int, count: int, **options: object) -> float:
    """The share of 95% intervals that hold the truth."""
    found = [inference.confidence_interval(x, y, rng=seed, **options) for seed, (x, y) in trials(draw, n, count)]
    return float(np.mean([low <= truth <= high for low, high, _ in found]))


def bias(draw: Callable[..., Pair], truth: float, n: int, count: int, correction: str) -> tuple[float, float]:
    """Mean and standard deviation of the error of the Fréchet distance."""
    errors = [inference.frechet_distance(x, y, correction=correction) - truth for _, (x, y) in trials(draw, n, count)]
    return float(np.mean(errors)), float(np.std(errors))


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def size_and_power(count: int) -> str:
    sizes = (20, 50, 200)
    cases = {
        "equal, d = 2": normals(2, 0.0, 1.0),
        "equal, d = 32": normals(32, 0.0, 1.0),
        "shifted by .5, d = 2": normals(2, 0.5, 1.0),
        "shifted by .5, d = 32": normals(32, 0.5, 1.0),
        "scaled by 1.3, d = 2": normals(2, 0.0, 1.3),
        "scaled by 1.3, d = 32": normals(32, 0.0, 1.3),
    }
    rows = [[name, *(f"{rejections(draw, n, count):.1%}" for n in sizes)] for name, draw in cases.items()]
    return table(["told apart at 5%", *(f"n = {n}" for n in sizes)], rows)


def coverages(count: int) -> str:
    sizes, d = (50, 200, 1000), 8
    far, near = normals(d, 1.0, 1.2), normals(d, 0.3, 1.0)
    rows_of = sliced.directions(64, d, rng=0)
    frechet, along = gaussian.w2_squared_from_samples, partial(sliced.w2_squared, directions=rows_of)
    truths = {far: 1.0 + d * 0.2**2, near: 0.09}
    along_far = float(((rows_of @ np.full(d, 1 / d**0.5)) ** 2).mean() + 0.2**2)
    cases = [
        ("Fréchet, far apart, jackknife", far, truths[far], frechet, "jackknife"),
        ("Fréchet, far apart, delta", far, truths[far], frechet, "delta"),
        ("Fréchet, nearly equal, jackknife", near, truths[near], frechet, "jackknife"),
        ("Fréchet, nearly equal, delta", near, truths[near], frechet, "delta"),
        ("sliced, far apart, jackknife", far, along_far, along, "jackknife"),
        ("sliced, far apart, delta", far, along_far, along, "delta"),
    ]
    rows = [
        [name, *(f"{coverage(draw, truth, n, count, distance=f, method=method):.1%}" for n in sizes)]
        for name, draw, truth, f, method in cases
    ]
    return table(["95% interval", *(f"n = {n}" for n in sizes)], rows)


def biases(count: int) -> str:
    sizes, d = (50, 200, 1000), 16
    draw, truth = normals(d, 0.0, 1.0), 0.0
    rows = [
        [name, *("{:.4f} ± {:.4f}".format(*bias(draw, truth, n, count, name)) for n in sizes)]
        for name in ("none", "jackknife", "extrapolate")
    ]
    return table(["correction", *(f"n = {n}" for n in sizes)], rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.calibration", description=__doc__)
    parser.add_argument("--trials", type=int, default=400, help="simulated pairs a number (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/measured/calibration.md"), help="file to write")
    options = parser.parse_args(arguments)
    error = 100 * (0.05 * 0.95 / options.trials) ** 0.5
    text = (
        f"Made by `python -m bench.calibration --trials {options.trials}`; a share near 5% or 95% is known to "
        f"±{error:.1f} points (one standard error).\n\n"
        f"**The two-sample test**, with its default distance and 99 relabellings:\n\n{size_and_power(options.trials)}\n"
        "**Intervals**, d = 8, between N(0, I) and N(m, s²I), |m| = 1 and s = 1.2 far apart, |m| = .3 and s = 1 nearly "
        f"equal:\n\n{coverages(options.trials)}\n"
        "**The Fréchet distance of samples of one distribution**, N(0, I) with d = 16, whose truth is 0: mean ± "
        f"standard deviation:\n\n{biases(options.trials)}"
    )
    options.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
