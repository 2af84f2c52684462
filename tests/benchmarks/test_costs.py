"""The counts of operations agree with the weights that the modules hold."""

import math

from mammoth_jax.benchmarks import costs
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.dit.transformer import DiT
from mammoth_jax.models.vae.model import VAE
from tests.tiny_model import tiny_config


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
    cost = costs.decode_cost(config, [10, 4], 1, config.gen_vocab_size, 2)
    cache = costs.cache_values(config) * (11 + 5 + 2)
    assert cost.bytes == 2 * (used + cache)
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * (11 + 5)
    assert cost.flops == 2 * 2 * used + attention


def test_steps_add_up():
    config = tiny_config().backbone.decoder
    one = [costs.decode_cost(config, [3 + i, 7 + i], 1, 5, 4) for i in range(6)]
    assert sum(one, costs.Cost()) == costs.decode_cost(config, [3, 7], 6, 5, 4)


def test_prefill_and_decoding_of_the_same_tokens_need_the_same_operations():
    config = tiny_config().backbone.decoder
    prefill, decode = costs.prefill_cost(config, [9], 0, 4), costs.decode_cost(config, [0], 9, 0, 4)
    assert prefill.flops == decode.flops and prefill.bytes < decode.bytes


def test_a_step_of_the_diffusion_transformer_multiplies_each_token_by_every_kernel():
    config = tiny_config().dit
    dit = abstract(lambda: DiT(config))
    joint = kernels(dit, "layers", without="modulation")
    noise = kernels(dit, "noise_refiner", without="modulation")
    edges = kernels(dit, "patch_embed", "output.proj")
    modulation = kernels(dit, "layers.modulation", "noise_refiner.modulation")
    cost = costs.dit_step_cost(config, [3, 5], [16, 16], 2)
    per_score = 4 * config.hidden_size
    scores = config.num_layers * (19**2 + 21**2) + config.num_refiner_layers * 2 * 16**2
    assert cost.flops == 2 * (40 * joint + 32 * (noise + edges) + 2 * modulation) + per_score * scores
    latents = 4 * 32 * (config.patch_values + config.out_patch_values)
    assert cost.bytes == 2 * (joint + noise + edges + modulation) + latents


def test_the_vae_decoder_applies_each_kernel_at_the_resolution_of_its_block():
    config = tiny_config().vae
    vae = abstract(lambda: VAE(config))
    one_cell = costs.vae_decode_cost(config, 1, 1, 0)
    mid = kernels(vae, "decoder.conv_in", "decoder.mid")
    up = [kernels(vae, f"decoder.up.{i}.blocks") for i in range(3)]
    wider = [kernels(vae, f"decoder.up.{i}.upsample") for i in range(2)]
    out = kernels(vae, "decoder.conv_out")
    attention = 4 * config.block_out_channels[-1]  # of one cell to itself
    expected = mid + up[0] + 4 * (wider[0] + up[1]) + 16 * (wider[1] + up[2] + out)
    assert one_cell.flops == 2 * expected + attention
    assert costs.vae_decode_cost(config, 1, 1, 2).bytes > 2 * (mid + sum(up) + sum(wider) + out)
