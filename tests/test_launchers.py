"""Launch scripts with a trainer that only ends: which failures they start again after, and how often."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINER = """#!/bin/bash
echo "$*" >>"$CALLS"
exit "$(sed -n "$(wc -l <"$CALLS")p" "$STATUSES")"
"""


@pytest.fixture
def launch(tmp_path):
    """Runs a launcher with a trainer that ends with one status after the other; its own status, and the calls."""
    for name, text in (("mammoth-jax", TRAINER), ("srun", '#!/bin/bash\nshift\nexec "$@"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(script, *statuses, **environment):
        calls, ends = tmp_path / "calls", tmp_path / "statuses"
        calls.write_text("")
        ends.write_text("".join(f"{status}\n" for status in statuses))
        environment |= {
            "CALLS": str(calls),
            "STATUSES": str(ends),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        }
        words = ["bash", str(script), "nano/text", str(tmp_path / "run"), "--run.seed", "3 4"]
        done = subprocess.run(words, env={**os.environ, **environment}, cwd=ROOT, timeout=60, check=False)
        return done.returncode, calls.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("statuses", "status", "calls"),
    [((1, 1, 0), 0, 3), ((1, 1, 1), 1, 3), ((1, 2), 2, 2), ((130,), 130, 1), ((0,), 0, 1)],
)
@pytest.mark.parametrize("script", ["hosts", "slurm"])
def test_what_fails_is_started_again_unless_it_would_fail_again(launch, script, statuses, status, calls):
    place = ROOT / "scripts" / f"launch_{script}.sh"
    ended, seen = launch(place, *statuses, HOSTS="localhost", RESTARTS="2")
    assert (ended, len(seen)) == (status, calls)
    assert seen[0].startswith("train nano/text --out") and seen[0].endswith("--run.seed 3 4")


def test_slurm_runs_a_copy_from_elsewhere(launch, tmp_path):
    copy = shutil.copy(ROOT / "scripts" / "launch_slurm.sh", tmp_path / "slurm_script")
    ended, seen = launch(copy, 1, 0, SLURM_SUBMIT_DIR=str(ROOT))
    assert ended == 0 and len(seen) == 2


def test_a_host_that_fails_stops_the_others(launch, tmp_path):
    (tmp_path / "mammoth-jax").write_text("#!/bin/bash\n[[ $* == *,2,1* ]] && exit 7\nexec sleep 300\n")
    assert launch(ROOT / "scripts" / "launch_hosts.sh", HOSTS="localhost localhost")[0] == 7
