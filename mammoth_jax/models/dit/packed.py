"""Where the picture tokens of packed rows belong: rows of several samples, as ``data`` packs them."""

import dataclasses

import jax

from mammoth_jax.core.types import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedReferences:
    """Reference pictures of packed rows.

    Attributes:
      patches: latent patches.
      segments: the reference that each is of, unique in its row, from 1 on; 0 is padding.
      number: which reference of its sample that is, from 0 on.
      sample: the sample, from 1 on; 0 is padding.
      positions: as ``positions.py`` defines them.
    """

    patches: Float[Array, "b n p"]
    segments: Int[Array, "b n"]
    number: Int[Array, "b n"]
    sample: Int[Array, "b n"]
    positions: Int[Array, "b n 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedPlaces:
    """What is known of the tokens of packed rows.

    Attributes:
      target_sample: the sample of each target token, from 1 on; 0 is padding.
      target_positions: as ``positions.py`` defines them.
      joint_index: the joint sequence, sample after sample, as places in ``[condition ; references ; target]``; -1 is
        padding.
      references: ``None`` where no row has any.
    """

    target_sample: Int[Array, "b n"]
    target_positions: Int[Array, "b n 3"]
    joint_index: Int[Array, "b s"]
    references: PackedReferences | None = None
