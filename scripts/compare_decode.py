"""Greedy decoding against transformers' Qwen3 with the same weights: a prompt and new tokens, with or without guidance.

Theirs is ``generate`` with a static cache, run eagerly (and compiled, with ``--compile``); guidance is a batch of two
whose scores are combined, as in the release.  Ours is the program that draws visual tokens, condition features
included.  A line of text tokens is the prompt, and what follows are generation tokens; Qwen3 has one table for both.
"""

import argparse
import importlib
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert import backbone as names
from checkpoint_convert.source import DictSource
from checkpoint_convert.stream import load_onto
from mammoth_jax.benchmarks.timing import time_alternated
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.decoder import Decoder, Taps
from mammoth_jax.sampling.decode import DecodePlan, Requests, VisualVocabulary, decode_chunk, prefill, start
from mammoth_jax.sampling.logits import SamplingSettings

SIZES = {
    "30m": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_layers": 8,
        "num_heads": 8,
        "num_kv_heads": 4,
        "head_dim": 64,
        "mrope_section": (12, 10, 10),
        "gen_vocab_size": 4096,
    },
    "300m": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_layers": 16,
        "num_heads": 16,
        "num_kv_heads": 8,
        "head_dim": 128,
        "gen_vocab_size": 16384,
    },
}
TEXT_IDS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes of the work."""
    parser.add_argument("--size", choices=SIZES, default="30m")
    parser.add_argument("--guidance", type=float, default=3.0, help="1 decodes one row without a twin")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=256, help="tokens")
    parser.add_argument("--compile", action="store_true", help="also theirs under torch.compile")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios; above 1 we are faster."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = DecoderConfig(**SIZES[args.size], vocab_size=TEXT_IDS, gen_vocab_start_index=TEXT_IDS)
    theirs = qwen3(config)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    decoder = load_onto(
        abstract(lambda: Decoder(config)),
        names.rules(config),
        DictSource(released(state)),
        single_device_mesh(),
    )
    rows = 2 if args.guidance > 1 else 1
    prompts = np.random.default_rng(0).integers(0, TEXT_IDS, (rows, args.prompt))
    calls: dict[str, Callable[[], np.ndarray]] = {
        "transformers": their_decoding(theirs, prompts, args, compiled=False),
        "ours": our_decoding(decoder, prompts, args),
    }
    if args.compile:
        calls["transformers, compiled"] = their_decoding(theirs, prompts, args, compiled=True)
    tokens = {name: call() for name, call in calls.items()}
    for name, drawn in tokens.items():
        if not np.array_equal(drawn, tokens["ours"]):
            first = int(np.argmax(drawn != tokens["ours"]))
            raise InputError(f"the two do not write the same: {name} differs from ours at token {first}")
    timings = time_alternated(calls, repeats=args.repeats)
    ours = timings["ours"].median
    result: dict[str, Any] = {"ratio": timings["transformers"].median / ours}
    if args.compile:
        result["ratio_against_compiled"] = timings["transformers, compiled"].median / ours
    return result | {
        "tokens_per_s": args.new / ours,
        "seconds": {name: timing.to_json() for name, timing in timings.items()},
        "parameters": sum(x.size for x in state.values()),
        "rows": rows,
        "prompt": args.prompt,
        "new": args.new,
        "distinct_tokens": len(set(tokens["ours"].tolist())),
        "load": os.getloadavg()[0],
        "transformers_version": importlib.import_module("transformers").__version__,
    }


def qwen3(config: DecoderConfig) -> Any:
    """Transformers' model of these sizes with random weights, large enough that tokens differ."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    model = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=config.joint_vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=False,
            attn_implementation="sdpa",
        )
    ).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.normal_(std=1.0 if "embed" in name else tensor.shape[1] ** -0.5)
    return model


def released(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Qwen3's tensors under the release's names, the joint table and head cut into text and generation."""
    out = {}
    for name, x in state.items():
        if name == "lm_head.weight":
            out |= {"lm_head.weight": x[:TEXT_IDS], "gen_head.weight": x[TEXT_IDS:]}
        elif name == "model.embed_tokens.weight":
            out["model.language_model.embed_tokens.weight"] = x[:TEXT_IDS]
            out["model.language_model.gen_embed_tokens.weight"] = x[TEXT_IDS:]
        else:
            out[name.replace("model.", "model.language_model.", 1)] = x
    return out


def their_decoding(
    model: Any, prompts: np.ndarray, args: argparse.Namespace, *, compiled: bool
) -> Callable[[], np.ndarray]:
    """New tokens of the first row by ``generate``."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))

    class Guided(transformers.LogitsProcessor):
        """Generation tokens alone, both rows by the guided scores."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if len(scores) == 2:
                scores = (scores[1] + (scores[0] - scores[1]) * args.guidance).expand(2, -1).clone()
            scores[:, :TEXT_IDS] = -torch.inf
            return scores

    ids = torch.from_numpy(prompts)
    settings: dict[str, Any] = {"disable_compile": not compiled}
    if compiled:
        settings["compile_config"] = transformers.CompileConfig(fullgraph=False, mode="default")
        settings["compile_config"]._compile_all_devices = True

    def decode() -> np.ndarray:
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=transformers.LogitsProcessorList([Guided()]),
                max_new_tokens=args.new,
                min_new_tokens=args.new,
                do_sample=False,
                cache_implementation="static",
                pad_token_id=0,
                eos_token_id=None,
                **settings,
            )
        return out[0, prompts.shape[1] :].numpy()

    return decode


def our_decoding(decoder: Decoder, prompts: np.ndarray, args: argparse.Namespace) -> Callable[[], np.ndarray]:
    """New tokens of one picture, whose lines are longer than what is decoded."""
    first, stop = TEXT_IDS, decoder.config.vocab_size + decoder.config.gen_vocab_size
    plan = DecodePlan(VisualVocabulary(first, first, first, stop), Taps((-2,)))
    # a picture whose lines are longer than what is decoded, so that no end of line is forced
    one = lambda value, dtype=jnp.int32: jnp.asarray([value], dtype)  # noqa: E731
    settings = SamplingSettings(
        one(args.guidance, jnp.float32),
        one(0.0, jnp.float32),
        one(0),
        one(1.0, jnp.float32),
        one(1.0, jnp.float32),
    )
    requests = Requests(
        one(0), one(len(prompts) - 1), one(0, jnp.uint32), one(1), one(2 * args.new), settings
    )

    @jax.jit
    def decode(decoder: Decoder, ids: jax.Array, requests: Requests) -> jax.Array:
        prompts = prefill(decoder, ids, jnp.full(ids.shape[0], ids.shape[1]), plan)
        state = start(decoder, prompts, requests, args.new, plan, guided=args.guidance > 1)
        state = decode_chunk(decoder, state, args.new, plan)
        return state.tokens[0], state.features  # pyright: ignore[reportReturnType]

    ids = jnp.asarray(prompts, jnp.int32)
    return lambda: np.asarray(jax.block_until_ready(decode(decoder, ids, requests))[0])
