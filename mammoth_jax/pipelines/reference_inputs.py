"""References of a batch as the arrays that the programs take: few shapes, padding where rows differ."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.types import Float, Int
from mammoth_jax.models.backbone.multimodal import feature_slots
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.transformer import References
from mammoth_jax.ops.patchify import patchify
from mammoth_jax.pipelines.buckets import latent_bucket, patch_bucket
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.programs import see_program
from mammoth_jax.pipelines.references import Reference
from mammoth_jax.processing.mrope import PictureBlocks, Qwen3VLBlocks, Qwen25VLBlocks, multimodal_positions
from mammoth_jax.sampling.decode import PromptPictures


def prompt_pictures(
    loaded: LoadedModel,
    ids: Int[np.ndarray, "p s"],
    lengths: Int[np.ndarray, " p"],
    references: Sequence[Sequence[Reference]],
    *,
    num_tokens: int | None = None,
) -> PromptPictures | None:
    """Vision features of the pictures in prompts, where they go, and positions; ``None`` if there are none.

    All pictures of the batch go through the vision tower as one padded sequence, each one once for every prompt that
    shows it.

    Args:
      loaded: the model.
      ids, lengths: right-padded prompts with a placeholder for each vision token.
      references: pictures of each of the first rows, in order.
      num_tokens: padded number of vision tokens, by default a bucket.
    """
    patches = [shown.patches for row in references for shown in row if shown.patches is not None]
    tower = loaded.model.vision
    if not patches or tower is None:
        return None
    backbone = loaded.config.backbone
    merge = backbone.vision.spatial_merge_size
    grids = np.asarray([picture.grid for picture in patches], np.int32)
    count = sum(picture.grid.tokens(merge) for picture in patches)
    values = np.concatenate([picture.values for picture in patches])
    length = num_tokens * merge**2 if num_tokens else patch_bucket(len(values), merge)
    features = see_program(tower, tower.prepare(values, grids, [length]))
    valid = np.arange(ids.shape[1])[None] < lengths[:, None]
    names = {"image_token_id": backbone.image_token_id, "video_token_id": backbone.video_token_id}
    slots = feature_slots(ids, valid, **names, image_tokens=count, video_tokens=0)
    blocks: PictureBlocks = Qwen25VLBlocks(merge) if backbone.family == "qwen2_5_vl" else Qwen3VLBlocks(merge)
    rows = multimodal_positions(ids, valid, blocks, **names, images=grids)
    return PromptPictures(features, jnp.asarray(slots), jnp.asarray(rows.ids), jnp.asarray(rows.next))


def reference_latents(
    config: DiTConfig,
    references: Sequence[Sequence[Reference]],
    *,
    num_references: int | None = None,
    num_tokens: int | None = None,
) -> References | None:
    """The references' latents of each picture to draw, padded; ``None`` if there are none.

    ``num_references`` and ``num_tokens`` are the padded sizes, by default the most that occur and a bucket.
    """
    latents = [[shown.latents for shown in row if shown.latents is not None] for row in references]
    if not any(latents):
        return None
    longest = max(shown.num_patches(config.patch_size) for row in references for shown in row)
    return pack_references(
        latents,
        config.patch_size,
        num_references=num_references,
        num_tokens=num_tokens or latent_bucket(longest),
    )


def pack_references(
    latents: Sequence[Sequence[Float[np.ndarray, "rows cols c"]]],
    patch: int,
    *,
    num_references: int | None = None,
    num_tokens: int | None = None,
) -> References:
    """Reference latents of each picture as padded patch tokens.

    ``num_references`` and ``num_tokens`` are the padded sizes, by default the largest that occur; rows may have none,
    but not all.
    """
    grids = [[(x.shape[0] // patch, x.shape[1] // patch) for x in row] for row in latents]
    count = num_references or max(map(len, grids))
    longest = num_tokens or max(r * c for row in grids for r, c in row)
    channels = next(x.shape[-1] for row in latents for x in row)
    patches = np.zeros((len(latents), count, longest, patch * patch * channels), np.float32)
    sizes = np.zeros((len(latents), count, 2), np.int32)
    for i, row in enumerate(latents):
        for j, x in enumerate(row):
            flat = np.asarray(patchify(np.asarray(x)[None], patch))[0]
            patches[i, j, : len(flat)] = flat
            sizes[i, j] = grids[i][j]
    return References(jnp.asarray(patches), jnp.asarray(sizes))
