"""Hosts of one run agree: on who reads which rows, and on the step after which they stop."""

import dataclasses
import signal
import sys
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import AXES
from mammoth_jax.training.checkpoint import Checkpoints
from mammoth_jax.training.hosts import reading_share
from tests.training.commands import logged, start_hosts

PROGRAM = """
import sys
from pathlib import Path

from mammoth_jax.training.distributed import join_hosts, parse_hosts

join_hosts(parse_hosts(sys.argv[sys.argv.index("--hosts") + 1]), lost_after=10)
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.training.loop import Interrupted, train
from mammoth_jax.training.work import RunConfig
from tests.training.toy import work

config = RunConfig(steps=1_000_000, batch_size=4, checkpoint_interval=2_000_000, evaluation_interval=2_000_000)
try:
    train(work(config, make_mesh(None)), config, Path(sys.argv[-1]), make_mesh(None))
except Interrupted as stopped:
    print("SAID", stopped)
"""


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh needs to know of a device that is not here."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


def shares(sizes, per_host):
    """Every host's share of the rows, on a mesh of devices in the order of their hosts."""
    devices = [Device(i, i // per_host) for i in range(int(np.prod(sizes)))]
    mesh = Mesh(np.array(devices).reshape(sizes), AXES)
    return [reading_share(mesh, host) for host in range(len(devices) // per_host)]


@pytest.mark.parametrize(
    ("sizes", "per_host", "expected"),
    [
        ((2, 2, 2), 8, [(0, 1)]),
        ((2, 2, 2), 4, [(0, 2), (1, 2)]),
        ((1, 2, 4), 2, [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ((1, 1, 4), 2, [(0, 1), (0, 1)]),
    ],
)
def test_hosts_of_one_tensor_group_read_the_same_rows(sizes, per_host, expected):
    assert shares(sizes, per_host) == expected


def test_a_mesh_that_cuts_rows_across_hosts_or_leaves_one_out_is_refused():
    with pytest.raises(
        InputError, match=r"mesh data=1,fsdp=4,tensor=3: hosts hold parts of each other's rows"
    ):
        shares((1, 4, 3), 4)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), AXES)
    with pytest.raises(InputError, match="has no device of host 1"):
        reading_share(mesh, 1)


@pytest.mark.slow
def test_a_signal_to_one_host_stops_all_after_the_same_step(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    hosts = start_hosts([sys.executable, "-c", PROGRAM, "--out"], run, tmp_path / "cache", 2)
    try:
        deadline = time.monotonic() + 300
        while logged(run) < 5:
            assert all(host.poll() is None for host in hosts), (tmp_path / "run.0.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(0.2)
        hosts[1].send_signal(signal.SIGTERM)
        codes = [host.wait(timeout=100) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    said = [(tmp_path / f"run.{number}.log").read_text() for number in range(2)]
    assert codes == [0, 0], "\n".join(said)[-4000:]
    step = Checkpoints(run).latest()
    assert step is not None
    assert all(f"SAID stopped at step {step} of 1000000" in words for words in said)
