"""Adversarial training of a reconstruction: hinge losses, what keeps the discriminator tame, and how much it counts.

With logits ``D`` per patch of real pictures ``x`` and reconstructions ``y``::

    discriminator = mean relu(1 - D(x)) / 2 + mean relu(1 + D(y)) / 2        Lim and Ye 2017, as in VQGAN
    generator     = - mean D(y)
    R1            = 1/2 E |d sum_p D_p(x) / dx|^2 / patches                  Mescheder et al. 2018, eq. 9
    LeCam         = E (D(x) - a_y)^2 + E (D(y) - a_x)^2                      Tseng et al. 2021, eq. 6

``a_x`` and ``a_y`` are moving averages of the logits of real pictures and of reconstructions.  All are plain sums over
global arrays, so that they do not depend on the number of devices.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.objectives.losses import LossSum

Logits = Float[Array, "b pr pc"]
Discriminate = Callable[[Float[Array, "b rows cols 3"]], Logits]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogitAverages:
    """Moving averages of the discriminator's mean logits; the state of LeCam regularisation.

    ``weight`` averages the constant 1 in the same way, so that ``real / weight`` is unbiased from the first step on.
    """

    real: Float[Array, ""]
    generated: Float[Array, ""]
    weight: Float[Array, ""]

    @classmethod
    def start(cls) -> "LogitAverages":
        """Nothing seen yet."""
        return cls(jnp.float32(0), jnp.float32(0), jnp.float32(0))

    def update(
        self, real: Logits, generated: Logits, *, decay: float, started: Float[Array, ""]
    ) -> "LogitAverages":
        """The averages with this batch's means; unchanged while ``started`` is 0."""
        step = (1 - decay) * jax.lax.stop_gradient(started)

        def mix(old: Array, new: Float[Array, "..."] | float) -> Array:
            return (old + step * (jax.lax.stop_gradient(jnp.mean(new)) - old)).astype(old.dtype)

        return LogitAverages(
            mix(self.real, at_least_float32(real)),
            mix(self.generated, at_least_float32(generated)),
            mix(self.weight, 1.0),
        )


def started(step: Int[Array, ""] | int, start_step: int) -> Float[Array, ""]:
    """1 from ``start_step`` on and 0 before; a traced factor, so that one program serves all steps."""
    return jnp.where(jnp.asarray(step) >= start_step, jnp.float32(1), jnp.float32(0))


def generator_hinge_loss(generated: Logits) -> LossSum:
    """The generator's loss: minus the logits of its pictures, per patch."""
    return _sum(-at_least_float32(generated))


def discriminator_hinge_loss(real: Logits, generated: Logits) -> LossSum:
    """The discriminator's loss, half from either side; both have equally many patches."""
    real, generated = at_least_float32(real), at_least_float32(generated)
    return _sum(0.5 * (jax.nn.relu(1 - real) + jax.nn.relu(1 + generated)))


def r1_penalty(discriminate: Discriminate, picture: Float[Array, "b rows cols 3"]) -> tuple[LossSum, Logits]:
    """Half the squared gradient of a picture's summed logits, per patch; and the logits, computed on the way.

    Dividing by the number of patches makes the penalty of one strength at any resolution.
    """
    logits, pull = jax.vjp(discriminate, picture)
    (gradient,) = pull(jnp.ones_like(logits))
    total = 0.5 * jnp.sum(jnp.square(at_least_float32(gradient)))
    return LossSum(total, jnp.asarray(logits.size, total.dtype)), logits


def lecam_penalty(real: Logits, generated: Logits, averages: LogitAverages) -> LossSum:
    """Squared distance of either side's logits to the other side's moving average, per patch."""
    weight = jnp.maximum(averages.weight, jnp.finfo(averages.weight.dtype).tiny)
    of_real, of_generated = averages.real / weight, averages.generated / weight
    real, generated = at_least_float32(real), at_least_float32(generated)
    return _sum(jnp.square(real - of_generated) + jnp.square(generated - of_real))


def adaptive_weight(
    last_layer: Conv2d,
    last: Float[Array, "b rows cols c"],
    by_reconstruction: Float[Array, "b rows cols 3"],
    by_adversary: Float[Array, "b rows cols 3"],
    *,
    eps: float,
    limit: float,
) -> Float[Array, ""]:
    """The ratio of two losses' gradient norms at the kernel of the decoder's last layer (VQGAN, eq. 7).

    Both losses are functions of the picture alone, so their gradients there, pulled through this one layer, are all
    that is needed: nothing else of the model is run backward.

    Args:
      last_layer: the convolution that makes the picture.
      last: what it reads.
      by_reconstruction: gradient of the reconstruction losses by the picture.
      by_adversary: gradient of the adversarial loss by the picture.
      eps: added to the denominator.
      limit: the weight is clipped to [0, limit].
    """
    picture, pull = jax.vjp(lambda layer: layer(jax.lax.stop_gradient(last)), last_layer)

    def norm(cotangent: Array) -> Array:
        (gradient,) = pull(cotangent.astype(picture.dtype))
        return jnp.sqrt(jnp.sum(jnp.square(at_least_float32(gradient.kernel[...]))))

    weight = norm(by_reconstruction) / (norm(by_adversary) + eps)
    return jax.lax.stop_gradient(jnp.clip(weight, 0.0, limit))


def with_cotangent(
    value: Float[Array, ""], picture: Float[Array, "b rows cols 3"], cotangent: Float[Array, "b rows cols 3"]
) -> Float[Array, ""]:
    """A scalar equal to ``value`` whose gradient by ``picture`` is ``cotangent``; neither gets a gradient itself.

    It stands for losses whose gradient by the picture is known already, so that they are not run backward twice.
    """
    stop = jax.lax.stop_gradient
    return stop(value) + jnp.sum(stop(cotangent) * (picture - stop(picture)))


def _sum(losses: Float[Array, "..."]) -> LossSum:
    return LossSum(jnp.sum(losses), jnp.asarray(losses.size, losses.dtype))
