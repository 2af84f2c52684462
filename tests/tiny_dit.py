"""A tiny diffusion transformer, Q-Former and conditions with random weights, shared by several tests."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.transformer import DiT

WIDTH = 12
CONFIG = DiTConfig(
    condition_width=WIDTH,
    in_channels=2,
    out_channels=2,
    hidden_size=16,
    num_layers=2,
    num_refiner_layers=1,
    num_heads=2,
    num_kv_heads=1,
    multiple_of=8,
    ffn_dim_multiplier=0.5,
    axes_dim_rope=(4, 2, 2),
    axes_lens=(32, 8, 8),
    timestep_scale=100.0,
)
REFINER = QFormerConfig(input_width=WIDTH, width=16, num_queries=3, num_layers=1, num_heads=2)


def randomized(module: nnx.Module, seed: int) -> nnx.Module:
    """The module with every weight random, those that start at zero included."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, p in named_parameters(module).items():
        spread = 0.2 if name.endswith(("scale", "bias")) else max(p.shape[-1], 4) ** -0.5
        centre = 1.0 if name.endswith("scale") else 0.0
        values[name] = jnp.asarray(centre + spread * rng.standard_normal(p.shape), jnp.float32)
    return with_parameters(module, values)


def models() -> tuple[DiT, QFormer]:
    """The transformer and its Q-Former."""
    dit = abstract(lambda: DiT(CONFIG))
    refiner = abstract(lambda: QFormer(REFINER))
    return randomized(dit, 1), randomized(refiner, 2)


def condition(text_lengths, image_lengths=None, *, text_size=6, image_size=5, seed=3) -> Condition:
    """Features that differ from row to row; what lies past a row's length is random too and must not matter."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(text_lengths)[:, None]
    text = jnp.asarray(rng.standard_normal((len(lengths), text_size, WIDTH)), jnp.float32)
    text_mask = jnp.asarray(np.arange(text_size) < lengths)
    if image_lengths is None:
        return Condition(text, text_mask, None, None)
    image = jnp.asarray(rng.standard_normal((len(lengths), image_size, WIDTH)), jnp.float32)
    image_mask = jnp.asarray(np.arange(image_size) < np.asarray(image_lengths)[:, None])
    return Condition(text, text_mask, image, image_mask)


def row(tree, index: int):
    """One row of a batch, as a batch of one."""
    return jax.tree.map(lambda x: x[index : index + 1], tree)
