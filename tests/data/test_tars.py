"""Webdataset shards of every layout, whole and broken."""

import json
import os
import pickle
import tarfile

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data import tar_index
from mammoth_jax.data.fields import Field
from mammoth_jax.data.record import UnreadablePicture, UnreadableRecord
from mammoth_jax.data.tars import Tars
from tests.data.picture_files import picture_bytes, write_tar

FIELDS = (Field(name="caption", column="txt"), Field(name="score", column="json", key="rates.aesthetic"))


def sample(key, shade):
    """The three members of a record, JSON first."""
    meta = json.dumps({"rates": {"aesthetic": shade / 2}}).encode()
    return {f"{key}.json": meta, f"{key}.jpg": picture_bytes(shade), f"{key}.txt": f"grey {shade}".encode()}


@pytest.fixture
def shards(tmp_path):
    """Seven records in two shards; the last is a png and lacks its text; one key has no picture."""
    for s in range(2):
        members = {"readme.md": b"not a record"}
        for i in range(3):
            members |= sample(f"part/{s}{i}", 10 * (3 * s + i))
        if s:
            members["part/99.PNG"] = picture_bytes(90)
            members["part/98.txt"] = b"no picture"
        write_tar(tmp_path / f"{s:05}.tar", members)
    return tmp_path


def test_members_of_one_key_are_one_record(shards):
    source = Tars(shards=(f"{shards}/{{00000..00001}}.tar",), fields=()).open()
    assert len(source) == 7
    keys = [source[i].key for i in range(7)]
    assert keys[0].startswith("00000.tar:") and keys[-1] == "00001.tar:part/99"
    assert len(set(keys)) == 7
    assert [int(source[i].pictures[0].decode()[0, 0, 0]) for i in range(7)] == [0, 10, 20, 30, 40, 50, 90]


def test_fields_are_read_through_the_map(shards, tmp_path):
    write_tar(tmp_path / "a.tar", sample("0001", 40) | {"0002.jpg": picture_bytes(1)})
    source = Tars(shards=(f"{tmp_path}/a.tar",), fields=FIELDS).open()
    assert dict(source[0].fields) == {"caption": "grey 40", "score": 20.0}
    assert dict(source[1].fields) == {}


def test_a_key_ends_at_the_first_dot_of_the_file_name(tmp_path):
    write_tar(tmp_path / "a.tar", {"v1.5/img.seg.png": picture_bytes(1), "v1.5/img.jpg": picture_bytes(2)})
    source = Tars(shards=(f"{tmp_path}/a.tar",)).open()
    assert len(source) == 1
    assert source[0].key == "a.tar:v1.5/img"
    assert source[0].pictures[0].decode()[0, 0, 0] == 2


def test_a_split_tar_is_read_as_one(tmp_path):
    data = write_tar(tmp_path / "x.tar", {f"{i}.png": picture_bytes(i) for i in range(5)}).read_bytes()
    for part, start in enumerate(range(0, len(data), 777)):
        (tmp_path / f"x.tar.split.{part:03}").write_bytes(data[start : start + 777])
    (tmp_path / "x.tar").unlink()
    source = Tars(shards=(f"{tmp_path}/x.tar.split.*",)).open()
    assert [source[i].pictures[0].decode()[0, 0, 0] for i in range(5)] == list(range(5))
    assert source.files == 1
    (tmp_path / "x.tar.split.001").unlink()
    with pytest.raises(InputError, match=r"x\.tar: part 1 is missing"):
        Tars(shards=(f"{tmp_path}/x.tar.split.*",)).open()


def test_the_index_is_kept_until_the_tar_changes(shards, tmp_path, monkeypatch):
    config = Tars(shards=(f"{shards}/*.tar",), index_cache=str(tmp_path / "run" / "index"), fields=FIELDS)
    names = {p.name for p in shards.glob("*.tar*")}
    first = config.open()
    original, read = tar_index.index_tar, []
    monkeypatch.setattr(tar_index, "index_tar", lambda file: read.append(file) or original(file))
    second = config.open()
    assert read == []
    assert [second[i].key for i in range(7)] == [first[i].key for i in range(7)]
    assert [dict(second[i].fields) for i in range(7)] == [dict(first[i].fields) for i in range(7)]
    assert {p.name for p in shards.glob("*.tar*")} == names
    before = os.stat(shards / "00001.tar")
    with tarfile.open(shards / "00001.tar") as tar:
        members = {m.name.replace("99", "77"): tar.extractfile(m).read() for m in tar}
    write_tar(shards / "00001.tar", members)
    assert (shards / "00001.tar").stat().st_size == before.st_size
    os.utime(shards / "00001.tar", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert config.open()[6].key == "00001.tar:part/77"
    assert len(read) == 1


def test_a_tar_cut_short_keeps_what_stands_before_the_cut(shards):
    whole = (shards / "00000.tar").read_bytes()
    with tarfile.open(shards / "00000.tar") as tar:
        cut = tar.getmember("part/01.jpg").offset_data + 9
    (shards / "00000.tar").write_bytes(whole[:cut])
    source = Tars(shards=(f"{shards}/*.tar",)).open()
    assert len(source) == 1 + 4
    assert list(source.problems) == ["00000.tar"]
    assert "unexpected end of data after" in source.problems["00000.tar"]
    for i in range(len(source)):
        source[i].pictures[0].decode()


def test_a_file_that_is_no_tar_is_a_problem_and_none_at_all_an_error(shards):
    (shards / "00000.tar").write_bytes(b"x" * 5000)
    source = Tars(shards=(f"{shards}/*.tar",)).open()
    assert len(source) == 4
    assert list(source.problems) == ["00000.tar"]
    with pytest.raises(InputError, match=r"no member of 1 tars is a picture .*; 00000\.tar: "):
        Tars(shards=(f"{shards}/00000.tar",)).open()


def test_a_missing_shard_is_named(shards):
    with pytest.raises(InputError, match=r"2 of the files named are missing, the first: .*00002\.tar"):
        Tars(shards=(f"{shards}/{{00000..00003}}.tar",)).open()


def test_a_shard_that_vanishes_or_shrinks_later_makes_its_pictures_unreadable(shards):
    source = Tars(shards=(f"{shards}/*.tar",), fields=FIELDS).open()
    (shards / "00000.tar").write_bytes((shards / "00000.tar").read_bytes()[:2000])
    (shards / "00001.tar").unlink()
    with pytest.raises(UnreadableRecord, match=r"00000\.tar:part/02\.\w+: cut short"):
        source[2]
    with pytest.raises(UnreadablePicture, match=r"00001\.tar:part/99\.png: No such file"):
        source[6].pictures[0].decode()


def test_sources_travel_to_worker_processes(shards):
    source = Tars(shards=(f"{shards}/*.tar",)).open()
    copy = pickle.loads(pickle.dumps(source))
    assert (copy[5].pictures[0].decode() == source[5].pictures[0].decode()).all()
