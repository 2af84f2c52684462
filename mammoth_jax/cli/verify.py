"""Compare this installation with recorded numbers of the released implementation.

Runs every case of the given sets at the highest matmul precision, loading weights through the converter, and prints
for each the value that is furthest from its record.  A proof that the numbers hold on a new accelerator or version.
Exit status 1 if any value misses its tolerance, or a case is not known (unless --allow-unknown).
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammoth_jax.evals.vectors.verify import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a vector set: a folder with cases.json"
    )
    parser.add_argument(
        "--allow-unknown", action="store_true", help="a case that no code here runs is not a failure"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a case, and one for the totals")


def run(args: argparse.Namespace) -> int:
    """Verifies the sets; 0 if everything that ran passed."""
    from mammoth_jax.evals.vectors.verify import known_runners, read_set, verify

    sets = [(folder, read_set(folder)) for folder in args.folders]
    runners, compared = known_runners()
    reports = []
    for folder, cases in sets:
        for report in verify(cases, runners, compared):
            reports.append(report)
            print(json.dumps(record(folder, report)) if args.json else line(report), flush=True)
    passed = sum(report.passed for report in reports)
    unknown = sum(not report.known for report in reports)
    failed = len(reports) - passed - unknown
    if args.json:
        print(json.dumps({"passed": passed, "failed": failed, "not_run": unknown}))
    else:
        print(f"{passed} passed, {failed} failed, {unknown} not run")
    return 1 if failed or (unknown and not args.allow_unknown) else 0


def line(report: "Report") -> str:
    """A case's outcome for a person: the worst value, its error, its tolerance and their ratio."""
    status = "ok" if report.passed else ("not run" if not report.known else "FAILED")
    head = f"{status:8}{report.name:24}"
    worst = report.worst
    if worst is None:
        return f"{head}{report.problem}" + (f"  {report.seconds:.1f} s" if report.known else "")
    misses = sum(not c.passed for c in report.comparisons)
    count = (
        f"{len(report.comparisons)} compared"
        if not misses
        else f"{misses} of {len(report.comparisons)} missed"
    )
    detail = (
        worst.problem or f"error {worst.error:.2e}, tolerance {worst.tolerance:.2e}, ratio {worst.ratio:.2f}"
    )
    return f"{head}worst {worst.name}: {detail}; {count}  {report.seconds:.1f} s"


def record(folder: Path, report: "Report") -> dict[str, Any]:
    """A case's outcome for a program; infinite numbers are null."""
    worst = report.worst
    return {
        "set": str(folder),
        "case": report.name,
        "status": "passed" if report.passed else ("not_run" if not report.known else "failed"),
        "compared": len(report.comparisons),
        "missed": [c.name for c in report.comparisons if not c.passed],
        "worst": None
        if worst is None
        else {
            "name": worst.name,
            "error": _finite(worst.error),
            "tolerance": worst.tolerance,
            "ratio": _finite(worst.ratio),
            "problem": worst.problem,
        },
        "problem": report.problem,
        "seconds": round(report.seconds, 3),
    }


def _finite(x: float) -> float | None:
    return x if x not in (float("inf"), float("-inf")) else None
