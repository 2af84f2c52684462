"""Rows of several samples hold each as it is alone; text is cut between answers and never in a picture."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Example, Turn
from mammoth_jax.data.packing.dropout import Dropped, GuidanceDropout
from mammoth_jax.data.packing.encoding import encode_rows
from mammoth_jax.data.packing.geometry import Forms
from mammoth_jax.data.packing.lengths import Lengths, PackingConfig
from mammoth_jax.data.packing.pictures import read_reference
from mammoth_jax.data.packing.positions import OffsetFirst, TimeFirst
from mammoth_jax.data.packing.rows import IGNORED, NOTHING, Batch, pack_rows
from mammoth_jax.data.packing.sample import TooLong, prepare
from mammoth_jax.data.packing.workers import Ready
from mammoth_jax.data.record import Encoded, UnreadablePicture
from tests.data.packing.examples import (
    Checksums,
    asked,
    diffusion_changes,
    document,
    drawn,
    edited,
    geometry,
    picture,
    reasoned,
)
from tests.tiny_model import random_model_words

PACKING = PackingConfig(
    tokens=1600, patches=256, conditions=768, references=160, targets=128, joint=1024, samples=6
)
DROPPED = (Dropped(), Dropped(prompt=True), Dropped(condition=True), Dropped(True, True, True))


def pack(examples: list[tuple[Example, Dropped]], packing: PackingConfig = PACKING) -> Batch:
    """One row of these."""
    row = [
        (number % 3, Ready(10 + number, 0, prepare(example, geometry(), packing, dropped)))
        for number, (example, dropped) in enumerate(examples)
    ]
    return pack_rows(encode_rows([row], Checksums()), geometry(), packing)


def tokens_of(batch: Batch, segment: int) -> dict[str, Any]:
    """A token sequence by itself, with the patches that its placeholders are made of."""
    row = {name: array[0] for name, array in batch.items()}
    at = np.flatnonzero(row["token_segments"] == segment)
    slots = row["feature_slots"][at]
    patches = (slots[slots >= 0][:, None] * 4 + np.arange(4)).reshape(-1)
    frames = row["patch_frames"][patches]
    out = {name: row[name][at] for name in ("ids", "labels", "noise_cells")}
    out |= {
        name: row[name][patches] for name in ("patches", "patch_rope", "patch_cells", "patch_cell_weights")
    }
    return out | {
        "positions": row["token_positions"][:, at],
        "contiguous": np.diff(at),
        "shown": slots >= 0,
        "frames": np.unique(frames, return_inverse=True)[1],
    }


def diffusion_of(batch: Batch, sample: int) -> dict[str, Any]:
    """A drawn sample by itself: its joint sequence, each place as what stands there."""
    row = {name: array[0] for name, array in batch.items()}
    at = np.flatnonzero(row["joint_segments"] == sample)
    condition, references, joint = [], [], row["joint_index"][at]
    conditions, end = PACKING.conditions, PACKING.conditions + PACKING.references
    for index in row["condition_index"][joint[joint < conditions]]:
        is_token = index < PACKING.tokens
        segment = row["token_segments"][index] if is_token else 0
        first = np.argmax(row["token_segments"] == segment) if is_token else 0
        query = -1 if is_token else (index - PACKING.tokens) - 4 * (sample - 1)
        condition.append((index - first, row["ids"][index], query) if is_token else (0, 0, query))
    shown = joint[(joint >= conditions) & (joint < end)] - conditions
    segments = row["reference_segments"][shown]
    names = ("reference_patches", "reference_number", "reference_positions")
    references = {name: row[name][shown] for name in names}
    target = joint[joint >= end] - end
    image = np.flatnonzero(row["token_sample"] == sample)
    return {
        "contiguous": np.diff(at),
        "condition": np.asarray(condition),
        **references,
        "pictures": np.unique(segments, return_inverse=True)[1],
        **{name: row[name][target] for name in ("target_mean", "target_std", "target_positions")},
        "belongs": np.concatenate([row["reference_sample"][shown], row["target_sample"][target]]) == sample,
        "tokens": row["sample_tokens"][sample - 1],
        "image": row["ids"][image],
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal arrays."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_sample_in_a_mixed_row_is_what_it_is_alone():
    examples = [
        (edited("make it blue", 2, 2), DROPPED[0]),
        (document(12), DROPPED[0]),
        (drawn("a red cat", 1), DROPPED[1]),
        (asked(4), DROPPED[0]),
        (reasoned("draw", "a thought", 3), DROPPED[2]),
        (edited("and now green", 5, 1), DROPPED[3]),
    ]
    row = pack(examples)
    segment = sample = 0
    for example, dropped in examples:
        alone = pack([(example, dropped)])
        for own in range(1, int(alone["token_segments"].max()) + 1):
            segment += 1
            assert_same(tokens_of(row, segment), tokens_of(alone, own))
        if example.target is not None:
            sample += 1
            assert_same(diffusion_of(row, sample), diffusion_of(alone, 1))
    assert row["token_segments"].max() == segment == 9
    assert (row["sample_tokens"][0] > 0).sum() == sample == 4
    assert row["sample_number"][0].tolist() == [10, 12, 14, 15, 0, 0]
    assert row["sample_task"][0].tolist() == [0, 2, 1, 2, 0, 0]


@pytest.mark.parametrize("dropped", DROPPED)
def test_lengths_are_what_the_row_takes(dropped):
    for example in (edited("make it blue", 2, 2), drawn("a cat", 1), reasoned("draw", "a thought", 3)):
        batch = pack([(example, dropped)])
        lengths = prepare(example, geometry(), PACKING, dropped).lengths
        taken = Lengths(
            tokens=int((batch["token_segments"] > 0).sum()),
            patches=int((batch["patch_frames"] > 0).sum()),
            conditions=int((batch["condition_segments"] > 0).sum()),
            references=int((batch["reference_segments"] > 0).sum()),
            targets=int((batch["target_sample"] > 0).sum()),
            joint=int((batch["joint_segments"] > 0).sum()),
            samples=int((batch["sample_tokens"] > 0).sum()),
        )
        assert lengths == taken


@pytest.mark.parametrize("side", [32, 48])
def test_no_form_of_a_picture_is_larger_than_the_stage_allows(side):
    forms, large = Forms(vision=True, tokens=True, latents=True), picture(1, 96, 96)
    read = read_reference(large, geometry(max_side=side), forms)
    for pixels in (read.seen, read.rest.tokens, read.rest.latents):
        assert pixels is not None and pixels.shape == (side, side, 3)
    whole = read_reference(large, geometry(), forms).seen
    assert whole is not None and whole.shape == (96, 96, 3)


def test_padding_is_the_tail_and_stands_for_nothing():
    batch = pack([(edited("make it blue", 2, 2), DROPPED[0]), (asked(4), DROPPED[0])])
    for name in (
        "token_segments",
        "patch_frames",
        "condition_segments",
        "reference_segments",
        "joint_segments",
    ):
        used = np.flatnonzero(batch[name][0])
        assert used[-1] == len(used) - 1, name
    empty = batch["token_segments"][0] == 0
    assert (batch["labels"][0][empty] == IGNORED).all()
    assert (batch["joint_index"][0][batch["joint_segments"][0] == 0] == NOTHING).all()


def test_noise_cells_are_the_places_of_drawn_visual_tokens():
    batch = pack([(edited("make it blue", 2, 1), DROPPED[0])])
    cells, words = batch["noise_cells"][0], random_model_words()
    marked = np.flatnonzero(cells[:, 0] >= 0)
    assert cells[marked].tolist() == [[row, col] for row in range(4) for col in range(6)]
    ids = batch["ids"][0][marked]
    assert (ids >= words.settings.visual_start).all()
    after = batch["ids"][0][marked[5::6] + 1]
    assert (after == words.settings.end_of_line).all()


def test_visual_tokens_name_their_sample_in_every_sequence_of_it():
    batch = pack(
        [(edited("make it blue", 2, 1), DROPPED[1]), (asked(3), DROPPED[0]), (drawn("a", 4), DROPPED[2])]
    )
    cells, owner, segments = (batch[name][0] for name in ("noise_cells", "noise_sample", "token_segments"))
    np.testing.assert_array_equal(owner > 0, cells[:, 0] >= 0)
    found = [int(owner[segments == segment].max()) for segment in range(1, segments.max() + 1)]
    assert found == [1, 1, 0, 2, 0]  # prompt and opening of the edit, question, drawing, negative prompt


def test_only_answers_and_their_ends_are_targets():
    words = random_model_words().tokenizer
    batch = pack([(asked(4), DROPPED[0])])
    labels = batch["labels"][0]
    found = words.decode(labels[labels != IGNORED], skip_special=False)
    assert found == "A cat.<|im_end|>Two red balls, one above the other.<|im_end|>"
    said = words.decode(batch["ids"][0][batch["token_segments"][0] > 0], skip_special=False)
    assert said.startswith(
        "<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    )
    assert "Thank you" not in said
    batch = pack([(document(3), DROPPED[0])])
    assert words.decode(batch["ids"][0][:20], skip_special=False).startswith("word0 word1 word2<|endoftext|>")
    assert batch["labels"][0][0] == IGNORED
    assert (batch["labels"][0][1:18] == batch["ids"][0][1:18]).all()


def test_long_text_is_cut_between_targets_and_pictures_stay_whole():
    whole = prepare(asked(4), geometry(), PACKING, DROPPED[0])
    sequence = whole.sequences[0]
    targets = np.flatnonzero(sequence.targets)
    second = np.flatnonzero(np.diff(targets) > 1)[0] + 1
    pad = geometry().vocabulary.image_pad
    shown = np.flatnonzero(sequence.ids == pad)
    for tokens, stop, seen in (
        (len(sequence) - 3, len(sequence) - 3, 2),
        (int(targets[second]), int(targets[second - 1]) + 1, 1),
        (int(shown[-1]), int(targets[second - 1]) + 1, 1),
    ):
        config = PackingConfig(tokens=tokens, patches=60)
        cut = prepare(asked(4), geometry(), config, DROPPED[0])
        assert cut.fate == "cut"
        assert len(cut.sequences[0]) == stop
        assert cut.sequences[0].seen == tuple(range(seen))
        assert cut.lengths.patches == (24, 60)[seen - 1]
        np.testing.assert_array_equal(cut.sequences[0].ids, sequence.ids[:stop])
        pack([(asked(4), DROPPED[0])], config)
        with pytest.raises(TooLong, match="tokens"):
            prepare(
                asked(4), geometry(), PackingConfig(tokens=tokens, patches=60, too_long="drop"), DROPPED[0]
            )
    with pytest.raises(TooLong, match="tokens"):
        prepare(asked(4), geometry(), PackingConfig(tokens=int(targets[0]), patches=60), DROPPED[0])
    with pytest.raises(TooLong, match="patches"):
        prepare(asked(4), geometry(), PackingConfig(tokens=512, patches=59), DROPPED[0])


def test_a_drawn_sample_is_never_cut():
    length = prepare(drawn("a red cat", 1), geometry(), PACKING, DROPPED[0]).lengths.tokens
    room = dataclasses.replace(PACKING, tokens=length)
    prepare(drawn("a red cat", 1), geometry(), room, DROPPED[0])
    with pytest.raises(TooLong, match="tokens"):
        prepare(drawn("a red cat", 1), geometry(), dataclasses.replace(room, tokens=length - 1), DROPPED[0])
    with pytest.raises(TooLong, match="references"):
        prepare(edited("blue", 1, 6), geometry(), PACKING, DROPPED[0])


def test_what_was_computed_beforehand_is_used():
    codes = np.arange(12).reshape(3, 4)
    mean = np.random.default_rng(0).standard_normal((6, 10, 4), np.float32)
    known = Encoded(codes, mean, np.zeros_like(mean))
    example = Example("t2i", (Turn("user", ("a cat",)),), target=picture(1, encoded=known))
    sample = prepare(example, geometry(), PACKING, DROPPED[0])
    batch = pack_rows(encode_rows([[(0, Ready(0, 0, sample))]], None), geometry(), PACKING)
    ids = batch["ids"][0][batch["noise_cells"][0, :, 0] >= 0]
    assert (ids - geometry().vocabulary.visual_start).tolist() == list(range(12))
    assert batch["sample_tokens"][0, 0] == 15
    only = Example("t2i", (Turn("user", ("a cat",)),), target=picture(1, encoded=Encoded(codes)))
    with pytest.raises(InputError, match="no precomputed codes or latents"):
        encode_rows([[(0, Ready(0, 0, prepare(only, geometry(), PACKING, DROPPED[0])))]], None)
    odd = Encoded(codes, mean[:5], mean[:5])
    other = Example("t2i", (Turn("user", ("a cat",)),), target=picture(1, encoded=odd))
    with pytest.raises(UnreadablePicture, match="do not fit patches of 2 x 4"):
        prepare(other, geometry(), PACKING, DROPPED[0])


def test_dropout_has_its_rates_and_is_nested():
    random = np.random.default_rng(1).random((20_000, 2))
    found = [GuidanceDropout(ar=0.1, text=0.2, references=0.25).draw(*pair) for pair in random.tolist()]
    rates = [
        np.mean([getattr(each, name) for each in found]) for name in ("prompt", "condition", "references")
    ]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.05], atol=3 * 0.4 / np.sqrt(20_000))
    assert all(each.condition for each in found if each.prompt or each.references)
    with pytest.raises(InputError, match=r"text 1.5 must be between 0 and 1"):
        GuidanceDropout(text=1.5)


def test_positions_of_the_paper_leave_the_first_axis_to_time():
    grids = [(2, 3), (4, 1)]
    release, paper = OffsetFirst().place(7, grids), TimeFirst().place(7, grids)
    assert [place[0, 0] for place in release] == [7, 10]
    for one, other in zip(release, paper, strict=True):
        np.testing.assert_array_equal(one[:, 1:], other[:, 1:])
        assert not other[:, 0].any()
    form = diffusion_changes(geometry(), positions=TimeFirst())
    sample = prepare(edited("blue", 1), form, PACKING, DROPPED[0])
    batch = pack_rows(encode_rows([[(0, Ready(0, 0, sample))]], Checksums()), form, PACKING)
    assert not batch["target_positions"][..., 0].any()
