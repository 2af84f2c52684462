"""Tables of pictures in parquet files, embedded or named."""

import json
import pickle
import sys

import pyarrow
import pyarrow.parquet
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data import parquet
from mammoth_jax.data.fields import Field
from mammoth_jax.data.mixing import WINDOW_BLOCKS, Leaf, Order
from mammoth_jax.data.parquet import Parquet
from mammoth_jax.data.record import UnreadablePicture, UnreadableRecord
from tests.data.picture_files import picture_bytes


def write(path, columns, rows=2):
    """A file with the columns, in row groups of ``rows``."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return str(path)


def shade(source, index):
    """The grey of a record's picture."""
    return int(source[index].pictures[0].decode()[0, 0, 0])


@pytest.mark.parametrize("form", ["bytes", "struct of bytes", "struct of paths", "paths"])
def test_pictures_are_embedded_or_named(tmp_path, form):
    data = [picture_bytes(i) for i in range(5)]
    for i, picture in enumerate(data):
        (tmp_path / f"{i}.png").write_bytes(picture)
    names = [f"{i}.png" for i in range(5)]
    column = {
        "bytes": data,
        "struct of bytes": [{"bytes": d, "path": n} for d, n in zip(data, names, strict=True)],
        "struct of paths": [{"bytes": None, "path": n} for n in names],
        "paths": names,
    }[form]
    source = Parquet(files=(write(tmp_path / "t.parquet", {"image": column}),)).open()
    assert [shade(source, i) for i in range(5)] == list(range(5))
    assert source.blocks == (2, 2, 1)


def test_paths_may_be_below_another_folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture_bytes(7))
    file = write(tmp_path / "t.parquet", {"image": ["a.png", "gone.png"]})
    source = Parquet(files=(file,), root=str(tmp_path / "pictures")).open()
    assert shade(source, 0) == 7
    with pytest.raises(UnreadablePicture, match=r"t\.parquet:1 \(.*gone\.png\): No such file"):
        shade(source, 1)


def test_keys_and_fields_come_from_columns(tmp_path):
    for name in ("a", "b"):
        captions = [json.dumps({"long": f"{name}{i}"}) for i in range(3)]
        columns = {"id": [4, 5, 6], "pic": [picture_bytes(1)] * 3, "captions": captions, "width": [1, 2, 3]}
        write(tmp_path / f"{name}.parquet", columns)
    fields = (Field(name="caption", column="captions", key="long"), Field(name="width", column="width"))
    config = Parquet(files=(f"{tmp_path}/*.parquet",), picture="pic", key="id", fields=fields)
    source = config.open()
    assert [source[i].key for i in (0, 5)] == ["a.parquet:4", "b.parquet:6"]
    assert dict(source[4].fields) == {"caption": "b1", "width": 2}
    assert len({source[i].key for i in range(6)}) == 6


def test_only_the_row_groups_of_the_window_are_kept_and_each_is_read_once_a_pass(tmp_path, monkeypatch):
    count = 3 * WINDOW_BLOCKS
    file = write(tmp_path / "t.parquet", {"image": [b"x"] * (4 * count)}, rows=4)
    source = Parquet(files=(file,)).open()
    reads = []
    original = pyarrow.parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile,
        "read_row_group",
        lambda self, group, **options: reads.append(group) or original(self, group, **options),
    )
    order = Order(Leaf(0, len(source), source.blocks), seed=1)
    seen = [order[n].index for n in range(len(source))]
    for index in seen:
        source[index]
    assert sorted(seen) == list(range(4 * count))
    assert sorted(reads) == list(range(count))
    assert reads != list(range(count))
    assert len(source._tables) == WINDOW_BLOCKS
    copy = pickle.loads(pickle.dumps(source))
    assert not copy._tables
    assert copy[3].key == source[3].key


def test_a_broken_file_is_a_problem_and_a_row_without_picture_unreadable(tmp_path):
    good = write(tmp_path / "a.parquet", {"image": [picture_bytes(1), None]})
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not quite")
    source = Parquet(files=(f"{tmp_path}/*.parquet",)).open()
    assert list(source.problems) == ["b.parquet"]
    assert source.files == 2
    with pytest.raises(UnreadableRecord, match=r"a\.parquet:1: image is neither"):
        source[1]
    with pytest.raises(InputError, match=r"a\.parquet: no column 'picture'; it has \['image'\]"):
        Parquet(files=(good,), picture="picture").open()
    with pytest.raises(InputError, match=r"no rows in 1 files; b\.parquet: "):
        Parquet(files=(str(tmp_path / "b.parquet"),)).open()


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install 'mammoth-jax\[parquet\]'"):
        parquet.Parquet(files=("x.parquet",)).open()
