"""The counts agree with the matrix products that the models trace to, and with the weights that they hold."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models import costs
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.vision_inputs import qwen3_inputs, qwen25_inputs
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.backbone.vision_qwen25 import Qwen25VLVision
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.transformer import Context, DiT, References
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE
from tests.tiny_model import tiny_config, tiny_preview_config

ITEM = 4


def products(function, *args) -> int:
    """Operations of the matrix products and convolutions that a function traces to, loops counted out."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, out = equation.primitive.name, equation.outvars[0].aval
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * out.size * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            total += 2 * out.size * kernel.size // kernel.shape[-1]
        inner = [
            sub.jaxpr if hasattr(sub, "jaxpr") else sub
            for value in equation.params.values()
            for sub in (value if isinstance(value, (tuple, list)) else (value,))
            if hasattr(sub, "eqns") or hasattr(sub, "jaxpr")
        ]
        total += equation.params.get("length", 1) * sum(map(_count, inner))
    return total


def shape(*dims: int, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


def kernels(module, *parts: str, without: str = "no such part") -> int:
    """Numbers in the kernels whose name begins with one of ``parts``."""
    named = named_parameters(module).items()
    chosen = [
        p for name, p in named if name.startswith(parts) and name.endswith("kernel") and without not in name
    ]
    return sum(math.prod(p.shape) for p in chosen)


def test_a_decoding_step_reads_the_weights_of_one_expert_the_head_and_the_cache():
    config = tiny_config().backbone.decoder
    decoder = abstract(lambda: Decoder(config))
    assert config.experts.start == 1  # so that segments.1 are the layers with experts
    used = kernels(decoder, "segments.0", "gen_head") + kernels(decoder, "segments.1", without="ffn.0")
    cost = costs.decoding(config, [10, 4], 1, config.gen_vocab_size, 2)
    entry = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    between_layers = 4 * config.num_layers * 2 * config.hidden_size
    assert cost.bytes == 2 * (used + entry * (11 + 5) + between_layers)
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * (11 + 5)
    assert cost.flops == 2 * 2 * used + attention


def test_int8_weights_count_a_byte_a_number_and_an_int8_cache_its_scales():
    config = tiny_config().backbone.decoder
    assert config.head_dim == 8
    own = costs.decoding(config, [10], 3, 100, 2)
    weights = costs.decoding(config, [10], 3, 100, 2, weights="int8")
    cache = costs.decoding(config, [10], 3, 100, 2, cache="int8")
    assert weights.weights * 2 == own.weights and own.bytes - weights.bytes == weights.weights
    entries = 2 * config.num_layers * config.num_kv_heads * (11 + 12 + 13)
    assert own.bytes - cache.bytes == entries * (8 * 2 - (8 + 4))
    assert own.flops == weights.flops == cache.flops


def test_steps_add_up():
    config = tiny_config().backbone.decoder
    one = [costs.decoding(config, [3 + i, 7 + i], 1, 5, ITEM) for i in range(6)]
    assert sum(one, costs.Cost()) == costs.decoding(config, [3, 7], 6, 5, ITEM)


def test_prefill_and_decoding_of_the_same_tokens_need_the_same_operations():
    config = tiny_config().backbone.decoder
    prefill, decode = costs.decoder_pass(config, 1, 9, ITEM), costs.decoding(config, [0], 9, 0, ITEM)
    assert prefill.flops == decode.flops and prefill.bytes < decode.bytes


def test_reading_on_after_a_cache_completes_a_whole_pass():
    config = tiny_config().backbone.decoder
    first, rest = costs.decoder_pass(config, 2, 5, ITEM), costs.decoder_pass(config, 2, 4, ITEM, cached=5)
    assert first.flops + rest.flops == costs.decoder_pass(config, 2, 9, ITEM).flops


def test_prompts_with_visual_tokens_read_both_experts():
    config = tiny_config().backbone.decoder
    decoder = abstract(lambda: Decoder(config))
    both = (
        costs.decoder_pass(config, 1, 4, 1, both_experts=True).bytes
        - costs.decoder_pass(config, 1, 4, 1).bytes
    )
    assert both == kernels(decoder, "segments.1.ffn.1")


def test_a_step_of_the_diffusion_transformer_is_what_it_traces_to():
    config = tiny_config().dit
    dit = abstract(lambda: DiT(config))
    context = Context(
        shape(2, 7, config.hidden_size), shape(2, 7, dtype=jnp.int32), shape(2, 7, dtype=jnp.int32)
    )
    references = References(shape(2, 3, 5, config.patch_values), shape(2, 3, 2, dtype=jnp.int32))
    args = (shape(2, 16, config.patch_values), shape(2), context, shape(2, 2, dtype=jnp.int32))
    plain = costs.dit_evaluation(config, 2, 7, 16, ITEM)
    with_references = costs.dit_evaluation(config, 2, 7, 16, ITEM, references=3, reference_tokens=5)
    assert plain.flops == products(lambda d, *xs: d(*xs), dit, *args)
    assert with_references.flops == products(lambda d, *xs: d(*xs), dit, *args, references)
    used = kernels(dit, "layers", "noise_refiner", "patch_embed", "output", "time")
    assert plain.bytes > ITEM * used


@pytest.mark.parametrize("config", [tiny_config(), tiny_preview_config()], ids=["dev", "preview"])
@pytest.mark.parametrize("features", [0, 9])
def test_the_condition_is_what_it_traces_to(config, features):
    width = config.dit.condition_width
    image = shape(2, features, width) if features else None
    mask = shape(2, features, dtype=jnp.bool_) if features else None
    condition = Condition(shape(2, 5, width), shape(2, 5, dtype=jnp.bool_), image, mask)
    dit, refiner = abstract(lambda: DiT(config.dit)), abstract(lambda: QFormer(config.refiner))
    expected = products(lambda *xs: encode_condition(*xs).tokens, dit, refiner, condition)
    assert costs.condition(config.dit, config.refiner, 2, 5, features, ITEM).flops == expected


def test_the_vae_is_what_it_traces_to_in_both_directions():
    config = tiny_config().vae
    vae = abstract(lambda: VAE(config))
    cells, factor = 6 * 4, config.factor
    latents = shape(2, 6, 4, config.latent_channels)
    assert costs.vae_decode(config, 2, cells, ITEM).flops == products(lambda v, x: v.decode(x), vae, latents)
    picture = shape(2, 6 * factor, 4 * factor, 3)
    encoded = costs.vae_encode(config, 2, cells * factor**2, ITEM)
    assert encoded.flops == products(lambda v, x: v.encode(x).mean, vae, picture)
    assert costs.vae_decode(config, 2, cells, ITEM).bytes > ITEM * kernels(vae, "decoder")


def test_the_vision_tower_is_what_it_traces_to():
    config = tiny_config().backbone.vision
    values = np.zeros((16, config.patch_values), np.float32)
    inputs = qwen3_inputs(config, values, [(1, 4, 4)])
    tower = abstract(lambda: Qwen3VLVision(config))
    expected = products(lambda t, x: t(x).tokens, tower, inputs)
    assert costs.vision_tower(config, [16], ITEM).flops == expected
    alone, together = costs.vision_tower(config, [16], ITEM), costs.vision_tower(config, [16, 16], ITEM)
    assert together.flops == 2 * alone.flops  # pictures do not see each other


def test_layers_with_windows_count_the_windows_alone():
    """The program computes with windows masked; what is needed are the windows."""
    config = tiny_preview_config().backbone.vision
    side = config.window_tokens * config.spatial_merge_size
    window, patches = side**2, (2 * side) ** 2
    values = np.zeros((patches, config.patch_values), np.float32)
    inputs = qwen25_inputs(config, values, [(1, 2 * side, 2 * side)])
    tower = abstract(lambda: Qwen25VLVision(config))
    masked = 4 * config.hidden_size * patches * (patches - window)
    windows = config.num_layers - len(config.fullatt_block_indexes)
    assert windows > 0
    expected = products(lambda t, x: t(x).tokens, tower, inputs) - windows * masked
    assert costs.vision_tower(config, [patches], ITEM).flops == expected


def test_the_token_encoder_is_what_it_traces_to():
    config = tiny_config().mammothtok
    tokenizer = abstract(lambda: MammothTok(config))
    side = 3 * config.encoder.patch_size
    expected = products(MammothTok.encode, tokenizer, shape(1, side, side, 3))
    assert costs.token_encoder(config, 9, ITEM).flops == expected
