"""The discriminator and what LeCam regularisation keeps of it: new, or of the run that a later stage starts from."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.models.discriminator import Discriminator, DiscriminatorConfig
from mammoth_jax.objectives.adversarial import LogitAverages
from mammoth_jax.training.origin import tokenizer_source
from mammoth_jax.training.runs import held_shapes, is_run, load_weights, read_carried

DISCRIMINATOR = "discriminator"
"""The player's name."""


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Weights, and the moving averages of their logits."""

    network: nnx.Module
    logits: LogitAverages


def new_adversary(network: DiscriminatorConfig, seed: int, mesh: Mesh) -> Adversary:
    """Random weights that have seen nothing."""
    return Adversary(initialize(lambda: Discriminator(network), seed, mesh), LogitAverages.start())


def load_adversary(path: Path | str, part: str, network: DiscriminatorConfig, mesh: Mesh) -> Adversary | None:
    """The adversary of the run that trained a tokenizer; None where no run did, or it has none of these shapes.

    Args:
      path: where the tokenizer comes from.
      part: ``mammothtok`` or ``vae``.
      network: sizes.
      mesh: devices.

    Raises:
      InputError: there is no such checkpoint, or a run of joint training names no such tokenizer.
    """
    source = tokenizer_source(path, part)
    template = abstract(lambda: Discriminator(network))
    wanted = {name: tuple(p.shape) for name, p in named_parameters(template).items()}
    if not is_run(source) or held_shapes(source, DISCRIMINATOR) != wanted:
        return None
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    averages = dict.fromkeys((field.name for field in dataclasses.fields(LogitAverages)), scalar)
    logits = read_carried(source, {"logits": averages})["logits"]
    return Adversary(load_weights(source, template, mesh, DISCRIMINATOR), LogitAverages(**logits))
