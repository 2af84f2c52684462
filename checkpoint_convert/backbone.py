"""The decoder's released names, relative to the causal model (``model.language_model.*``, ``lm_head``, ...)."""

from collections.abc import Mapping
from typing import Any

from checkpoint_convert.rules import Rule, linear, norm
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.config import DecoderConfig, ExpertRange, layer_plan

TEXT, EXPERTS = "text_decoder", "generation_experts"
_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
_FFN = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def rules(config: DecoderConfig) -> list[Rule]:
    """All tensors of the decoder; our side is relative to :class:`Decoder`."""
    model = "model.language_model."
    out = [
        Rule(TEXT, f"{model}embed_tokens.weight", "embed.table"),
        *norm(TEXT, f"{model}norm", "norm"),
        *linear(TEXT, "lm_head", "head"),
    ]
    if config.gen_vocab_size:
        out += [
            Rule(EXPERTS, f"{model}gen_embed_tokens.weight", "gen_embed.table"),
            *linear(EXPERTS, "gen_head", "gen_head"),
        ]
    for number, segment in enumerate(layer_plan(config)):
        layers = range(segment.start, segment.stop)
        out += _layer_rules(
            config, f"{model}layers.{{layer}}.", f"segments.{number}.", layers, segment.has_experts
        )
    return out


def _layer_rules(
    config: DecoderConfig, source: str, target: str, layers: range, has_experts: bool
) -> list[Rule]:
    out = [
        *norm(TEXT, f"{source}input_layernorm", f"{target}attention_norm", layers=layers),
        *norm(TEXT, f"{source}post_attention_layernorm", f"{target}ffn_norm", layers=layers),
    ]
    if config.qk_norm:
        out += norm(TEXT, f"{source}self_attn.q_norm", f"{target}attention.query_norm", layers=layers)
        out += norm(TEXT, f"{source}self_attn.k_norm", f"{target}attention.key_norm", layers=layers)
    attention_experts = 2 if has_experts and config.experts.kind == "ffn_attention" else 1
    for expert in range(attention_experts):
        part, mine = _expert(expert), f"{target}attention.experts.{expert}"
        for name, ours in _ATTENTION.items():
            theirs = f"{source}self_attn.{_prefix(expert)}{name}"
            out += linear(part, theirs, f"{mine}.{ours}", bias=config.qkv_bias, layers=layers)
        theirs = f"{source}self_attn.{_prefix(expert)}o_proj"
        out += linear(part, theirs, f"{mine}.out", bias=config.output_bias, layers=layers, num_inputs=2)
    for expert in range(config.num_ffn_experts if has_experts else 1):
        for name, ours in _FFN.items():
            theirs = f"{source}{_prefix(expert)}mlp.{name}"
            out += linear(_expert(expert), theirs, f"{target}ffn.{expert}.{ours}", layers=layers)
    return out


def _expert(expert: int) -> str:
    return TEXT if expert == 0 else EXPERTS


def _prefix(expert: int) -> str:
    """``gen_`` for the release's one generation expert; further experts are numbered."""
    return "" if expert == 0 else "gen_" if expert == 1 else f"gen{expert}_"


def config_from_released(text: Mapping[str, Any], family: str, num_deepstack: int) -> DecoderConfig:
    """The decoder's configuration from a released ``text_config`` of the family ``qwen3_vl`` or ``qwen2_5_vl``.

    Raises:
      InputError: a variant that this decoder does not have.
    """
    if text.get("tie_word_embeddings"):
        raise InputError(
            "tie_word_embeddings: the released model has separate heads; untie with checkpoint_convert assemble"
        )
    if text.get("use_sliding_window"):
        raise InputError("use_sliding_window: true is not supported; expected false")
    qwen3 = family == "qwen3_vl"
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    layers = int(text["num_hidden_layers"])
    has_generation = bool(text.get("extra_gen_vocab", "gen_vocab_size" in text))
    return DecoderConfig(
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_layers=layers,
        num_heads=text["num_attention_heads"],
        num_kv_heads=text["num_key_value_heads"],
        head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
        vocab_size=text["vocab_size"],
        gen_vocab_size=text.get("gen_vocab_size", 0) if has_generation else 0,
        gen_vocab_start_index=text.get("gen_vocab_start_index", 0) if has_generation else 0,
        experts=parse_moe_type(text.get("moe_type", "none"), layers, attention=not qwen3),
        rms_norm_eps=text.get("rms_norm_eps", 1e-6),
        rope_theta=float(text.get("rope_theta") or rope.get("rope_theta") or 1e6),
        mrope_section=tuple(rope["mrope_section"]),
        mrope_layout="interleaved" if rope.get("mrope_interleaved", qwen3) else "chunked",
        qk_norm=qwen3,
        qkv_bias=bool(text.get("attention_bias")) or not qwen3,
        output_bias=bool(text.get("attention_bias")),
        num_deepstack=num_deepstack,
    )


def config_to_released(config: DecoderConfig, family: str) -> dict[str, Any]:
    """The released ``text_config`` of a decoder."""
    qwen3 = family == "qwen3_vl"
    rope: dict[str, Any] = {"mrope_section": list(config.mrope_section)}
    rope |= {"mrope_interleaved": True, "rope_type": "default"} if qwen3 else {"type": "mrope"}
    text = {
        "model_type": f"mammothmoda2_{family}_text",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "vocab_size": config.vocab_size,
        "extra_gen_vocab": config.gen_vocab_size > 0,
        "gen_vocab_size": config.gen_vocab_size,
        "gen_vocab_start_index": config.gen_vocab_start_index,
        "moe_type": format_moe_type(config.experts),
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    return text | ({"head_dim": config.head_dim, "attention_bias": config.output_bias} if qwen3 else {})


def parse_moe_type(moe_type: str, num_layers: int, *, attention: bool = True) -> ExpertRange:
    """``"none"``, ``"ffn"``, ``"ffn-18:36"`` or ``"ffn_attention-14:28"``; the range is start <= layer < stop.

    The Qwen3-VL release accepts ``ffn_attention`` but builds only FFN experts (``attention=False``).

    Raises:
      InputError: another form.
    """
    kind, _, span = moe_type.partition("-")
    if kind == "none" and not span:
        return ExpertRange()
    start, colon, stop = span.partition(":")
    if kind not in ("ffn", "ffn_attention") or (span and not (colon and start.isdigit() and stop.isdigit())):
        raise InputError(
            f"moe_type {moe_type!r}: expected none, ffn, ffn-START:STOP or ffn_attention-START:STOP"
        )
    kept = "ffn_attention" if kind == "ffn_attention" and attention else "ffn"
    return ExpertRange(kept, int(start), int(stop)) if span else ExpertRange(kept, 0, num_layers)


def format_moe_type(experts: ExpertRange) -> str:
    """The inverse of :func:`parse_moe_type`."""
    return "none" if experts.kind == "none" else f"{experts.kind}-{experts.start}:{experts.stop}"
