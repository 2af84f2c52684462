"""Feed-forward layers with experts, by exact hard or weighted routing; implementations beside their plain reference."""

from mammoth_jax.ops.routed_ffn.api import routed_ffn
from mammoth_jax.ops.routed_ffn.both import Both
from mammoth_jax.ops.routed_ffn.choice import use_routed_ffn
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.megablox import Megablox
from mammoth_jax.ops.routed_ffn.pallas_tpu import PallasTPU
from mammoth_jax.ops.routed_ffn.ragged import Ragged
from mammoth_jax.ops.routed_ffn.split import Split

__all__ = [
    "Both",
    "ExpertKernels",
    "Megablox",
    "PallasTPU",
    "Ragged",
    "Split",
    "routed_ffn",
    "use_routed_ffn",
]
