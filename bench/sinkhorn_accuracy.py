"""Error against time of the Sinkhorn divergence, ours and the rivals'; and 1000 certificates against the simplex.

    python -m bench.sinkhorn_accuracy                  # writes docs/pictures/sinkhorn-accuracy.png, prints the table
    python -m bench.sinkhorn_accuracy --sizes 256      # a part of it
    python -m bench.sinkhorn_accuracy --bounds         # bounds of 1000 random problems around POT's exact values

Each point is one tolerance (or, for GeomLoss, one scaling): the time of a call, and the relative error of its value
against the same divergence in float64 with a marginal error of 1e-9. Nobody's iterations are counted. A rival's curve
ends where a call takes longer than `LONGEST_S`.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

SHARES = (0.05, 0.01, 0.002)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
SCALINGS = (0.5, 0.7, 0.9, 0.95, 0.98)
LONGEST_S = 3.0
D = 3

Curve = Iterator[tuple[float, Callable[[], float]]]


def clouds(n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Two float32 clouds and their mean cost."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, D)), 0.7 * rng.normal(size=(n, D)) + 0.5
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum() + x.var(0).sum() + y.var(0).sum()
    return x.astype(np.float32), y.astype(np.float32), float(mean)


def ours(x: np.ndarray, y: np.ndarray, epsilon: float) -> Curve:
    from otdist import sinkhorn

    for tol in TOLERANCES:
        yield tol, lambda tol=tol: float(sinkhorn.w2_squared(x, y, epsilon=epsilon, tol=tol))


def pot(x: np.ndarray, y: np.ndarray, epsilon: float) -> Curve:
    from ot import dist
    from ot.bregman import sinkhorn_log

    def cost(x: np.ndarray, y: np.ndarray, tol: float) -> float:
        n, m = len(x), len(y)
        a, b = np.full(n, 1 / n, x.dtype), np.full(m, 1 / m, x.dtype)
        # POT stops on an L2 norm; this makes the L1 norm at most tol.
        _, log = sinkhorn_log(
            a, b, dist(x, y), epsilon, stopThr=tol / np.sqrt(m), numItermax=100_000, log=True, warn=False
        )
        return float(epsilon * (log["log_u"].mean() + log["log_v"].mean() + np.log(n) + np.log(m)))

    for tol in TOLERANCES:
        yield tol, lambda tol=tol: cost(x, y, tol) - (cost(x, x, tol) + cost(y, y, tol)) / 2


def geomloss(x: np.ndarray, y: np.ndarray, epsilon: float) -> Curve:
    import torch
    from geomloss import SamplesLoss

    u, v = torch.from_numpy(x), torch.from_numpy(y)
    for scaling in SCALINGS:
        # Its cost is |x - y|²/2 and its temperature blur²: both ε and the value are halved.
        loss = SamplesLoss("sinkhorn", p=2, blur=(epsilon / 2) ** 0.5, scaling=scaling, backend="tensorized")
        yield scaling, lambda loss=loss: 2 * float(loss(u, v))


def ott(x: np.ndarray, y: np.ndarray, epsilon: float) -> Curve:
    import jax
    from ott.geometry.pointcloud import PointCloud
    from ott.tools.sinkhorn_divergence import sinkhorn_divergence

    u, v = jax.numpy.asarray(x), jax.numpy.asarray(y)
    for tol in TOLERANCES:
        options = {"threshold": tol, "max_iterations": 100_000}

        @jax.jit
        def divergence(u, v, options=options):
            return sinkhorn_divergence(PointCloud, u, v, epsilon=epsilon, solve_kwargs=options)[0]

        yield tol, lambda f=divergence: float(f(u, v))


CONTENDERS = {"otdist": ours, "GeomLoss": geomloss, "OTT (jitted, warm)": ott, "POT sinkhorn_log": pot}


def measure(curve: Curve, truth: float) -> list[tuple[float, float, float]]:
    """(setting, seconds, relative error) of each point; the first call, which may compile, is not timed."""
    points = []
    for setting, call in curve:
        start = time.perf_counter()
        value = call()
        if time.perf_counter() - start > 3 * LONGEST_S:
            break
        times = []
        while not times or (sum(times) < 0.5 and len(times) < 9):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        error = abs(value - truth) / truth
        points.append((setting, float(np.median(times)), error if np.isfinite(error) else 1.0))
        if times[0] > LONGEST_S:
            break
    return points


def panel(axis, n: int, share: float) -> None:
    """One picture and its rows of the table."""
    from otdist import sinkhorn

    x, y, mean = clouds(n)
    epsilon = share * mean
    truth = float(sinkhorn.w2_squared(x.astype(float), y.astype(float), epsilon=epsilon, tol=1e-9, max_iter=20_000))
    for name, make in CONTENDERS.items():
        try:
            points = measure(make(x, y, epsilon), truth)
        except ModuleNotFoundError as missing:
            print(f"| {n} | {share:g} | {name} | not installed: {missing.name} |")
            continue
        told = ", ".join(f"{1e3 * seconds:.3g} ms: {error:.0e}" for _, seconds, error in points)
        print(f"| {n} | {share:g} | {name} | {told} |", flush=True)
        if points:
            _, seconds, errors = zip(*points, strict=True)
            axis.loglog(seconds, np.maximum(errors, 1e-8), "o-", ms=3, label=name, lw=2 if name == "otdist" else 1)
    axis.set_title(f"n = {n}, ε = {share:g} mean cost", fontsize=9)
    axis.grid(alpha=0.3)


def pictures(sizes: list[int], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(sizes), len(SHARES), figsize=(10, 2.9 * len(sizes)), sharey=True, squeeze=False)
    print("| n | ε / mean cost | | time: relative error of the value |\n|---|---|---|---|")
    for row, n in zip(axes, sizes, strict=True):
        for axis, share in zip(row, SHARES, strict=True):
            panel(axis, n, share)
        row[0].set_ylabel("relative error")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "sinkhorn-accuracy.png", dpi=90)


def check_bounds(count: int = 1000) -> int:
    """How many of so many random problems have an exact value outside of their bounds; every kind of problem is in."""
    import ot

    from otdist import sinkhorn

    outside, widths = 0, []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        n, m, d = rng.integers(1, 80), rng.integers(1, 80), rng.integers(1, 12)
        x, y = rng.normal(size=(n, d)), rng.exponential(size=(m, d)) * 10.0 ** rng.uniform(-2, 1)
        a, b = rng.dirichlet(np.full(n, 0.5)), rng.dirichlet(np.full(m, 0.5))
        cost = ((x[:, None] - y) ** 2).sum(-1)
        epsilon = float(cost.mean() * 10.0 ** rng.uniform(-3.5, 0.5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bounds hold before convergence: every third problem is stopped early
            result = sinkhorn.solve(x, y, a, b, epsilon=epsilon, max_iter=2 if seed % 3 == 0 else 5000)
            exact = float(ot.emd2(a, b, cost))
        lower, upper = result.bounds()
        widths.append((upper - lower) / exact)
        rounding = 1e-13 * cost.max()  # the simplex rounds, too
        outside += not lower - rounding <= exact <= upper + rounding
    print(f"{outside} of {count} exact values lie outside of their bounds; median width {np.median(widths):.2g}")
    return outside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1000, 4000])
    parser.add_argument("--bounds", action="store_true", help="check 1000 certificates and stop")
    arguments = parser.parse_args()
    if arguments.bounds:
        sys.exit(check_bounds() > 0)
    pictures(arguments.sizes, arguments.out)


if __name__ == "__main__":
    main()
