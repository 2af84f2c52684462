"""What an exact scorer needs: colours, shapes and letters that stay apart under mild noise and blur."""

import itertools

import numpy as np
import pytest

from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.background import (
    SOFT_PARTNERS,
    TEXTURE_PARTNERS,
    legible_colours,
)
from mammoth_jax.data.synthetic.composition import LEAST_LETTER, LEAST_SIZE
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import Gradient, Plain
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, RGB, SHAPES


def blurred(picture: np.ndarray) -> np.ndarray:
    """Weights 1, 2, 1 along both axes: a standard deviation of 0.7 pixels."""
    for axis in (0, 1):
        padding = [(1, 1) if n == axis else (0, 0) for n in range(picture.ndim)]
        padded = np.moveaxis(np.pad(picture.astype(float), padding, mode="edge"), axis, 0)
        picture = np.moveaxis((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, 0, axis)
    return picture


def degraded(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blurred, with noise of standard deviation 8 (of 255)."""
    return blurred(picture) + random.normal(0, 8, picture.shape)


def test_colours_lie_apart():
    for item, other in itertools.product(COLOURS, RGB):
        if item != other:
            assert np.linalg.norm(np.subtract(RGB[item], RGB[other])) >= 85, (item, other)


def test_mixtures_of_backgrounds_stay_apart_from_items():
    for partners in (SOFT_PARTNERS, TEXTURE_PARTNERS):
        for first, second in ((a, b) for a in partners for b in partners[a]):
            for share in np.linspace(0, 1, 33):
                mixture = (1 - share) * np.array(RGB[first]) + share * np.array(RGB[second])
                assert min(np.linalg.norm(mixture - np.array(RGB[item])) for item in COLOURS) >= 74


def test_every_background_has_colours_for_letters():
    for first in BACKGROUND_COLOURS:
        assert len(legible_colours(Plain(first))) >= 2
        for second in SOFT_PARTNERS[first]:
            assert legible_colours(Gradient(first, second, "right")), (first, second)


def test_the_nearest_colour_is_the_right_one_inside_items_and_outside():
    random = np.random.default_rng(0)
    names = list(RGB)
    table = np.array([RGB[name] for name in names], float)
    source = SyntheticScenes("train")
    right = pixels = 0
    for index in range(100):
        scene = source.scene(index)
        picture = render(scene)
        noisy = degraded(picture, random)
        nearest = np.argmin(((noisy[:, :, None] - table) ** 2).sum(-1), axis=-1)
        # Pixels whose neighbourhood of three by three has one colour, and it is an item's.
        for name in COLOURS:
            flat = np.all(picture == RGB[name], axis=-1)
            deep = np.zeros_like(flat)
            deep[1:-1, 1:-1] = np.logical_and.reduce(
                [flat[r : r + 62, c : c + 62] for r in range(3) for c in range(3)]
            )
            right += int((nearest[deep] == names.index(name)).sum())
            pixels += int(deep.sum())
    assert pixels > 10_000 and right / pixels > 0.999


class Templates:
    """Blurred pictures of known things; the name of one is that of the nearest, at the best of nine shifts."""

    def __init__(self, pictures: dict[str, np.ndarray]) -> None:
        shifts = list(itertools.product((-1, 0, 1), repeat=2))
        self.names = [name for name in pictures for _ in shifts]
        self.pictures = np.stack([np.roll(blurred(p), s, (0, 1)) for p in pictures.values() for s in shifts])

    def name_of(self, seen: np.ndarray) -> str:
        return self.names[int(((self.pictures - seen) ** 2).mean((1, 2)).argmin())]


def on_canvas(shape, centre, size, side) -> np.ndarray:
    out = np.zeros((side, side))
    mask, top, left = shapes.mask(shape, centre, float(size), side, side)
    out[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return out


@pytest.mark.parametrize("size", [LEAST_SIZE, 20])
def test_a_template_tells_the_shapes_apart(size):
    random = np.random.default_rng(1)
    side = size + 8
    templates = Templates({shape: on_canvas(shape, (side / 2, side / 2), size, side) for shape in SHAPES})
    contrast = 86 / 255  # of the two nearest colours: noise of 8 is a tenth of it
    for shape in SHAPES:
        for _ in range(50):
            centre = tuple(side / 2 + random.integers(-2, 3, 2) / 4)
            seen = degraded(
                on_canvas(shape, centre, size + random.integers(0, 3) / 2, side) * contrast, random
            )
            assert templates.name_of(seen / contrast) == shape


def test_a_template_tells_the_letters_apart_at_the_least_height():
    random = np.random.default_rng(2)
    glyphs = {letter: np.pad(font.glyph(letter, LEAST_LETTER).astype(float), 2) for letter in font.GLYPHS}
    templates = Templates(glyphs)
    contrast = 100 / 255  # letters differ from their background by 70 in brightness, and by more in colour
    for letter, image in glyphs.items():
        for _ in range(20):
            assert templates.name_of(degraded(image * contrast, random) / contrast) == letter
