"""The condition's way into the transformer; independent of time, so done once a picture, outside the step loop."""

import jax.numpy as jnp

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition, PackedCondition
from mammoth_jax.models.dit.block import run_blocks
from mammoth_jax.models.dit.positions import condition_positions, rope_factors
from mammoth_jax.models.dit.release_context import refine_padded
from mammoth_jax.models.dit.transformer import Context, DiT
from mammoth_jax.ops.take_tokens import place_in_segment, take_tokens


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
    return _refine(dit, tokens, mask.astype(jnp.int32), 1)


def packed_queries(refiner: QFormer, condition: PackedCondition) -> Float[Array, "b q width"]:
    """The alignment module's tokens for every sample of the rows, sample after sample."""
    return refiner(condition.features, condition.owner, condition.num_samples)


def encode_packed(
    dit: DiT,
    refiner: QFormer | None,
    condition: PackedCondition,
    queries: Float[Array, "b q width"] | None,
) -> Context:
    """:func:`encode_condition` for rows that hold several samples, from their :func:`packed_queries` if any."""
    tokens = take_tokens(_in_width(dit, refiner, condition.features, queries), condition.index)
    return _refine(dit, tokens, condition.segments, condition.num_samples)


def embed_condition(
    dit: DiT, refiner: QFormer | None, condition: Condition
) -> tuple[Float[Array, "b c d"], Bool[Array, "b c"]]:
    """The condition in the transformer's width, before refinement, and which tokens are valid."""
    if condition.image is None or condition.image_mask is None or refiner is None:
        return _in_width(dit, None, condition.text, None), condition.text_mask
    queries = refiner(condition.image, condition.image_mask)
    mask = jnp.concatenate([condition.text_mask, jnp.ones(queries.shape[:2], bool)], axis=1)
    return _in_width(dit, refiner, condition.text, queries), mask


def _in_width(
    dit: DiT,
    refiner: QFormer | None,
    text: Float[Array, "b t inputs"],
    queries: Float[Array, "b q width"] | None,
) -> Float[Array, "b c d"]:
    """``[text ; queries]`` in the transformer's width: queries pass the caption embedder where they still need to."""
    if refiner is None or queries is None:
        return dit.caption(text)
    if refiner.config.stage == "llm":
        return dit.caption(jnp.concatenate([text.astype(queries.dtype), queries], axis=1))
    return jnp.concatenate([dit.caption(text), queries], axis=1)


def _refine(
    dit: DiT, tokens: Float[Array, "b c d"], segments: Int[Array, "b c"], num_samples: int
) -> Context:
    """The context refiner over each sample's condition."""
    positions = place_in_segment(segments, num_samples)
    rope = rope_factors(condition_positions(positions), dit.config.axes_dim_rope)
    tokens, _ = run_blocks(dit.context_refiner, tokens, rope, segments)
    return Context(jnp.where((segments > 0)[..., None], tokens, 0), segments, positions)
