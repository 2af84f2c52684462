"""A disk that is full during a save: the run says so, and its last complete checkpoint stays."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

from mammoth_jax.training.checkpoint import Checkpoints, SaveFailed

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path

import jax

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.training.checkpoint import Checkpoints, SaveFailed
from mammoth_jax.training.loop import train
from mammoth_jax.training.work import RunConfig
from tests.training.toy import work

run, log = Path(sys.argv[1]), Path(sys.argv[2])
config = RunConfig(steps=400, batch_size=8, checkpoint_interval=1, keep_every=1, evaluation_interval=999)
(run / "metrics.jsonl").symlink_to(log)  # elsewhere: it is the save that must find the disk full
toy = work(config, single_device_mesh())
try:
    train(toy, config, run, single_device_mesh())
except SaveFailed as failed:
    print("SAID", failed)
checkpoints = Checkpoints(run)
last = checkpoints.latest()
state, _ = checkpoints.restore(last, toy.initial())
print("LAST", last, int(state.step))
"""


def has_small_disks():
    """Whether this machine lets a process mount a disk of its own."""
    words = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.skipif(not has_small_disks(), reason="needs user namespaces to mount a small disk")
def test_the_last_complete_checkpoint_stays_and_the_run_says_so(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    words = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        inside,
        "sh",
        str(disk),
        sys.executable,
        PROGRAM,
        str(tmp_path / "log"),
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    said = [line for line in done.stdout.splitlines() if line.startswith(("SAID", "LAST"))]
    assert len(said) == 2, done.stdout[-2000:] + done.stderr[-2000:]
    _, last, step = said[1].split()
    assert last == step and int(last) >= 1
    assert "No space left on device" in said[0] and f"the last complete one is of step {last}" in said[0]


def test_a_write_whose_error_comes_as_the_run_closes_is_a_failed_save_too(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    original = ocp.CheckpointManager.close

    def full(manager):  # as Orbax does where state and position both failed: the second error waits for the end
        original(manager)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "close", full)
    with pytest.raises(SaveFailed, match="No space left on device; there is none yet"):
        checkpoints.close()
