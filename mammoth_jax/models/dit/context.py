"""The condition's way into the transformer; independent of time, so done once a picture, outside the step loop."""

import jax.numpy as jnp

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.block import run_blocks
from mammoth_jax.models.dit.positions import condition_positions, rope_factors
from mammoth_jax.models.dit.release_context import refine_padded
from mammoth_jax.models.dit.transformer import Context, DiT


def encode_condition(
    dit: DiT, refiner: QFormer | None, condition: Condition, *, faults: ReleaseFaults = NO_FAULTS
) -> Context:
    """Caption embedder and alignment module, then the context refiner over ``[text ; queries]``.

    Rows may have any text length: a token's position counts the valid tokens before it, and padding between text and
    queries is masked.  Without a refiner, or without image features, the context is the text alone.
    """
    tokens, mask = embed_condition(dit, refiner, condition)
    if faults.padded_context:
        return refine_padded(dit, tokens, mask)
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    rope = rope_factors(condition_positions(positions), dit.config.axes_dim_rope)
    tokens, _ = run_blocks(dit.context_refiner, tokens, rope, mask.astype(jnp.int32))
    return Context(jnp.where(mask[..., None], tokens, 0), mask, positions)


def embed_condition(
    dit: DiT, refiner: QFormer | None, condition: Condition
) -> tuple[Float[Array, "b c d"], Bool[Array, "b c"]]:
    """The condition in the transformer's width, before refinement, and which tokens are valid."""
    if condition.image is None or condition.image_mask is None or refiner is None:
        return dit.caption(condition.text), condition.text_mask
    queries = refiner(condition.image, condition.image_mask)
    mask = jnp.concatenate([condition.text_mask, jnp.ones(queries.shape[:2], bool)], axis=1)
    if refiner.config.stage == "llm":
        return dit.caption(jnp.concatenate([condition.text.astype(queries.dtype), queries], axis=1)), mask
    return jnp.concatenate([dit.caption(condition.text), queries], axis=1), mask
