"""Saying what was measured: JSON for machines, a Markdown table for people, two pictures."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench import device
from bench.rivals import version_of
from bench.run import Report, Result

LIBRARIES = (
    *("otdist", "numpy", "scipy", "numba", "torch", "triton", "POT", "torchmetrics", "geomloss", "jax", "ott-jax"),
    "flash-sinkhorn",
)


def machine() -> dict[str, object]:
    """What the numbers depend on; nothing that tells whose machine it was."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: version_of(name) for name in LIBRARIES},
        **device.described(),
    }


def _cpu_model() -> str:
    """The model's name where Linux tells it, with the family number: hypervisors cut the name short."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def to_json(reports: list[Report], described: dict[str, object]) -> str:
    return json.dumps({"machine": described, "workloads": [asdict(r) for r in reports]}, indent=1, ensure_ascii=False)


def write(reports: list[Report], described: dict[str, object], folder: Path) -> None:
    """`results.json` and `results.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(to_json(reports, described), encoding="utf-8")
    (folder / "results.md").write_text(to_markdown(reports, described), encoding="utf-8")


def from_json(text: str) -> tuple[list[Report], dict[str, object]]:
    content = json.loads(text)
    reports = [
        Report(**{**workload, "results": [Result(**result) for result in workload["results"]]})
        for workload in content["workloads"]
    ]
    return reports, content["machine"]


def to_markdown(reports: list[Report], described: dict[str, object]) -> str:
    """The whole result as Markdown: the machine, a table for each group, and what to know about the columns."""
    libraries = described["libraries"]
    assert isinstance(libraries, dict)
    listed = ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
    card = f"{described['device']}; " if "device" in described else ""
    parts = [f"{card}{described['cpu']}, {described['cores']} cores, Python {described['python']}; {listed}."]
    for group in dict.fromkeys(report.group for report in reports):
        parts.append(table([report for report in reports if report.group == group]))
    parts.append(
        "*faster*: median over rounds of the rival's time over ours in the same round, with the quartiles, "
        "*unsteady* where these are too far apart to prove anything; *promised*: the least that we promise. "
        "*error*: relative, against the known true answer: of the value, then the largest of the gradients."
    )
    return "\n\n".join(parts) + "\n"


def table(reports: list[Report]) -> str:
    lines = [
        "| workload | rival | ours | rival's | faster | promised | error of ours | error of rival's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        lines += [f"| {' | '.join(_cells(report, rival))} |" for rival in report.results[1:] or [None]]
    for report in reports:
        for result in report.results:
            if result.detail:
                lines += ["", f"{report.title}, {result.contender}: {result.status}. {result.detail}"]
    return "\n".join(lines)


def _cells(report: Report, rival: Result | None) -> list[str]:
    ours = report.ours
    mine = seconds(ours.median) if ours.times else ours.status
    if rival is None:
        return [report.title, "–", mine, "–", "–", _promise(report, None), _errors(ours), "–"]
    theirs = seconds(rival.median) if rival.times else rival.status
    promise = _promise(report, rival)
    return [report.title, rival.contender, mine, theirs, _ratio(rival), promise, _errors(ours), _errors(rival)]


def seconds(time: float | None) -> str:
    if time is None:
        return "–"
    unit, size = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if time >= s), ("µs", 1e-6))
    return f"{time / size:.3g} {unit}"


def mebibytes(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


def _ratio(result: Result) -> str:
    if result.ratio is None or result.ratio_quartiles is None:
        return "–"
    low, high = result.ratio_quartiles
    return f"{result.ratio:.3g}x ({low:.3g}–{high:.3g}{'' if result.steady else ', unsteady'})"


def _promise(report: Report, rival: Result | None) -> str:
    """The promise and whether it was kept: of the ratio, and of our own time and memory."""
    said = []
    if rival is not None and rival.at_least is not None:
        verdict = {True: "kept", False: "**missed**", None: "not measured"}[rival.meets_target]
        said.append(f"{rival.at_least:.3g}x: {verdict}")
    if report.at_most_s is not None and report.ours.median is not None:
        verdict = "kept" if report.ours.median <= report.at_most_s else "**missed**"
        said.append(f"{seconds(report.at_most_s)}: {verdict}")
    if report.at_most_bytes is not None and report.ours.peak_bytes is not None:
        verdict = "kept" if report.ours.peak_bytes <= report.at_most_bytes else "**missed**"
        said.append(f"{mebibytes(report.at_most_bytes)}: {verdict} ({mebibytes(report.ours.peak_bytes)})")
    return ", ".join(said) or "–"


def _errors(result: Result) -> str:
    value = result.errors.get("value")
    gradients = [error for name, error in result.errors.items() if name != "value"]
    said = [f"{error:.0e}" if error else "0" for error in (value, max(gradients, default=None)) if error is not None]
    return ", ".join(said) or "–"


def plot(reports: list[Report], folder: Path) -> None:
    """`<group>.png`: time against error, one panel a workload; `ratios.png`: every ratio beside its promise."""
    import matplotlib

    matplotlib.use("Agg")
    for group in dict.fromkeys(report.group for report in reports):
        _plot_errors([r for r in reports if r.group == group and r.ours.errors], folder / f"{group}.png")
    _plot_ratios(reports, folder / "ratios.png")


def _plot_errors(reports: list[Report], path: Path) -> None:
    from matplotlib import pyplot

    if not reports:
        return
    columns = min(3, len(reports))
    rows = -(-len(reports) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.6 * rows), squeeze=False)
    for axis in axes.flat[len(reports) :]:
        axis.remove()
    for report, axis in zip(reports, axes.flat, strict=False):
        for result in report.results:
            error = result.errors.get("value")
            if result.median is None or error is None:
                continue
            # Zero error has no place on a logarithmic axis: a tenth of float64's eps stands for it.
            point = (result.median, max(error, 2e-17))
            axis.scatter(*point, marker="*" if result is report.ours else "o", s=60, label=result.contender)
        axis.set(xscale="log", yscale="log", xlabel="seconds a call", ylabel="relative error of the value")
        times = [result.median for result in report.results if result.median]
        axis.set_xlim(10 ** np.floor(np.log10(min(times))), 10 ** np.ceil(np.log10(max(times))))
        axis.set_title(report.title, fontsize=9)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _plot_ratios(reports: list[Report], path: Path) -> None:
    from matplotlib import pyplot

    dots = [(f"{r.title}\n{x.contender}", x) for r in reports for x in r.results[1:] if x.ratio is not None]
    if not dots:
        return
    figure, axis = pyplot.subplots(figsize=(9, 0.45 * len(dots) + 1))
    for place, (_, result) in enumerate(dots):
        assert result.ratio is not None
        assert result.ratio_quartiles is not None
        axis.hlines(place, *result.ratio_quartiles, color="black", linewidth=1)
        axis.plot(result.ratio, place, "o", color="tab:orange" if result.meets_target is False else "tab:blue")
        if result.at_least is not None:
            axis.plot(result.at_least, place, "|", color="tab:red", markersize=16, markeredgewidth=2)
    axis.set_yticks(range(len(dots)), [label for label, _ in dots], fontsize=7)
    axis.set_ylim(len(dots) - 0.5, -0.5)
    axis.axvline(1.0, color="gray", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)
    axis.set(xscale="log", xlabel="times faster than the rival (red: promised; line: quartiles over rounds)")
    figure.savefig(path, dpi=100, bbox_inches="tight")  # the labels are longer than any margin
    pyplot.close(figure)
