"""Semantic alignment of the tokenizer's decoder with a frozen encoder (paper appendix A.1).

Equation 1 there prints the mean cosine similarity itself as the loss, which minimising would turn into opposition;
here the loss is ``1 - cos``, which is what aligns the two.
"""

import jax
import jax.numpy as jnp

from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.ops.norm import l2_normalize


def semantic_loss(features: Float[Array, "b gr gc e"], teacher: Float[Array, "b tr tc e"]) -> LossSum:
    """``1 - cos`` per token between the semantic head's features and the teacher's, which get no gradient.

    A teacher's grid of another size is resized to the features' grid (bilinear, antialiased when it shrinks).
    """
    teacher = jax.lax.stop_gradient(at_least_float32(teacher))
    if teacher.shape != features.shape:
        teacher = jax.image.resize(teacher, features.shape, "linear")
    cosine = jnp.sum(l2_normalize(at_least_float32(features)) * l2_normalize(teacher), axis=-1)
    return LossSum(jnp.sum(1 - cosine), jnp.asarray(cosine.size, cosine.dtype))
