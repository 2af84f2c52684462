"""Compile time of the decoder's step against its depth: ``python -m mammoth_jax.benchmarks.compile_time``.

Compiles one decoding step of the ``dev`` decoder, with weights as shapes only, at its own depth and at
the smallest depth that has every kind of layer (DeepStack, plain, with experts).
"""

import argparse
import dataclasses
import json
import time

import jax
import jax.numpy as jnp

from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.config import DecoderConfig, ExpertRange
from mammoth_jax.models.backbone.decoder import Decoder, Taps
from mammoth_jax.models.config import MammothConfig

ROWS, SLOTS = 2, 512


def shallow(config: DecoderConfig) -> DecoderConfig:
    """Two layers of each kind of segment."""
    first = 2 if config.num_deepstack else 0
    return dataclasses.replace(
        config,
        num_layers=first + 4,
        num_deepstack=first,
        experts=ExpertRange(config.experts.kind, first + 2, first + 4),
    )


def lowered_step(config: DecoderConfig, taps: Taps):
    """The step of a decoder with these sizes, lowered without weights."""
    decoder = abstract(lambda: Decoder(config), jnp.bfloat16)
    shape = (config.num_layers, ROWS, config.num_kv_heads, SLOTS, config.head_dim)
    row = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
    kv = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    step = jax.jit(lambda d, ids, cache: d.step(ids, cache, taps=taps))
    return step.lower(decoder, row, KVCache(kv, kv, row, row, row))


def step_seconds(config: DecoderConfig, taps: Taps) -> tuple[float, float]:
    """Seconds to lower and to compile one step."""
    jax.clear_caches()
    begin = time.perf_counter()
    lowered = lowered_step(config, taps)
    middle = time.perf_counter()
    lowered.compile()
    return middle - begin, time.perf_counter() - middle


def main() -> None:
    """Prints one JSON line a depth, then their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="dev")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    config = MammothConfig.from_preset(args.preset)
    decoder = config.backbone.decoder
    few = shallow(decoder)
    best = {}
    for _ in range(args.repeats):
        for name, variant, taps in (("deep", decoder, config.condition.taps), ("few", few, Taps((-2, -3)))):
            lower, compile_ = step_seconds(variant, taps)
            print(json.dumps({"layers": variant.num_layers, "lower_s": lower, "compile_s": compile_}))
            best[name] = min(best.get(name, float("inf")), lower + compile_)
    print(json.dumps({"ratio": best["deep"] / best["few"], "deep_s": best["deep"], "few_s": best["few"]}))


if __name__ == "__main__":
    main()
