"""A decoder whose steps read int8 weights."""

import jax
from flax import nnx

from mammoth_jax.layers.quantized import quantize_linears
from mammoth_jax.models.backbone.decoder import GENERATION_EXPERT, Decoder
from mammoth_jax.models.backbone.layer import DecoderLayer


def int8_decoder(decoder: Decoder, expert: int = GENERATION_EXPERT) -> Decoder:
    """The decoder with int8 kernels where a step of ``expert``'s tokens reads them, for use beside the original.

    These are the projections and feed-forward layers, of layers with experts the expert's alone, and its head.  All
    other weights (norms, embeddings, biases, the other expert and head) are the original's own arrays.

    Raises:
      ValueError: ``decoder`` is :meth:`Decoder.for_steps`' copy, whose layers are no stacks any more.
    """
    copy = jax.tree.map(lambda x: x, decoder)
    copy.segments = nnx.List([_int8_layers(layers, expert) for layers in decoder.segments])
    if expert == GENERATION_EXPERT:
        copy.gen_head = quantize_linears(decoder.gen_head)
    else:
        copy.head = quantize_linears(decoder.head)
    return copy


def _int8_layers(layers: DecoderLayer, expert: int) -> DecoderLayer:
    copy = jax.tree.map(lambda x: x, layers)
    for part, name in ((copy, "ffn"), (copy.attention, "experts")):
        experts = list(getattr(part, name))
        number = expert if len(experts) > 1 else 0
        experts[number] = quantize_linears(experts[number])
        setattr(part, name, nnx.List(experts))
    return copy
