"""Floating-point operations and bytes that a pass through a part needs, by the sizes alone.

The compiler's own counter takes the body of a loop once and knows nothing of our kernels, so costs are counted here by
hand: two operations for each multiplication in a matrix product or convolution (soft-max, norms and activations are
left out), and the bytes that must cross HBM at the least.  Those are every weight once a pass, keys and values of a
cache, and each layer's input and output; what a good kernel keeps on the chip (scores, inner activations of a layer) is
free.  Causal attention counts the half that is seen, a routed layer one expert a token.
"""

import dataclasses
from collections.abc import Sequence

from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.backbone.cache import CacheFormat
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.embeddings import SINUSOID_WIDTH
from mammoth_jax.models.mammothtok.config import MammothTokConfig
from mammoth_jax.models.vae.config import VAEConfig


@dataclasses.dataclass(frozen=True)
class Cost:
    """Operations and bytes of a whole program, on all its devices together; ``weights`` are among the bytes,
    ``attention`` (products of queries, keys and values, which have no weights) among the operations.
    """

    flops: int = 0
    bytes: int = 0
    weights: int = 0
    attention: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(_numbers(self), _numbers(other), strict=True)))

    def __mul__(self, times: int) -> "Cost":
        return Cost(*(number * times for number in _numbers(self)))


def _numbers(cost: Cost) -> tuple[int, ...]:
    return cost.flops, cost.bytes, cost.weights, cost.attention


def dense(weights: int, tokens: int, item: int) -> Cost:
    """Matrix products with ``weights`` numbers of ``item`` bytes, each of which is used for every token."""
    return Cost(2 * weights * tokens, weights * item, weights * item)


def attended(queries: int, keys: int, heads: int, head_dim: int) -> Cost:
    """The two products of attention where every query sees every key; scores stay on the chip."""
    flops = 4 * queries * keys * heads * head_dim
    return Cost(flops, attention=flops)


def layer_traffic(layers: int, tokens: int, width: int, item: int) -> Cost:
    """Input and output of both halves of each layer."""
    return Cost(0, 4 * layers * tokens * width * item)


def attention_weights(config: DecoderConfig | DiTConfig) -> int:
    """Numbers in the four projections of a layer."""
    d = config.hidden_size
    e = config.head_dim if isinstance(config, DecoderConfig) else d // config.num_heads
    return 2 * d * e * (config.num_heads + config.num_kv_heads)


def decoder_weights(config: DecoderConfig, *, both_experts: bool = False) -> int:
    """Numbers in the layers' matrices that a pass reads: of one expert, or of text's and generation's."""
    layer = attention_weights(config) + 3 * config.hidden_size * config.intermediate_size
    total = config.num_layers * layer
    if both_experts and config.experts.kind != "none":
        expert = 3 * config.hidden_size * config.intermediate_size
        expert += attention_weights(config) if config.experts.kind == "ffn_attention" else 0
        total += (config.experts.stop - config.experts.start) * expert
    return total


def decoder_pass(
    config: DecoderConfig, rows: int, length: int, item: int, *, both_experts: bool = False, cached: int = 0
) -> Cost:
    """Whole sequences, ``length`` new tokens a row after ``cached`` ones; keys and values are kept."""
    tokens, layers = rows * length, config.num_layers
    seen = length * cached + length * (length + 1) // 2
    read = decoder_weights(config, both_experts=both_experts) * item
    cost = Cost(2 * decoder_weights(config) * tokens, read, read)
    cost += attended(seen, 1, config.num_heads, config.head_dim) * (rows * layers)
    cost += layer_traffic(layers, tokens, config.hidden_size, item)
    return cost + _cache(config, rows * (length + cached), item)


def head(config: DecoderConfig, rows: int, columns: int, item: int) -> Cost:
    """Scores of ``columns`` ids after one state a row."""
    return dense(config.hidden_size * columns, rows, item)


def decoding(
    config: DecoderConfig,
    cached: Sequence[int],
    steps: int,
    columns: int,
    item: int,
    *,
    weights: CacheFormat = "model",
    cache: CacheFormat = "model",
) -> Cost:
    """``steps`` tokens in every row, whose caches hold ``cached`` tokens before; each is scored over ``columns`` ids.

    A step reads one expert, the head and the cache as far as it is filled.  The scales of int8 weights, a number for
    each column of thousands, are left out.
    """
    rows, weight_item = len(cached), 1 if weights == "int8" else item
    step = dense(decoder_weights(config), rows, weight_item) + head(config, rows, columns, weight_item)
    step += layer_traffic(config.num_layers, rows, config.hidden_size, item)
    seen = sum(steps * before + steps * (steps + 1) // 2 for before in cached)
    attention = attended(seen, 1, config.num_heads, config.head_dim) * config.num_layers
    return step * steps + attention + _cache(config, seen, item, cache)


def _cache(config: DecoderConfig, tokens: int, item: int, held: CacheFormat = "model") -> Cost:
    """Keys and values of ``tokens`` tokens, read or written."""
    return Cost(
        0, 2 * config.num_layers * tokens * config.num_kv_heads * entry_bytes(config.head_dim, item, held)
    )


def entry_bytes(width: int, item: int, held: CacheFormat) -> int:
    """A token's keys, or values, of one head: numbers, or int8 codes with a float32 scale."""
    return width + 4 if held == "int8" else width * item


def dit_block_weights(config: DiTConfig) -> int:
    """Numbers in the matrices of a block that every token meets."""
    return attention_weights(config) + 3 * config.hidden_size * config.ffn_width


def dit_stack(config: DiTConfig, layers: int, rows: int, length: int, item: int, *, timed: bool) -> Cost:
    """``layers`` blocks over ``rows`` sequences of ``length``; ``timed`` ones are modulated once a row, in float32."""
    cost = dense(dit_block_weights(config), rows * length, item) * layers
    e = config.hidden_size // config.num_heads
    cost += attended(length, length, config.num_heads, e) * (rows * layers)
    cost += layer_traffic(layers, rows * length, config.hidden_size, item)
    modulation = dense(4 * config.time_width * config.hidden_size, rows, item) * layers
    return cost + modulation if timed else cost


def dit_references(config: DiTConfig, rows: int, length: int, item: int) -> Cost:
    """``rows`` reference pictures on their way into the joint sequence."""
    cost = dit_stack(config, config.num_refiner_layers, rows, length, item, timed=True)
    return cost + dense(config.patch_values * config.hidden_size, rows * length, item)


def dit_evaluation(
    config: DiTConfig,
    rows: int,
    context: int,
    tokens: int,
    item: int,
    *,
    references: int = 0,
    reference_tokens: int = 0,
) -> Cost:
    """One velocity of ``rows`` pictures (guidance branches are rows)."""
    d, t, refiners = config.hidden_size, config.time_width, config.num_refiner_layers
    joint = context + references * reference_tokens + tokens
    cost = dit_stack(config, config.num_layers, rows, joint, item, timed=True)
    cost += dit_stack(config, refiners, rows, tokens, item, timed=True)
    cost += dense(config.patch_values * d, rows * tokens, item)
    if references:
        cost += dit_references(config, rows * references, reference_tokens, item)
    cost += dense(SINUSOID_WIDTH * t + t * t + t * d, rows, item)  # time, and the output's modulation
    return cost + dense(d * config.out_patch_values, rows * tokens, item)


def qformer(config: QFormerConfig, rows: int, features: int, item: int) -> Cost:
    """The condition's features to queries."""
    w, q, layers = config.width, config.num_queries, config.num_layers
    cost = dense(config.input_width * w, rows * features, item)
    per_query = (
        4 * w * w + 2 * w * w + 3 * w * config.ffn_width
    )  # self-attention, cross query and output, FFN
    cost += dense(per_query, rows * q, item) * layers + dense(2 * w * w, rows * features, item) * layers
    cost += attended(q, q + features, 1, w) * (rows * layers)
    return cost + Cost(0, rows * features * config.input_width * 4)  # the features are float32


def condition(
    dit: DiTConfig, refiner: QFormerConfig | None, rows: int, text: int, features: int, item: int
) -> Cost:
    """The context of ``rows`` pictures: caption embedder, alignment (with ``features``), context refiner."""
    queries, extra = 0, Cost()
    if refiner is not None and features:
        queries, extra = refiner.num_queries, qformer(refiner, rows, features, item)
    captioned = text + (queries if refiner is not None and refiner.stage == "llm" else 0)
    cost = dense(dit.condition_width * dit.hidden_size, rows * captioned, item) + extra
    return cost + dit_stack(dit, dit.num_refiner_layers, rows, text + queries, item, timed=False)


def convolution(rows: int, cells: int, size: int, inputs: int, outputs: int, item: int) -> Cost:
    """A ``size x size`` convolution with ``cells`` places a row; its input and output cross HBM."""
    activations = rows * cells * (inputs + outputs) * item
    return dense(size * size * inputs * outputs, rows * cells, item) + Cost(0, activations)


def _residual(rows: int, cells: int, inputs: int, outputs: int, item: int) -> Cost:
    cost = convolution(rows, cells, 3, inputs, outputs, item) + convolution(
        rows, cells, 3, outputs, outputs, item
    )
    return cost + convolution(rows, cells, 1, inputs, outputs, item) if inputs != outputs else cost


def _middle(config: VAEConfig, rows: int, cells: int, item: int) -> Cost:
    width = config.block_out_channels[-1]
    cost = _residual(rows, cells, width, width, item) * 2
    if config.mid_attention:
        cost += dense(4 * width * width, rows * cells, item) + attended(cells, cells, 1, width) * rows
    return cost


def vae_decode(config: VAEConfig, rows: int, cells: int, item: int) -> Cost:
    """``rows`` pictures from ``cells`` latent cells each, untiled."""
    widths = config.block_out_channels[::-1]
    cost = convolution(rows, cells, 3, config.latent_channels, widths[0], item) + _middle(
        config, rows, cells, item
    )
    for i, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        cost += _residual(rows, cells, before, width, item)
        cost += _residual(rows, cells, width, width, item) * config.layers_per_block
        if i < len(widths) - 1:
            cells *= 4
            cost += convolution(rows, cells, 3, width, width, item)
    return cost + convolution(rows, cells, 3, widths[-1], config.out_channels, item)


def vae_encode(config: VAEConfig, rows: int, pixels: int, item: int) -> Cost:
    """Latents of ``rows`` pictures of ``pixels`` each."""
    widths = config.block_out_channels
    cost = convolution(rows, pixels, 3, config.in_channels, widths[0], item)
    for i, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        cost += _residual(rows, pixels, before, width, item)
        cost += _residual(rows, pixels, width, width, item) * (config.layers_per_block - 1)
        if i < len(widths) - 1:
            pixels //= 4
            cost += convolution(rows, pixels, 3, width, width, item)
    cost += _middle(config, rows, pixels, item)
    return cost + convolution(rows, pixels, 3, widths[-1], 2 * config.latent_channels, item)


def vision_tower(
    config: Qwen3VLVisionConfig | Qwen25VLVisionConfig, pictures: Sequence[int], item: int
) -> Cost:
    """Pictures of so many patches each, in one pass; a patch sees its own picture, in some layers a window of it."""
    d, patches = config.hidden_size, sum(pictures)
    tokens = patches // config.spatial_merge_size**2
    layers, whole = config.num_layers, config.num_layers
    ffn, mergers, window = 2, 1, 0
    if isinstance(config, Qwen25VLVisionConfig):
        whole, ffn = len(config.fullatt_block_indexes), 3
        window = (config.window_tokens * config.spatial_merge_size) ** 2
    else:
        mergers += len(config.deepstack_visual_indexes)
    cost = dense(config.patch_values * d, patches, item)
    cost += dense(4 * d * d + ffn * d * config.intermediate_size, patches, item) * layers
    cost += attended(sum(n * n for n in pictures), 1, 1, d) * whole
    cost += attended(sum(n * min(n, window) for n in pictures), 1, 1, d) * (layers - whole)
    cost += layer_traffic(layers, patches, d, item)
    merged = config.merged_size
    return cost + dense(merged * merged + merged * config.out_hidden_size, tokens, item) * mergers


def token_encoder(config: MammothTokConfig, patches: int, item: int) -> Cost:
    """Codes of one picture."""
    encoder = config.encoder
    w = encoder.width
    cost = dense(3 * encoder.patch_size**2 * w + w * config.code_dim, patches, item)
    cost += dense(4 * w * w + 3 * w * encoder.mlp_width, patches, item) * encoder.num_layers
    cost += attended(patches, patches, 1, w) * encoder.num_layers
    cost += layer_traffic(encoder.num_layers, patches, w, item)
    return cost + dense(config.code_dim * config.codebook_size, patches, item)
