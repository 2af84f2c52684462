"""Shards of codes and latents: written whole, resumed, checked and read in any order."""

import dataclasses
import pickle
import resource

import ml_dtypes
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data import shard_writer
from mammoth_jax.data.buckets import AsStored
from mammoth_jax.data.decoding import Threads
from mammoth_jax.data.loader import DataConfig, Loader
from mammoth_jax.data.position import HostShare
from mammoth_jax.data.precomputed import Precomputed
from mammoth_jax.data.shapes import FixedShape
from mammoth_jax.data.shard_writer import (
    Description,
    Model,
    fingerprint,
    finish_shards,
    missing_shards,
    start_shards,
    write_shard,
)
from mammoth_jax.data.tally import BadInput

MODELS = {"mammothtok": "aa", "vae": "bb"}
PLAN = Description(
    source="photos",
    length=11,
    shard_size=4,
    models=tuple(Model(role=r, fingerprint=f) for r, f in MODELS.items()),
    contents="8x8 pictures; codes, posterior mean in bfloat16",
)


def row(i):
    """Codes and a latent of record ``i``; every third is wide."""
    wide = 1 + (i % 3 == 0)
    codes = np.full((2, 2 * wide), i, np.uint16)
    return {"codes": codes, "mean": np.full((1, wide, 3), i / 2, ml_dtypes.bfloat16)}


def write(folder, shards, left_out=()):
    """Writes the shards of the plan but for some records."""
    for shard in shards:
        kept = [i for i in PLAN.records(shard) if i not in left_out]
        write_shard(
            folder,
            shard,
            [f"k{i}" for i in kept],
            [row(i) for i in kept],
            len(PLAN.records(shard)) - len(kept),
        )


@pytest.fixture
def folder(tmp_path):
    """All three shards without record 5."""
    start_shards(tmp_path / "codes", PLAN)
    write(tmp_path / "codes", range(3), left_out=(5,))
    finish_shards(tmp_path / "codes")
    return tmp_path / "codes"


def test_records_come_back_under_their_keys_in_the_order_of_the_originals(folder):
    source = Precomputed(path=str(folder)).open(MODELS)
    kept = [i for i in range(11) if i != 5]
    assert len(source) == 10
    assert [source[i].key for i in range(10)] == [f"k{i}" for i in kept]
    for at in (9, 0, 4, 5):
        fields = pickle.loads(pickle.dumps(source))[at].fields
        for name, expected in row(kept[at]).items():
            assert fields[name].dtype == expected.dtype
            np.testing.assert_array_equal(fields[name], expected)


def test_an_interrupted_run_goes_on_with_the_shards_that_are_missing(tmp_path, monkeypatch):
    start_shards(tmp_path, PLAN)
    missing = missing_shards(tmp_path, PLAN)
    write(tmp_path, [next(missing)])
    with monkeypatch.context() as broken:
        broken.setattr(
            shard_writer, "save_file", lambda tensors, path, metadata: path.write_bytes(b"half") and 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            write(tmp_path, [1])
    with pytest.raises(InputError, match="2 of 3 shards are not written yet, the first: 1"):
        finish_shards(tmp_path)
    with pytest.raises(InputError, match="shards are not finished; run precompute again"):
        Precomputed(path=str(tmp_path)).open(MODELS)
    start_shards(tmp_path, PLAN)
    assert list(missing_shards(tmp_path, PLAN)) == [1, 2]
    assert [list(missing_shards(tmp_path, PLAN, HostShare(i, 2))) for i in range(2)] == [[2], [1]]


def test_a_shard_that_the_disk_refuses_is_named_and_leaves_nothing(tmp_path):
    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limit))  # bytes of a file: like a disk that is full
    try:
        with pytest.raises(OSError, match=r"000001\.safetensors: .*File too large"):
            write(tmp_path, [1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    assert not list(tmp_path.iterdir())


def test_the_manifest_counts_records_shapes_and_bytes(folder):
    manifest = finish_shards(folder)
    assert [s["records"] for s in manifest["shards"]] == [4, 3, 3]
    assert [s["left_out"] for s in manifest["shards"]] == [0, 1, 0]
    assert [s["bytes"] for s in manifest["shards"]] == [
        f.stat().st_size for f in sorted(folder.glob("*.safetensors"))
    ]
    assert manifest["shapes"] == [
        {"arrays": {"codes": [2, 2], "mean": [1, 1, 3]}, "records": 6},
        {"arrays": {"codes": [2, 4], "mean": [1, 2, 3]}, "records": 4},
    ]


@pytest.mark.parametrize("models", [{"mammothtok": "cc", "vae": "bb"}, {"vae": "bb"}, {}], ids=str)
def test_shards_of_another_model_are_refused(folder, models):
    data = DataConfig(sources=(Precomputed(path=str(folder)),), shape=AsStored(arrays=("codes",)))
    with pytest.raises(InputError, match=r"made by mammothtok aa, this run has (cc|none)"):
        Loader(data, batch_size=1, seed=0, models=models)


def test_a_folder_of_other_shards_is_not_written_into(folder, tmp_path):
    other = dataclasses.replace(PLAN, models=PLAN.models[:1])
    with pytest.raises(InputError, match="shards of another run, with models"):
        start_shards(folder, other)
    with pytest.raises(InputError, match="no folder of precomputed shards"):
        Precomputed(path=str(tmp_path)).open(MODELS)


def test_loaders_serve_stored_arrays_grouped_by_shape(folder):
    data = DataConfig(
        sources=(Precomputed(path=str(folder)),),
        shape=AsStored(arrays=("codes", "mean")),
        workers=Threads(count=2),
    )
    loader = Loader(data, batch_size=2, seed=0, models=MODELS)
    batches = [next(loader) for _ in range(10)]
    loader.close()
    shapes = [batch["codes"].shape for batch in batches]
    assert sorted(set(shapes)) == [(2, 2, 2), (2, 2, 4)]
    assert shapes.count((2, 2, 4)) == 4  # four records of ten are wide
    for batch in batches:
        codes = batch["codes"][:, 0, 0].tolist()
        for at, i in enumerate(codes):
            for name, expected in row(i).items():
                np.testing.assert_array_equal(batch[name][at], expected)
    only = Loader(
        dataclasses.replace(data, shape=AsStored(arrays=("codes",))), batch_size=2, seed=0, models=MODELS
    )
    assert next(only).keys() == {"number", "codes"}
    only.close()


def test_shapes_and_sources_must_fit_each_other(folder):
    sources = (Precomputed(path=str(folder)),)
    with pytest.raises(InputError, match="photos/codes holds arrays; give the data a shape of type AsStored"):
        Loader(
            DataConfig(sources=sources, shape=FixedShape(height=8, width=8)),
            batch_size=1,
            seed=0,
            models=MODELS,
        )
    with pytest.raises(InputError, match=r"no array 'logvar'; it has \['codes', 'mean'\]"):
        Loader(
            DataConfig(sources=sources, shape=AsStored(arrays=("logvar",))),
            batch_size=1,
            seed=0,
            models=MODELS,
        )


def test_a_shard_that_is_gone_or_cut_is_counted_as_bad(folder):
    path = folder / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    source = Precomputed(path=str(folder)).open(MODELS)
    assert len(source) == 7
    assert list(source.problems) == ["000001.safetensors"]
    data = DataConfig(sources=(Precomputed(path=str(folder)),), shape=AsStored(arrays=("codes",)))
    with pytest.raises(InputError, match="1 of 3 files are unreadable"):
        Loader(data, batch_size=1, seed=0, models=MODELS)
    tolerant = dataclasses.replace(data, bad_input=BadInput(share=0.4), workers=Threads(count=0))
    loader = Loader(tolerant, batch_size=2, seed=0, models=MODELS)
    next(loader)
    assert [v for k, v in loader.report().items() if k.endswith("/bad_files")] == [1]


def test_a_shard_without_readable_records_is_whole_and_empty(tmp_path):
    start_shards(tmp_path, PLAN)
    write(tmp_path, range(3), left_out=range(4, 8))
    finish_shards(tmp_path)
    source = Precomputed(path=str(tmp_path)).open(MODELS)
    assert [source[i].key for i in (3, 4)] == ["k3", "k8"]
    assert not source.problems


def test_the_fingerprint_sees_names_shapes_formats_and_values():
    x = np.arange(6, dtype=np.float32)
    tables = [
        {"a": x},
        {"b": x},
        {"a": x.reshape(2, 3)},
        {"a": x.astype(np.float64)},
        {"a": x + 1},
        {"a": x, "b": np.float32(1)},
        {"a": x.astype(ml_dtypes.bfloat16)},
    ]
    assert len({fingerprint(t) for t in tables}) == len(tables)
    assert fingerprint({"b": x, "a": x + 1}) == fingerprint({"a": x + 1, "b": x.copy()})
