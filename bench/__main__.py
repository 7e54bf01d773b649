"""`python -m bench`: run the workloads, print the table, leave JSON and pictures in a folder."""

import argparse
import sys
from pathlib import Path

from bench import device, report, run, workloads
from bench.workload import Workload

DESCRIPTION = """\
Measures otdist side by side with its rivals. Values are checked first; then everybody takes turns.
Exit status 1 if our answers were wrong or contradicted, 2 if there was nothing to run.

    python -m bench --only gaussian
    python -m bench --only gaussian-value-512 --seconds 10
    python -m bench --device cuda                             calls of tensors, on a graphics card
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
    options = parser.parse_args(arguments)
    chosen = workloads.select(options.only)
    if options.device != "cpu":
        chosen = workloads.on_device(chosen)
    if not chosen:
        print(f"no workload matches {' '.join(options.only)}; --list names them", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{workload.name:32} {workload.title}" for workload in chosen))
        return 0
    try:
        with device.use(options.device):
            reports = [_measured(workload, options.seconds) for workload in chosen]
            described = report.machine()
    except device.NoSuchDevice as error:
        print(error, file=sys.stderr)
        return 2
    text = report.to_markdown(reports, described)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(report.to_json(reports, described), encoding="utf-8")
    (options.out / "results.md").write_text(text, encoding="utf-8")
    report.plot(reports, options.out)
    return 0 if all(r.right for r in reports) else 1


def _measured(workload: Workload, seconds: float) -> run.Report:
    print(f"{workload.title} ...", file=sys.stderr, flush=True)
    return run.run(workload, budget_s=seconds)


if __name__ == "__main__":
    sys.exit(main())
