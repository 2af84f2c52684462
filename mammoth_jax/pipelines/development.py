"""From latents and visual tokens of a batch to its pictures: one launch for each size among them."""

from collections.abc import Sequence

import jax
import numpy as np

from mammoth_jax.core.types import Float, Int
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.ops.patchify import unpatchify
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import Picture
from mammoth_jax.pipelines.programs import develop_program, develop_tokens_program


def develop_pictures(
    loaded: LoadedModel,
    requests: Sequence[PictureRequest],
    latents: Float[jax.Array, "b n p"],
    tokens: Int[jax.Array, "b t"] | None,
    tiling: Tiling | None,
) -> list[Picture]:
    """Pictures of the first rows, one a request, decoded by the VAE; without ``tiling`` latents alone, no pixels.

    ``latents`` are patch tokens and ``tokens`` the ids that were decoded, both padded.
    """
    patch = loaded.config.dit.patch_size
    codes = _codes(loaded, requests, tokens)
    out: dict[int, Picture] = {}
    for size, rows in _groups([r.size.patches for r in requests]).items():
        if tiling is not None:
            drawn, grids = develop_program(
                loaded.model.vae, latents, rows, grid=size, patch_size=patch, tiling=tiling
            )
            drawn, grids = np.asarray(drawn), np.asarray(grids)
        else:
            flat = np.asarray(latents)[rows, : size[0] * size[1]]
            grids = np.asarray(unpatchify(flat, *size, patch))
            drawn = [np.zeros((0, 0, 3), np.uint8)] * len(rows)
        for i, row in enumerate(rows):
            out[row] = Picture(requests[row], drawn[i], codes[row], grids[i])
    return [out[row] for row in range(len(requests))]


def develop_token_pictures(
    loaded: LoadedModel, requests: Sequence[PictureRequest], tokens: Int[jax.Array, "b t"]
) -> list[Picture]:
    """Pictures of the first rows, one a request, by MammothTok's decoder from the ids that were decoded."""
    codes = _codes(loaded, requests, tokens)
    out: dict[int, Picture] = {}
    for grid, rows in _groups([r.size.tokens for r in requests]).items():
        drawn = develop_tokens_program(
            loaded.model.mammothtok, tokens, rows, grid=grid, visual_start=loaded.settings.visual_start
        )
        for i, row in enumerate(rows):
            out[row] = Picture(requests[row], np.asarray(drawn)[i], codes[row], None)
    return [out[row] for row in range(len(requests))]


def _codes(
    loaded: LoadedModel, requests: Sequence[PictureRequest], tokens: jax.Array | None
) -> list[np.ndarray | None]:
    """Codebook entries of each picture, without line ends."""
    if tokens is None:
        return [None] * len(requests)
    out = []
    for row, request in zip(np.asarray(tokens), requests, strict=False):
        rows, cols = request.size.tokens
        lines = row[: rows * (cols + 1)].reshape(rows, cols + 1)
        out.append(lines[:, :-1] - loaded.settings.visual_start)
    return out


def _groups(keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
    """Row numbers of each distinct key."""
    out: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(keys):
        out.setdefault(key, []).append(row)
    return {key: np.asarray(rows, np.int32) for key, rows in out.items()}
