"""The release's faulty handling of unequal text lengths (``ReleaseFaults.padded_context``), kept apart.

The release concatenates ``[padded text | queries]`` and later takes the first ``n_text + n_query`` *rows* as the
condition: for a text shorter than the batch's longest, padding rows enter the sequence and the last queries are lost.
Its context refiner numbers positions by row, and the rows past ``n_text + n_query`` get no rotation factors at all, so
that their queries and keys are zero.  With equal lengths nothing differs from ``encode_condition``.
"""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.models.dit.block import run_blocks
from mammoth_jax.models.dit.positions import condition_positions, rope_factors, select_rope
from mammoth_jax.models.dit.transformer import Context, DiT


def refine_padded(dit: DiT, tokens: Float[Array, "b c d"], mask: Bool[Array, "b c"]) -> Context:
    """The context as the release computes it from embedded ``[text ; queries]`` and their validity."""
    index = jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape)
    taken = index < jnp.sum(mask, axis=1, keepdims=True)
    rope = select_rope(rope_factors(condition_positions(index), dit.config.axes_dim_rope), taken)
    tokens, _ = run_blocks(dit.context_refiner, tokens, rope, mask.astype(jnp.int32))
    return Context(tokens, taken.astype(jnp.int32), index)
