"""Vision towers and their place in the decoder: packing, padding, windows, taps, and programs of a fixed size."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract, cast, named_parameters, with_parameters
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.multimodal import feature_slots, place_features
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_inputs import VisionFeatures, window_order
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.backbone.vision_qwen25 import Qwen25VLVision
from mammoth_jax.processing.mrope import Qwen3VLBlocks, multimodal_positions
from mammoth_jax.processing.vision_places import aligned_points
from tests.tiny_model import random_weights

QWEN3 = Qwen3VLVisionConfig(
    num_layers=3,
    hidden_size=16,
    intermediate_size=24,
    num_heads=2,
    out_hidden_size=12,
    num_position_embeddings=16,
    deepstack_visual_indexes=(0, 2),
    patch_size=2,
)
QWEN25 = Qwen25VLVisionConfig(
    num_layers=3,
    hidden_size=16,
    intermediate_size=24,
    num_heads=2,
    out_hidden_size=12,
    fullatt_block_indexes=(1,),
    window_size=8,
    patch_size=2,
)
GRIDS = [(1, 4, 6), (2, 2, 4), (1, 6, 2)]
BOTH = pytest.mark.parametrize("config", [QWEN3, QWEN25], ids=["qwen3", "qwen25"])


@functools.cache
def tower(config) -> Any:
    build: Any = Qwen3VLVision if isinstance(config, Qwen3VLVisionConfig) else Qwen25VLVision
    return random_weights(abstract(lambda: build(config)), 0, single_device_mesh())


@jax.jit
def forward(model, inputs):
    return model(inputs)


def pixels(grids, seed=0):
    """Random patches of the given grids."""
    count = int(np.prod(grids, axis=1).sum())
    return np.random.default_rng(seed).standard_normal((count, QWEN3.patch_values)).astype(np.float32)


def features(config, patches, grids, lengths=(64,)):
    """Tokens and DeepStack features without those of the padding, ``[1 + taps, m, d]``."""
    out = forward(tower(config), tower(config).prepare(patches, grids, lengths))
    return np.concatenate([out.tokens[None], out.deepstack])[:, 0, : len(patches) // 4]


@BOTH
def test_a_padded_tail_changes_nothing(config):
    patches = pixels(GRIDS)
    exact = features(config, patches, GRIDS, None)
    np.testing.assert_allclose(features(config, patches, GRIDS), exact, atol=1e-6)
    assert np.abs(exact).max() > 0.1


@BOTH
def test_what_the_tail_holds_changes_nothing(config):
    inputs = tower(config).prepare(pixels(GRIDS), GRIDS, [64])
    count = int(np.count_nonzero(inputs.frames))
    noisy = inputs.patches.copy()
    noisy[:, count:] = 100.0
    plain, changed = (
        forward(tower(config), i).tokens for i in (inputs, dataclasses.replace(inputs, patches=noisy))
    )
    np.testing.assert_array_equal(plain[0, : count // 4], changed[0, : count // 4])


@BOTH
def test_a_packed_picture_is_the_picture_alone(config):
    patches = pixels(GRIDS)
    packed = features(config, patches, GRIDS)
    alone = features(config, patches[24:40], GRIDS[1:2])
    np.testing.assert_allclose(packed[:, 6:10], alone, atol=1e-5)


@BOTH
def test_rows_of_patches_are_towers_of_their_own(config):
    grids = [GRIDS, [(1, 8, 4), (1, 2, 2)]]
    single = [tower(config).prepare(pixels(g, seed), g, [64]) for seed, g in enumerate(grids)]
    both = forward(tower(config), jax.tree.map(lambda *rows: np.concatenate(rows), *single))
    for row, inputs in enumerate(single):
        alone = forward(tower(config), inputs)
        count = np.count_nonzero(inputs.frames) // 4
        np.testing.assert_allclose(both.tokens[row, :count], alone.tokens[0, :count], atol=1e-6)
        np.testing.assert_allclose(both.deepstack[:, row, :count], alone.deepstack[:, 0, :count], atol=1e-6)


@BOTH
def test_the_frames_of_a_video_are_pictures_of_their_own(config):
    patches = pixels([(2, 4, 4)])
    video = features(config, patches, [(2, 4, 4)])
    pictures = features(config, patches, [(1, 4, 4), (1, 4, 4)])
    np.testing.assert_array_equal(video, pictures)


@BOTH
def test_all_grids_of_one_padded_length_share_a_program(config):
    traced = []

    @jax.jit
    def run(model, inputs):
        traced.append(inputs.patches.shape)
        return model(inputs).tokens

    for grids in (GRIDS, [(1, 8, 8)], [(3, 2, 2)]):
        run(tower(config), tower(config).prepare(pixels(grids), grids, [16, 64]))
    run(tower(config), tower(config).prepare(pixels([(1, 4, 4)]), [(1, 4, 4)], [64, 16]))
    assert [shape[1] for shape in traced] == [64, 16]  # 52 and 64 patches, then 12 and 16


@BOTH
def test_the_program_does_not_grow_with_the_depth(config):
    def operations(num_layers):
        deep = dataclasses.replace(config, num_layers=num_layers)
        model = abstract(lambda: type(tower(config))(deep))
        inputs = tower(config).prepare(pixels(GRIDS), GRIDS, [64])
        return forward.lower(model, inputs).as_text().count("\n")

    assert operations(3) == operations(12)


@BOTH
def test_gradients_reach_every_weight(config):
    inputs = tower(config).prepare(pixels(GRIDS), GRIDS, [64])

    def loss(model, inputs):
        out = model(inputs)
        return jnp.sum(jnp.sin(out.tokens)) + jnp.sum(jnp.sin(out.deepstack))

    grads = named_parameters(jax.jit(jax.grad(loss))(tower(config), inputs))
    flat = [
        name for name, g in grads.items() if not np.abs(g[...]).max() > 0 or not np.isfinite(g[...]).all()
    ]
    assert flat == []


@BOTH
def test_a_sharded_tower_gives_the_same_features(config):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    build: Any = type(tower(config))
    sharded = random_weights(abstract(lambda: build(config)), 0, mesh)
    with jax.set_mesh(mesh):
        out = jax.jit(lambda m, i: m(i))(sharded, sharded.prepare(pixels(GRIDS), GRIDS, [64]))
    got = np.concatenate([out.tokens[None], out.deepstack])[:, 0, :13]
    np.testing.assert_allclose(got, features(config, pixels(GRIDS), GRIDS), atol=1e-5)


@BOTH
def test_a_tower_in_bfloat16_stays_near(config):
    inputs = tower(config).prepare(pixels(GRIDS), GRIDS)
    out = forward(cast(tower(config), jnp.bfloat16), inputs)
    assert out.tokens.dtype == out.deepstack.dtype == jnp.bfloat16
    exact = features(config, pixels(GRIDS), GRIDS)[0]
    assert np.abs(out.tokens[0].astype(np.float32) - exact).max() < 0.05 * np.abs(exact).max()


def test_a_picture_of_the_position_grid_takes_its_cells_as_they_are():
    side = QWEN3.position_side
    inputs = tower(QWEN3).prepare(pixels([(1, side, side)]), [(1, side, side)])
    cells = inputs.rope_ids[0, :, 0] * side + inputs.rope_ids[0, :, 1]
    got = tower(QWEN3).positions(jax.tree.map(jnp.asarray, inputs))[0]
    np.testing.assert_allclose(got, tower(QWEN3).pos_embed[...][cells], atol=1e-6)


def test_positions_are_bilinear_with_corner_on_corner():
    model = tower(QWEN3)
    ramp = np.zeros((16, 16), np.float32)
    ramp[:, 0], ramp[:, 1] = np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4)
    named = {name: p[...] for name, p in named_parameters(model).items()}
    model = with_parameters(model, named | {"pos_embed": jnp.asarray(ramp)})
    inputs = model.prepare(pixels([(1, 6, 8)]), [(1, 6, 8)])
    got = model.positions(jax.tree.map(jnp.asarray, inputs))[0, :, :2]
    np.testing.assert_allclose(got, inputs.rope_ids[0] * [3 / 5, 3 / 7], atol=1e-6)


def test_a_single_row_of_points_starts_at_the_corner():
    np.testing.assert_array_equal(aligned_points(1, 4), [0])
    np.testing.assert_array_equal(aligned_points(2, 4), [0, 3])
    assert aligned_points(37, 48)[-1] == 47


def test_patches_come_in_merge_blocks():
    inputs = tower(QWEN3).prepare(pixels([(1, 2, 4)]), [(1, 2, 4)])
    expected = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    np.testing.assert_array_equal(inputs.rope_ids, [expected])


def test_windows_go_in_raster_order_and_never_across_frames():
    order, windows = window_order(np.array([(2, 4, 6)]), merge=2, window=2)
    np.testing.assert_array_equal(order, [0, 1, 3, 4, 2, 5, 6, 7, 9, 10, 8, 11])
    np.testing.assert_array_equal(windows, [1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4])


@pytest.mark.parametrize(("full", "reached"), [((), 4), ((1,), 16)])
def test_windowed_layers_see_their_window_and_full_layers_the_frame(full, reached):
    config = dataclasses.replace(QWEN25, fullatt_block_indexes=full)
    patches = pixels([(1, 8, 8), (1, 4, 4)])
    changed = patches.copy()
    changed[5] += 1.0
    before, after = (features(config, p, [(1, 8, 8), (1, 4, 4)], [96])[0] for p in (patches, changed))
    np.testing.assert_array_equal(before[16:], after[16:])
    moved = np.flatnonzero(np.abs(before - after).max(axis=1))
    assert len(moved) == reached and 1 in moved


def test_a_tap_is_its_layers_output():
    shallow = dataclasses.replace(QWEN3, num_layers=1, deepstack_visual_indexes=(0,))
    named = {name: p[...] for name, p in named_parameters(tower(QWEN3)).items()}
    first = {
        name: x[:1] if name.startswith(("layers.", "deepstack_mergers.")) else x for name, x in named.items()
    }
    cut = with_parameters(abstract(lambda: Qwen3VLVision(shallow)), first)
    inputs = cut.prepare(pixels(GRIDS), GRIDS)
    whole = forward(tower(QWEN3), inputs)
    np.testing.assert_allclose(forward(cut, inputs).deepstack[0], whole.deepstack[0], atol=1e-6)
    assert np.abs(whole.deepstack[0] - whole.deepstack[1]).max() > 0.1


def test_a_tower_without_taps_gives_no_deepstack():
    config = dataclasses.replace(QWEN3, deepstack_visual_indexes=())
    out = forward(tower(config), tower(config).prepare(pixels(GRIDS), GRIDS))
    assert out.deepstack.shape == (0, 1, 13, 12)


@BOTH
@pytest.mark.parametrize(
    ("grids", "lengths", "message"),
    [
        ([], None, "no picture"),
        ([(1, 3, 4)], None, "1x3x4"),
        ([(0, 2, 2)], None, "0x2x2"),
        ([(1, 2, 2)], None, "the grids ask for 4"),
        (GRIDS, [16, 32], "longest padded length, 32"),
        (GRIDS, [54], "multiple of the 4"),
    ],
)
def test_what_does_not_fit_the_tower_is_refused(config, grids, lengths, message):
    with pytest.raises(InputError, match=message):
        tower(config).prepare(pixels(GRIDS), grids, lengths)


@pytest.mark.parametrize(
    "change",
    [{"num_heads": 8}, {"num_heads": 3}, {"deepstack_visual_indexes": (2, 0)}],
)
def test_towers_that_do_not_exist_are_refused(change):
    with pytest.raises(InputError):
        dataclasses.replace(QWEN3, **change)


def test_a_window_smaller_than_a_token_is_refused():
    with pytest.raises(InputError, match="window_size 3"):
        dataclasses.replace(QWEN25, window_size=3)


IMAGE, VIDEO = 17, 18
IDS = np.array([[IMAGE, 0, 3, VIDEO, VIDEO, 25], [4, IMAGE, IMAGE, 5, IMAGE, 26]])
VALID = np.array([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], bool)


@functools.cache
def decoder():
    config = DecoderConfig(
        hidden_size=12,
        intermediate_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        vocab_size=20,
        gen_vocab_size=8,
        gen_vocab_start_index=20,
        mrope_section=(2, 1, 1),
        num_deepstack=2,
    )
    return random_weights(abstract(lambda: Decoder(config)), 0, single_device_mesh())


def slots(image_tokens=3, video_tokens=2):
    return feature_slots(
        IDS,
        VALID,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_tokens=image_tokens,
        video_tokens=video_tokens,
    )


def test_features_take_the_placeholders_places_in_order():
    np.testing.assert_array_equal(slots(), [[-1, -1, -1, 3, 4, -1], [-1, 0, 1, -1, 2, -1]])
    rng = np.random.default_rng(0)
    given = VisionFeatures(
        jnp.asarray(rng.standard_normal((1, 8, 12)), jnp.float32),
        jnp.asarray(rng.standard_normal((2, 1, 8, 12)), jnp.float32),
    )
    embeddings, deepstack = jax.jit(place_features)(decoder(), IDS, given, slots())
    expected, added = np.array(decoder().embed_ids(jnp.asarray(IDS))), np.zeros((2, 2, 6, 12))
    for row, column, index in [(0, 3, 3), (0, 4, 4), (1, 1, 0), (1, 2, 1), (1, 4, 2)]:
        expected[row, column] = given.tokens[0, index]
        added[:, row, column] = given.deepstack[:, 0, index]
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    np.testing.assert_array_equal(deepstack, added)


def test_rows_with_features_of_their_own_read_those():
    rng = np.random.default_rng(1)
    shared = VisionFeatures(
        jnp.asarray(rng.standard_normal((1, 8, 12)), jnp.float32),
        jnp.asarray(rng.standard_normal((2, 1, 8, 12)), jnp.float32),
    )
    rolled = VisionFeatures(
        jnp.concatenate([shared.tokens, jnp.roll(shared.tokens, 1, axis=1)]),
        jnp.concatenate([shared.deepstack, jnp.roll(shared.deepstack, 1, axis=2)], axis=1),
    )
    shifted = slots().copy()
    shifted[1] = np.where(shifted[1] < 0, -1, shifted[1] + 1)
    place = jax.jit(place_features)
    for one, own in zip(
        place(decoder(), IDS, shared, slots()), place(decoder(), IDS, rolled, shifted), strict=True
    ):
        np.testing.assert_array_equal(one, own)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"image_tokens": 4}, "3 image placeholder tokens, but the given images make 4 tokens; give fewer"),
        ({"image_tokens": 2}, "give more images"),
        ({"video_tokens": 0}, "2 video placeholder tokens"),
    ],
)
def test_placeholders_and_features_must_be_equally_many(counts, message):
    with pytest.raises(InputError, match=message):
        slots(**counts)


def test_padding_at_either_end_gives_the_same_states():
    row = [4, IMAGE, IMAGE, 5, IMAGE, 26]
    patches = pixels([(1, 2, 4), (1, 2, 2)])
    vision = forward(tower(QWEN3), tower(QWEN3).prepare(patches, [(1, 2, 4), (1, 2, 2)], [64]))

    @jax.jit
    def states(ids, slots, positions, valid):
        embeddings, deepstack = place_features(decoder(), ids, vision, slots)
        segments = valid.astype(jnp.int32)
        out = decoder()(ids, positions, segments=segments, embeddings=embeddings, deepstack=deepstack)
        return out.hidden

    results = []
    for ids in (np.array([[0, 0, *row]]), np.array([[*row, 0, 0]])):
        valid, tokens = ids != 0, {"image_token_id": IMAGE, "video_token_id": VIDEO}
        placed = feature_slots(ids, valid, image_tokens=3, video_tokens=0, **tokens)
        positions = multimodal_positions(ids, valid, Qwen3VLBlocks(), images=[(1, 2, 4), (1, 2, 2)], **tokens)
        results.append(np.asarray(states(ids, placed, positions.ids, valid))[valid])
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
