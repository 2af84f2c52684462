"""Batches from any position: determinism, resume, hosts, shares."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import Threads
from mammoth_jax.data.folder import Folder
from mammoth_jax.data.loader import DataConfig, Loader
from mammoth_jax.data.parquet import Parquet
from mammoth_jax.data.shapes import AspectBuckets, FixedShape
from mammoth_jax.data.sources import Mixture, Synthetic
from mammoth_jax.data.tars import Tars
from tests.data.picture_files import write_tar


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty noisy pictures of four sizes in folders of folders; every fourth is wide."""
    top = tmp_path_factory.mktemp("pictures")
    sizes = [(16, 16), (32, 16), (16, 32), (24, 24)]
    for i in range(40):
        place = top / f"part{i % 3}"
        place.mkdir(exist_ok=True)
        width, height = sizes[i % 4]
        noise = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(place / f"{i:02}.png")
    return str(top)


def config(folder, shape=FixedShape(height=8, width=8), **options):
    """A loader's configuration over the folder."""
    return DataConfig(sources=(Folder(path=folder),), shape=shape, **options)


BUCKETS = AspectBuckets(pixels=64, stride=4, ratios=(0.5, 1.0, 2.0), measure=40)
SHAPES = [FixedShape(height=8, width=8, crop="random"), BUCKETS]


def same(first, second):
    """Whether two batches are bit-identical."""
    return first.keys() == second.keys() and all(
        first[k].dtype == second[k].dtype and np.array_equal(first[k], second[k]) for k in first
    )


@pytest.mark.parametrize("shape", SHAPES, ids=["fixed", "buckets"])
@pytest.mark.parametrize("at", [0, 1, 5, 11])
def test_a_restored_loader_goes_on_bit_identically(folder, shape, at):
    whole = Loader(config(folder, shape, workers=Threads(count=2)), batch_size=4, seed=3)
    for _ in range(at):
        next(whole)
    state = json.loads(json.dumps(whole.state()))
    rest = [next(whole) for _ in range(12)]
    again = Loader(config(folder, shape, workers=Threads(count=0)), batch_size=4, seed=3)
    next(again)
    again.restore([state])
    assert again.state() == state
    assert all(same(a, next(again)) for a in rest)
    assert again.state() == whole.state()
    whole.close(), again.close()


def drawn(loaders, count):
    """What loaders, one a host, deliver in ``count`` steps: (epoch, index) of every record."""
    keys = []
    for _ in range(count):
        for loader in loaders:
            draws = [loader.draw(n) for n in next(loader)["number"].tolist()]
            keys += [(draw.epoch, draw.index) for draw in draws]
    return keys


def hosts(config, count, batch_size, states=None):
    """One loader a host, restored if there are states."""
    loaders = [
        Loader(config, batch_size=batch_size, seed=1, process_index=i, process_count=count)
        for i in range(count)
    ]
    for loader in loaders if states else ():
        loader.restore(states)
    return loaders


@pytest.fixture(params=["folder", "tars", "parquet"])
def source(request, folder, tmp_path):
    """The forty pictures in each kind of container: a folder, three uneven tars, two tables of small row groups."""
    if request.param == "folder":
        return Folder(path=folder)
    pictures = [file.read_bytes() for file in sorted(Path(folder).rglob("*.png"))]
    if request.param == "tars":
        for shard, part in enumerate((range(3), range(3, 25), range(25, 40))):
            write_tar(tmp_path / f"{shard}.tar", {f"{i}.png": pictures[i] for i in part})
        return Tars(shards=(f"{tmp_path}/{{0..2}}.tar",))
    for half in range(2):
        table = pyarrow.table({"image": pictures[half * 20 : half * 20 + 20]})
        pyarrow.parquet.write_table(table, tmp_path / f"{half}.parquet", row_group_size=2)
    return Parquet(files=(f"{tmp_path}/*.parquet",))


@pytest.mark.parametrize("counts", [(1, 2, 1), (2, 1, 2), (4, 1, 2)], ids=str)
def test_hosts_read_disjoint_keys_whose_union_is_exact_also_after_resumes_on_other_hosts(source, counts):
    setting = DataConfig(sources=(source,), shape=FixedShape(height=8, width=8), workers=Threads(count=0))
    keys, states = [], None
    for count in counts:
        loaders = hosts(setting, count, 4 // count, states)
        keys += drawn(loaders, 7)
        states = json.loads(json.dumps([loader.state() for loader in loaders]))
    # 84 records: two whole passes over forty pictures and four of the third
    assert len(keys) == len(set(keys)) == 84
    assert {k for k in keys if k[0] < 2} == {(epoch, index) for epoch in range(2) for index in range(40)}


def test_hosts_with_buckets_serve_the_same_shape_and_lose_nothing_in_a_resume(folder):
    setting = config(folder, BUCKETS, workers=Threads(count=1))
    loaders = hosts(setting, 2, 2)
    shapes, keys = [], []
    for _ in range(9):
        first, second = (next(loader) for loader in loaders)
        assert first["picture"].shape == second["picture"].shape
        shapes.append(first["picture"].shape[1:3])
        keys += [n for batch in (first, second) for n in batch["number"].tolist()]
    assert set(shapes) == {(8, 8), (8, 4), (4, 8)}
    alone = hosts(setting, 1, 4, [loader.state() for loader in loaders])[0]
    for _ in range(20):
        keys += next(alone)["number"].tolist()
    assert len(keys) == len(set(keys)) == 9 * 4 + 20 * 4
    position = alone.state()["position"]
    assert set(keys) == set(range(position["mark"])) | set(position["above"])
    for loader in (*loaders, alone):
        loader.close()


def test_the_batches_of_several_hosts_make_up_that_of_one(folder):
    setting = config(folder, SHAPES[0], workers=Threads(count=0))
    one, two = hosts(setting, 1, 4), hosts(setting, 2, 2)
    for _ in range(12):
        parts = [next(loader) for loader in two]
        whole = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        assert same(next(one[0]), whole)


def test_states_of_some_hosts_or_of_other_data_are_refused(folder):
    setting = config(folder, workers=Threads(count=0))
    loaders = hosts(setting, 2, 2)
    states = [loader.state() for loader in loaders]
    with pytest.raises(InputError, match="do not make up one run of 2 hosts"):
        hosts(setting, 2, 2, states[:1])
    with pytest.raises(InputError, match="do not make up one run of 2 hosts"):
        hosts(setting, 2, 2, states[:1] * 2)
    next(loaders[0])
    with pytest.raises(InputError, match="not of one step"):
        hosts(setting, 2, 2, [loader.state() for loader in loaders])
    with pytest.raises(InputError, match="other sources, weights, lengths, shapes or another seed"):
        Loader(setting, batch_size=2, seed=2).restore([hosts(setting, 1, 2)[0].state()])


def test_realised_shares_are_the_weights_of_nested_mixtures(folder):
    natural = Mixture(
        weight=3, sources=(Folder(path=folder, weight=4), Folder(path=f"{folder}/part0", weight=1))
    )
    sources = (natural, Synthetic(picture_size=32, length=50, weight=1))
    loader = Loader(
        DataConfig(sources=sources, shape=FixedShape(height=8, width=8), workers=Threads(count=0)),
        batch_size=20,
        seed=0,
    )
    for _ in range(10):
        next(loader)
    report = loader.report()
    delivered = [v for k, v in report.items() if k.endswith("/delivered")]
    assert delivered == [120, 30, 50]  # 3:1, and one fifth of the three
    assert [v for k, v in report.items() if k.endswith("/share")] == [0.6, 0.15, 0.25]


def test_a_pass_holds_every_record_once_in_an_order_of_its_own(folder):
    loader = hosts(config(folder, workers=Threads(count=0)), 1, 40)[0]
    passes = [[loader.draw(n).index for n in next(loader)["number"].tolist()] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(40))
    assert passes[0] != passes[1] != sorted(passes[1])


def test_random_crops_differ_from_pass_to_pass_but_not_from_run_to_run(folder):
    def crops():
        """The pictures of two passes by pass and index."""
        loader = hosts(config(folder, SHAPES[0]), 1, 8)[0]
        batches = [next(loader) for _ in range(10)]
        loader.close()
        draws = [loader.draw(n) for batch in batches for n in batch["number"].tolist()]
        pictures = [picture for batch in batches for picture in batch["picture"]]
        return {(d.epoch, d.index): p for d, p in zip(draws, pictures, strict=True)}

    first, again = crops(), crops()
    assert len(first) == 80
    assert all(np.array_equal(first[k], again[k]) for k in first)
    moved = sum(not np.array_equal(first[0, i], first[1, i]) for i in range(40))
    assert (
        15 <= moved <= 20
    )  # the twenty that are not square, but for a crop that happens to be nearly the same


def test_scenes_are_delivered_as_they_are_rendered():
    source = Synthetic(picture_size=32, length=100)
    loader = Loader(
        DataConfig(sources=(source,), shape=FixedShape(height=32, width=32)), batch_size=3, seed=0
    )
    batch = next(loader)
    loader.close()
    assert batch["picture"].shape == (3, 32, 32, 3)
    assert batch["picture"].dtype == np.uint8
    scenes = [source.open()[loader.draw(n).index].pictures[0].decode() for n in batch["number"].tolist()]
    np.testing.assert_array_equal(batch["picture"], scenes)
