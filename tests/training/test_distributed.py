"""A run of two processes, one of which is killed: the other stops and says why."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.training.distributed import Hosts, parse_hosts

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path

import jax

from mammoth_jax.training.distributed import join_hosts, leave_lost_run, parse_hosts

join_hosts(parse_hosts(sys.argv[1]), lost_after=10)
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.training.loop import train
from mammoth_jax.training.work import RunConfig
from tests.training.toy import work

config = RunConfig(steps=1_000_000, batch_size=4, checkpoint_interval=2_000_000, evaluation_interval=2_000_000)
try:
    train(work(config, make_mesh(None)), config, Path(sys.argv[2]), make_mesh(None))
except jax.errors.JaxRuntimeError as error:
    leave_lost_run(error)
"""


def test_hosts_are_named_by_hand_or_by_the_cluster():
    assert parse_hosts("auto") == Hosts()
    assert parse_hosts("a:7,2,1") == Hosts("a:7", 2, 1)
    for text in ("a,2,1", "a:7,2,2", "a:7"):
        with pytest.raises(InputError, match="write auto, or ADDRESS:PORT,COUNT,NUMBER"):
            parse_hosts(text)


@pytest.mark.slow
def test_a_host_that_is_gone_stops_the_others_with_the_reason(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}

    def start(number):
        with (tmp_path / f"{number}.log").open("w") as log:
            words = [sys.executable, "-c", PROGRAM, f"localhost:{port},2,{number}", str(tmp_path / "run")]
            return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)

    first, second = start(0), start(1)
    try:
        deadline = time.monotonic() + 300
        file = tmp_path / "run" / "metrics.jsonl"
        while not file.exists() or file.read_text().count("\n") < 5:
            for number, process in enumerate((first, second)):
                assert process.poll() is None, (tmp_path / f"{number}.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(0.2)
        second.send_signal(signal.SIGKILL)
        assert first.wait(timeout=60) != 0
    finally:
        for process in (first, second):
            process.kill()
    said = (tmp_path / "0.log").read_text()
    assert "host 0 of 2: a step could not be finished with the other hosts" in said or "heartbeat" in said, (
        said[-3000:]
    )
