"""Hosts that read tars: together each record once, also after a resume in the middle of a shard."""

import json
from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.config import decode
from mammoth_jax.data.packing.loader import JointDataConfig, JointLoader
from tests.data.packing.examples import Checksums, geometry
from tests.data.picture_files import picture_bytes, write_tar


def config(folder) -> JointDataConfig:
    """Three shards of twelve pictures with captions."""
    for shard in range(3):
        members = {}
        for i in range(12 * shard, 12 * shard + 12):
            members[f"{i:02d}.png"] = picture_bytes(5 * i)
            members[f"{i:02d}.txt"] = f"picture {i}".encode()
        write_tar(folder / f"{shard}.tar", members)
    source = {
        "form": {"type": "TextToImage"},
        "source": {
            "type": "Tars",
            "shards": [str(folder / "{0..2}.tar")],
            "fields": [{"name": "caption", "column": "txt"}],
        },
    }
    return decode(
        JointDataConfig,
        {
            "pools": [{"name": "t2i", "sources": [source]}],
            "packing": {
                "tokens": 400,
                "conditions": 400,
                "targets": 8,
                "joint": 400,
                "samples": 2,
                "window": 1,
            },
            "dropout": {"ar": 0, "text": 0},
            "workers": {"type": "Threads", "count": 2},
        },
    )


def open_loader(config: JointDataConfig, rows: int, host: int = 0, hosts: int = 1) -> JointLoader:
    """A host's loader."""
    return JointLoader(
        config,
        config.open(0),
        geometry(),
        batch_size=rows,
        seed=0,
        process_index=host,
        process_count=hosts,
        encoder=Checksums(),
    )


def captions(loaders: Sequence[JointLoader]) -> list[str]:
    """What the pictures of the next batch of all hosts show."""
    found = []
    for each in loaders:
        batch = next(each)
        for row, segments in zip(batch["ids"], batch["token_segments"], strict=True):
            for segment in range(1, segments.max() + 1):
                said = geometry().tokenizer.decode(row[segments == segment])
                found.append(said.split("picture ")[1].split("\n")[0])
        assert (np.count_nonzero(batch["sample_tokens"], axis=1) == 2).all()
    return found


def test_two_hosts_then_one_read_every_record_once(tmp_path):
    data = config(tmp_path)
    pair = [open_loader(data, 2, host, 2) for host in range(2)]
    first = captions(pair)  # 8 of 36, out of the middle of shards
    states = json.loads(json.dumps([each.state() for each in pair]))
    alone = [open_loader(data, 3)]
    alone[0].restore(states)
    rest = [caption for _ in range(4) for caption in captions(alone)]
    for each in (*pair, *alone):
        each.close()
    assert len(first) == 8
    assert len(rest) == 24
    assert len(set(first + rest)) == 32  # of one pass over 36


def test_as_many_hosts_go_on_with_their_own_counts_and_one_with_all(tmp_path):
    data = config(tmp_path)
    pair = [open_loader(data, 2, host, 2) for host in range(2)]
    captions(pair)
    states = json.loads(json.dumps([each.state() for each in pair]))
    again = [open_loader(data, 2, host, 2) for host in range(2)]
    alone = open_loader(data, 4)
    for each in (*again, alone):
        each.restore(states)
    assert [each.state() for each in again] == states
    rows = [state["tally"]["rows"] for state in states]
    assert alone.state()["tally"]["rows"] == sum(rows) and min(rows) > 0
    for each in (*pair, *again, alone):
        each.close()
