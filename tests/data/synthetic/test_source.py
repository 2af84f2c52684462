"""The world as a source of records."""

import hashlib
import time

import numpy as np
import pytest

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic.composition import LEAST_LETTER, LEAST_SIZE
from mammoth_jax.data.synthetic.render import boxes_meet, render
from mammoth_jax.data.synthetic.scene import to_json
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.split import held_out_in


def test_a_record_holds_the_scene_and_its_picture():
    source = SyntheticScenes("train", length=10)
    record = source[3]
    assert len(source) == 10
    assert record.key == "synthetic/train/0/64x64/00000003" and record.source == source.name
    assert record.fields["scene"] == source.scene(3)
    picture = record.pictures[0].decode()
    assert picture.dtype == np.uint8 and (picture == render(source.scene(3))).all()


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_the_source_is_refused(index):
    with pytest.raises(IndexError):
        SyntheticScenes("train", length=10)[index]


def test_a_scene_depends_on_seed_split_and_index_only():
    source = SyntheticScenes("train", seed=7)
    backwards = [source.scene(index) for index in reversed(range(20))][::-1]
    assert backwards == [SyntheticScenes("train", seed=7, length=20).scene(index) for index in range(20)]
    others = [
        SyntheticScenes("train", seed=8).scene(3),
        SyntheticScenes("heldout", seed=7).scene(3),
        source.scene(4),
    ]
    assert all(to_json(other) != to_json(source.scene(3)) for other in others)


def test_scenes_rarely_repeat():
    source = SyntheticScenes("train")
    assert len({to_json(source.scene(index)) for index in range(1000)}) == 1000


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("size", [32, (32, 48), (96, 32), (48, 80), 128])
def test_every_size_of_picture_obeys_the_rules(split, size):
    source = SyntheticScenes(split, picture_size=size, seed=1)
    height, width = source.height_and_width
    for index in range(120):
        scene = source.scene(index)
        assert bool(held_out_in(scene)) == (split == "heldout")
        assert 1 <= len(scene.items) <= 6
        for thing in (*scene.items, *scene.texts):
            left, top, right, bottom = thing.box
            assert left >= 1 and top >= 1 and right <= width - 1 and bottom <= height - 1
        assert all(item.size >= LEAST_SIZE and item.visible >= 0.75 for item in scene.items)
        assert all(text.height >= LEAST_LETTER for text in scene.texts)
        for text in scene.texts:
            assert not any(boxes_meet(text.box, item.box) for item in scene.items)
        assert render(scene).shape == (height, width, 3)


def test_scenes_have_one_to_six_items_overlaps_and_texts():
    source = SyntheticScenes("train")
    scenes = [source.scene(index) for index in range(1000)]
    counts = np.bincount([len(scene.items) for scene in scenes], minlength=7)
    assert counts[0] == 0 and counts[1:].min() >= 50
    assert 0.1 < np.mean([any(item.visible < 1 for item in scene.items) for scene in scenes]) < 0.3
    assert 0.4 < np.mean([bool(scene.texts) for scene in scenes]) < 0.6


def test_the_same_pixels_on_every_platform():
    """Digests, equal with NumPy 2.4 and 2.5 with and without AVX.  A change here changes everybody's data."""
    descriptions, pixels = hashlib.sha256(), hashlib.sha256()
    for split in ("train", "heldout"):
        for size in (64, (48, 80)):
            source = SyntheticScenes(split, picture_size=size)
            for index in range(50):
                scene = source.scene(index)
                descriptions.update(to_json(scene).encode())
                pixels.update(render(scene).tobytes())
    assert descriptions.hexdigest()[:16] == "b34497a1c8fc8981"
    assert pixels.hexdigest()[:16] == "aaa1f7ffb0bac450"


def test_the_source_is_its_own_configuration():
    source = SyntheticScenes("heldout", picture_size=(48, 80), seed=3, length=7)
    assert decode(SyntheticScenes, encode(source)) == source
    assert decode(SyntheticScenes, {"picture_size": 32}).height_and_width == (32, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"picture_size": 16}, "at least 32 pixels"),
        ({"picture_size": [64, 31]}, "at least 32 pixels"),
        ({"split": "test"}, "not one of"),
        ({"length": 0}, "at least one scene"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        decode(SyntheticScenes, settings)


@pytest.mark.slow
def test_three_hundred_pictures_a_second_on_one_core():
    source = SyntheticScenes("train")
    source[0].pictures[0].decode()
    start = time.process_time()
    for index in range(2000):
        source[index].pictures[0].decode()
    assert 2000 / (time.process_time() - start) >= 300
