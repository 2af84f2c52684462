"""A joint run that is killed ten times, three of them inside a save, ends as the run that nobody touched."""

import pytest

from tests.data.picture_files import write_tar
from tests.training.commands import train_command
from tests.training.killing import assert_same_end, run_whole_and_killed
from tests.training.tiny_joint import MIXED, joint_data, released, stage, write_data

pytestmark = pytest.mark.slow

STEPS, SHARDS, RECORDS = 60, 3, 7


def captioned_tars(folder):
    """The pictures of ``folder`` with captions in three shards, as a pool: rows cross their borders all the time."""
    for shard in range(SHARDS):
        members = {}
        for i in range(shard * RECORDS, (shard + 1) * RECORDS):
            members[f"{i:03}.txt"] = f"picture number {i}".encode()
            members[f"{i:03}.png"] = (folder / f"{i // 2}{'ab'[i % 2]}.png").read_bytes()
        write_tar(folder / f"{shard}.tar", members)
    source = {
        "type": "Tars",
        "shards": [str(folder / "*.tar")],
        "fields": [{"name": "caption", "column": "txt"}],
    }
    return {"name": "t2i", "sources": [{"form": {"type": "TextToImage"}, "source": source}]}


def test_a_joint_run_killed_ten_times_ends_bit_identical(tmp_path):
    """Codes and latents are made while training; rows are read ahead; each step takes two parts; the guard counts."""
    data = tmp_path / "data"
    data.mkdir()
    write_data(data, count=(SHARDS * RECORDS + 1) // 2)
    mixed = joint_data(data, MIXED, workers={"type": "Threads", "count": 2, "ahead": 2})
    mixed["pools"][0] = captioned_tars(data)
    mixed["dropout"] = {"ar": 0.2, "text": 0.2, "references": 0.5}
    config = stage(
        data,
        ("understanding", "generation", "dit"),
        MIXED,
        data=mixed,
        evaluation_batches=1,
        evaluation_controls=[],
        objective={"noise": {"type": "SimilarityNoise", "rate": 0.3, "neighbours": 8}},
        ema_decay=0.9,
        run={
            "steps": STEPS,
            "batch_size": 4,
            "accumulation": 2,
            "checkpoint_interval": 5,
            "evaluation_interval": 20,
            "guard": {"stop_after": 2, "spike": 50},
        },
    )
    init = str(released(tmp_path / "init"))
    command = train_command(config, data / "train.yaml", "--init", init, "--mesh", "data=1")
    whole, killed, starts, inside = run_whole_and_killed(command, tmp_path, STEPS)
    records = assert_same_end(whole, killed, STEPS)
    last = records[-1]
    (packed,) = (n for k, n in last.items() if k.startswith("data/t2i/") and k.endswith("/packed"))
    assert packed > 2 * SHARDS * RECORDS, "the tars were not read for more than an epoch"
    assert last["skipped_steps"] == 0 and "evaluation/flow" in records[19]
    print(
        f"{len(starts)} kills, {inside} inside a save, starts after steps {starts}; {packed} samples of the tars"
    )
