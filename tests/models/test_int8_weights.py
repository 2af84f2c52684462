"""The decoder with int8 weights: how far its scores are off, what it shares with the original, where it lies."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract, cast, named_parameters, shardings
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.int8_weights import int8_decoder
from tests.tiny_model import random_weights, tiny_config

SHAPE = (2, 24)


def config(width: int) -> DecoderConfig:
    """The tiny decoder, or one of 8 layers and 17 million parameters."""
    tiny = tiny_config().backbone.decoder
    if width == tiny.hidden_size:
        return tiny
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "mrope_section": (12, 10, 10)}
    return dataclasses.replace(tiny, hidden_size=width, intermediate_size=3 * width, num_layers=8, **heads)


@functools.cache
def decoder(width: int) -> Decoder:
    return random_weights(abstract(lambda: Decoder(config(width))), 0, single_device_mesh())


@functools.partial(jax.jit, static_argnames="expert")
def scores(decoder: Decoder, ids: jax.Array, expert: int | None = None) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1])[None, None], (3, *ids.shape))
    hidden = decoder(ids, positions).hidden
    return decoder.logits(hidden, "all" if expert is None else "generation" if expert else "text")


def ids(config: DecoderConfig, *, generation: bool) -> jax.Array:
    count = config.gen_vocab_size if generation else config.vocab_size
    drawn = np.random.default_rng(0).integers(0, count, SHAPE)
    return jnp.asarray(drawn + generation * config.gen_vocab_start_index, jnp.int32)


def error(width: int, dtype=jnp.float32) -> float:
    """Relative L2 error of the scores of visual tokens."""
    own = cast(decoder(width), dtype)
    tokens = ids(own.config, generation=True)
    wanted = scores(decoder(width), tokens, 1)
    return float(jnp.linalg.norm(scores(int8_decoder(own), tokens, 1) - wanted) / jnp.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("width", "dtype", "most"), [(32, "float32", 0.02), (256, "float32", 0.03), (256, "bfloat16", 0.04)]
)
def test_scores_of_visual_tokens_are_off_by_a_few_percent(width, dtype, most):
    off = error(width, jnp.dtype(dtype))
    print(f"width {width}, {dtype}: {off:.4f}")
    assert 1e-3 < off < most


def test_all_but_the_generation_tokens_own_maps_is_the_originals_arrays():
    own, rounded = named_parameters(decoder(32)), named_parameters(int8_decoder(decoder(32)))
    codes = {name.removesuffix(".codes") for name in rounded if name.endswith(".codes")}
    assert all(rounded[f"{name}.codes"].dtype == jnp.int8 for name in codes)
    kept = {name for name in own if name.removesuffix(".kernel") not in codes}
    assert all(rounded[name][...] is own[name][...] for name in kept)
    kept_kernels = {name for name in kept if name.endswith(".kernel")}
    assert kept_kernels == {f"segments.1.ffn.0.{part}.kernel" for part in ("gate", "up", "down")} | {
        "head.kernel"
    }


def test_text_tokens_can_have_the_int8_weights_instead():
    rounded = int8_decoder(decoder(32), expert=0)
    assert {"head.codes", "segments.1.ffn.0.up.codes"} < set(named_parameters(rounded))
    tokens = ids(rounded.config, generation=False)
    wanted = scores(decoder(32), tokens, 0)
    off = float(jnp.linalg.norm(scores(rounded, tokens, 0) - wanted) / jnp.linalg.norm(wanted))
    assert 1e-3 < off < 0.03


def test_tokens_of_both_experts_in_one_batch_go_through_the_rounded_kernels_too():
    tokens = ids(decoder(32).config, generation=True).at[1].set(ids(decoder(32).config, generation=False)[1])
    alone = scores(int8_decoder(decoder(32)), tokens[:1])
    np.testing.assert_allclose(scores(int8_decoder(decoder(32)), tokens)[:1], alone, rtol=1e-3, atol=1e-4)


def test_codes_lie_on_a_mesh_where_their_kernels_lie_and_give_the_same_scores():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    spread = random_weights(abstract(lambda: Decoder(config(32))), 0, mesh)
    rounded = int8_decoder(spread)
    own, codes = named_parameters(spread), named_parameters(rounded)
    checked = [name for name in codes if name.endswith(".codes")]
    assert len(checked) > 10
    for name in checked:
        kernel = own[name.removesuffix(".codes") + ".kernel"]
        assert codes[name].sharding.is_equivalent_to(kernel.sharding, kernel.ndim), name
        assert len(codes[name].sharding.device_set) == 8
    planned = named_parameters(shardings(jax.eval_shape(int8_decoder, spread), mesh))
    assert all(
        planned[name].get_value().spec == own[name.removesuffix(".codes") + ".kernel"].sharding.spec
        for name in checked
    )
    tokens = ids(spread.config, generation=True)
    with jax.set_mesh(mesh):
        got = scores(rounded, tokens, 1)
    np.testing.assert_allclose(got, scores(int8_decoder(decoder(32)), tokens, 1), rtol=1e-3, atol=1e-3)
