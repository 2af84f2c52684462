"""A joint run is the same one on one device, on eight, on two hosts, and after going on elsewhere."""

import shutil
import time

import pytest

from mammoth_jax.training.distributed import LOST_AFTER
from mammoth_jax.training.metrics import read_metrics
from tests.training.commands import finish, finish_hosts, logged, start_hosts, train_command
from tests.training.killing import assert_same_end
from tests.training.tiny_joint import MIXED, mixed_data, released, stage

pytestmark = pytest.mark.slow

STEPS, HALF = 100, 50
TERMS = ("ntp", "ntp_text", "ntp_image", "flow")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The words that start the run on a mesh: all tasks in a row, noise and guidance dropout."""
    folder = tmp_path_factory.mktemp("data")
    config = stage(
        folder,
        ("understanding", "generation", "dit"),
        MIXED,
        data=mixed_data(folder),
        evaluation=None,
        objective={"noise": {"type": "SimilarityNoise", "rate": 0.3, "neighbours": 8}},
        ema_decay=0.99,
        run={
            "steps": STEPS,
            "batch_size": 4,
            "checkpoint_interval": HALF,
            "keep_every": HALF,
        },
    )
    init = str(released(tmp_path_factory.mktemp("init") / "released"))

    def on(mesh):
        return train_command(config, folder / "train.yaml", "--init", init, "--mesh", mesh)

    return on


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where they are written, and compiled programs beside them."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(command, runs):
    """On one device."""
    finish(command("data=1"), runs / "one", runs / "cache")
    return runs / "one"


@pytest.fixture(scope="module")
def eight(command, runs):
    """On eight."""
    finish(command("data=2,fsdp=2,tensor=2"), runs / "eight", runs / "cache", devices=8)
    return runs / "eight"


@pytest.fixture(scope="module")
def hosts(command, runs):
    """On two hosts, each with one device and half of the rows."""
    finish_hosts(command("fsdp=2"), runs / "hosts", runs / "cache")
    return runs / "hosts"


def differences(run, other):
    """The largest relative difference of any term, of every step."""
    out = []
    for a, b in zip(read_metrics(run), read_metrics(other), strict=True):
        assert a["step"] == b["step"]
        names = [n for n in a if n in TERMS or n.removeprefix("evaluation/") in TERMS]
        assert names == [n for n in b if n in names] and "flow" in names
        out.append(max(abs(a[name] - b[name]) / abs(a[name]) for name in names))
    return out


def assert_same_losses(run, other, first=0):
    """To 1e-5 over ten steps from ``first``, and to 1e-3 over all."""
    found = differences(run, other)
    assert len(found) == STEPS
    early, late = max(found[: first + 10]), max(found)
    print(f"{other.name} against {run.name}: to step {first + 10} {early:.1e}, to step {STEPS} {late:.1e}")
    assert early < 1e-5 and late < 1e-3, [f"{x:.1e}" for x in found]


def test_eight_devices_have_the_losses_of_one(one, eight):
    assert_same_losses(one, eight)


def test_two_hosts_have_the_losses_of_one_device(one, hosts):
    assert_same_losses(one, hosts)


def test_two_hosts_that_hold_the_same_rows_have_the_losses_of_one_device(command, one, runs):
    finish_hosts(command("tensor=2"), runs / "tensor", runs / "cache")
    assert_same_losses(one, runs / "tensor")


def half(run, place):
    """A copy of a run as it was in the middle."""
    shutil.copytree(run, place)
    shutil.rmtree(place / "checkpoints" / str(STEPS))
    return place


def test_a_run_on_eight_devices_goes_on_with_two(command, eight, runs):
    finish(command("fsdp=2"), half(eight, runs / "to_two"), runs / "cache", devices=2)
    assert_same_losses(eight, runs / "to_two", HALF)


def test_a_run_on_eight_devices_goes_on_with_two_hosts(command, eight, runs):
    finish_hosts(command("data=2"), half(eight, runs / "to_hosts"), runs / "cache")
    assert_same_losses(eight, runs / "to_hosts", HALF)


def test_a_run_on_two_hosts_goes_on_with_one(command, hosts, runs):
    finish(command("data=1"), half(hosts, runs / "to_one"), runs / "cache")
    assert_same_losses(hosts, runs / "to_one", HALF)


def test_a_run_that_lost_a_host_goes_on_bit_identically(command, hosts, runs):
    """One of two hosts is killed; the other stops with the reason; both start again."""
    words, run = command("fsdp=2"), runs / "lost"
    pair = start_hosts(words, run, runs / "cache", 2)
    try:
        while logged(run) < HALF + 5:
            assert all(host.poll() is None for host in pair), (runs / "lost.0.log").read_text()[-2000:]
            time.sleep(0.1)
        pair[1].kill()
        assert pair[0].wait(timeout=LOST_AFTER + 60) != 0
    finally:
        for host in pair:
            host.kill()
    said = (runs / "lost.0.log").read_text()
    assert "host 0 of 2: a step could not be finished with the other hosts" in said or "heartbeat" in said
    finish_hosts(words, run, runs / "cache")
    assert_same_end(hosts, run, STEPS)
