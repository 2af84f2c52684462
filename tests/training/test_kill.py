"""A run that is killed ten times, three of them inside a save, ends as the run that nobody touched."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from mammoth_jax.core.config import encode
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.training.metrics import read_metrics
from tests.training.tiny_tokenizer import training

ROOT = Path(__file__).resolve().parents[2]
STEPS, KILLS, SAVES = 60, 10, 3
BATCH, ADVERSARY = 8, 23

pytestmark = pytest.mark.slow


def write_shards(folder, count=9, records=13):
    """Tars of scenes: a batch of eight crosses a shard's border more often than not."""
    from PIL import Image

    source = SyntheticScenes(picture_size=32, length=count * records)
    for shard in range(count):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
            for i in range(shard * records, (shard + 1) * records):
                data = io.BytesIO()
                Image.fromarray(source[i].pictures[0].decode()).save(data, format="PNG")
                info = tarfile.TarInfo(f"{i:06}.png")
                info.size = data.tell()
                tar.addfile(info, io.BytesIO(data.getvalue()))


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The words that start the run, but for where it writes."""
    folder = tmp_path_factory.mktemp("data")
    write_shards(folder)
    config = training(
        data={
            "sources": [{"type": "Tars", "shards": [str(folder / "*.tar")]}],
            "workers": {"type": "Threads", "count": 2, "ahead": 3},
        },
        losses={"adversarial": {"start_step": ADVERSARY}},
        revival={"idle_steps": 7},
        ema_decay=0.9,
        run={
            "steps": STEPS,
            "batch_size": BATCH,
            "accumulation": 2,
            "checkpoint_interval": 5,
            "evaluation_interval": 20,
        },
    )
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(encode(config)))
    return [sys.executable, "-m", "mammoth_jax", "train", str(file), "--mesh", "data=1", "--out"]


def start(command, run, cache):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
    }
    with (run.parent / f"{run.name}.log").open("a") as log:
        return subprocess.Popen([*command, str(run)], cwd=ROOT, env=environment, stderr=log, stdout=log)


def logged(run):
    """The last step in the log."""
    file = run / "metrics.jsonl"
    return max((r["step"] for r in read_metrics(run)), default=0) if file.exists() else 0


def unfinished(run):
    """Checkpoints that are being written."""
    return [p.name for p in (run / "checkpoints").glob("*tmp*")] if (run / "checkpoints").exists() else []


def kill_at(process, run, wanted):
    """Kills when ``wanted()`` holds; returns what was then unfinished on disk."""
    deadline = time.monotonic() + 600
    while not wanted():
        assert process.poll() is None, (run.parent / f"{run.name}.log").read_text()[-2000:]
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return unfinished(run)


def leaves(run):
    """All arrays of the last checkpoint, and the position in the data."""
    newest = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
    folder = (run / "checkpoints" / str(newest)).resolve()
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.restore(folder / "state")
    flat = {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    return newest, flat, json.loads((folder / "data" / "metadata").read_text())


def test_a_run_killed_ten_times_ends_bit_identical(command, tmp_path):
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    assert start(command, whole, cache).wait() == 0, (tmp_path / "whole.log").read_text()[-2000:]
    inside = kills = 0
    crossed = []
    while kills < KILLS or inside < SAVES:
        assert kills < 3 * KILLS, f"only {inside} of {kills} kills hit a save"
        process, begun = start(command, killed, cache), logged(killed)
        crossed.append(begun)
        if inside < SAVES:  # a save is under way
            inside += bool(kill_at(process, killed, lambda: unfinished(killed)))
        else:  # somewhere in the next steps
            target = min(begun + 2 + kills % 5, STEPS - 2)
            kill_at(process, killed, lambda target=target: logged(killed) >= target)
        kills += 1
        if logged(killed) >= STEPS - 4:
            break
    assert kills >= KILLS and inside >= SAVES, (kills, inside)
    assert start(command, killed, cache).wait() == 0, (tmp_path / "killed.log").read_text()[-2000:]

    steps, expected, position = leaves(whole)
    assert leaves(killed)[0] == steps == STEPS
    assert leaves(killed)[2] == position
    found = leaves(killed)[1]
    assert found.keys() == expected.keys() and len(expected) > 100
    assert [n for n in expected if not np.array_equal(found[n], expected[n], equal_nan=True)] == []
    one, other = (
        [{k: v for k, v in r.items() if not k.startswith("seconds/")} for r in read_metrics(run)]
        for run in (whole, killed)
    )
    assert [r["step"] for r in other] == list(range(1, STEPS + 1))
    assert one == other
    assert min(crossed) < ADVERSARY < max(crossed)
