"""Training sequences are those that sampling makes, element by element: prompts, pictures, conditions, negatives."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mammoth_jax.data.example import Example
from mammoth_jax.data.packing.dropout import Dropped
from mammoth_jax.data.packing.lengths import PackingConfig
from mammoth_jax.data.packing.rows import IGNORED, NOTHING, Batch, Placed, pack_rows
from mammoth_jax.data.packing.sample import Prepared, prepare
from mammoth_jax.data.record import Encoded
from mammoth_jax.models.backbone.multimodal import feature_slots
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig
from mammoth_jax.models.backbone.vision_inputs import qwen3_inputs
from mammoth_jax.models.conditions import build_condition
from mammoth_jax.models.dit.positions import picture_positions, reference_offsets
from mammoth_jax.ops.patchify import patchify
from mammoth_jax.pipelines.batching import PictureRequest, PromptRows, Reasoning, prompt_rows
from mammoth_jax.pipelines.geometry import picture_size
from mammoth_jax.pipelines.references import Reference, size_rule, token_pixels
from mammoth_jax.processing.image import pixels, preprocess
from mammoth_jax.processing.mrope import Qwen3VLBlocks, multimodal_positions
from mammoth_jax.processing.prompts import DEFAULT_NEGATIVE_PROMPT
from mammoth_jax.processing.special_tokens import IMAGE_END
from mammoth_jax.processing.vision import image_patches
from tests.data.packing.examples import Checksums, diffusion_changes, drawn, edited, geometry, reasoned
from tests.tiny_model import random_model_words, tiny_config

PACKING = PackingConfig(
    tokens=1024, patches=256, conditions=512, references=256, targets=64, joint=512, samples=2
)
KEPT = Dropped()


@dataclasses.dataclass(frozen=True)
class Both:
    """An example as training packs it, alone in a row, and the rows of prompts that sampling would make of it."""

    sample: Prepared
    batch: Batch
    encoded: dict[int, Encoded]
    request: PictureRequest
    rows: PromptRows
    pictures: tuple[Image.Image, ...]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.batch[name][0]

    def prompt(self, row: int) -> np.ndarray:
        """Ids of a prompt of sampling."""
        return self.rows.ids[row, : self.rows.lengths[row]]

    def segment(self, number: int) -> np.ndarray:
        """Where a sequence is in the row."""
        return np.flatnonzero(self["token_segments"] == number)

    def answer(self) -> np.ndarray:
        """The ids that sampling would decode, had it chosen these codes."""
        words = random_model_words()
        codes = self.encoded[len(self.pictures)].codes
        assert codes is not None
        ends = np.full((codes.shape[0], 1), words.settings.end_of_line)
        lines = np.concatenate([words.settings.visual_start + codes, ends], axis=1)
        return np.append(lines.reshape(-1), words.tokenizer.id_of(IMAGE_END))


def both(example: Example, dropped: Dropped = KEPT, form=None) -> Both:
    """Training's and sampling's form of an example."""
    config, words, form = tiny_config(), random_model_words(), form or geometry()
    sample = prepare(example, form, PACKING, dropped)
    encoder = Checksums()
    whole = prepare(example, form, PACKING, KEPT)
    encoded = {i: encoder.encode([each.rest])[0] for i, each in enumerate(whole.pictures)}
    batch = pack_rows([[Placed(7, 1, sample, encoded)]], form, PACKING)
    pictures = tuple(Image.fromarray(each.decode()) for each in example.pictures)
    assert form.tower is not None
    references = tuple(
        Reference(image_patches(shown, form.tower.images), encoded[i].codes, encoded[i].mean)
        for i, shown in enumerate(pictures)
    )
    assert example.target is not None
    height, width = config.picture_rules.drawn_size(*example.target.size())
    reasoning = None
    if example.reasoning is not None:
        ids = tuple(words.tokenizer.encode(example.reasoning))
        reasoning = Reasoning(ids, example.reasoning, "image start")
    request = PictureRequest(
        example.turns[0].text, 0, picture_size(config, height, width), references, reasoning
    )
    rows = prompt_rows(
        words.tokenizer, [request], negative=DEFAULT_NEGATIVE_PROMPT, guided=True, num_rows=1, merge_size=2
    )
    return Both(sample, batch, encoded, request, rows, pictures)


EXAMPLES = {
    "t2i": drawn("a red cat, 3*4 <|im_end|>", 1),
    "edit": edited("make it blue", 2, 3),
    "a2a": reasoned("draw what is missing", "A ball is missing, so I draw one.", 3),
}


@pytest.mark.parametrize("task", EXAMPLES)
def test_the_positive_sequence_is_the_prompt_and_what_is_decoded(task):
    found = both(EXAMPLES[task])
    at = found.segment(1)
    prompt, answer = found.prompt(found.rows.prompt[0]), found.answer()
    np.testing.assert_array_equal(found["ids"][at], [*prompt, *answer])
    assert at[0] == 0
    assert (found["token_segments"] > 1).sum() == 0
    targets = found["labels"][at] != IGNORED
    np.testing.assert_array_equal(found["labels"][at][targets], found["ids"][at][targets])
    if task == "a2a":
        text = random_model_words().tokenizer.decode(found["labels"][at][targets], skip_special=False)
        assert text.startswith(
            "A ball is missing, so I draw one.<|image start|>6*4<|image token|><|visual token"
        )
        assert targets[len(prompt) :].all()
    else:
        np.testing.assert_array_equal(targets, np.arange(len(at)) >= len(prompt))


@pytest.mark.parametrize("task", EXAMPLES)
def test_positions_slots_and_patches_are_those_of_sampling(task):
    found = both(EXAMPLES[task])
    config, at = tiny_config(), found.segment(1)
    patches = [shown.patches for shown in found.request.references if shown.patches is not None]
    row = found.rows.prompt[0]
    ids, length = found.rows.ids[row : row + 1], int(found.rows.lengths[row])
    valid = np.arange(ids.shape[1])[None] < length
    names = {
        "image_token_id": config.backbone.image_token_id,
        "video_token_id": config.backbone.video_token_id,
    }
    grids = np.asarray([shown.grid for shown in patches], np.int32).reshape(-1, 3)
    placed = multimodal_positions(
        ids,
        valid,
        Qwen3VLBlocks(2),
        image_token_id=config.backbone.image_token_id,
        video_token_id=config.backbone.video_token_id,
        images=grids,
    )
    steps = placed.next[0] + np.arange(len(at) - length)
    expected = np.concatenate([placed.ids[:, 0, :length], np.broadcast_to(steps, (3, len(steps)))], axis=1)
    np.testing.assert_array_equal(found["token_positions"][:, at], expected)
    seen = sum(shown.grid.tokens(2) for shown in patches)
    slots = feature_slots(ids, valid, **names, image_tokens=seen, video_tokens=0)[0, :length]
    np.testing.assert_array_equal(found["feature_slots"][:length], slots)
    assert (found["feature_slots"][length:] == NOTHING).all()
    if patches:
        assert isinstance(config.backbone.vision, Qwen3VLVisionConfig)
        values = np.concatenate([shown.values for shown in patches])
        inputs = qwen3_inputs(config.backbone.vision, values, grids, [PACKING.patches])
        for name, expected in (
            ("patches", inputs.patches),
            ("patch_rope", inputs.rope_ids),
            ("patch_frames", inputs.frames),
            ("patch_cells", inputs.cells),
            ("patch_cell_weights", inputs.cell_weights),
        ):
            np.testing.assert_array_equal(found.batch[name], expected, err_msg=name)


@pytest.mark.parametrize("task", ["edit", "a2a"])
def test_references_are_encoded_at_the_sizes_of_sampling(task):
    found = both(EXAMPLES[task])
    for shown, ready in zip(found.pictures, found.sample.pictures, strict=False):
        assert ready.rest.tokens is not None
        assert ready.rest.latents is not None
        np.testing.assert_array_equal(pixels(ready.rest.tokens), token_pixels(tiny_config(), shown))
        np.testing.assert_array_equal(pixels(ready.rest.latents), preprocess(shown, size_rule(tiny_config())))
    target = found.sample.pictures[-1]
    assert target.latents == found.request.size.patches
    assert target.codes == found.request.size.tokens


@pytest.mark.parametrize("mode", ["text_image", "text", "image"])
@pytest.mark.parametrize("task", EXAMPLES)
def test_the_condition_is_what_sampling_selects(task, mode):
    form = diffusion_changes(geometry(), mode=mode, queries=0 if mode == "text" else 4)
    found = both(EXAMPLES[task], form=form)
    config, ids = tiny_config(), found["ids"][found.segment(1)]
    start = found.rows.answer_start[found.rows.prompt[0]]
    condition = build_condition(
        jnp.arange(len(ids), dtype=jnp.float32)[None, :, None],
        jnp.asarray(ids)[None],
        jnp.ones((1, len(ids)), bool),
        jnp.arange(len(ids))[None] >= start,
        generation_start=config.backbone.decoder.gen_vocab_start_index,
        vision_ids=config.backbone.vision_ids,
        mode=mode,
        with_answer_text=task == "a2a",
        text_size=len(ids),
        image_size=len(ids),
    )
    text = np.asarray(condition.text[condition.text_mask][:, 0], np.int32)
    queries = PACKING.tokens + np.arange(0 if mode == "text" else 4)
    used = found["condition_index"][found["condition_segments"] == 1]
    np.testing.assert_array_equal(used, [*text, *queries])
    assert (found["condition_index"][found["condition_segments"] == 0] == NOTHING).all()
    image = (
        [] if condition.image is None else np.asarray(condition.image[condition.image_mask][:, 0], np.int32)
    )
    np.testing.assert_array_equal(np.flatnonzero(found["token_sample"]), image)


@pytest.mark.parametrize("task", EXAMPLES)
def test_the_joint_sequence_and_its_positions_are_those_of_sampling(task):
    found = both(EXAMPLES[task])
    config, diffusion = tiny_config(), geometry().diffusion
    assert diffusion is not None
    length = int((found["condition_segments"] == 1).sum())
    latents = [shown.latents for shown in found.request.references if shown.latents is not None]
    sizes = np.asarray([(x.shape[0], x.shape[1]) for x in latents], np.int32).reshape(1, -1, 2)
    sizes //= config.dit.patch_size
    offset, offsets = jnp.asarray([length]), None
    if latents:
        offsets, offset = reference_offsets(offset, jnp.asarray(sizes))
    expected = []
    for i in range(len(latents)):
        count = int(sizes[0, i].prod())
        assert offsets is not None
        expected.append(picture_positions(offsets[:, i], jnp.asarray(sizes[:, i]), count)[0][0])
    target = np.asarray([found.request.size.patches], np.int32)
    expected.append(picture_positions(offset, jnp.asarray(target), int(target.prod()))[0][0])
    used = found["joint_index"][found["joint_segments"] == 1]
    everything = np.concatenate(
        [
            np.zeros((PACKING.conditions, 3), np.int32),
            found["reference_positions"],
            found["target_positions"],
        ]
    )
    np.testing.assert_array_equal(used[:length], np.arange(length))
    np.testing.assert_array_equal(everything[used[length:]], np.concatenate(expected))
    numbers = found["reference_number"][found["reference_sample"] == 1]
    np.testing.assert_array_equal(numbers, np.repeat(np.arange(len(latents)), sizes[0].prod(axis=1)))
    np.testing.assert_array_equal(found["reference_segments"][: len(numbers)], numbers + 1)
    for i, latent in enumerate(latents):
        scaled = jnp.asarray((latent - diffusion.shift) * diffusion.scale)
        flat = np.asarray(patchify(scaled[None], config.dit.patch_size))[0]
        np.testing.assert_allclose(found["reference_patches"][: len(numbers)][numbers == i], flat, rtol=1e-6)


def test_target_latents_are_the_scaled_posterior():
    found = both(EXAMPLES["t2i"])
    mean, logvar = found.encoded[0].mean, found.encoded[0].logvar
    config = tiny_config().vae
    assert mean is not None
    assert logvar is not None
    count = int(found["sample_tokens"][0])
    assert count == found.request.size.patches[0] * found.request.size.patches[1]
    for name, values in (
        ("target_mean", (mean - config.shift_factor) * config.scaling_factor),
        ("target_std", np.exp(0.5 * logvar) * config.scaling_factor),
    ):
        patches = np.asarray(patchify(jnp.asarray(values)[None], tiny_config().dit.patch_size))[0]
        np.testing.assert_allclose(found[name][:count], patches, rtol=1e-5, atol=1e-6)
    assert found["sample_number"].tolist() == [7, 0]
    assert found["sample_task"].tolist() == [1, 0]
    mean_only = both(EXAMPLES["t2i"], form=diffusion_changes(geometry(), posterior="mean"))
    assert not mean_only["target_std"].any()


@pytest.mark.parametrize("task", EXAMPLES)
@pytest.mark.parametrize("condition", [False, True])
def test_a_dropped_prompt_leaves_the_answer_opening(task, condition):
    found = both(EXAMPLES[task], Dropped(prompt=True, condition=condition))
    own = found.segment(1 if condition else 2)
    opening = found.prompt(found.rows.opening[0])
    np.testing.assert_array_equal(found["ids"][own], [*opening, *found.answer()])
    np.testing.assert_array_equal(found["token_positions"][:, own], np.tile(np.arange(len(own)), (3, 1)))
    np.testing.assert_array_equal(found["labels"][own] != IGNORED, np.arange(len(own)) >= len(opening))
    others = np.setdiff1d(np.arange(PACKING.tokens), own)
    assert (found["labels"][others] == IGNORED).all()
    whole = both(EXAMPLES[task])
    if not condition:  # the condition is read from the prompt, which has no targets
        np.testing.assert_array_equal(found["ids"][found.segment(1)], whole["ids"][whole.segment(1)])
        np.testing.assert_array_equal(found["condition_index"], whole["condition_index"])
        np.testing.assert_array_equal(found["token_sample"], whole["token_sample"])
    else:  # and nothing of the prompt is there
        assert not (found["patch_frames"] > 0).any()
        assert (found["feature_slots"] == NOTHING).all()


@pytest.mark.parametrize("task", EXAMPLES)
@pytest.mark.parametrize("references", [False, True])
def test_a_dropped_condition_is_the_negative_prompt(task, references):
    found = both(EXAMPLES[task], Dropped(condition=True, references=references))
    own, row = found.segment(2), found.rows.negative
    assert row is not None
    negative = found.prompt(row[0])
    np.testing.assert_array_equal(found["ids"][own], negative)
    np.testing.assert_array_equal(found["token_positions"][:, own], np.tile(np.arange(len(own)), (3, 1)))
    np.testing.assert_array_equal(found["condition_index"][: len(own)], own)
    assert (found["condition_index"][len(own) :] == NOTHING).all()
    assert not found["token_sample"].any()
    whole = both(EXAMPLES[task])
    np.testing.assert_array_equal(found["labels"][found.segment(1)], whole["labels"][whole.segment(1)])
    kept = 0 if references else (whole["reference_sample"] == 1).sum()
    assert (found["reference_sample"] == 1).sum() == kept
    assert (found["joint_segments"] == 1).sum() == len(negative) + kept + found["sample_tokens"][0]
    first = found["target_positions"][0, 0]
    shown = [x.latents.shape[:2] for x in found.request.references if x.latents is not None]
    assert first == len(negative) + (0 if references else sum(max(side) // 2 for side in shown))


@pytest.mark.parametrize("dropped", [KEPT, Dropped(prompt=True)])
def test_the_release_reads_an_edit_again_without_pixels(dropped):
    form = diffusion_changes(geometry(), edit_condition="release")
    found, whole = both(EXAMPLES["edit"], dropped, form=form), both(EXAMPLES["edit"])
    again = found.segment(2)
    np.testing.assert_array_equal(found["ids"][again], whole["ids"][whole.segment(1)])
    np.testing.assert_array_equal(found["token_positions"][:, again], np.tile(np.arange(len(again)), (3, 1)))
    assert (found["feature_slots"][again] == NOTHING).all()
    assert (found["labels"][again] == IGNORED).all()
    used = found["condition_index"][found["condition_segments"] == 1]
    expected = whole["condition_index"][whole["condition_segments"] == 1]
    np.testing.assert_array_equal(used, np.where(expected < PACKING.tokens, expected + again[0], expected))
    np.testing.assert_array_equal(
        np.flatnonzero(found["token_sample"]) - again[0], np.flatnonzero(whole["token_sample"])
    )
    assert found["patch_frames"].any() != dropped.prompt
    drawn_alone = both(EXAMPLES["t2i"], form=form)
    assert drawn_alone["token_segments"].max() == 1
