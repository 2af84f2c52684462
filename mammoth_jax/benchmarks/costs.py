"""Floating-point operations and bytes that the model's programs need, counted from sizes alone.

A multiplication and an addition are two operations.  Bytes are what must move between memory and chip at least once:
weights, caches, inputs and results; what a fused program can keep on the chip is not counted.  Norms, rotations,
activations and other work that is linear in the activations is left out.  Padding costs nothing here, so a fraction
of the roofline falls where a program computes on it.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.vae.config import VAEConfig


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of a program."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, count: int) -> "Cost":
        """The same work ``count`` times."""
        return Cost(self.flops * count, self.bytes * count)


def decoder_matrices(config: DecoderConfig) -> int:
    """Weights that one token is multiplied by in all layers: attention and one feed-forward expert a layer."""
    d, e = config.hidden_size, config.head_dim
    attention = d * (config.num_heads + 2 * config.num_kv_heads) * e + config.num_heads * e * d
    return config.num_layers * (attention + 3 * d * config.intermediate_size)


def cache_values(config: DecoderConfig) -> int:
    """Numbers that the cache holds for one token."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim


def prefill_cost(config: DecoderConfig, lengths: Sequence[int], columns: int, itemsize: int) -> Cost:
    """One pass over text prompts, their caches written, and ``columns`` scores after each one's last token."""
    tokens, head = sum(lengths), config.hidden_size * columns
    scores = sum(n * (n + 1) // 2 for n in lengths)
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * scores
    return Cost(
        2 * decoder_matrices(config) * tokens + attention + 2 * head * len(lengths),
        itemsize * (decoder_matrices(config) + head + cache_values(config) * tokens),
    )


def decode_cost(
    config: DecoderConfig, lengths: Sequence[int], num_tokens: int, columns: int, itemsize: int
) -> Cost:
    """``num_tokens`` steps of cache rows that begin at ``lengths``, ``columns`` scores each.

    Bytes a step: the weights that the tokens use (attention, one feed-forward expert a layer, the head) once, every
    row's cache up to and with the new token, and the new entry.
    """
    rows, head = len(lengths), config.hidden_size * columns
    seen = sum(num_tokens * n + num_tokens * (num_tokens + 1) // 2 for n in lengths)
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * seen
    weights = decoder_matrices(config) + head
    return Cost(
        2 * weights * rows * num_tokens + attention,
        itemsize * (weights * num_tokens + cache_values(config) * (seen + rows * num_tokens)),
    )


def dit_block_matrices(config: DiTConfig) -> int:
    """Weights that one token is multiplied by in a block."""
    d = config.hidden_size
    kv_width = config.num_kv_heads * (d // config.num_heads)
    return 2 * d * d + 2 * d * kv_width + 3 * d * config.ffn_width


def dit_blocks_cost(config: DiTConfig, lengths: Sequence[int], num_blocks: int, itemsize: int) -> Cost:
    """Blocks without modulation over one full-attention sequence a row."""
    matrices = num_blocks * dit_block_matrices(config)
    scores = sum(n * n for n in lengths)
    attention = 4 * num_blocks * config.hidden_size * scores
    return Cost(2 * matrices * sum(lengths) + attention, itemsize * matrices)


def dit_step_cost(config: DiTConfig, contexts: Sequence[int], pictures: Sequence[int], itemsize: int) -> Cost:
    """One velocity evaluation of rows with so many context and picture tokens; references would be further contexts."""
    d, rows, tokens = config.hidden_size, len(pictures), sum(pictures)
    joint = [c + n for c, n in zip(contexts, pictures, strict=True)]
    blocks = dit_blocks_cost(config, joint, config.num_layers, itemsize)
    refiner = dit_blocks_cost(config, pictures, config.num_refiner_layers, itemsize)
    modulation = config.time_width * 4 * d * (config.num_layers + config.num_refiner_layers)
    edges = d * (config.patch_values + config.out_patch_values)
    latents = 4 * tokens * (config.patch_values + config.out_patch_values)
    own = Cost(2 * modulation * rows + 2 * edges * tokens, itemsize * (modulation + edges) + latents)
    return blocks + refiner + own


def context_cost(
    dit: DiTConfig, refiner: QFormerConfig, texts: Sequence[int], images: Sequence[int], itemsize: int
) -> Cost:
    """Encoding the conditions, once a picture; a row with 0 image features has no queries."""
    lengths = [t + (refiner.num_queries if i else 0) for t, i in zip(texts, images, strict=True)]
    caption = dit.condition_width * dit.hidden_size
    captioned = sum(lengths) if refiner.stage == "llm" else sum(texts)
    own = Cost(2 * caption * captioned, itemsize * caption)
    blocks = dit_blocks_cost(dit, lengths, dit.num_refiner_layers, itemsize)
    return own + blocks + qformer_cost(refiner, [i for i in images if i], itemsize)


def qformer_cost(config: QFormerConfig, lengths: Sequence[int], itemsize: int) -> Cost:
    """The queries' way through all layers for rows of so many features."""
    d, q, rows, tokens = config.width, config.num_queries, len(lengths), sum(lengths)
    entry = config.input_width * d
    per_query = (
        4 * d * d + 2 * d * d + 3 * d * config.ffn_width
    )  # self-attention, cross query and output, FFN
    per_feature = 2 * d * d
    products = rows * q * per_query + tokens * per_feature
    scores = rows * q * q + q * tokens
    return Cost(
        2 * entry * tokens + config.num_layers * (2 * products + 4 * d * scores),
        itemsize * (entry + config.num_layers * (per_query + per_feature)),
    )


def vae_decode_cost(config: VAEConfig, rows: int, cols: int, itemsize: int) -> Cost:
    """One latent grid to pixels, untiled.  Every convolution reads its input and writes its output."""
    flops, numbers, weights = 0, 0, 0
    for cells, inputs, outputs, size in _decoder_convolutions(config, rows * cols):
        flops += 2 * cells * inputs * outputs * size * size
        numbers += cells * (inputs + outputs)
        weights += inputs * outputs * size * size
    if config.mid_attention:
        cells, width = rows * cols, config.block_out_channels[-1]
        flops += 8 * cells * width * width + 4 * cells * cells * width
        numbers += 8 * cells * width
        weights += 4 * width * width
    return Cost(flops, itemsize * (numbers + weights))


def _decoder_convolutions(config: VAEConfig, cells: int) -> Iterator[tuple[int, int, int, int]]:
    """(cells, input channels, output channels, side of the kernel) of each convolution of the VAE's decoder."""
    widths = config.block_out_channels[::-1]
    yield cells, config.latent_channels, widths[0], 3
    yield from [(cells, widths[0], widths[0], 3)] * 4
    for i, (inputs, outputs) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        if inputs != outputs:
            yield cells, inputs, outputs, 1
        yield cells, inputs, outputs, 3
        yield from [(cells, outputs, outputs, 3)] * (2 * config.layers_per_block + 1)
        if i + 1 < len(widths):
            cells *= 4
            yield cells, outputs, outputs, 3
    yield cells, widths[-1], config.out_channels, 3
