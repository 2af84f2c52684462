"""Runs that are killed with SIGKILL over and over, and how their ends compare with a run that nobody touched."""

import json
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from mammoth_jax.training.metrics import read_metrics
from tests.training.commands import finish, logged, said_file, start

KILLS, SAVES = 10, 3
TIMES = ("seconds/", "speed/")
"""Logged numbers that differ from run to run."""


def run_whole_and_killed(command, folder, steps):
    """The same run twice: undisturbed, and killed ten times, three of them at least inside a save.

    Returns:
      Both runs, the steps at which the killed one started, and how many kills left an unfinished save behind.
    """
    whole, killed, cache = folder / "whole", folder / "killed", folder / "cache"
    finish(command, whole, cache)
    inside = kills = 0
    starts = []
    while kills < KILLS or inside < SAVES:
        assert kills < 3 * KILLS, f"only {inside} of {kills} kills hit a save"
        process, begun = start(command, killed, cache), logged(killed)
        starts.append(begun)
        if inside < SAVES:  # a save is under way
            inside += bool(kill_at(process, killed, lambda: unfinished(killed)))
        else:  # somewhere in the next steps
            target = min(begun + 2 + kills % 5, steps - 2)
            kill_at(process, killed, lambda target=target: logged(killed) >= target)
        kills += 1
        if logged(killed) >= steps - 4:
            break
    assert kills >= KILLS and inside >= SAVES, (kills, inside)
    finish(command, killed, cache)
    return whole, killed, starts, inside


def kill_at(process, run, wanted):
    """Kills when ``wanted()`` holds; returns what was then unfinished on disk."""
    deadline = time.monotonic() + 600
    while not wanted():
        assert process.poll() is None, said_file(run).read_text()[-2000:]
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return unfinished(run)


def unfinished(run):
    """Checkpoints that are being written."""
    return [p.name for p in (run / "checkpoints").glob("*tmp*")] if (run / "checkpoints").exists() else []


def assert_same_end(whole, killed, steps):
    """Every array of the last checkpoints is the same bit by bit, so is the position in the data, and so are the logs,
    which hold each step once.

    Returns:
      The log's records, without times.
    """
    step, expected, position = leaves(whole)
    assert leaves(killed)[0] == step == steps
    assert leaves(killed)[2] == position
    found = leaves(killed)[1]
    assert found.keys() == expected.keys() and len(expected) > 100
    assert [n for n in expected if not np.array_equal(found[n], expected[n], equal_nan=True)] == []
    one, other = (
        [{k: v for k, v in r.items() if not k.startswith(TIMES)} for r in read_metrics(run)]
        for run in (whole, killed)
    )
    assert [r["step"] for r in other] == list(range(1, steps + 1))
    assert one == other
    return one


def leaves(run):
    """The last checkpoint: its step, all arrays, and the position in the data."""
    newest = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
    folder = (run / "checkpoints" / str(newest)).resolve()
    with (
        ocp.PyTreeCheckpointer() as reader
    ):  # as arrays of the host: the devices that saved them may not be there
        shapes = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = reader.restore(folder / "state", restore_args=as_numpy)
    flat = {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    return newest, flat, json.loads((folder / "data" / "metadata").read_text())
