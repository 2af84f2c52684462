"""Runs our decoder on the recorded decoder cases of both backbones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert import backbone as table
from checkpoint_convert.load import load_arrays, released_tensors
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.decoder import Decoder, DecoderOutput
from mammoth_jax.objectives.ntp import next_token_losses
from mammoth_jax.processing.mrope import text_positions


def load_decoder(case: Case) -> Decoder:
    """The case's decoder, through the converter."""
    family = "qwen2_5_vl" if "qwen2_5" in case.config["model_type"] else "qwen3_vl"
    taps = len(case.config["vision_config"].get("deepstack_visual_indexes", ()))
    config = table.config_from_released(case.config["text_config"], family, taps)
    tensors = {name: x for name, x in case.weights.items() if not name.startswith("model.visual.")}
    return load_arrays(abstract(lambda: Decoder(config)), table.rules(config), tensors, case.name)


@jax.jit
def _forward(decoder: Decoder, ids: Array, positions: Array, segments: Array) -> tuple[DecoderOutput, Array]:
    out = decoder(ids, positions, segments=segments, keep_cache=True, keep_states=True)
    return out, decoder.logits(out.hidden)


@jax.jit
def _step(decoder: Decoder, ids: Array, cache: KVCache) -> tuple[Array, KVCache]:
    hidden, _, cache = decoder.step(ids, cache)
    return decoder.logits(hidden), cache


def run_text_decoder(case: Case) -> dict[str, Any]:
    """Hidden states, logits and positions of a left-padded batch; cached steps where the case has them."""
    decoder = load_decoder(case)
    ids, valid = case.inputs["input_ids"], case.inputs["attention_mask"].astype(bool)
    positions, deltas = text_positions(valid)
    out, logits = _forward(decoder, ids, positions, valid.astype(np.int32))
    assert out.states is not None
    states = np.asarray(out.states)
    if decoder.config.mrope_layout == "chunked":  # that release lists the final norm's output last
        states = np.concatenate([states[:-1], np.asarray(out.hidden)[None]])
    results = {
        "hidden_states": states * valid[None, ..., None],
        "last_hidden_state": np.asarray(out.hidden) * valid[..., None],
        "logits": np.asarray(logits) * valid[..., None],
        "prefill_logits": np.asarray(logits) * valid[..., None],
        "position_ids": positions,
        "rope_deltas": deltas,
    }
    if "step_tokens" in case.inputs:
        results |= cached_steps(decoder, out, case.inputs["step_tokens"], valid, positions, deltas)
    return {name: results[name] for name in case.entry["outputs"]}


def cached_steps(
    decoder: Decoder,
    out: DecoderOutput,
    tokens: np.ndarray,
    valid: np.ndarray,
    positions: np.ndarray,
    deltas: np.ndarray,
) -> dict[str, Any]:
    """Feeds ``tokens [steps, b]`` one after the other: logits, positions and the cache at the end."""
    assert out.keys is not None and out.values is not None
    prompt_length, steps = valid.shape[1], len(tokens)
    grow = ((0, 0), (0, 0), (0, 0), (0, steps), (0, 0))
    cache = KVCache(
        jnp.pad(out.keys, grow),
        jnp.pad(out.values, grow),
        jnp.asarray(prompt_length - valid.sum(1), jnp.int32),
        jnp.full(len(valid), prompt_length, jnp.int32),
        jnp.asarray(prompt_length + deltas[:, 0], jnp.int32),
    )
    step_positions, logits = [], []
    for ids in tokens:
        step_positions.append(np.broadcast_to(np.asarray(cache.position)[None, :, None], (3, len(ids), 1)))
        scores, cache = _step(decoder, ids, cache)
        logits.append(np.asarray(scores))
    shown = np.concatenate([valid, np.ones((len(valid), steps), bool)], axis=1)[None, :, None, :, None]
    return {
        "step_logits": np.stack(logits),
        "position_ids": np.concatenate([positions, *step_positions], axis=2),
        "cache_k": np.asarray(cache.keys) * shown,
        "cache_v": np.asarray(cache.values) * shown,
    }


def run_ntp_loss(case: Case) -> dict[str, Any]:
    """The next-token loss and its gradients, named as in the release."""
    decoder = load_decoder(case)
    ids, valid = case.inputs["input_ids"], case.inputs["attention_mask"].astype(bool)
    positions, _ = text_positions(valid)
    config = decoder.config

    def loss(decoder: Decoder):
        out = decoder(ids, positions, segments=valid.astype(np.int32))
        terms = next_token_losses(
            decoder.logits(out.hidden),
            jnp.asarray(case.inputs["labels"]),
            vocab_size=config.vocab_size,
            gen_vocab_start_index=config.gen_vocab_start_index,
        )
        return terms.sum().mean, terms

    (value, terms), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(decoder)
    results = {
        "loss": np.asarray(value)[None],
        "token_loss": np.asarray(terms.losses),
        "num_tokens": np.asarray(terms.sum().weight, np.int64)[None],
    }
    wanted = [name.removeprefix("grad.") for name in case.entry["outputs"] if name.startswith("grad.")]
    gradients = released_tensors(grads, table.rules(config), wanted)
    return results | {f"grad.{name}": x for name, x in gradients.items()}


RUNNERS: dict[str, Runner] = {
    "text_decoder_range": run_text_decoder,
    "text_decoder_ffn": run_text_decoder,
    "text_decoder_none": run_text_decoder,
    "decode_cache": run_text_decoder,
    "q25_text_decoder": run_text_decoder,
    "q25_text_decoder_attn": run_text_decoder,
    "ntp_loss": run_ntp_loss,
}
