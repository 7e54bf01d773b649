"""The README's two tables of speeds, from what was measured: `python -m bench.summary` writes them there."""

import re
import sys
from pathlib import Path

from bench import report
from bench.run import Report

ROOT = Path(__file__).parent.parent
README, MEASURED = ROOT / "README.md", ROOT / "docs" / "measured" / "results.json"

# Short names of rivals, and which of them the short table names.
RIVALS = {
    "POT": "POT",
    "torchmetrics": "torchmetrics",
    "GeomLoss tensorized, scaling 0.95": "GeomLoss",
    "OTT": "OTT",
    "torch.sort": "`torch.sort`",
}
ROWS = {
    "gaussian-value-512": "W2² of two Gaussians, d = 512",
    "gaussian-value-2048": "the same, d = 2048",
    "gaussian-batch-8": "4096 Gaussian pairs, d = 8, with gradient",
    "gaussian-samples-500-2048": "Fréchet distance of 500 samples, d = 2048",
    "sliced-value": "sliced, 20000 points, d = 64, 100 directions",
    "sliced-gradient": "the same with gradient",
    "line-weighted": "one dimension, 10⁶ weighted points",
    "sinkhorn-256": "Sinkhorn divergence with gradient, 256 points, d = 16",
    "sinkhorn-256-batch": "64 of them in a batch",
    "sinkhorn-1000": "1000 points, d = 2, ε = .01 of the mean cost",
    "sinkhorn-4000": "4000 points, d = 64",
}
FIRST_CALLS = {
    "a Gaussian pair; `diagonal`, `w2_squared(q, p)`, `line`, `sliced`, `exact` with gradient": (
        *("gaussian-8", "gaussian-200", "diagonal", "distributions", "line", "sliced", "exact"),
    ),
    "4096 Gaussian pairs with gradient": ("gaussian-batch",),
    "Sinkhorn divergence with gradient, 256 points": ("sinkhorn-256", "sinkhorn-256-float32"),
}


def first_calls(found: dict[str, Report]) -> str:
    """Processor seconds of first calls, with nothing compiled and with a filled cache."""
    lines = ["| first call | nothing compiled yet | kernels in the cache |", "|---|---|---|"]
    for title, names in FIRST_CALLS.items():
        cells = [_range([found[f"first-call-{name}{cold}"] for name in names]) for cold in ("-cold", "")]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _range(reports: list[Report]) -> str:
    """The least and the largest of the medians, in seconds."""
    times = sorted({f"{r.ours.median or 0:.2g}" for r in reports}, key=float)
    return "–".join({times[0]: None, times[-1]: None})


def speeds(found: dict[str, Report]) -> str:
    """Our time, how many times faster than whom, and the errors of the values."""
    lines = ["| | ours | times faster than | relative error, ours and theirs |", "|---|---|---|---|"]
    for name, title in ROWS.items():
        ours = found[name].ours
        named = [(short, x) for x in found[name].results[1:] for rival, short in RIVALS.items() if rival in x.contender]
        ratios = ", ".join(f"{short} {x.ratio:.3g}{'' if x.steady else ' (unsteady)'}" for short, x in named if x.ratio)
        errors = ", ".join(f"{x.errors['value']:.0e}" for _, x in named if x.ratio)
        lines.append(f"| {title} | {report.seconds(ours.median)} | {ratios} | {ours.errors['value']:.0e}; {errors} |")
    return "\n".join(lines)


def written(readme: str, measured: str) -> str:
    """The README with both tables as measured, each between its marks."""
    reports, _ = report.from_json(measured)
    found = {r.workload: r for r in reports}
    for mark, text in (("first calls", first_calls(found)), ("speeds", speeds(found))):
        between = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = between.sub(lambda marks, text=text: f"{marks[1]}{text}\n{marks[2]}", readme)
    return readme


def main() -> int:
    README.write_text(written(README.read_text("utf-8"), MEASURED.read_text("utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
