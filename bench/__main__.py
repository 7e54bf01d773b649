"""`python -m bench`: run the workloads, print the table, leave JSON and pictures in a folder."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from bench import device, report, run, workloads
from bench.workload import Workload

DESCRIPTION = """\
Measures otdist side by side with its rivals. Values are checked first; then everybody takes turns.
Exit status 1 if our answers were wrong or contradicted, 2 if there was nothing to run.

    python -m bench --only gaussian
    python -m bench --only gaussian-value-512 --seconds 10
    python -m bench --device cuda                             calls of tensors, on a graphics card
    python -m bench --resume                                  what an interrupted run had not come to
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m bench", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="groups or names; may be repeated")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of timing for each workload (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the workloads and stop")
    parser.add_argument("--device", default="cpu", help="where tensors are, cuda say (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="keep what --out has, measure the rest")
    options = parser.parse_args(arguments)
    chosen = workloads.select(options.only)
    chosen = workloads.on_host(chosen) if options.device == "cpu" else workloads.on_device(chosen)
    if not chosen:
        print(f"no workload matches {' '.join(options.only)}; --list names them", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{workload.name:32} {workload.title}" for workload in chosen))
        return 0
    try:
        with device.use(options.device):
            reports, described = _run(chosen, options.seconds, options.out, options.resume)
    except device.NoSuchDevice as error:
        print(error, file=sys.stderr)
        return 2
    print(report.to_markdown(reports, described))
    report.plot(reports, options.out)
    if {workload.name for workload in chosen} - {measured.workload for measured in reports}:
        print("interrupted: --resume measures the rest", file=sys.stderr)
        return 130
    return 0 if all(r.right for r in reports) else 1


def _run(
    chosen: list[Workload], seconds: float, folder: Path, resume: bool
) -> tuple[list[run.Report], dict[str, object]]:
    """The reports in the table's order, written after each, so that Ctrl-C loses the one under way and no more."""
    described = report.machine()
    found = _measured_here(folder, described) if resume else {}
    with suppress(KeyboardInterrupt):
        for workload in chosen:
            if workload.name not in found:
                found[workload.name] = _measured(workload, seconds)
                report.write(_in_order(found), described, folder)
    return _in_order(found), described


def _in_order(found: dict[str, run.Report]) -> list[run.Report]:
    return [found[workload.name] for workload in workloads.WORKLOADS if workload.name in found]


def _measured_here(folder: Path, described: dict[str, object]) -> dict[str, run.Report]:
    """What an earlier run with the same versions on the same kind of machine left in the folder."""
    path = folder / "results.json"
    if not path.exists():
        return {}
    reports, machine = report.from_json(path.read_text(encoding="utf-8"))
    return {r.workload: r for r in reports} if machine == described else {}


def _measured(workload: Workload, seconds: float) -> run.Report:
    print(f"{workload.title} ...", file=sys.stderr, flush=True)
    measured = run.run(workload, budget_s=seconds)
    print(report.table([measured]).partition("\n|---")[2].partition("\n")[2], file=sys.stderr, flush=True)
    return measured


if __name__ == "__main__":
    sys.exit(main())
