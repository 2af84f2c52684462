"""How far the autoencoder's posterior is from the standard normal law (Kingma and Welling 2014, appendix B)."""

import jax.numpy as jnp

from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.models.vae.model import Posterior
from mammoth_jax.objectives.losses import LossSum


def kl_loss(posterior: Posterior) -> LossSum:
    """``(mean^2 + var - 1 - log var) / 2``, in nats per element of the latents."""
    mean, logvar = at_least_float32(posterior.mean), at_least_float32(posterior.logvar)
    # expm1(l) - l is var - 1 - log var without the cancellation near var = 1.
    each = 0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar)
    return LossSum(jnp.sum(each), jnp.asarray(each.size, each.dtype))
