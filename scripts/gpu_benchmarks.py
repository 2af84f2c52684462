"""Everything that is to be measured on a GPU, one job after another, into a file of JSON lines.

    python scripts/gpu_benchmarks.py --out gpu.jsonl              # again and again: each run ends within --minutes
    python scripts/gpu_benchmarks.py --out gpu.jsonl --report     # the figures beside what was asked for
    python scripts/gpu_benchmarks.py --out try.jsonl --small      # the same jobs at the smallest sizes, on a CPU

A job is one command in a process of its own.  One that has a line in the file is not run again (take the line out to
try again); one that did not fit into what was left of a run is begun again by the next run, and given up if it does not
fit into a whole one.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PRESETS = ("preview", "dev")
GRIDS = ("64x64", "32x32")
ROOT = Path(__file__).resolve().parent.parent
SECONDS = {("H200", "preview"): 28, ("H200", "dev"): 31, ("H100", "preview"): 38, ("H100", "dev"): 42}
"""For the whole picture of 1024x1024 with 64x64 visual tokens, 50 steps, guided in both stages."""

FRACTIONS = {"copy_floor_fraction": ("copy floor", 60), "product_rate_fraction": ("product rate", 50)}


@dataclasses.dataclass(frozen=True)
class Job:
    """A command of ``mammoth-jax``; its standard output is JSON lines, or text where ``json`` is false."""

    name: str
    words: tuple[str, ...]
    json: bool = True


def jobs(small: bool) -> list[Job]:
    """All jobs, the most important first."""
    presets = ("nano",) if small else PRESETS
    picture = ("--size", "64x64") if small else ("--size", "1024x1024")
    grids = ("8x8", "4x4") if small else GRIDS
    steps, repeats = ("4", "1") if small else ("50", "3")
    cases = sorted(file.parent for file in (ROOT / "tests" / "vectors").glob("**/cases.json"))
    out = [Job(f"verify {case.name}", ("verify", str(case)), json=False) for case in cases]

    def bench(label: str, name: str, preset: str, *more: str) -> Job:
        words = ("bench", name, "--preset", preset, *picture, "--repeats", repeats, "--json", *more)
        return Job(f"{label} {preset}", words)

    for grid in grids:
        for preset in presets:
            whole = ("--grid", grid, "--steps", steps)
            out.append(bench(f"generate {grid}", "generate", preset, *whole))
    for preset in presets:
        for batch in ("1", "8"):
            more = ("--grid", grids[1], "--batch", batch)
            out.append(bench(f"decode {grids[1]} batch {batch}", "decode", preset, *more))
            int8 = ("--decode-weights", "int8", "--cache", "int8")
            out.append(bench(f"decode {grids[1]} batch {batch} int8", "decode", preset, *more, *int8))
        diffusion = ("--grid", grids[1], "--steps", steps)
        out.append(bench("dit", "dit", preset, *diffusion))
        out.append(bench("dit guided to 0.6", "dit", preset, *diffusion, "--cfg-range", "0,0.6"))
        out.append(bench("dit step cache 0.2", "dit", preset, *diffusion, "--step-cache", "0.2"))
        out.append(bench("vae", "vae", preset))
    for name in ("attention", "routed_ffn", "cross_entropy"):
        out.append(bench(name, name, presets[-1]))
    for name in ("reference", "chunked") if small else ("chunked", "cudnn"):
        out.append(bench(f"attention {name}", "attention", presets[-1], "--implementation", name))
    for name in ("both", "ragged"):
        out.append(bench(f"routed_ffn {name}", "routed_ffn", presets[-1], "--implementation", name))
    return out


def main() -> int:
    """Runs what is left and fits; 0 when nothing is left, 3 when there is more to do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=7.5, help="that one run may take (default 7.5)")
    parser.add_argument("--small", action="store_true", help="smallest sizes, one sample")
    parser.add_argument("--only", metavar="TEXT", help="jobs whose name contains this")
    parser.add_argument("--report", action="store_true", help="print what was measured, and run nothing")
    args = parser.parse_args()
    if args.report:
        print("\n".join(report(read(args.out))))
        return 0
    todo = [job for job in jobs(args.small) if args.only is None or args.only in job.name]
    return 0 if work(todo, args.out, 60 * args.minutes) else 3


def work(todo: list[Job], file: Path, seconds: float) -> bool:
    """Runs jobs until the time is over; whether all are finished (or given up)."""
    finished = {record["job"] for record in read(file)}
    left = [job for job in todo if job.name not in finished]
    end, first = time.monotonic() + seconds, True
    for number, job in enumerate(left):
        remaining = end - time.monotonic()
        records = run(job, remaining) if remaining > 0 else None
        if records is None and first:
            records = [{"job": job.name, "error": f"longer than {seconds:.0f} s"}]
        if records is None:
            print(f"{len(left) - number} of {len(todo)} jobs left", flush=True)
            return False
        first = False
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)
        print(f"{job.name}: {records[-1].get('error', 'done')}", flush=True)
    return True


def run(job: Job, seconds: float) -> list[dict[str, Any]] | None:
    """What a job printed, a record a line; ``None`` if the time was over before it ended."""
    command = [sys.executable, "-m", "mammoth_jax", *job.words]
    try:
        done = subprocess.run(command, timeout=seconds, capture_output=True, text=True, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        why = (done.stderr.strip().splitlines() or lines or ["no output"])[-1]
        return [{"job": job.name, "error": f"exit status {done.returncode}: {why}"}]
    if not job.json:
        return [{"job": job.name, "result": lines[-1]}]
    return [{"job": job.name} | json.loads(line) for line in lines]


def read(file: Path) -> list[dict[str, Any]]:
    """The records so far."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def report(records: list[dict[str, Any]]) -> list[str]:
    """One line a case, with what was asked for where something was."""
    return [f"{record['job']}: {figures(record)}" for record in records]


def figures(record: dict[str, Any]) -> str:
    """What a record says."""
    if "median_s" not in record:
        return record.get("error") or record["result"]
    text = f"{record['case']} {record['median_s']:.4g} s, {100 * record['roofline_fraction']:.0f} % of the roofline"
    for key, (what, asked) in FRACTIONS.items():
        if key in record:
            text += f", {100 * record[key]:.0f} % of the {what} (asked on a GPU: {asked} %)"
    chip = next((name for name in ("H100", "H200") if name in record["device"]), "")
    asked = SECONDS.get((chip, record.get("preset", "")))
    if asked is not None and record["case"] == "whole" and record["grid"] == GRIDS[0]:
        text += f" (asked: under {asked} s)"
    return text


if __name__ == "__main__":
    sys.exit(main())
