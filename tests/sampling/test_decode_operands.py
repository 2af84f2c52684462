"""What the compiled decode loop reads: the weights of generation tokens, and no others."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.backbone.config import DecoderConfig, layer_plan
from mammoth_jax.models.backbone.decoder import Decoder, Taps
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.sampling.decode import DecodePlan, Requests, VisualVocabulary, decode_chunk, prefill, start
from mammoth_jax.sampling.logits import SamplingSettings
from tests.tiny_model import tiny_config


def decode_loop(decoder: Decoder, taps: Taps, rows: int, max_tokens: int):
    """The compiled loop of one chunk for ``rows`` guided pictures, from shapes alone."""
    first = decoder.config.gen_vocab_start_index
    plan = DecodePlan(VisualVocabulary(first, first + 1, first + 2, first + 10), taps)
    ints = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)  # noqa: E731
    floats = jax.ShapeDtypeStruct((rows,), jnp.float32)
    settings = SamplingSettings(floats, floats, ints(rows), floats, floats)
    seeds = jax.ShapeDtypeStruct((rows,), jnp.uint32)
    requests = Requests(ints(rows), ints(rows), seeds, ints(rows), ints(rows), settings)
    prompts = jax.eval_shape(lambda d, i, n: prefill(d, i, n, plan), decoder, ints(2, 8), ints(2))
    state = jax.eval_shape(
        lambda d, p, r: start(d, p, r, max_tokens, plan, guided=True), decoder, prompts, requests
    )
    run = jax.jit(lambda decoder, state, steps: decode_chunk(decoder, state, steps, plan))
    return run.lower(decoder, state, ints()).compile()


def weights_read(program: str) -> dict[str, int]:
    """Elements of the decoder's parameters among the program's operands, by name."""
    entry = program[program.index("\nENTRY") :]
    found = re.findall(r"= \w+\[([\d,]*)\]\S* parameter\(\d+\).*op_name=\"decoder\.([^\"]+)\"", entry)
    named = {re.sub(r"\['?(\w+)'?\]", r".\1", name): shape for shape, name in found}
    return {
        name.removesuffix(".value"): math.prod(map(int, shape.split(","))) for name, shape in named.items()
    }


def text_ffn(config: DecoderConfig) -> tuple[str, ...]:
    """Prefixes of the text experts' parameters."""
    plan = enumerate(layer_plan(config))
    return tuple(f"segments.{number}.ffn.0." for number, segment in plan if segment.has_experts)


def assert_reads_no_text_ffn(compiled, decoder: Decoder) -> None:
    every = {name: p.size for name, p in named_parameters(decoder).items()}
    read = weights_read(compiled.as_text())
    assert read and all(every[name] == size for name, size in read.items())
    unread = {name for name in every if name.startswith(text_ffn(decoder.config))} | {"head.kernel"}
    assert len(unread) > 3 and set(every) - set(read) == unread
    bytes_of = jnp.dtype(decoder.embed.table.dtype).itemsize
    print(
        f"bytes of the decoder {sum(every.values()) * bytes_of}, operands of the loop "
        f"{sum(read.values()) * bytes_of}, text FFN of the expert layers and text head, left out "
        f"{sum(every[name] for name in unread) * bytes_of}"
    )


def test_the_decode_loop_reads_neither_the_text_ffn_of_expert_layers_nor_the_text_head():
    config = tiny_config()
    decoder = abstract(lambda: Decoder(config.backbone.decoder))
    assert_reads_no_text_ffn(decode_loop(decoder, Taps(config.condition.taps.layers), 2, 8), decoder)


@pytest.mark.slow
def test_so_does_the_dev_presets():
    config = MammothConfig.from_preset("dev")
    decoder = abstract(lambda: Decoder(config.backbone.decoder), jnp.bfloat16)
    assert_reads_no_text_ffn(decode_loop(decoder, config.condition.taps, 1, 64), decoder)
