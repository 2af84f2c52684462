"""Pixels of a scene: true to the description, and unchanged where an edit does not reach."""

import dataclasses
import math

import numpy as np
import pytest

from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.background import draw_background
from mammoth_jax.data.synthetic.render import in_one_piece, render, visible_share, with_visible_shares
from mammoth_jax.data.synthetic.scene import Checks, Gradient, Item, Noise, Plain, Scene, Stripes, Text
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.vocabulary import RGB, SHAPES


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [12.0, 20.5, 36.0])
def test_a_shape_fills_its_box_and_no_more(shape, size):
    centre = (31.25, 33.5)
    mask, top, left = shapes.mask(shape, centre, size, 64, 64)
    assert mask.max() >= 250
    x0, y0, x1, y1 = shapes.box_of(shape, centre, size)
    assert (math.floor(x0), math.floor(y0)) == (left, top)
    assert (math.ceil(x1), math.ceil(y1)) == (left + mask.shape[1], top + mask.shape[0])
    # Corners of a star or a crescent are too thin for their last pixel; no shape ends more than two short.
    columns, rows = np.flatnonzero(mask.max(0) > 60) + left, np.flatnonzero(mask.max(1) > 60) + top
    assert abs(columns[0] - x0) <= 2 and abs(columns[-1] + 1 - x1) <= 2
    assert abs(rows[0] - y0) <= 2 and abs(rows[-1] + 1 - y1) <= 2


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", math.pi / 4),
        ("square", 1.0),
        ("triangle", 0.875 / 2),
        ("diamond", 0.5),
        ("cross", 2 * 0.34 - 0.34**2),
        ("ring", math.pi / 4 * (1 - 0.52**2)),
        ("star", 10 * 0.525731**2 * 0.381966 * math.sin(math.pi / 5) / 2),
    ],
)
def test_a_mask_has_the_area_of_its_shape(shape, area):
    mask, _, _ = shapes.mask(shape, (32.25, 31.75), 40.0, 64, 64)
    assert mask.sum() / 255 / 40**2 == pytest.approx(area, rel=0.02)


def test_an_item_has_exactly_its_colour_inside():
    scene = Scene(64, 64, Plain("gray"), (Item("square", "orange", (20.0, 40.0), 20.0),), ())
    picture = render(scene)
    assert (picture[30:50, 10:30] == RGB["orange"]).all()
    picture[30:50, 10:30] = RGB["gray"]
    assert (picture == RGB["gray"]).all()


def test_later_items_cover_earlier_ones():
    below, above = Item("square", "red", (20.0, 20.0), 16.0), Item("square", "blue", (24.0, 20.0), 16.0)
    picture = render(Scene(64, 64, Plain("gray"), (below, above), ()))
    assert (picture[20, 20] == RGB["blue"]).all() and (picture[20, 13] == RGB["red"]).all()
    assert visible_share(below, (above,), 64, 64) == pytest.approx(0.25)
    assert visible_share(above, (), 64, 64) == 1.0


def test_an_item_cut_in_two_is_not_in_one_piece():
    bar = Item("square", "red", (32.0, 32.0), 30.0)
    across = tuple(Item("square", "blue", (32.0, y), 8.0) for y in (18.0, 24.0, 31.0, 38.0, 45.0))
    assert in_one_piece(bar, across[:4], 64, 64)
    assert not in_one_piece(bar, across, 64, 64)


def test_whole_shapes_are_in_one_piece():
    random = np.random.default_rng(0)
    for shape in SHAPES:
        for _ in range(100):
            (x, y), size = random.integers(100, 156, 2) / 4, random.integers(24, 73) / 2
            assert in_one_piece(Item(shape, "red", (x, y), size), (), 64, 64)


def test_visible_shares_of_drawn_scenes_are_those_of_their_items():
    source = SyntheticScenes("train")
    for index in range(300):
        scene = source.scene(index)
        assert with_visible_shares(scene) == scene
        assert all(item.visible >= 0.75 for item in scene.items)
        for number, item in enumerate(scene.items):
            assert in_one_piece(item, scene.items[number + 1 :], 64, 64)


def edits(scene):
    """Each item recoloured, removed, moved and replaced; the boxes that may change."""
    for number, item in enumerate(scene.items):
        others = scene.items[:number], scene.items[number + 1 :]
        yield [*others[0], *others[1]], [item.box]
        for changed in (
            dataclasses.replace(item, colour="red" if item.colour != "red" else "blue"),
            dataclasses.replace(item, shape="ring" if item.shape != "ring" else "star"),
            dataclasses.replace(item, centre=(64 - item.centre[0], 64 - item.centre[1])),
        ):
            yield [*others[0], changed, *others[1]], [item.box, changed.box]


def test_an_edit_changes_nothing_outside_the_boxes():
    source = SyntheticScenes("train")
    changes = 0
    for index in range(40):
        scene = source.scene(index)
        before = render(scene)
        for items, boxes in edits(scene):
            after = render(dataclasses.replace(scene, items=tuple(items)))
            outside = np.ones((64, 64), bool)
            for x0, y0, x1, y1 in boxes:
                outside[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = False
            assert (before[outside] == after[outside]).all()
            changes += bool((before != after).any())
    assert changes > 200


def test_a_text_is_drawn_over_the_picture_within_its_box():
    scene = Scene(64, 64, Plain("gray"), (), (Text("AB1", "white", (5, 7), 9),))
    picture = render(scene)
    left, top, right, bottom = scene.texts[0].box
    assert (right - left, bottom - top) == (font.text_width(3, 9), 9)
    inked = (picture != RGB["gray"]).any(-1)
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    assert (rows[0], rows[-1] + 1, columns[0]) == (top, bottom, left)
    assert columns[-1] < right
    letter = font.glyph("A", 9) == 255
    assert (picture[7:16, 5 : 5 + letter.shape[1]][letter] == RGB["white"]).all()


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize(
    "background",
    [
        Gradient("mint", "sky", "right"),
        Gradient("mint", "sky", "diagonal"),
        Stripes("mint", "sky", "down", 7),
        Checks("mint", "sky", 9),
        Noise("mint", "sky", 13, 5),
    ],
)
def test_a_background_runs_between_its_two_colours(background, size):
    pixels = draw_background(background, *size)
    assert pixels.shape == (*size, 3)
    first, second = np.array(RGB["mint"]), np.array(RGB["sky"])
    assert (pixels >= np.minimum(first, second)).all() and (pixels <= np.maximum(first, second)).all()
    if not isinstance(background, Noise):
        assert (pixels[0, 0] == first).all()
        assert (pixels == second).all(-1).any()
    assert 0.4 < (pixels[..., 0] - second[0]).mean() / (first - second)[0] < 0.6
