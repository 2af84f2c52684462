"""Recorded samples as one batch of our transformer, and its results in the release's layout.

The release lays sequences out compactly, ``[condition ; references ; target]`` without gaps, and its latents are
channels first; ours have masked gaps and are channels last.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.types import Array
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.embeddings import time_sinusoid
from mammoth_jax.models.dit.positions import rope_factors
from mammoth_jax.models.dit.transformer import DiT, References
from mammoth_jax.ops.patchify import patchify, unpatchify


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row: latent ``[c, rows, cols]``, time, compacted features and references' latents, as recorded."""

    latent: np.ndarray
    time: np.floating
    text: np.ndarray
    text_mask: np.ndarray
    image: np.ndarray | None = None
    image_mask: np.ndarray | None = None
    references: tuple[np.ndarray, ...] = ()


class Batch:
    """Samples of any sizes and lengths as one batch of ours, and its results in the release's layout."""

    def __init__(
        self, dit: DiT, refiner: QFormer | None, samples: Sequence[Sample], faults: ReleaseFaults = NO_FAULTS
    ):
        self.config, self.samples = dit.config, samples
        patch = dit.config.patch_size
        has_images = samples[0].image is not None
        self.condition = Condition(
            jnp.asarray(_padded([s.text for s in samples])),
            jnp.asarray(_padded([s.text_mask for s in samples])),
            jnp.asarray(_padded([s.image for s in samples])) if has_images else None,
            jnp.asarray(_padded([s.image_mask for s in samples])) if has_images else None,
        )
        self.sizes = np.array([token_grid(s.latent, patch) for s in samples], np.int32)
        self.references = stack_references([s.references for s in samples], patch)
        x = _padded([to_tokens(s.latent, patch) for s in samples])
        time = np.array([s.time for s in samples], np.float32)
        out = _evaluate(dit, refiner, self.condition, x, time, self.sizes, self.references, faults)
        self.out: dict[str, Any] = jax.tree.map(np.asarray, out)

    def velocity(self, row: int) -> np.ndarray:
        """``[c, rows, cols]`` of one sample."""
        rows, cols = self.sizes[row]
        return to_latent(self.out["velocity"][row], int(rows), int(cols), self.config.patch_size)

    def variant(self, rows: Sequence[int], name: str = "") -> dict[str, Any]:
        """Every quantity of the samples ``rows``, as a batch of the release records it, names prefixed."""
        out = {
            key: value[list(rows)]
            for key, value in self.out.items()
            if value is not None and not key.endswith("blocks")
        }
        mask, context_mask = out["mask"], out["context_mask"]
        lengths, context_lengths = mask.sum(1), context_mask.sum(1)
        cos, sin = (np.repeat(out[key], 2, axis=-1) for key in ("cos", "sin"))
        noise = np.arange(mask.shape[1]) >= mask.shape[1] - self.out["velocity"].shape[1]
        context = np.arange(mask.shape[1]) < context_mask.shape[1]
        streams = {"context": mask & context, "ref": mask & ~noise & ~context, "noise": mask & noise}
        text_length = max(len(self.samples[row].text) for row in rows)
        padded_text = self.condition.text.shape[1]
        width = {"context": text_length + context_mask.shape[1] - padded_text}
        results: dict[str, Any] = {
            "timestep_proj": out["sinusoid"],
            "temb": out["time"],
            "caption_embed": out["caption"][:, :text_length],
            "position_ids": _compact(out["positions"], mask),
            "seq_lengths": lengths,
            "encoder_seq_lengths": context_lengths,
            "rope.joint.cos": _compact(cos, mask, fill=1),
            "rope.joint.sin": _compact(sin, mask),
        }
        if out.get("queries") is not None:
            results["ar_image_embed"] = out["queries"]
        for stream, valid in streams.items():
            results[f"rope.{stream}.cos"] = _compact(cos, valid, width.get(stream))
            results[f"rope.{stream}.sin"] = _compact(sin, valid, width.get(stream))
        last = self.config.num_refiner_layers - 1
        kept = np.r_[0:text_length, padded_text : context_mask.shape[1]]
        results[f"hidden.context_refiner.{last}"] = (out["context"] * out["embedded_mask"][..., None])[
            :, kept
        ]
        blocks = self.out["noise_blocks"][:, list(rows)]
        for layer in range(len(blocks)):
            results[f"hidden.noise_refiner.{layer}"] = _compact(blocks[layer], mask[:, noise])
        for layer, block in enumerate(self.out["joint_blocks"][:, list(rows)]):
            results[f"hidden.layers.{layer}"] = _compact(block, mask)
        if self.references is not None:
            for layer, block in enumerate(self.out["reference_blocks"]):
                results[f"hidden.ref_image_refiner.{layer}"] = self._refined_references(block, rows)
        return {f"{name}{key}": value for key, value in results.items()}

    def _refined_references(self, block: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """All references in order as rows of their own; a sample without any has one empty row."""
        assert self.references is not None
        sizes = np.asarray(self.references.sizes)
        block = block.reshape(*sizes.shape[:2], *block.shape[1:])
        longest = max(int(np.prod(size)) for row in rows for size in sizes[row])
        found = []
        for row in rows:
            count = max(1, len(self.samples[row].references))
            for each in range(count):
                valid = np.arange(longest) < np.prod(sizes[row, each])
                found.append(block[row, each, :longest] * valid[:, None])
        return np.stack(found)


@functools.partial(jax.jit, static_argnames="faults")
def _evaluate(
    dit: DiT,
    refiner: QFormer | None,
    condition: Condition,
    x: Array,
    time: Array,
    sizes: Array,
    references: References | None,
    faults: ReleaseFaults,
) -> dict[str, Any]:
    context = encode_condition(dit, refiner, condition, faults=faults)
    trace = dit.trace(x, time, context, sizes, references, faults=faults)
    cos, sin = rope_factors(trace.positions, dit.config.axes_dim_rope)
    embedded_mask, queries = condition.text_mask, None
    if refiner is not None and condition.image is not None and condition.image_mask is not None:
        queries = refiner(condition.image, condition.image_mask)
        embedded_mask = jnp.concatenate([embedded_mask, jnp.ones(queries.shape[:2], bool)], axis=1)
    return {
        "sinusoid": time_sinusoid(time, dit.config.timestep_scale),
        "time": trace.time,
        "caption": dit.caption(condition.text),
        "queries": queries,
        "embedded_mask": embedded_mask,
        "context": context.tokens,
        "context_mask": context.mask,
        "positions": trace.positions,
        "mask": trace.mask,
        "cos": cos,
        "sin": sin,
        "velocity": trace.velocity,
        "noise_blocks": trace.noise_blocks,
        "reference_blocks": trace.reference_blocks,
        "joint_blocks": trace.joint_blocks,
    }


def token_grid(latent: np.ndarray, patch: int) -> tuple[int, int]:
    return latent.shape[1] // patch, latent.shape[2] // patch


def to_tokens(latent: np.ndarray, patch: int) -> np.ndarray:
    """``[n, p]`` from ``[c, rows, cols]``."""
    return np.asarray(patchify(jnp.asarray(latent.transpose(1, 2, 0)[None]), patch))[0]


def to_latent(tokens: np.ndarray, rows: int, cols: int, patch: int) -> np.ndarray:
    """``[c, rows, cols]`` from ``[n, p]``."""
    return np.asarray(unpatchify(jnp.asarray(tokens[None]), rows, cols, patch))[0].transpose(2, 0, 1)


def _padded(arrays: Sequence[Any]) -> np.ndarray:
    """Arrays of different lengths as one, zeros at the end."""
    out = np.zeros((len(arrays), max(len(a) for a in arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return out


def _compact(x: np.ndarray, mask: np.ndarray, length: int | None = None, fill: float = 0) -> np.ndarray:
    """The masked positions of each row at its front, ``fill`` after them."""
    length = int(mask.sum(1).max()) if length is None else length
    out = np.full((len(x), length, *x.shape[2:]), fill, x.dtype)
    for row, valid in enumerate(mask):
        out[row, : valid.sum()] = x[row][valid]
    return out


def stack_references(latents: Sequence[Sequence[np.ndarray]], patch: int) -> References | None:
    count = max(len(row) for row in latents)
    if not count:
        return None
    tokens = [[to_tokens(latent, patch) for latent in row] for row in latents]
    longest = max(len(x) for row in tokens for x in row)
    values = next(x.shape[1] for row in tokens for x in row)
    patches = np.zeros((len(latents), count, longest, values), np.float32)
    sizes = np.zeros((len(latents), count, 2), np.int32)
    for i, row in enumerate(tokens):
        for j, x in enumerate(row):
            patches[i, j, : len(x)] = x
            sizes[i, j] = token_grid(latents[i][j], patch)
    return References(jnp.asarray(patches), jnp.asarray(sizes))
