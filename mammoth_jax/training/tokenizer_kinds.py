"""The two models that turn pictures into something smaller and back, as their training and evaluation see them."""

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.types import Array, Float, Int, UInt8
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammothtok.model import MammothTok, to_uint8
from mammoth_jax.models.vae.model import VAE, postprocess
from mammoth_jax.objectives.autoencoding import Autoencode, ThroughCodes, ThroughGaussian


class Tokenizer(Protocol):
    """One kind of model."""

    @property
    def config(self) -> MammothConfig:
        """Of the whole model that it is a part of."""
        ...

    @property
    def part(self) -> str:
        """Its name: in ``Mammoth``, and for ``to-torch --part``."""
        ...

    @property
    def keep_float32(self) -> tuple[str, ...]:
        """Parameters that are never rounded."""
        ...

    @property
    def stride(self) -> int:
        """Sides of its pictures are multiples of this many pixels."""
        ...

    def build(self) -> nnx.Module:
        """The module, undefined in value."""
        ...

    def autoencode(self, dtype: DTypeLike) -> Autoencode:
        """Its forward pass in training, computed in ``dtype``."""
        ...

    def reconstruct(
        self, model: Any, picture: Float[Array, "b rows cols 3"]
    ) -> tuple[UInt8[Array, "b rows cols 3"], dict[str, Array]]:
        """Pixels as a user gets them back, and what was kept of the pictures: ``codes`` or ``latents``."""
        ...


@dataclasses.dataclass(frozen=True)
class MammothTokKind:
    """Pictures to integer codes."""

    config: MammothConfig
    part = "mammothtok"
    keep_float32 = ("quantizer",)

    @property
    def stride(self) -> int:
        """See :class:`Tokenizer`."""
        return self.config.mammothtok.encoder.patch_size

    def build(self) -> MammothTok:
        """See :class:`Tokenizer`."""
        return MammothTok(self.config.mammothtok)

    def autoencode(self, dtype: DTypeLike) -> Autoencode:
        """See :class:`Tokenizer`."""
        return ThroughCodes(self.config.mammothtok, jnp.dtype(dtype))

    def reconstruct(
        self, model: MammothTok, picture: Float[Array, "b rows cols 3"]
    ) -> tuple[UInt8[Array, "b rows cols 3"], dict[str, Int[Array, "b gr gc"]]]:
        """Decoded from the integer codes."""
        codes = model.encode(picture)
        return to_uint8(model.decode(codes)), {"codes": codes}


@dataclasses.dataclass(frozen=True)
class VAEKind:
    """Pictures to continuous latents."""

    config: MammothConfig
    part = "vae"
    keep_float32 = ()

    @property
    def stride(self) -> int:
        """See :class:`Tokenizer`."""
        return self.config.vae.factor

    def build(self) -> VAE:
        """See :class:`Tokenizer`."""
        return VAE(self.config.vae)

    def autoencode(self, dtype: DTypeLike) -> Autoencode:
        """See :class:`Tokenizer`."""
        return ThroughGaussian(jnp.dtype(dtype))

    def reconstruct(
        self, model: VAE, picture: Float[Array, "b rows cols 3"]
    ) -> tuple[UInt8[Array, "b rows cols 3"], dict[str, Float[Array, "b rows2 cols2 c"]]]:
        """Decoded from the mean of the posterior."""
        latents = model.encode(picture).mean
        return postprocess(model.decode(latents)), {"latents": latents}


KINDS = {"mammothtok": MammothTokKind, "vae": VAEKind}
"""By the name of the training task."""
