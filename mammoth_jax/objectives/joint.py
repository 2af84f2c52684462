"""The joint objective on packed rows: next token and flow matching in one pass (paper sections 3.1.1 and 3.1.2).

::

    ids (noised) ─ decoder ─┬─ hidden ─ both heads ─ cross entropy against the clean labels ─ ntp
    patches ─ tower ────────┤
                            └─ features ─ condition ─ Q-Former, refiner ─┐
    references ──────────────────────────────────────────────────────────┼─ DiT ─ velocity ─ flow
    x_t = t data + (1 - t) noise ────────────────────────────────────────┘

Batches are those of ``data/packing``.  One without drawing (text, understanding) lacks the diffusion arrays and has the
next-token term alone.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.flow.path import interpolate, velocity_target
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.backbone.multimodal import place_features
from mammoth_jax.models.backbone.vision_inputs import Qwen3VLVisionInputs
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.conditions import PackedCondition
from mammoth_jax.models.dit.context import encode_packed, packed_queries
from mammoth_jax.models.dit.packed import PackedPlaces, PackedReferences
from mammoth_jax.models.dit.sample_time import SampleTime
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.alignment import alignment_losses
from mammoth_jax.objectives.flow_matching import packed_flow_matching_losses
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.objectives.joint_draws import Batch, Draws, draws_pictures
from mammoth_jax.objectives.losses import LossSum, WeightedLosses
from mammoth_jax.objectives.ntp import IGNORED, next_token_losses_from_hidden

Terms = dict[str, LossSum]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JointForward:
    """What the model makes of a batch.

    Attributes:
      ntp: of each token; position ``t`` is scored against label ``t + 1``.
      features: the condition features of all tokens.
      velocity: of each target token.
      flow: of each drawn sample.
      alignment: of each sample with visual tokens, where the configuration asks for it; else ``None``.

    ``features``, ``velocity`` and ``flow`` are ``None`` in batches without drawing.
    """

    ntp: WeightedLosses
    features: Float[Array, "r s d"] | None = None
    velocity: Float[Array, "r n p"] | None = None
    flow: WeightedLosses | None = None
    alignment: WeightedLosses | None = None


def joint_forward(
    model: Mammoth, batch: Batch, draws: Draws, config: JointObjectiveConfig = JointObjectiveConfig()
) -> JointForward:
    """One pass of all parts that a batch needs.

    Raises:
      InputError: the model lacks a part, or its vision tower is of a family whose rows are not packed.
    """
    drawn = draws_pictures(batch)
    model.require("training on this batch", "text_decoder", *(("dit",) if drawn else ()))
    decoder = model.decoder
    assert decoder is not None
    embeddings = deepstack = None
    if "patches" in batch:
        embeddings, deepstack = _with_pictures(model, batch, draws)
    out = decoder(
        draws.ids,
        jnp.moveaxis(batch["token_positions"], 1, 0),
        segments=batch["token_segments"],
        embeddings=embeddings,
        deepstack=deepstack,
        taps=model.config.condition.taps if drawn else None,
    )
    ntp = next_token_losses_from_hidden(
        out.hidden,
        decoder.head.kernel[...],
        None if decoder.gen_head is None else decoder.gen_head.kernel[...],
        batch["labels"],
        vocab_size=decoder.config.vocab_size,
        gen_vocab_start_index=decoder.config.gen_vocab_start_index,
    )
    if not drawn:
        return JointForward(ntp)
    assert out.features is not None
    features = out.features if config.condition_gradients else jax.lax.stop_gradient(out.features)
    condition = PackedCondition(
        features,
        batch["token_sample"],
        batch["condition_index"],
        batch["condition_segments"],
        batch["sample_number"].shape[1],
    )
    refiner = None if model.config.condition.mode == "text" else model.refiner
    queries = None if refiner is None else packed_queries(refiner, condition)
    velocity, flow = _flow(model, batch, draws, condition, queries)
    alignment = None
    if config.alignment and refiner is not None and queries is not None:
        alignment = _alignment(refiner, batch, condition, queries)
    return JointForward(ntp, out.features, velocity, flow, alignment)


def joint_terms(forward: JointForward, batch: Batch, gen_vocab_start_index: int) -> Terms:
    """Sums and weights: ``ntp``, ``flow`` and ``alignment``, which are trained, and ``ntp`` by kind of target.

    ``ntp_image`` is of all generation tokens; ``ntp_visual`` of the codes among them alone, without the line ends and
    the end of the picture, which a model soon knows.
    """
    following = jnp.pad(batch["labels"][:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
    chosen = {
        "ntp_text": following < gen_vocab_start_index,
        "ntp_image": following >= gen_vocab_start_index,
    }
    if "noise_cells" in batch:
        chosen["ntp_visual"] = visual_targets(batch)
    terms = {"ntp": forward.ntp.sum()}
    for name, part in chosen.items():
        terms[name] = WeightedLosses(forward.ntp.losses, forward.ntp.weights * part).sum()
    for name in ("flow", "alignment"):
        losses: WeightedLosses | None = getattr(forward, name)
        if losses is not None:
            terms[name] = losses.sum()
    return terms


def visual_targets(batch: Batch) -> Bool[Array, "r s"]:
    """Where the next token is a visual token of a drawn picture."""
    return jnp.pad(batch["noise_cells"][:, 1:, 0] >= 0, ((0, 0), (0, 1)))


def survey(batch: Batch) -> dict[str, Array]:
    """What each term is divided by: its weight in the whole batch ``[accumulation, rows, ...]``, a part's share.

    The mean over parts of ``total / weight`` is then the sum over the batch divided by its weight, however the counted
    tokens and samples are spread over parts and devices.
    """
    parts = batch["labels"].shape[0]
    weights = {"ntp": jnp.sum(batch["labels"][..., 1:] != IGNORED, dtype=jnp.float32) / parts}
    if draws_pictures(batch):
        weights["flow"] = jnp.sum(batch["sample_tokens"] > 0, dtype=jnp.float32) / parts
        own = batch["token_sample"][..., None] == jnp.arange(1, batch["sample_number"].shape[-1] + 1)
        weights["alignment"] = jnp.sum(jnp.any(own, axis=-2), dtype=jnp.float32) / parts
    return weights


def weighted_loss(terms: Terms, whole: Mapping[str, Array], config: JointObjectiveConfig) -> Float[Array, ""]:
    """The scalar to differentiate for a part of a batch; a term that the batch lacks is 0."""
    factors = {"ntp": config.ntp, "flow": config.flow, "alignment": config.alignment}
    loss = jnp.float32(0)
    for name in (n for n in whole if n in terms):
        # no weight is smaller than one token in as many parts as a step can have
        loss = loss + factors[name] * terms[name].total / jnp.maximum(whole[name], 1e-6)
    return loss


def _with_pictures(model: Mammoth, batch: Batch, draws: Draws) -> tuple[Array, Array]:
    """Token embeddings with what the tower sees in its places, and its DeepStack features."""
    tower, decoder = model.vision, model.decoder
    if not isinstance(tower, Qwen3VLVision) or decoder is None:
        raise InputError(
            "training on pictures needs the vision tower of Qwen3-VL in this model; rows of the Qwen2.5-VL tower's "
            "windows are not packed"
        )
    names = ("patches", "patch_rope", "patch_frames", "patch_cells", "patch_cell_weights")
    seen = tower(Qwen3VLVisionInputs(*(batch[name] for name in names)))
    return place_features(decoder, draws.ids, seen, batch["feature_slots"])


def _flow(
    model: Mammoth,
    batch: Batch,
    draws: Draws,
    condition: PackedCondition,
    queries: Float[Array, "r q w"] | None,
) -> tuple[Float[Array, "r n p"], WeightedLosses]:
    """The velocity of the noised latents, and its losses."""
    dit = model.dit
    assert dit is not None and draws.time is not None and draws.data is not None and draws.noise is not None
    sample, num_samples = batch["target_sample"], condition.num_samples
    context = encode_packed(dit, model.refiner, condition, queries)
    # a token of padding has time 0, where its latent is noise
    time = SampleTime(draws.time, draws.time[..., None], sample).spread(draws.time)
    x = jax.vmap(interpolate)(draws.noise, draws.data, time)
    joint = dit.embed_packed(x, draws.time, context, _places(batch))
    velocity = dit.read_out(joint, dit.run(joint)[0])
    target = velocity_target(draws.noise, draws.data)
    return velocity, packed_flow_matching_losses(velocity, target, sample, num_samples)


def _alignment(
    refiner: QFormer, batch: Batch, condition: PackedCondition, queries: Float[Array, "r q w"]
) -> WeightedLosses:
    """What the queries add to themselves, beside the tokens at their places."""
    own = jnp.tile(refiner.query[...].astype(queries.dtype), (condition.num_samples, 1))
    source = refiner.embed(condition.features.astype(queries.dtype))
    visual = batch["noise_cells"][..., 0] >= 0
    return alignment_losses(queries - own, source, condition.owner, visual, condition.num_samples)


def _places(batch: Batch) -> PackedPlaces:
    names = ("patches", "segments", "number", "sample", "positions")
    references = None
    if batch["reference_patches"].shape[1]:
        references = PackedReferences(*(batch[f"reference_{name}"] for name in names))
    return PackedPlaces(batch["target_sample"], batch["target_positions"], batch["joint_index"], references)
