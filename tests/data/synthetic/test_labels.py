"""Arrays that describe a scene."""

import numpy as np

from mammoth_jax.data.synthetic.labels import scene_labels
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import Gradient, Item, Scene, Text
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, RGB, SHAPES


def test_labels_of_a_scene_made_by_hand():
    scene = Scene(
        64,
        64,
        Gradient("mint", "sky", "down"),
        (
            Item("square", "red", (16.0, 16.0), 32.0),
            Item("square", "red", (48.0, 16.0), 16.0),
            Item("ring", "blue", (20.0, 20.0), 20.0),
        ),
        (Text("HI", "black", (4, 50), 9),),
    )
    labels = scene_labels(scene)
    square, ring = SHAPES.index("square"), SHAPES.index("ring")
    red, blue = COLOURS.index("red"), COLOURS.index("blue")
    assert labels["shape_count"][square] == 2 and labels["shape_count"][ring] == 1
    assert labels["shape_count"].sum() == 3
    assert labels["shape_colour"][square, red] and labels["shape_colour"][ring, blue]
    assert labels["shape_colour"].sum() == 2
    assert {BACKGROUND_COLOURS[n] for n in np.flatnonzero(labels["background_colour"])} == {"mint", "sky"}
    # Through the ring's middle: beside it, its band, its hole (where the square shows), its band.
    row = [square + 1, ring + 1, square + 1, ring + 1]
    assert labels["cell_shape"][2, :4].tolist() == row
    assert labels["cell_colour"][2, :4].tolist() == [red + 1, blue + 1, red + 1, blue + 1]
    assert labels["cell_shape"][2, 4] == 0
    assert not labels["cell_shape"][4:].any()  # letters are no items


def test_cells_name_the_colour_of_the_pixel_there():
    """Cells whose middle is well inside an item have its colour in the picture."""
    source = SyntheticScenes("train")
    agreeing = wrong = 0
    for index in range(200):
        scene = source.scene(index)
        picture, labels = render(scene), scene_labels(scene)
        for row, column in zip(*np.nonzero(labels["cell_colour"]), strict=True):
            middle = picture[row * 8 + 3 : row * 8 + 5, column * 8 + 3 : column * 8 + 5].reshape(4, 3)
            if (middle == middle[0]).all():
                same = tuple(middle[0]) == RGB[COLOURS[labels["cell_colour"][row, column] - 1]]
                agreeing, wrong = agreeing + same, wrong + (not same)
    assert agreeing > 500 and not wrong
