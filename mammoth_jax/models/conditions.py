"""From backbone features to the diffusion transformer's condition: one function for sampling and training."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.processing.condition_tokens import ConditionMode, condition_tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Condition:
    """Backbone features that condition the diffusion transformer, each kind moved to the front of its block.

    Rows hold one picture each; ``*_mask`` is true at valid tokens.  ``image`` is ``None`` where a branch has no
    features of generated visual tokens (negative prompts, text-only conditions).
    """

    text: Float[Array, "b t d"]
    text_mask: Bool[Array, "b t"]
    image: Float[Array, "b i d"] | None
    image_mask: Bool[Array, "b i"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedCondition:
    """The condition features of packed rows, which hold several samples each; which tokens condition is decided by
    :func:`condition_tokens` where rows are packed.

    Attributes:
      features: of all tokens of the rows.
      owner: the sample whose generated visual tokens (with their structure) each is, from 1 on; 0 elsewhere.
      index: the conditions, sample after sample, as places in ``[features ; queries of the samples]``; -1 is padding.
      segments: the sample of each condition token, from 1 on; 0 is padding.
      num_samples: samples of a row at most.
    """

    features: Float[Array, "b s d"]
    owner: Int[Array, "b s"]
    index: Int[Array, "b c"]
    segments: Int[Array, "b c"]
    num_samples: int = dataclasses.field(metadata={"static": True})


def compact(
    features: Float[Array, "b s d"], selected: Bool[Array, "b s"], size: int
) -> tuple[Float[Array, "b size d"], Bool[Array, "b size"]]:
    """The selected features of each row in order at the front of a block of ``size``; zeros after them."""
    order = jnp.argsort(~selected, axis=1, stable=True)[:, :size]
    mask = jnp.arange(size)[None] < jnp.sum(selected, axis=1)[:, None]
    taken = jnp.take_along_axis(features, order[..., None], axis=1)
    if taken.shape[1] < size:
        taken = jnp.pad(taken, ((0, 0), (0, size - taken.shape[1]), (0, 0)))
    return jnp.where(mask[..., None], taken, 0), mask


def build_condition(
    features: Float[Array, "b s d"],
    ids: Int[Array, "b s"],
    valid: Bool[Array, "b s"],
    is_answer: Bool[Array, "b s"],
    *,
    generation_start: int,
    vision_ids: tuple[int, ...],
    mode: ConditionMode,
    with_answer_text: bool,
    text_size: int,
    image_size: int,
) -> Condition:
    """Selects the condition tokens of each row (paper section 2.3; release: question text, answer's generation tokens).

    Args:
      features: the layer average of the backbone's hidden states.
      ids: token ids; ``generation_start`` and above are generation tokens, ``vision_ids`` placeholders of pictures.
      is_answer: true from the opening of the assistant's turn on.
      with_answer_text: whether text of the answer counts too (reasoning before drawing).
      text_size, image_size: lengths of the two blocks; at least the largest number of selected tokens.
    """
    is_text, is_image = condition_tokens(
        ids,
        is_answer,
        generation_start=generation_start,
        vision_ids=vision_ids,
        mode=mode,
        with_answer_text=with_answer_text,
    )
    text, text_mask = compact(features, valid & is_text, text_size)
    if mode == "text":
        return Condition(text, text_mask, None, None)
    image, image_mask = compact(features, valid & is_image, image_size)
    return Condition(text, text_mask, image, image_mask)
