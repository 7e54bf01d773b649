"""The command ``otdist``: what a shell script asks of the library."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from . import features, gaussian, inference
from .features import Features, Statistics
from .startup import warm_up

CORRECTIONS = ("none", "jackknife", "extrapolate")

DESCRIPTION = """\
The Fréchet distance (FID) between two sets of features, with a confidence interval.

REAL and FAKE are .npy, .npz or .csv files with a point a row, or .npz files with the statistics mu and sigma that other
FID tools write. Files of any length are streamed; a correction reads all points.

  otdist fid real.npy fake.npy
  otdist fid statistics.npz fake.npy --json
  otdist fid real.npy fake.npy --correction extrapolate
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 where the input is refused."""
    options = _parser().parse_args(arguments)
    try:
        print(options.run(options))
    except (OSError, TypeError, ValueError, MemoryError) as error:
        print(f"otdist {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("otdist", description="2-Wasserstein distances from the shell.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fid = commands.add_parser(
        "fid",
        help="the Fréchet distance between two files of features",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fid.add_argument("real", metavar="REAL")
    fid.add_argument("fake", metavar="FAKE")
    fid.add_argument("--correction", choices=CORRECTIONS, default="none", help="of the bias of finite samples")
    fid.add_argument("--level", type=float, default=0.95, help="of the interval (default: %(default)s)")
    fid.add_argument("--json", action="store_true", help="print one JSON object")
    fid.set_defaults(run=fid_text)
    compiling = commands.add_parser("warm-up", help="compile every kernel once, so that later processes load them")
    compiling.set_defaults(run=lambda options: f"compiled in {warm_up():.1f} processor seconds")
    return parser


def fid_text(options: argparse.Namespace) -> str:
    """What ``otdist fid`` prints."""
    found = fid(features.load(options.real), features.load(options.fake), options.correction, options.level)
    if options.json:
        return json.dumps(found)
    sizes = " and ".join("statistics" if n is None else f"{n} points" for n in found["n"])
    lines = [f"Fréchet distance {found['value']:.6g} ({sizes}, d = {found['d']}, correction: {found['correction']})"]
    if found["low"] is not None:
        lines.append(f"{found['level']:.0%} interval {found['low']:.6g} to {found['high']:.6g}")
    if found["correction"] == "none" and any(n is not None and n < 10 * found["d"] for n in found["n"]):
        lines.append("biased upwards, for there are few points for their dimension: see --correction extrapolate")
    return "\n".join(lines)


def fid(real: Features | Statistics, fake: Features | Statistics, correction: str, level: float) -> dict[str, Any]:
    """The distance, its interval (None where a side is known by its statistics alone), sizes and settings."""
    sides = (real, fake)
    n, d = _sizes(sides)
    low = high = None
    if correction != "none" and None in n:
        raise ValueError(f"--correction {correction} needs points on both sides; a file holds mu and sigma alone")
    if not 0 < level < 1:
        raise ValueError(f"--level must be between 0 and 1; got {level:g}")
    if correction != "none" or all(k is not None and k <= d for k in n):
        x, y = (side.whole() for side in sides if isinstance(side, Features))
        value = float(inference.frechet_distance(x, y, correction=correction))
        low, high, plain = inference.confidence_interval(
            x, y, distance=gaussian.w2_squared_from_samples, method="delta", level=level
        )
        low, high = low + value - plain, high + value - plain
    else:
        value, error = _streamed(sides)
        if error is not None:
            from scipy.special import ndtri

            reach = float(ndtri((1 + level) / 2)) * error
            low, high = value - reach, value + reach
    return {"value": value, "low": low, "high": high, "level": level, "n": list(n), "d": d, "correction": correction}


def _sizes(sides: tuple[Any, Any]) -> tuple[tuple[int | None, int | None], int]:
    """How many points each side has, None for statistics; and their dimension."""
    n = tuple(side.shape[0] if isinstance(side, Features) else None for side in sides)
    dimensions = [side.shape[1] if isinstance(side, Features) else len(side.mean) for side in sides]
    if dimensions[0] != dimensions[1]:
        raise ValueError(
            f"REAL and FAKE must agree in the number of coordinates; got {dimensions[0]} and {dimensions[1]}"
        )
    for name, k in zip(("REAL", "FAKE"), n, strict=True):
        if k is not None and k < 2:
            raise ValueError(f"{name} must have at least 2 points; got {k}")
    return (n[0], n[1]), dimensions[0]


def _streamed(sides: tuple[Any, Any]) -> tuple[float, float | None]:
    """The distance and its standard error by the delta method, in two passes over each file."""
    gaussians = [_statistics(side) for side in sides]
    (mean_x, cov_x), (mean_y, cov_y) = gaussians
    value, grads = gaussian.w2_squared_and_grad(mean_x, cov_x, mean_y, cov_y)
    if not all(isinstance(side, Features) for side in sides):
        return float(value), None
    slopes = (grads.mean_x, grads.cov_x), (grads.mean_y, grads.cov_y)
    variance = 0.0
    for side, (mean, _), (shift, slope) in zip(sides, gaussians, slopes, strict=True):
        f = np.concatenate([_influence(block - mean, shift, slope) for block in side.blocks()])
        variance += float(f.var(ddof=1)) / len(f)
    return float(value), variance**0.5


def _influence(centred: np.ndarray, shift: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """How much each point moves the distance (see `inference`): its derivative along z - mean and (z - mean)²."""
    return centred @ shift + ((centred @ slope) * centred).sum(1)


def _statistics(side: Features | Statistics) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(side, Statistics):
        return side.mean, side.cov
    moments = gaussian.Moments()
    for block in side.blocks():
        moments.update(block)
    return moments.mean, moments.cov


if __name__ == "__main__":
    sys.exit(main())
