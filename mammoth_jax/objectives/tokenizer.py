"""The two halves of a tokenizer's training step: the model's loss, and its discriminator's.

Both models (MammothTok, VAE) and all their terms meet here::

    model         = l1 L1 + l2 L2 + perceptual LPIPS + a w GAN + semantic (1 - cos) + latent (vq + ... | KL)
    discriminator = a (hinge + regulariser)

``w`` balances the adversarial term (``objectives/adversarial.py``) and ``a`` is 0 before its start step and 1 from then
on.  Everything that depends on the picture alone is differentiated there, once; the combined gradient then goes back
through the model in one pass.  A batch is complete: every picture counts alike.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float, Int, PRNGKeyArray
from mammoth_jax.models.discriminator import Discriminator
from mammoth_jax.objectives.adversarial import (
    LogitAverages,
    adaptive_weight,
    discriminator_hinge_loss,
    generator_hinge_loss,
    lecam_penalty,
    r1_penalty,
    started,
    with_cotangent,
)
from mammoth_jax.objectives.autoencoding import Autoencode, Autoencoded, ChosenCodes
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.objectives.reconstruction import l1_loss, l2_loss
from mammoth_jax.objectives.semantic import semantic_loss
from mammoth_jax.objectives.tokenizer_config import (
    R1,
    AdversarialConfig,
    GradientRatio,
    LeCam,
    TokenizerLossConfig,
)

Terms = dict[str, LossSum]
Batch = Mapping[str, Any]
Picture = Float[Array, "b rows cols 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Networks:
    """What the model's loss reads besides the model; nothing here gets a gradient.

    ``perceptual(picture, target)`` is a distance per picture; ``teacher(picture)`` gives features on a grid.  Both are
    modules or functions over pictures in [-1, 1].
    """

    discriminator: Discriminator | None = None
    perceptual: Callable[[Picture, Picture], Float[Array, " b"]] | None = None
    teacher: Callable[[Picture], Float[Array, "b tr tc e"]] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reconstructed:
    """What the model's half hands on, without gradient: its pictures and, for MammothTok, the codes."""

    picture: Float[Array, "b rows cols 3"]
    codes: ChosenCodes | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Opposite:
    """What the discriminator's half reads besides the discriminator: reconstructions, and the state of LeCam."""

    picture: Float[Array, "b rows cols 3"]
    averages: LogitAverages


def check_networks(config: TokenizerLossConfig, networks: Networks, autoencode: Autoencode) -> None:
    """Refuses a term that is on without what it needs.

    Raises:
      InputError: naming the key, what is missing and how to switch the term off.
    """
    if config.perceptual and networks.perceptual is None:
        raise InputError(
            f"losses.perceptual {config.perceptual}: the weights of VGG and LPIPS are not given; "
            "give their files, or write losses.perceptual: 0"
        )
    if config.semantic and not autoencode.has_semantic_head:
        raise InputError(
            f"losses.semantic {config.semantic}: this model has no semantic head; write losses.semantic: 0"
        )
    if config.semantic and networks.teacher is None:
        raise InputError(
            f"losses.semantic {config.semantic}: no semantic encoder is given; "
            "give its weights, or write losses.semantic: 0"
        )
    if config.adversarial is not None and networks.discriminator is None:
        raise InputError(
            f"losses.adversarial.weight {config.adversarial.weight}: no discriminator is given; "
            "configure one, or write losses.adversarial: null"
        )


def generator_terms(
    model: Any,
    networks: Networks,
    batch: Batch,
    key: PRNGKeyArray,
    step: Int[Array, ""] | int,
    *,
    config: TokenizerLossConfig,
    autoencode: Autoencode,
) -> tuple[Float[Array, ""], Terms, Reconstructed]:
    """The model's half: its loss, every term, and its pictures for the discriminator's half.

    Args:
      model: what is trained; the only argument that the loss has a gradient in.
      networks: the others.
      batch: ``picture``, in [-1, 1] or as uint8 pixels.
      key: of the run; the draws are named and depend on ``step``.
      step: of the training.
      config: the weights.
      autoencode: the model's forward pass.

    Returns:
      The scalar to differentiate, equal to the loss in value; the terms before their weights, by name, and the factor
      of the adversarial one as ``adversarial_weight``; what :class:`Opposite` and the revival of codes read.

    Raises:
      InputError: a term is on without its network.
    """
    check_networks(config, networks, autoencode)
    target = as_float(batch["picture"])
    made = autoencode(model, target, key, step)
    loss, terms = _picture_loss(made, target, networks, step, config, autoencode.dtype)
    for name, term in made.latent_terms.items():
        terms[name] = term.loss
        loss = loss + config.latent * term.coefficient * term.loss.mean
    if config.semantic:
        assert made.semantic is not None and networks.teacher is not None
        terms["semantic"] = semantic_loss(made.semantic, networks.teacher(target.astype(autoencode.dtype)))
        loss = loss + config.semantic * terms["semantic"].mean
    stop = jax.lax.stop_gradient
    return loss, jax.tree.map(stop, terms), jax.tree.map(stop, Reconstructed(made.picture, made.codes))


def discriminator_terms(
    discriminator: Discriminator,
    opposite: Opposite,
    batch: Batch,
    key: PRNGKeyArray,
    step: Int[Array, ""] | int,
    *,
    config: AdversarialConfig,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, ""], Terms, LogitAverages]:
    """The discriminator's half: real pictures up, reconstructions down, and the regulariser.

    Args:
      discriminator: what is trained; the only argument that the loss has a gradient in.
      opposite: the reconstructions of the model's half, and the moving averages of the logits.
      batch: ``picture``, in [-1, 1] or as uint8 pixels.
      key: unused; both halves are called alike.
      step: of the training.
      config: of the adversarial term.
      dtype: what the discriminator computes in.

    Returns:
      The scalar to differentiate (0 before the start step), the terms before their weights, and the averages after
      this batch (as they were before the start step, and if the regulariser is not LeCam).
    """
    del key

    def judge(picture: Picture) -> Float[Array, "b pr pc"]:
        return at_least_float32(discriminator(picture.astype(dtype)))

    on = started(step, config.start_step)
    target, averages = as_float(batch["picture"]), opposite.averages
    picture = jax.lax.stop_gradient(opposite.picture)
    terms: Terms = {}
    loss = jnp.float32(0)
    match config.regularizer:
        case R1(weight=weight):
            terms["r1"], real = r1_penalty(judge, target)
            generated = judge(picture)
            loss = weight * terms["r1"].mean
        case LeCam(weight=weight, decay=decay):
            real, generated = judge(target), judge(picture)
            averages = averages.update(real, generated, decay=decay, started=on)
            terms["lecam"] = lecam_penalty(real, generated, averages)
            loss = weight * terms["lecam"].mean
        case None:
            real, generated = judge(target), judge(picture)
    terms["discriminator"] = discriminator_hinge_loss(real, generated)
    loss = loss + terms["discriminator"].mean
    terms["logits_real"], terms["logits_generated"] = _mean_of(real), _mean_of(generated)
    return on * loss, jax.tree.map(jax.lax.stop_gradient, terms), averages


def as_float(picture: Array) -> Picture:
    """Pictures in [-1, 1] as they are, or uint8 pixels as ``x / 127.5 - 1``."""
    if picture.dtype == jnp.uint8:
        return picture.astype(jnp.float32) / 127.5 - 1
    return at_least_float32(picture)


def _picture_loss(
    made: Autoencoded,
    target: Picture,
    networks: Networks,
    step: Int[Array, ""] | int,
    config: TokenizerLossConfig,
    dtype: DTypeLike,
) -> tuple[Float[Array, ""], Terms]:
    """The losses of the picture: value, and gradient by way of one cotangent of the picture."""
    still = jax.lax.stop_gradient(made.picture)

    def reconstruction(picture: Picture) -> tuple[Float[Array, ""], Terms]:
        terms = {}
        if config.l1:
            terms["l1"] = l1_loss(picture, target)
        if config.l2:
            terms["l2"] = l2_loss(picture, target)
        if config.perceptual:
            assert networks.perceptual is not None
            distances = at_least_float32(networks.perceptual(picture.astype(dtype), target.astype(dtype)))
            terms["perceptual"] = LossSum(jnp.sum(distances), jnp.asarray(distances.size, distances.dtype))
        loss = sum(getattr(config, name) * term.mean for name, term in terms.items())
        return jnp.asarray(loss), terms

    (value, terms), cotangent = jax.value_and_grad(reconstruction, has_aux=True)(still)
    adversarial = config.adversarial
    if adversarial is None:
        return with_cotangent(value, made.picture, cotangent), terms

    assert networks.discriminator is not None
    discriminator = networks.discriminator

    def deception(picture: Picture) -> tuple[Float[Array, ""], LossSum]:
        loss = generator_hinge_loss(discriminator(picture.astype(dtype)))
        return loss.mean, loss

    (_, terms["adversarial"]), by_adversary = jax.value_and_grad(deception, has_aux=True)(still)
    weight = adversarial.weight * started(step, adversarial.start_step)
    if isinstance(adversarial.balance, GradientRatio):
        ratio = adversarial.balance
        weight = weight * adaptive_weight(
            made.last_layer, made.last, cotangent, by_adversary, eps=ratio.eps, limit=ratio.limit
        )
    terms["adversarial_weight"] = LossSum(weight, jnp.ones_like(weight))
    value = value + weight * terms["adversarial"].mean
    return with_cotangent(value, made.picture, cotangent + weight * by_adversary), terms


def _mean_of(logits: Float[Array, "..."]) -> LossSum:
    logits = at_least_float32(logits)
    return LossSum(jnp.sum(logits), jnp.asarray(logits.size, logits.dtype))
