"""Losses of the vector quantiser.

With the compared value ``z``, its code ``e`` and the stop-gradient ``sg`` (van den Oord et al. 2017, eq. 3)::

    vq         = mean |e - sg(z)|^2                      moves the codes
    commitment = beta mean |sg(e) - z|^2                 moves the encoder
    entropy    = ratio (E_i H(p_i) - H(E_i p_i))         sharp choices, even use of the codes

with ``p_i = softmax(-distances_i / temperature)`` over all codes (Yu et al. 2023, MAGVIT-v2, eq. 3).
"""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float
from mammoth_jax.models.mammothtok.config import MammothTokConfig
from mammoth_jax.models.mammothtok.quantizer import Quantized
from mammoth_jax.objectives.losses import LossSum

_TEMPERATURE = 0.01
_LOG_EPS = 1e-5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizerLosses:
    """The quantiser's losses, already multiplied by their coefficients."""

    vq: LossSum
    commitment: LossSum
    entropy: LossSum


def quantizer_losses(quantized: Quantized, config: MammothTokConfig) -> QuantizerLosses:
    """All losses of the quantiser's result, with the coefficients of ``config``.

    The entropy loss is 0 where its ratio is 0; otherwise it compares every vector with every code.
    """
    commitment = commitment_loss(quantized)
    return QuantizerLosses(
        vq=vq_loss(quantized),
        commitment=LossSum(config.commitment * commitment.total, commitment.weight),
        entropy=_entropy(quantized, config.entropy_ratio),
    )


def vq_loss(quantized: Quantized) -> LossSum:
    """Squared distance of the codes to the constant encoder output, per element."""
    return _squared(quantized.codes - jax.lax.stop_gradient(quantized.z))


def commitment_loss(quantized: Quantized) -> LossSum:
    """Squared distance of the encoder output to its constant code, per element."""
    return _squared(jax.lax.stop_gradient(quantized.codes) - quantized.z)


def entropy_loss(distances: Float[Array, "... v"]) -> LossSum:
    """Mean entropy of the soft choices less the entropy of the mean choice.

    The mean choice is that of the vectors given: the loss of a batch is not the average of its parts' losses.  The
    weight is the number of vectors.
    """
    affinity = -at_least_float32(distances.reshape(-1, distances.shape[-1])) / _TEMPERATURE
    log_p = jax.nn.log_softmax(affinity, axis=-1)
    p = jnp.exp(log_p)
    mean_p = jnp.mean(p, axis=0)
    each = -jnp.mean(jnp.sum(p * log_p, axis=-1))
    overall = -jnp.sum(mean_p * jnp.log(mean_p + _LOG_EPS))
    count = jnp.float32(affinity.shape[0])
    return LossSum((each - overall) * count, count)


def _entropy(quantized: Quantized, ratio: float) -> LossSum:
    if ratio == 0:
        return LossSum(jnp.float32(0), jnp.float32(quantized.ids.size))
    loss = entropy_loss(quantized.distances)
    return LossSum(ratio * loss.total, loss.weight)


def _squared(x: Float[Array, "..."]) -> LossSum:
    return LossSum(jnp.sum(jnp.square(at_least_float32(x))), jnp.float32(x.size))
