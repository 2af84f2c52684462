"""Pictures and videos in the decoder's token sequence: their features take the place of placeholder tokens."""

import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.vision_inputs import VisionFeatures

NO_FEATURE = -1


def feature_slots(
    ids: Int[np.ndarray, "b s"],
    valid: Bool[np.ndarray, "b s"],
    *,
    image_token_id: int,
    video_token_id: int,
    image_tokens: int,
    video_tokens: int,
) -> Int[np.ndarray, "b s"]:
    """For each position the feature that belongs there, or :data:`NO_FEATURE`; worked out on the host.

    The features of all images of the batch come first, then those of all videos, each in the order of appearance, row
    after row.  Placeholders that are not ``valid`` (padding, hidden parts of a row) get none.

    Args:
      image_tokens, video_tokens: how many features the images and the videos have.

    Raises:
      InputError: more placeholders than features, or fewer.
    """
    slots = np.full(ids.shape, NO_FEATURE, np.int32)
    first = 0
    for name, token, count in (
        ("image", image_token_id, image_tokens),
        ("video", video_token_id, video_tokens),
    ):
        places = (ids == token) & valid
        found = int(places.sum())
        if found != count:
            raise InputError(
                f"the prompt has {found} {name} placeholder tokens, but the given {name}s make {count} tokens; "
                f"give {'fewer' if found < count else 'more'} {name}s, or write one placeholder for each"
            )
        slots[places] = first + np.arange(count)
        first += count
    return slots


def place_features(
    decoder: Decoder,
    ids: Int[Array, "b s"],
    features: VisionFeatures,
    slots: Int[Array, "b s"],
) -> tuple[Float[Array, "b s d"], Float[Array, "taps b s d"]]:
    """Token embeddings with the features in their places, and what DeepStack adds after the first layers.

    A slot is an index into the features of its own row, or into the only row of features, which then serves all rows of
    tokens.  The second result is zero where there is no picture.  Both go to the decoder as ``embeddings`` and
    ``deepstack``; the ids go along, since they choose the experts (placeholders are text ids, never generation tokens).
    """
    embeddings = decoder.embed_ids(ids)
    index, placed = slots[..., None], (slots != NO_FEATURE)[..., None]
    tokens = jnp.take_along_axis(features.tokens, index, axis=1, mode="clip").astype(embeddings.dtype)
    added = jnp.take_along_axis(features.deepstack, index[None], axis=2, mode="clip").astype(embeddings.dtype)
    return jnp.where(placed, tokens, embeddings), jnp.where(placed, added, 0)
