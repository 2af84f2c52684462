"""Packed batches out of real containers: hosts share them exactly, and a shard that vanishes under way is named."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import Threads
from mammoth_jax.data.packing.lengths import PackingConfig
from mammoth_jax.data.packing.loader import JointDataConfig, JointLoader, Pool
from mammoth_jax.data.tally import BadInput
from mammoth_jax.data.task_source import TaskSource
from tests.data.packing.examples import Checksums, geometry
from tests.data.picture_files import picture_bytes, write_tar

COUNT = 14
PACKING = PackingConfig(tokens=400, conditions=320, targets=160, joint=480, samples=4, window=2)


def write_tars(folder, split):
    """Two tars, whole or cut into parts, as a source."""
    for shard in range(2):
        members = {}
        for i in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
            members |= {f"{i:02}.png": picture_bytes(10 * i, (48, 32)), f"{i:02}.txt": f"grey {i}".encode()}
        data = write_tar(folder / f"{shard}.tar", members).read_bytes()
        if split:
            (folder / f"{shard}.tar").unlink()
            for part, start in enumerate(range(0, len(data), 5000)):
                (folder / f"{shard}.tar.split.{part:03}").write_bytes(data[start : start + 5000])
    fields = [{"name": "caption", "column": "txt"}]
    return {"type": "Tars", "shards": [f"{folder}/*.tar" + (".split.*" if split else "")], "fields": fields}


def write_container(folder, kind):
    """Captioned pictures in a container, as what a configuration says of it."""
    if "tars" in kind:
        return write_tars(folder, "split" in kind)
    pictures = [picture_bytes(10 * i, (48, 32)) for i in range(COUNT)]
    captions = [f"grey {i}" for i in range(COUNT)]
    fields = [{"name": "caption", "column": "caption"}]
    if kind == "parquet":
        table = pyarrow.table({"image": pictures, "caption": captions})
        pyarrow.parquet.write_table(table, folder / "x.parquet", row_group_size=3)
        return {"type": "Parquet", "files": [f"{folder}/x.parquet"], "fields": fields}
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        (folder / f"{i}.png").write_bytes(picture)
        (folder / f"{i}.caption").write_text(caption)
    if kind == "folder":
        return {"type": "Folder", "path": str(folder), "fields": fields}
    rows = [{"image": f"{i}.png", "caption": caption} for i, caption in enumerate(captions)]
    (folder / "x.json").write_text(json.dumps(rows))
    shown = [{"name": "target", "column": "image"}]
    return {"type": "JsonRecords", "files": [f"{folder}/x.json"], "fields": fields, "picture_fields": shown}


def loader(source, host=0, hosts=1, rows=1, **options):
    """A loader of one source of captioned pictures."""
    one = decode(TaskSource, {"form": {"type": "TextToImage"}, "source": source})
    config = JointDataConfig(
        pools=(Pool(name="t2i", sources=(one,)),), packing=PACKING, workers=Threads(count=0), **options
    )
    return JointLoader(
        config,
        config.open(seed=1),
        geometry(),
        batch_size=rows,
        seed=1,
        process_index=host,
        process_count=hosts,
        encoder=Checksums(),
    )


def read(source, each):
    """(key, pass) of the samples of a loader's next batch."""
    batch = next(each)
    numbers = batch["sample_number"][batch["sample_tokens"] > 0].tolist()
    draws = [each._reader.pools[0].order[n] for n in numbers]
    return [(source.record(draw.index).key, draw.epoch) for draw in draws]


@pytest.mark.parametrize("kind", ["tars", "split tars", "parquet", "folder", "json"])
def test_two_hosts_then_one_read_every_record_once_a_pass(tmp_path, kind):
    data = write_container(tmp_path, kind)
    source = decode(TaskSource, {"form": {"type": "TextToImage"}, "source": data}).open()
    keys = {source.record(i).key for i in range(COUNT)}
    assert len(keys) == COUNT
    pair = [loader(data, host, 2) for host in range(2)]
    used = [each for _ in range(2) for host in pair for each in read(source, host)]
    assert 0 < len(used) < COUNT  # the resume is amid the first shard or the second
    alone = loader(data, rows=2)
    alone.restore(json.loads(json.dumps([host.state() for host in pair])))
    for _ in range(8):
        used += read(source, alone)
    assert len(set(used)) == len(used)
    assert {key for key, epoch in used if epoch == 0} == keys


def test_a_shard_that_vanishes_in_the_middle_of_a_pass_is_named(tmp_path):
    data = write_tars(tmp_path, split=False)
    running = loader(data, bad_input=BadInput(share=0.2, after=10))
    next(running)
    (tmp_path / "1.tar").unlink()
    said = r"source .* of t2i: \d+ of \d+ records are unreadable.*1\.tar:\d+\.\w+: No such file"
    with pytest.raises(InputError, match=said):
        for _ in range(COUNT):
            next(running)


def test_a_broken_shard_is_refused_at_the_start_or_left_out_up_to_the_share(tmp_path):
    data = write_tars(tmp_path, split=False)
    (tmp_path / "1.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(InputError, match=r"1 of 2 files are unreadable, .*the first: 1\.tar: "):
        loader(data, bad_input=BadInput(share=0.4))
    next(loader(data, bad_input=BadInput(share=0.5)))
