"""What the joint objective draws at random for a packed batch: tokens to read, times and noise.

Every number is a function of the run's key at this step and of the sample's own name (its task and its number in the
task's order), never of the row, the device or the neighbours in the row.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Key

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.rng import named_key
from mammoth_jax.core.types import Array, Float, Int, PRNGKeyArray
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.objectives.noise import Neighbours, NoisePlaces, VisualCodes, add_noise
from mammoth_jax.ops.take_tokens import place_in_segment

Batch = Mapping[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers of a batch, and what follows from them.

    Attributes:
      ids: the tokens that the decoder reads; the labels are not touched.
      time: of each drawn sample, final: shifted.
      data: latents of the targets, drawn from their posteriors.
      noise: the other end of the path.

    The last three are ``None`` in batches without drawing.
    """

    ids: Int[Array, "r s"]
    time: Float[Array, "r samples"] | None = None
    data: Float[Array, "r n p"] | None = None
    noise: Float[Array, "r n p"] | None = None


def draws_pictures(batch: Batch) -> bool:
    """Whether a batch has a diffusion side."""
    return "condition_index" in batch


def draw(
    config: JointObjectiveConfig,
    batch: Batch,
    key: PRNGKeyArray,
    codes: VisualCodes | None = None,
    neighbours: Neighbours | None = None,
) -> Draws:
    """All draws of a batch.

    Args:
      config: laws and noise.
      batch: packed rows (``data/packing``).
      key: of the run at this step.
      codes, neighbours: the visual vocabulary, and its table of similar codes, which the noise needs.

    Raises:
      InputError: noise without the vocabulary or its table.
    """
    if not draws_pictures(batch):
        return Draws(batch["ids"])
    sample, num_samples = batch["target_sample"], batch["sample_number"].shape[1]
    ids = batch["ids"]
    if config.noise is not None:
        if codes is None:
            raise InputError("objective.noise: the ids of the visual tokens are not given")
        places = NoisePlaces(batch["noise_cells"].astype(jnp.int32), batch["noise_sample"])
        ids = add_noise(config.noise, ids, places, sample_keys(key, "noise/visual", batch), codes, neighbours)
    tokens = batch["sample_tokens"].reshape(-1)
    time = config.time_law(
        sample_keys(key, "flow/time", batch).reshape(-1), batch["sample_number"].reshape(-1)
    )
    time = config.time_shift(time, jnp.maximum(tokens, 1)).reshape(batch["sample_tokens"].shape)
    place = place_in_segment(sample, num_samples)
    posterior, noise = (
        _token_normals(sample_keys(key, name, batch), sample, place, batch["target_mean"].shape[-1])
        for name in ("flow/posterior", "flow/noise")
    )
    return Draws(ids, time, batch["target_mean"] + batch["target_std"] * posterior, noise)


def sample_keys(key: PRNGKeyArray, name: str, batch: Batch) -> Key[Array, "r samples"]:
    """A key for purpose ``name`` of each drawn sample, by its task and number."""

    def one(task: Array, number: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(named_key(key, name), task), number)

    return jax.vmap(jax.vmap(one))(batch["sample_task"], batch["sample_number"])


def _token_normals(
    keys: Key[Array, "r samples"], sample: Int[Array, "r n"], place: Int[Array, "r n"], values: int
) -> Float[Array, "r n p"]:
    """Standard normal values of each token, by its sample's key and its place in the sample."""
    index = jnp.maximum(sample - 1, 0)[..., None]
    own = jax.random.wrap_key_data(jnp.take_along_axis(jax.random.key_data(keys), index, axis=1))

    def token(key: Array, place: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, place), (values,))

    return jax.vmap(jax.vmap(token))(own, place)
