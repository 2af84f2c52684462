"""What is found in pictures of known scenes, and in pictures of anything."""

import itertools

import numpy as np
import pytest

from mammoth_jax.data.synthetic.background import draw_background
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import Checks, Gradient, Item, Noise, Plain, Scene, Stripes, Text
from mammoth_jax.data.synthetic.score import find as finding
from mammoth_jax.data.synthetic.score import lines
from mammoth_jax.data.synthetic.score.agreement import agreement, contents, worse
from mammoth_jax.data.synthetic.score.find import find
from mammoth_jax.data.synthetic.score.smoothing import smoothed
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.tasks import SyntheticDrawings
from mammoth_jax.data.synthetic.vocabulary import COLOURS, RGB, SHAPES


def scene(*items: Item, texts: tuple[Text, ...] = (), background=Plain("silver")) -> Scene:
    return Scene(64, 64, background, items, texts)


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("seen", ["clean", "noise", "blur"])
def test_scenes_are_found_as_they_are(split, seen):
    random = np.random.default_rng(3)
    source = SyntheticScenes(split, seed=3)
    for index in range(8):
        shown = source.scene(index)
        found = find(worse(render(shown), seen, random))
        assert contents(found) == contents(shown), index
        for item in shown.items:
            assert any(
                np.hypot(item.centre[0] - other.centre[0], item.centre[1] - other.centre[1]) < 0.6
                and abs(item.box[2] - other.box[2]) < 1.5
                for other in found.items
                if (other.shape, other.colour) == (item.shape, item.colour)
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "seen"), list(itertools.product(("train", "heldout"), ("clean", "noise", "blur")))
)
def test_at_least_99_of_100_scenes_agree_and_98_of_100_changed_captions_are_refused(split, seen):
    figures = agreement(SyntheticDrawings(split=split, seed=8), 1000, seen)
    assert figures["found exactly"] >= 0.99 and figures["specification holds"] >= 0.99
    assert all(share >= 0.98 for share in figures["refused by attribute"].values())


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_the_least_size_are_told_apart_under_noise_and_blur(shape):
    random = np.random.default_rng(4)
    items = [
        Item(shape, colour, (14.25 + 18 * (n % 3), 14.5 + 18 * (n // 3)), 12.0)
        for n, colour in enumerate(("red", "blue", "white", "purple"))
    ]
    found = find(worse(render(scene(*items, background=Plain("teal"))), "both", random))
    assert [item.shape for item in found.items] == [shape] * 4
    assert {item.colour for item in found.items} == {"red", "blue", "white", "purple"}


def test_an_item_behind_another_has_its_whole_box():
    below = Item("square", "green", (28.0, 30.0), 20.0)
    above = Item("circle", "pink", (39.0, 38.0), 14.0)
    found = {item.shape: item for item in find(render(scene(below, above))).items}
    assert np.allclose(found["square"].box, below.box, atol=1)
    assert np.allclose(found["circle"].box, above.box, atol=1)
    assert found["square"].pixels < 400 - 20


@pytest.mark.parametrize("shape", ["circle", "square", "heart", "diamond"])
@pytest.mark.parametrize(("share", "colour"), [(0.4, "green"), (0.6, "red")])
def test_a_shape_of_two_colours_is_one_in_the_larger_one(shape, share, colour):
    red, green = (render(scene(Item(shape, colour, (32.0, 32.0), 24.0))) for colour in ("red", "green"))
    column = round(20 + 24 * share)
    found = find(np.concatenate([red[:, :column], green[:, column:]], 1))
    assert [(item.shape, item.colour) for item in found.items] == [(shape, colour)]


@pytest.mark.parametrize("shape", ["circle", "diamond", "heart"])
def test_items_of_one_colour_that_touch_are_two(shape):
    items = Item(shape, "red", (20.0, 30.0), 18.0), Item(shape, "red", (37.5, 34.0), 18.0)
    found = find(render(scene(*items, background=Plain("mint")))).items
    assert [(item.shape, item.colour) for item in found] == [(shape, "red")] * 2


@pytest.mark.parametrize("content", ["QZJXW", "0O8B", "I1L7", "A"])
@pytest.mark.parametrize("height", [9, 14])
def test_letters_are_read_one_by_one(content, height):
    if height == 14 and len(content) > 4:
        content = content[:4]
    text = Text(content, "black", (5, 20), height)
    found = find(worse(render(scene(texts=(text,))), "blur", np.random.default_rng(5)))
    assert [(t.text, t.colour) for t in found.texts] == [(content, "black")]
    assert np.allclose(found.texts[0].box, text.box, atol=1.01) and not found.items


@pytest.mark.parametrize(
    "background",
    [
        Plain("beige"),
        Gradient("sky", "mint", "diagonal"),
        Stripes("navy", "charcoal", "down", 7),
        Checks("lavender", "sky", 9),
        Noise("gray", "silver", 14, 3),
    ],
)
def test_backgrounds_are_named(background):
    found = find(draw_background(background, 64, 64)).background
    assert found is not None and found.kind == type(background).__name__.lower()
    assert set(found.colours) == {background.colour, getattr(background, "second", background.colour)}


def test_stripes_that_begin_elsewhere_are_stripes():
    picture = draw_background(Stripes("navy", "charcoal", "right", 8), 64, 80)[:, 5:69]
    found = find(picture).background
    assert found is not None and found.kind == "stripes"


def test_a_colour_of_backgrounds_is_none_of_the_ten():
    picture = render(scene(Item("circle", "red", (30.0, 30.0), 24.0), background=Plain("mint")))
    for name, expected in (("charcoal", "charcoal"), ("teal", "teal")):
        recoloured = np.where((picture == RGB["red"]).all(-1, keepdims=True), RGB[name], picture)
        (item,) = find(recoloured.astype(np.uint8)).items
        assert item.shape == "circle" and item.colour == expected


@pytest.mark.parametrize("colour", COLOURS)
def test_slightly_wrong_colours_keep_their_names(colour):
    picture = render(scene(Item("heart", colour, (30.0, 30.0), 24.0), background=Plain("gray"))).astype(int)
    found = find(np.clip(picture + np.array([12, -10, 9]), 0, 255).astype(np.uint8))
    assert [(item.shape, item.colour) for item in found.items] == [("heart", colour)]
    assert found.background is not None and found.background.colours == ("gray",)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (3, 200), (64, 40)])
@pytest.mark.parametrize("kind", ["noise", "black", "red", "halves"])
def test_any_picture_is_read(size, kind):
    random = np.random.default_rng(6)
    picture = {
        "noise": random.integers(0, 256, (*size, 3)),
        "black": np.zeros((*size, 3)),
        "red": np.broadcast_to(RGB["red"], (*size, 3)),
        "halves": np.broadcast_to(np.arange(size[1])[None, :, None] * 2 // size[1] * 255, (*size, 3)),
    }[kind].astype(np.uint8)
    found = find(picture)
    assert (found.height, found.width) == size
    if kind == "noise" and size == (64, 64):
        assert not found.items and not found.texts


@pytest.mark.parametrize("coarseness", [0.0, 0.7, 2.0])
def test_the_work_on_a_picture_of_noise_is_bounded(coarseness, monkeypatch):
    """Counts what is laid over the picture: unbounded it is 125 shapes and 21 pictures' worth of letters."""
    fitted, read = [], []
    best_fits, read_line = finding.best_fits, lines.read_line
    monkeypatch.setattr(finding, "best_fits", lambda patch: fitted.append(patch) or best_fits(patch))
    monkeypatch.setattr(
        lines, "read_line", lambda cover, *rest: read.append(cover.size) or read_line(cover, *rest)
    )
    noise = np.random.default_rng(7).normal(0, 1, (64, 64, 3))
    noise = smoothed(noise, coarseness) if coarseness else noise
    find(np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8))
    assert 4 <= len(fitted) <= 18 + 6 * 6
    assert sum(read) <= 3 * 64 * 64  # windows of one picture and a half, with their margins


def test_larger_pictures_are_read_alike():
    shown = SyntheticScenes("heldout", picture_size=128, seed=1).scene(2)
    assert contents(find(render(shown))) == contents(shown)
