"""Batches from any position: determinism, resume, hosts, shares."""

import json

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.data.decoding import Threads
from mammoth_jax.data.folder import Folder
from mammoth_jax.data.loader import DataConfig, Loader
from mammoth_jax.data.shapes import AspectBuckets, FixedShape
from mammoth_jax.data.sources import Synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures of four sizes in folders of folders; the colour of each is its own."""
    top = tmp_path_factory.mktemp("pictures")
    sizes = [(16, 16), (32, 16), (16, 32), (24, 24)]
    for i in range(40):
        place = top / f"part{i % 3}"
        place.mkdir(exist_ok=True)
        width, height = sizes[i % 4]
        Image.new("RGB", (width, height), (i * 6, 255 - i * 6, i)).save(place / f"{i:02}.png")
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
    again.restore(state)
    assert again.state() == state
    assert all(same(a, next(again)) for a in rest)
    assert again.state() == whole.state()
    whole.close(), again.close()


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
