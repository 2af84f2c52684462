"""Weights and choices of the tokenizers' losses; plain values, as a configuration file gives them."""

import dataclasses

from mammoth_jax.core.errors import InputError


def _check_weights(where: str, **weights: float | int) -> None:
    for name, weight in weights.items():
        if weight < 0:
            raise InputError(f"{where}.{name} {weight}: expected 0 (off) or a positive number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1:
    """Gradient penalty on real pictures."""

    weight: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeCam:
    """Logits are kept near the moving averages of the other side's."""

    weight: float = 0.001
    decay: float = 0.99


@dataclasses.dataclass(frozen=True)
class FixedWeight:
    """The adversarial term counts by its weight alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientRatio:
    """The weight is multiplied by the ratio of gradient norms at the last layer, at most ``limit``."""

    eps: float = 1e-4
    limit: float = 1e4


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The adversarial term; ``regularizer: null`` leaves the discriminator's loss to the hinge alone."""

    weight: float = 0.1
    start_step: int = 0
    balance: GradientRatio | FixedWeight = GradientRatio()
    regularizer: R1 | LeCam | None = LeCam()

    def __post_init__(self) -> None:
        _check_weights("adversarial", weight=self.weight, start_step=self.start_step)
        if self.weight == 0:
            raise InputError(
                "adversarial.weight 0: expected a positive number; write adversarial: null for no term"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerLossConfig:
    """Weights of the terms; 0 (``adversarial: null``) switches a term off.

    A term that is on needs its network: ``perceptual`` LPIPS, ``semantic`` a frozen teacher, ``adversarial`` a
    discriminator.  ``latent`` weighs the losses of the latents: the VAE's KL, or those of MammothTok's quantiser, whose
    coefficients among themselves are the model's own (``commitment``, ``entropy_ratio``).
    """

    l1: float = 1.0
    l2: float = 0.0
    perceptual: float = 1.0
    semantic: float = 0.5
    latent: float = 1.0
    adversarial: AdversarialConfig | None = AdversarialConfig()

    def __post_init__(self) -> None:
        _check_weights(
            "losses",
            l1=self.l1,
            l2=self.l2,
            perceptual=self.perceptual,
            semantic=self.semantic,
            latent=self.latent,
        )
        if self.l1 == self.l2 == self.perceptual == 0:
            raise InputError(
                "losses: l1, l2 and perceptual are all 0; nothing would train the reconstruction"
            )
