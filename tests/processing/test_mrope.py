"""Rope positions of rows with pictures and videos, by both families' rules, and how rows go on."""

import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.mrope import (
    Qwen3VLBlocks,
    Qwen25VLBlocks,
    multimodal_positions,
    text_positions,
)

IMAGE, VIDEO = 90, 91  # placeholders of images and videos
TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO}


def positions(rows, blocks, **pictures):
    """Positions of rows in which 0 is padding."""
    ids = np.array(rows)
    return multimodal_positions(ids, ids != 0, blocks, **TOKENS, **pictures)


def test_text_counts_valid_tokens_and_pads_hold_one():
    valid = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    ids, deltas = text_positions(valid)
    np.testing.assert_array_equal(ids, np.broadcast_to([[1, 1, 0, 1, 2], [0, 1, 2, 3, 4]], (3, 2, 5)))
    np.testing.assert_array_equal(deltas, [[-2], [0]])


@pytest.mark.parametrize("blocks", [Qwen3VLBlocks(), Qwen25VLBlocks()])
def test_rows_without_pictures_are_text(blocks):
    rows = [[0, 0, 5, 6, 7], [5, 6, 7, 8, 9]]
    got = positions(rows, blocks)
    ids, deltas = text_positions(np.array(rows) != 0)
    np.testing.assert_array_equal(got.ids, ids)
    np.testing.assert_array_equal(got.deltas, deltas)


@pytest.mark.parametrize("blocks", [Qwen3VLBlocks(), Qwen25VLBlocks()])
def test_an_image_spreads_over_rows_and_columns_at_one_time(blocks):
    got = positions([[5, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, 6, 7]], blocks, images=[(1, 4, 6)])
    expected = [[0, 1, 1, 1, 1, 1, 1, 4, 5], [0, 1, 1, 1, 2, 2, 2, 4, 5], [0, 1, 2, 3, 1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(got.ids[:, 0], expected)
    np.testing.assert_array_equal(got.next, [6])
    np.testing.assert_array_equal(got.deltas, [[6 - 9]])


def test_each_step_of_a_qwen3_video_is_a_block_of_its_own():
    got = positions(
        [[5, VIDEO, VIDEO, 6, VIDEO, VIDEO, 7]], Qwen3VLBlocks(), videos=[(2, 2, 4)], seconds=[9.0]
    )
    expected = [[0, 1, 1, 3, 4, 4, 6], [0, 1, 1, 3, 4, 4, 6], [0, 1, 2, 3, 4, 5, 6]]
    np.testing.assert_array_equal(got.ids[:, 0], expected)


def test_a_qwen25_video_is_one_block_in_whole_seconds():
    blocks = Qwen25VLBlocks(tokens_per_second=3)
    got = positions([[5, VIDEO, VIDEO, VIDEO, VIDEO, 6]], blocks, videos=[(2, 2, 4)], seconds=[2.9])
    expected = [[0, 1, 1, 7, 7, 8], [0, 1, 1, 1, 1, 8], [0, 1, 2, 1, 2, 8]]
    np.testing.assert_array_equal(got.ids[:, 0], expected)


def test_a_qwen25_video_without_times_has_steps_of_a_second():
    got = positions([[VIDEO, VIDEO, 6]], Qwen25VLBlocks(tokens_per_second=4), videos=[(2, 2, 2)])
    np.testing.assert_array_equal(got.ids[:, 0], [[0, 4, 5], [0, 0, 5], [0, 0, 5]])


def test_pictures_are_taken_row_after_row_and_padding_may_be_at_either_end():
    rows = [[0, 0, 5, IMAGE, 6, VIDEO, VIDEO, 0], [IMAGE, IMAGE, 7, IMAGE, 8, 0, 0, 0]]
    got = positions(rows, Qwen3VLBlocks(), images=[(1, 2, 2), (1, 4, 2), (1, 2, 2)], videos=[(1, 2, 4)])
    np.testing.assert_array_equal(got.ids[0], [[1, 1, 0, 1, 2, 3, 3, 1], [0, 0, 2, 3, 4, 1, 1, 1]])
    np.testing.assert_array_equal(got.ids[1], [[1, 1, 0, 1, 2, 3, 3, 1], [0, 1, 2, 3, 4, 1, 1, 1]])
    np.testing.assert_array_equal(got.ids[2], [[1, 1, 0, 1, 2, 3, 4, 1], [0, 0, 2, 3, 4, 1, 1, 1]])
    np.testing.assert_array_equal(got.next, [5, 5])
    np.testing.assert_array_equal(got.deltas, [[-3], [-3]])


def test_merged_patches_count_once():
    got = positions([[IMAGE, 6]], Qwen3VLBlocks(merge_size=4), images=[(1, 4, 4)])
    np.testing.assert_array_equal(got.ids[:, 0], [[0, 1]] * 3)


@pytest.mark.parametrize("blocks", [Qwen3VLBlocks(), Qwen25VLBlocks()])
def test_a_later_turn_goes_on_where_the_earlier_ended(blocks):
    rows = [
        [5, IMAGE, IMAGE, 6, IMAGE, IMAGE, IMAGE, IMAGE, 7],
        [5, IMAGE, 6, 7, IMAGE, IMAGE, IMAGE, IMAGE, 8],
    ]
    images = [(1, 2, 4), (1, 4, 4), (1, 2, 2), (1, 4, 4)]
    whole = positions(rows, blocks, images=images)
    first = positions([row[:4] for row in rows], blocks, images=images[::2])
    second = positions([row[4:] for row in rows], blocks, images=images[1::2], start=first.next)
    np.testing.assert_array_equal(np.concatenate([first.ids, second.ids], axis=2), whole.ids)
    np.testing.assert_array_equal(second.next, whole.next)


@pytest.mark.parametrize(
    ("row", "pictures", "message"),
    [
        ([5, IMAGE, 6, IMAGE], {"images": [(1, 2, 2)]}, "more image placeholders than images"),
        ([5, IMAGE, IMAGE], {"images": [(1, 2, 2)]}, "more image placeholders than images"),
        ([5, VIDEO], {}, "more video placeholders"),
        ([5, IMAGE, 6], {"images": [(1, 2, 2)] * 2}, "fewer image placeholders than images: 1 of 2"),
        ([5, IMAGE, 6], {"images": [(1, 4, 2)]}, "image block 0 makes 2 tokens, but 1 placeholders"),
        ([5, IMAGE], {"images": [(1, 4, 2)]}, "image block 0 makes 2 tokens, but 1 placeholders"),
        (
            [VIDEO, VIDEO, VIDEO, 6],
            {"videos": [(2, 2, 4)]},
            "video block 1 makes 2 tokens, but 1 placeholders",
        ),
        ([VIDEO, 6], {"videos": [(1, 2, 2)], "seconds": [1.0, 2.0]}, "2 times for 1 videos"),
    ],
)
def test_placeholders_that_do_not_fit_the_pictures_are_refused(row, pictures, message):
    with pytest.raises(InputError, match=message):
        positions([row], Qwen3VLBlocks(), **pictures)
