"""Configuration of the decoder."""

import dataclasses
from typing import Literal

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class ExpertRange:
    """Which layers have generation experts, ``start <= layer < stop``, and in which of their parts."""

    kind: Literal["none", "ffn", "ffn_attention"] = "none"
    start: int = 0
    stop: int = 0

    def __contains__(self, layer: int) -> bool:
        return self.kind != "none" and self.start <= layer < self.stop


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A transformer decoder with grouped-query attention, multi-axis rope and hard-routed experts.

    Token ids at and above ``gen_vocab_start_index`` are generation tokens: they are looked up in a table of their own
    of ``gen_vocab_size`` rows, use expert 1, and are scored by a head of their own.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    gen_vocab_size: int = 0
    gen_vocab_start_index: int = 0
    experts: ExpertRange = ExpertRange()
    num_ffn_experts: int = 2
    rms_norm_eps: float = 1e-6
    rope_theta: float = 5e6
    mrope_section: tuple[int, int, int] = (24, 20, 20)
    mrope_layout: Literal["interleaved", "chunked"] = "interleaved"
    qk_norm: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    causal: bool = True
    num_deepstack: int = 0

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if sum(self.mrope_section) * 2 != self.head_dim:
            raise InputError(
                f"mrope_section {self.mrope_section} must sum to head_dim / 2 = {self.head_dim // 2}"
            )
        if self.experts.kind != "none" and not 0 <= self.experts.start < self.experts.stop <= self.num_layers:
            raise InputError(
                f"experts {self.experts.start}:{self.experts.stop} are not a range of {self.num_layers} layers"
            )
        if self.num_ffn_experts < 2:
            raise InputError(f"num_ffn_experts {self.num_ffn_experts}: text and generation need at least 2")

    @property
    def joint_vocab_size(self) -> int:
        """Columns of the joint logits: text rows, then generation rows."""
        return self.vocab_size + self.gen_vocab_size


@dataclasses.dataclass(frozen=True)
class Segment:
    """A run of equal layers, ``start <= layer < stop``."""

    start: int
    stop: int
    has_experts: bool
    has_deepstack: bool

    @property
    def num_layers(self) -> int:
        """Layers in the run."""
        return self.stop - self.start


def layer_plan(config: DecoderConfig) -> tuple[Segment, ...]:
    """Cuts the decoder into runs of layers with the same parameters and inputs; each run is one scanned stack."""
    cuts = {0, config.num_layers, min(config.num_deepstack, config.num_layers)}
    if config.experts.kind != "none":
        cuts |= {config.experts.start, config.experts.stop}
    edges = sorted(cuts)
    return tuple(
        Segment(a, b, a in config.experts, a < config.num_deepstack)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    )
