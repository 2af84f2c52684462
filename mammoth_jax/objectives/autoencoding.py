"""The forward passes of both tokenizers as their training needs them: a picture, what made it, and the latents' losses.

One object a kind of model; the rest of the training does not know which it trains.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.rng import named_key
from mammoth_jax.core.types import Array, Float, Int, PRNGKeyArray
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.models.mammothtok.config import MammothTokConfig
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.objectives.kl import kl_loss
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.objectives.vqgan import commitment_loss, entropy_loss, vq_loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChosenCodes:
    """The quantiser's choices of a batch: ids, and the vectors that were compared (normalised if the codes are)."""

    ids: Int[Array, "b gr gc"]
    z: Float[Array, "b gr gc c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentTerm:
    """A loss of the latents and its coefficient."""

    coefficient: float = dataclasses.field(metadata={"static": True})
    loss: LossSum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Autoencoded:
    """What a model makes of a batch.

    Attributes:
        picture: the reconstruction, about [-1, 1], at least float32.
        last_layer: the convolution that made it.
        last: what that convolution read.
        semantic: features of the semantic head on the token grid; ``None`` for a model without one.
        latent_terms: losses of the latents by name.
        codes: the choices of codes; ``None`` for a model without any.
    """

    picture: Float[Array, "b rows cols 3"]
    last_layer: Conv2d
    last: Float[Array, "b rows cols c"]
    semantic: Float[Array, "b gr gc e"] | None
    latent_terms: dict[str, LatentTerm]
    codes: ChosenCodes | None


@runtime_checkable
class Autoencode(Protocol):
    """The forward pass of one kind of model."""

    @property
    def dtype(self) -> DTypeLike:
        """What networks compute in."""
        ...

    @property
    def has_semantic_head(self) -> bool:
        """Whether ``semantic`` is there."""
        ...

    def __call__(
        self,
        model: Any,
        picture: Float[Array, "b rows cols 3"],
        key: PRNGKeyArray,
        step: Int[Array, ""] | int,
    ) -> Autoencoded:
        """Reconstructs pictures in [-1, 1]; differentiable in ``model``."""
        ...


@dataclasses.dataclass(frozen=True)
class ThroughCodes:
    """MammothTok: encoder, quantiser with its gradient estimator, decoder.

    ``config`` gives the coefficients of the quantiser's losses (``commitment``, ``entropy_ratio``).  Towers compute in
    ``dtype``; codes and losses in float32.
    """

    config: MammothTokConfig
    dtype: DTypeLike = jnp.float32
    has_semantic_head = True

    def __call__(
        self,
        model: MammothTok,
        picture: Float[Array, "b rows cols 3"],
        key: PRNGKeyArray,
        step: Int[Array, ""] | int,
    ) -> Autoencoded:
        """The reconstruction through the nearest codes; draws nothing from ``key``.

        Raises:
          InputError: a part of the model is absent.
        """
        encoder, quantizer, decoder = model.encoder, model.quantizer, model.decoder
        if encoder is None or quantizer is None or decoder is None:
            raise InputError("training MammothTok needs its encoder, codebook and decoder; one is absent")
        quantized = quantizer(encoder(picture.astype(self.dtype)))
        grid = quantized.ids.shape[1:]
        vit = decoder.vit
        tokens = vit.start(decoder.from_code(quantized.output.astype(self.dtype)))
        semantic = vit.semantic_head(tokens)
        stages = dict(decoder.cnn.stages(vit.output(vit.finish(tokens, grid), grid)))
        terms = {
            "vq": LatentTerm(1.0, vq_loss(quantized)),
            "commitment": LatentTerm(self.config.commitment, commitment_loss(quantized)),
        }
        if self.config.entropy_ratio:
            loss = entropy_loss(quantized.distances)
            terms["entropy"] = LatentTerm(self.config.entropy_ratio, loss)
        return Autoencoded(
            picture=at_least_float32(stages["picture"]),
            last_layer=decoder.cnn.conv_out,
            last=stages["last"],
            semantic=semantic.reshape(semantic.shape[0], *grid, -1),
            latent_terms=terms,
            codes=ChosenCodes(quantized.ids, quantized.z),
        )


@dataclasses.dataclass(frozen=True)
class ThroughGaussian:
    """The VAE: a sample of the posterior, decoded.  Towers compute in ``dtype``; the posterior is float32."""

    dtype: DTypeLike = jnp.float32
    has_semantic_head = False

    def __call__(
        self,
        model: VAE,
        picture: Float[Array, "b rows cols 3"],
        key: PRNGKeyArray,
        step: Int[Array, ""] | int,
    ) -> Autoencoded:
        """The reconstruction of one sample, whose noise depends on ``key`` and ``step`` alone."""
        posterior = model.encode(picture.astype(self.dtype))
        mean = posterior.mean
        noise = jax.random.normal(named_key(key, "objectives/posterior", step), mean.shape, mean.dtype)
        stages = dict(model.decoder.stages(posterior.sample(noise).astype(self.dtype)))
        return Autoencoded(
            picture=at_least_float32(stages["picture"]),
            last_layer=model.decoder.conv_out,
            last=stages["last"],
            semantic=None,
            latent_terms={"kl": LatentTerm(1.0, kl_loss(posterior))},
            codes=None,
        )
