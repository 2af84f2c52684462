"""Next-token prediction over the joint vocabulary of text and generation tokens (paper section 3.1.1)."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.objectives.losses import WeightedLosses

IGNORED = -100


def label_columns(
    labels: Int[Array, "b s"], *, vocab_size: int, gen_vocab_start_index: int
) -> Int[Array, "b s"]:
    """Token ids as columns of the joint logits: id ``gen_vocab_start_index + j`` is column ``vocab_size + j``."""
    return jnp.where(labels >= gen_vocab_start_index, labels - gen_vocab_start_index + vocab_size, labels)


def next_token_losses(
    logits: Float[Array, "b s v"],
    labels: Int[Array, "b s"],
    *,
    vocab_size: int,
    gen_vocab_start_index: int,
) -> WeightedLosses:
    """Cross entropy at position ``t`` against ``labels[t + 1]`` over all columns, in float32.

    Labels are token ids; ``-100`` is ignored, as is whatever follows the last position.
    """
    targets = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
    counted = targets != IGNORED
    columns = label_columns(
        jnp.where(counted, targets, 0), vocab_size=vocab_size, gen_vocab_start_index=gen_vocab_start_index
    )
    scores = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(scores, columns[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(scores, axis=-1) - picked
    return WeightedLosses(jnp.where(counted, losses, 0.0), counted.astype(jnp.float32))
