"""From a scene to pixels, and how much of every item is seen."""

import dataclasses

import numpy as np

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.background import draw_background
from mammoth_jax.data.synthetic.scene import Box, Item, Scene
from mammoth_jax.data.synthetic.vocabulary import RGB


def render(scene: Scene) -> UInt8[np.ndarray, "rows cols 3"]:
    """The picture of a scene, RGB.

    Every part is drawn by itself over what is there, so two scenes that differ in one item have equal pixels outside
    the boxes of that item (rounded outwards to whole pixels).
    """
    picture = draw_background(scene.background, scene.height, scene.width)
    for item in scene.items:
        mask, top, left = shapes.mask(item.shape, item.centre, item.size, scene.height, scene.width)
        _paint(picture, mask, top, left, item.colour)
    for text in scene.texts:
        left, top = text.corner
        mask = font.text_mask(text.content, text.height)
        mask = mask[: max(scene.height - top, 0), : max(scene.width - left, 0)]
        _paint(picture, mask, top, left, text.colour)
    return picture


def _paint(picture: np.ndarray, mask: np.ndarray, top: int, left: int, colour: str) -> None:
    """Lays a colour over part of a picture, in integers: exactly the colour where the mask is 255."""
    height, width = mask.shape
    window = picture[top : top + height, left : left + width]
    cover = mask.astype(np.int32)[:, :, None]
    below = window.astype(np.int32)
    window[:] = (below * (255 - cover) + cover * np.array(RGB[colour], np.int32) + 127) // 255


def boxes_meet(a: Box, b: Box, gap: float = 0.0) -> bool:
    """Whether two boxes overlap or come nearer than ``gap`` along both axes."""
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def visible_mask(
    item: Item, later: tuple[Item, ...], height: int, width: int
) -> tuple[UInt8[np.ndarray, "rows cols"], UInt8[np.ndarray, "rows cols"]]:
    """Coverage of an item's box by the item, whole and where no later item covers it."""
    whole, top, left = shapes.mask(item.shape, item.centre, item.size, height, width)
    seen = whole.astype(np.int32)
    rows, columns = whole.shape
    for other in later:
        if not boxes_meet(item.box, other.box, gap=1.0):
            continue
        mask, other_top, other_left = shapes.mask(other.shape, other.centre, other.size, height, width)
        r0, r1 = max(top, other_top), min(top + rows, other_top + mask.shape[0])
        c0, c1 = max(left, other_left), min(left + columns, other_left + mask.shape[1])
        if r0 < r1 and c0 < c1:
            cover = mask[r0 - other_top : r1 - other_top, c0 - other_left : c1 - other_left].astype(np.int32)
            seen[r0 - top : r1 - top, c0 - left : c1 - left] *= 255 - cover
            seen[r0 - top : r1 - top, c0 - left : c1 - left] //= 255
    return whole, seen.astype(np.uint8)


def visible_share(item: Item, later: tuple[Item, ...], height: int, width: int) -> float:
    """Share of an item's area that later items leave uncovered, to three digits."""
    if not any(boxes_meet(item.box, other.box, gap=1.0) for other in later):
        return 1.0
    whole, seen = visible_mask(item, later, height, width)
    return round(int(seen.sum(dtype=np.int64)) / int(whole.sum(dtype=np.int64)), 3)


def in_one_piece(item: Item, later: tuple[Item, ...], height: int, width: int) -> bool:
    """Whether what later items leave of an item hangs together, as the whole shape does."""
    _, seen = visible_mask(item, later, height, width)
    rows, columns = seen.shape
    # The mask as one integer, a bit a pixel, with an empty column so that rows do not run into each other.
    stride = columns + 1
    padded = np.zeros((rows, stride), np.uint8)
    padded[:, :columns] = seen > 32  # the tips of a star are faint
    bits = int.from_bytes(np.packbits(padded.reshape(-1), bitorder="little").tobytes(), "little")
    grown, reached = bits & -bits, 0
    while grown != reached:
        reached = grown
        grown |= grown << 1 | grown >> 1
        grown = (grown | grown << stride | grown >> stride) & bits
    return reached == bits


def with_visible_shares(scene: Scene) -> Scene:
    """The scene with every item's visible share computed anew, as is needed after an edit."""
    items = tuple(
        dataclasses.replace(
            item, visible=visible_share(item, scene.items[number + 1 :], scene.height, scene.width)
        )
        for number, item in enumerate(scene.items)
    )
    return dataclasses.replace(scene, items=items)
