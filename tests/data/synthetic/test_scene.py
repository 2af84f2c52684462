"""The description of a scene, to and from JSON."""

import dataclasses
import json

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic.scene import Item, Plain, Scene, Text, from_json, to_json
from mammoth_jax.data.synthetic.source import SyntheticScenes


def test_json_holds_the_whole_scene():
    source = SyntheticScenes("train")
    backgrounds = set()
    for index in range(200):
        scene = source.scene(index)
        backgrounds.add(type(scene.background).__name__)
        text = to_json(scene)
        assert "\n" not in text
        assert from_json(text) == scene
    assert backgrounds == {"Plain", "Gradient", "Stripes", "Checks", "Noise"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", "hexagon", "'hexagon' is not one of"),
        ("colour", "mint", "'mint' is not one of"),
        ("color", "red", "did you mean 'colour'"),
    ],
)
def test_json_with_a_wrong_item_is_refused(key, value, message):
    scene = Scene(64, 64, Plain("gray"), (Item("circle", "red", (20.0, 20.0), 16.0),), ())
    data = json.loads(to_json(scene))
    data["items"][0][key] = value
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(data))


def test_text_that_is_no_json_is_refused():
    with pytest.raises(InputError, match="not the JSON of a scene"):
        from_json("{")


@pytest.mark.parametrize("content", ["", "cat", "A B", "Ä"])
def test_letters_without_a_glyph_are_refused(content):
    with pytest.raises(InputError, match="expected one or more of"):
        Text(content, "black", (1, 1), 9)


def test_a_box_follows_its_item():
    item = Item("triangle", "red", (20.0, 30.0), 16.0)
    assert item.box == (12.0, 23.0, 28.0, 37.0)
    assert dataclasses.replace(item, centre=(21.0, 30.0)).box == (13.0, 23.0, 29.0, 37.0)
