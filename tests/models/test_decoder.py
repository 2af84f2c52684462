"""The decoder: hard routing, taps, packing, cached steps, and a program whose size does not follow its depth."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.benchmarks.compile_time import lowered_step, shallow, step_seconds
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.layers.routing import route
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.config import DecoderConfig, ExpertRange, layer_plan
from mammoth_jax.models.backbone.decoder import Decoder, Taps
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.ops.routed_ffn import pallas_tpu, use_routed_ffn
from mammoth_jax.ops.routed_ffn.pallas_tpu import grouped_product
from tests.tiny_model import random_weights

CONFIG = DecoderConfig(
    hidden_size=16,
    intermediate_size=24,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=20,
    gen_vocab_size=12,
    gen_vocab_start_index=30,  # ids 20..29 do not exist
    experts=ExpertRange("ffn_attention", 2, 4),
    mrope_section=(2, 1, 1),
    num_deepstack=1,
)
IDS = np.array([[3, 31, 7, 36, 41, 2]])
POSITIONS = np.broadcast_to(np.arange(6), (3, 1, 6))


@functools.cache
def decoder() -> Decoder:
    return random_weights(abstract(lambda: Decoder(CONFIG)), 0, single_device_mesh())


def changed(word: str) -> Decoder:
    """The decoder with every parameter whose name has ``word`` doubled."""
    named = {name: p[...] * (2 if word in name else 1) for name, p in named_parameters(decoder()).items()}
    return with_parameters(decoder(), named)


@functools.partial(jax.jit, static_argnames=("taps", "keep_states", "keep_cache"))
def forward(model: Decoder, ids, positions, **kwargs):
    return model(ids, positions, **kwargs)


def test_layers_are_cut_where_their_parameters_or_inputs_change():
    plan = layer_plan(CONFIG)
    assert [(s.start, s.stop, s.has_experts, s.has_deepstack) for s in plan] == [
        (0, 1, False, True),
        (1, 2, False, False),
        (2, 4, True, False),
    ]


def test_a_text_token_never_meets_a_generation_expert_and_the_other_way_round():
    text = np.where(IDS < 20, IDS, 5)
    generation = np.where(IDS >= 30, IDS, 33)
    base_text, base_generation = (forward(decoder(), x, POSITIONS).hidden for x in (text, generation))
    assert np.array_equal(forward(changed("experts.1"), text, POSITIONS).hidden, base_text)
    assert np.array_equal(forward(changed("segments.2.ffn.1"), text, POSITIONS).hidden, base_text)
    assert np.array_equal(forward(changed("segments.2.ffn.0"), generation, POSITIONS).hidden, base_generation)
    assert (
        np.abs(forward(changed("segments.2.ffn.1"), generation, POSITIONS).hidden - base_generation).max()
        > 1e-3
    )


def test_one_expert_for_all_equals_an_array_of_it():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    experts = [lambda v: v + 1, lambda v: v * 10, lambda v: -v]
    for number in range(3):
        assert np.array_equal(route(experts, x, number), route(experts, x, jnp.full((2, 3), number)))
    mixed = route(experts, x, jnp.array([[0, 1, 2], [2, 1, 0]]))
    assert mixed[0, 1, 0] == 20 and mixed[1, 0, 1] == -7 and mixed[1, 2, 0] == 11


def test_columns_of_the_joint_logits_are_text_rows_then_generation_rows():
    hidden = forward(decoder(), IDS, POSITIONS).hidden
    both = decoder().logits(hidden)
    assert both.shape[-1] == 32 and both.dtype == jnp.float32
    assert np.array_equal(both[..., :20], decoder().logits(hidden, "text"))
    assert np.array_equal(both[..., 20:], decoder().logits(hidden, "generation"))


def test_taps_average_the_listed_states_counted_from_the_end():
    out = forward(decoder(), IDS, POSITIONS, taps=Taps((-2, -5, 1)), keep_states=True)
    states = np.asarray(out.states)
    assert np.allclose(out.features, (states[3] + states[0] + states[1]) / 3, atol=1e-5)
    last = forward(decoder(), IDS, POSITIONS, taps=Taps((-1,), final_norm=True))
    assert np.allclose(last.features, last.hidden, atol=1e-6)


def test_deepstack_features_are_added_after_the_first_layers_only_where_they_are():
    added = np.zeros((1, 1, 6, 16), np.float32)
    added[0, 0, 2] = 1.0
    plain = forward(decoder(), IDS, POSITIONS, keep_states=True).states
    with_added = forward(decoder(), IDS, POSITIONS, deepstack=added, keep_states=True).states
    assert np.allclose(with_added[1] - plain[1], added[0], atol=1e-6)


def test_packed_rows_equal_separate_rows():
    other = np.array([[5, 33, 6]])
    packed_ids = np.concatenate([IDS, other, np.zeros((1, 2), int)], axis=1)
    positions = np.broadcast_to(np.concatenate([np.arange(6), np.arange(3), [0, 0]]), (3, 1, 11))
    segments = np.array([[1] * 6 + [2] * 3 + [0] * 2])
    packed = forward(decoder(), packed_ids, positions, segments=segments).hidden
    assert np.allclose(packed[:, :6], forward(decoder(), IDS, POSITIONS).hidden, atol=1e-5)
    assert np.allclose(packed[:, 6:9], forward(decoder(), other, POSITIONS[..., :3]).hidden, atol=1e-5)


def test_passes_without_gradients_give_the_experts_kernels_whole_and_are_the_same(monkeypatch):
    given = []

    def recorded(tiling, interpret, rows, kernels, counts, layer):
        given.append([kernel.shape for kernel in kernels])
        return grouped_product(tiling, interpret, rows, kernels, counts, layer)

    monkeypatch.setattr(pallas_tpu, "grouped_product", recorded)
    run = jax.jit(lambda d, ids: d(ids, POSITIONS, keep_cache=True, gradients=False))
    step = jax.jit(lambda d, ids, c: d.step(ids, c)[0])
    wanted, plain = forward(decoder(), IDS, POSITIONS, keep_cache=True), run(decoder(), IDS)
    assert np.array_equal(plain.hidden, wanted.hidden) and np.array_equal(plain.keys, wanted.keys)
    end = jnp.array([5])
    cache = KVCache(plain.keys, plain.values, jnp.array([0]), end, end)
    assert np.allclose(step(decoder(), IDS[:, 5], cache), wanted.hidden[:, 5], atol=1e-5)
    assert not given
    stacks = [[(2, 16, 24)] * 2, [(2, 16, 24)] * 2, [(2, 24, 16)] * 2]
    with use_routed_ffn("pallas_tpu"):
        assert np.allclose(run(decoder(), IDS).hidden, wanted.hidden, atol=1e-5)
        assert given == stacks
        assert np.allclose(step(decoder(), IDS[:, 5], cache), wanted.hidden[:, 5], atol=1e-5)
        assert given == 2 * stacks


def test_a_shorter_length_rolls_the_cache_back():
    out = forward(decoder(), IDS, POSITIONS, keep_cache=True)
    grow = ((0, 0), (0, 0), (0, 0), (0, 3), (0, 0))
    at = jnp.array([6])
    cache = KVCache(jnp.pad(out.keys, grow), jnp.pad(out.values, grow), jnp.array([0]), at, at)
    step = jax.jit(lambda d, ids, c: d.step(ids, c))
    first, _, after = step(decoder(), jnp.array([31]), cache)
    wrong = step(decoder(), jnp.array([7]), after)[2]
    assert int(wrong.length[0]) == 8
    rolled = dataclasses.replace(wrong, length=at, position=at)
    again, _, _ = step(decoder(), jnp.array([31]), rolled)
    assert np.allclose(first, again, atol=1e-6)
    whole = forward(
        decoder(), np.concatenate([IDS, [[31]]], 1), np.broadcast_to(np.arange(7), (3, 1, 7))
    ).hidden
    assert np.allclose(first, whole[:, -1], atol=1e-5)


def test_the_step_of_36_layers_is_a_program_of_the_size_of_6():
    config = MammothConfig.from_preset("dev")

    def size(decoder_config, taps) -> int:
        return len(lowered_step(decoder_config, taps).as_text())

    deep = size(config.backbone.decoder, config.condition.taps)
    few = size(shallow(config.backbone.decoder), Taps((-2, -3)))
    assert deep < 1.2 * few


@pytest.mark.slow
def test_the_step_of_36_layers_compiles_in_at_most_twice_the_time_of_6():
    config = MammothConfig.from_preset("dev")
    deep = min(sum(step_seconds(config.backbone.decoder, config.condition.taps)) for _ in range(3))
    few = min(sum(step_seconds(shallow(config.backbone.decoder), Taps((-2, -3)))) for _ in range(3))
    assert deep <= 2 * few


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_heads": 5}, "num_heads 5"),
        ({"mrope_section": (2, 2, 2)}, "mrope_section"),
        ({"experts": ExpertRange("ffn", 2, 9)}, "experts 2:9"),
        ({"num_ffn_experts": 1}, "num_ffn_experts 1"),
    ],
)
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(CONFIG, **change)
