"""What a configuration file says of training MammothTok or the VAE."""

import dataclasses
from typing import Literal

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.loader import DataConfig
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.discriminator import DiscriminatorConfig
from mammoth_jax.models.mammothtok.revival import Revival
from mammoth_jax.objectives.tokenizer_config import TokenizerLossConfig
from mammoth_jax.training.optimizer import AdamWConfig
from mammoth_jax.training.work import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFiles:
    """Published weights of networks that are never trained here; see ``checkpoint_convert/published.py``.

    ``vgg`` and ``lpips`` make the perceptual distance, ``semantic_encoder`` is the AIMv2 tower that codes are aligned
    with, ``inception`` gives rFID, ``encoder`` are AIMv2 weights that MammothTok's encoder starts from.
    """

    vgg: str | None = None
    lpips: str | None = None
    semantic_encoder: str | None = None
    inception: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        if (self.vgg is None) != (self.lpips is None):
            raise InputError(
                f"networks.vgg {self.vgg!r} and networks.lpips {self.lpips!r}: the perceptual distance needs both "
                "files; give both or neither"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorTraining:
    """The adversary and how it is trained."""

    network: DiscriminatorConfig = DiscriminatorConfig()
    optimizer: AdamWConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """A run that trains MammothTok or the VAE of ``model``.

    ``evaluation`` names the pictures that it is judged by.  ``dtype`` is that of weights and activations inside the
    networks (None: float32 on a CPU, bfloat16 elsewhere); master weights are float32 always.
    """

    task: Literal["mammothtok", "vae"]
    model: MammothConfig
    data: DataConfig
    evaluation: DataConfig
    losses: TokenizerLossConfig
    optimizer: AdamWConfig
    discriminator: DiscriminatorTraining | None = None
    networks: NetworkFiles = NetworkFiles()
    revival: Revival | None = None
    ema_decay: float | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    run: RunConfig

    def __post_init__(self) -> None:
        if (self.discriminator is None) != (self.losses.adversarial is None):
            raise InputError(
                "losses.adversarial and discriminator go together: give both, or write null for both"
            )
        if self.task == "vae" and (self.revival is not None or self.networks.encoder is not None):
            raise InputError(
                "revival and networks.encoder are MammothTok's; leave them out when training the VAE"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError(f"ema_decay {self.ema_decay}: expected a number between 0 and 1, or null")
