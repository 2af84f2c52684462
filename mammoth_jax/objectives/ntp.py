"""Next-token prediction over the joint vocabulary of text and generation tokens (paper section 3.1.1)."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.objectives.losses import WeightedLosses
from mammoth_jax.ops.cross_entropy import cross_entropy

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
    columns, counted = _next_columns(labels, vocab_size, gen_vocab_start_index)
    scores = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(scores, columns[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(scores, axis=-1) - picked
    return WeightedLosses(jnp.where(counted, losses, 0.0), counted.astype(jnp.float32))


def next_token_losses_from_hidden(
    hidden: Float[Array, "b s d"],
    head: Float[Array, "d vt"],
    gen_head: Float[Array, "d vg"] | None,
    labels: Int[Array, "b s"],
    *,
    vocab_size: int,
    gen_vocab_start_index: int,
) -> WeightedLosses:
    """:func:`next_token_losses` of the joint logits of two heads, which are never held (``ops/cross_entropy.py``).

    This is what training uses: final-normed states and the kernels of the text and the generation head.  Columns of the
    text head beyond ``vocab_size`` are padding.
    """
    columns, counted = _next_columns(labels, vocab_size, gen_vocab_start_index)
    heads = (head,) if gen_head is None else (head, gen_head)
    losses = cross_entropy(
        hidden.reshape(-1, hidden.shape[-1]),
        heads,
        jnp.where(counted, columns, -1).reshape(-1),
        num_columns=(vocab_size, *(gen.shape[1] for gen in heads[1:])),
    )
    return WeightedLosses(losses.reshape(labels.shape), counted.astype(jnp.float32))


def _next_columns(
    labels: Int[Array, "b s"], vocab_size: int, gen_vocab_start_index: int
) -> tuple[Int[Array, "b s"], Bool[Array, "b s"]]:
    """The column that each position is scored against, and whether it counts (0 where not)."""
    targets = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
    counted = targets != IGNORED
    columns = label_columns(
        jnp.where(counted, targets, 0), vocab_size=vocab_size, gen_vocab_start_index=gen_vocab_start_index
    )
    return columns, counted
