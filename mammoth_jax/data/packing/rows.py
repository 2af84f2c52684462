"""Samples written into the arrays of a batch, which have fixed shapes; padding is the tail of each row.

Names and shapes (``R`` rows, ``S`` drawn samples a row at most) are in this package's README.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float, Int
from mammoth_jax.data.packing.geometry import DiffusionGeometry, Geometry, TowerGeometry
from mammoth_jax.data.packing.lengths import PackingConfig
from mammoth_jax.data.packing.sample import Drawn, Prepared
from mammoth_jax.data.record import Encoded
from mammoth_jax.ops.patchify import patchify
from mammoth_jax.processing.vision import Grid, patches_of
from mammoth_jax.processing.vision_places import frame_cells, interpolation

IGNORED = -100
"""Label of a token that is no target."""
NOTHING = -1
"""Index of padding."""

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """A sample in a row: its number in its pool's order, the pool, and its pictures as the frozen models see them.

    ``encoded`` has those that are needed, by their numbers.
    """

    number: int
    pool: int
    sample: Prepared
    encoded: Mapping[int, Encoded]


def pack_rows(rows: Sequence[Sequence[Placed]], geometry: Geometry, packing: PackingConfig) -> Batch:
    """A batch of these rows.

    Raises:
      InputError: codes or latents of another size than the picture's.
    """
    batch = _empty(len(rows), geometry, packing)
    for number, row in enumerate(rows):
        writer = _Row({name: array[number] for name, array in batch.items()}, geometry, packing)
        for placed in row:
            writer.add(placed)
    return batch


def _empty(rows: int, geometry: Geometry, packing: PackingConfig) -> Batch:
    def full(value: float, dtype: type, *shape: int) -> np.ndarray:
        return np.full((rows, *shape), value, dtype) if value else np.zeros((rows, *shape), dtype)

    tokens = packing.tokens
    batch = {
        "ids": full(0, np.int32, tokens),
        "labels": full(IGNORED, np.int32, tokens),
        "token_segments": full(0, np.int32, tokens),
        "token_positions": full(0, np.int32, 3, tokens),
        "noise_cells": full(NOTHING, np.int16, tokens, 2),
        "token_sample": full(0, np.int32, tokens),
    }
    if geometry.tower is not None and packing.patches:
        patches = packing.patches
        batch |= {
            "patches": full(0, np.float32, patches, geometry.tower.images.patch_values),
            "patch_rope": full(0, np.int32, patches, 2),
            "patch_frames": full(0, np.int32, patches),
            "patch_cells": full(0, np.int32, patches, 4),
            "patch_cell_weights": full(0, np.float32, patches, 4),
            "feature_slots": full(NOTHING, np.int32, tokens),
        }
    if geometry.diffusion is not None:
        values = geometry.diffusion.patch_values
        conditions, references, targets = packing.conditions, packing.references, packing.targets
        batch |= {
            "condition_index": full(NOTHING, np.int32, conditions),
            "condition_segments": full(0, np.int32, conditions),
            "reference_patches": full(0, np.float32, references, values),
            "reference_segments": full(0, np.int32, references),
            "reference_number": full(0, np.int32, references),
            "reference_sample": full(0, np.int32, references),
            "reference_positions": full(0, np.int32, references, 3),
            "target_mean": full(0, np.float32, targets, values),
            "target_std": full(0, np.float32, targets, values),
            "target_sample": full(0, np.int32, targets),
            "target_positions": full(0, np.int32, targets, 3),
            "joint_index": full(NOTHING, np.int32, packing.joint),
            "joint_segments": full(0, np.int32, packing.joint),
            "noise_sample": full(0, np.int32, tokens),
            "sample_number": full(0, np.uint32, packing.samples),
            "sample_task": full(0, np.int32, packing.samples),
            "sample_tokens": full(0, np.int32, packing.samples),
        }
    return batch


class _Row:
    """Writes samples one after the other into a row."""

    def __init__(self, arrays: Batch, geometry: Geometry, packing: PackingConfig):
        self._arrays, self._geometry, self._packing = arrays, geometry, packing
        self._tokens = self._patches = self._frames = self._segments = 0
        self._conditions = self._references = self._targets = self._joint = 0
        self._pictures = self._samples = 0

    def add(self, placed: Placed) -> None:
        """Writes a sample behind the others."""
        starts = [self._sequence(placed, number) for number in range(len(placed.sample.sequences))]
        if placed.sample.drawn is not None and self._geometry.diffusion is not None:
            self._draw(placed, placed.sample.drawn, self._geometry.diffusion, starts)

    def _sequence(self, placed: Placed, number: int) -> int:
        """Writes a token sequence; returns where it starts."""
        arrays, sequence, start = self._arrays, placed.sample.sequences[number], self._tokens
        ids = sequence.ids.copy()
        for picture, places in sequence.codes:
            ids[places] = self._geometry.vocabulary.visual_start + _codes(placed, picture, places.shape)
        part = slice(start, start + len(ids))
        self._segments += 1
        arrays["ids"][part] = ids
        arrays["labels"][part] = np.where(sequence.targets, ids, IGNORED)
        arrays["token_segments"][part] = self._segments
        arrays["token_positions"][:, part] = sequence.positions
        if sequence.drawn is not None:
            rows, cols = np.indices(sequence.drawn.shape)
            arrays["noise_cells"][start + sequence.drawn] = np.stack([rows, cols], axis=-1)
            if "noise_sample" in arrays:  # in every sequence of the sample, not only the one that conditions
                arrays["noise_sample"][start + sequence.drawn] = self._samples + 1
        if sequence.seen and self._geometry.tower is not None:
            slots = arrays["feature_slots"][part]
            slots[ids == self._geometry.vocabulary.image_pad] = self._see(
                placed, sequence.seen, self._geometry.tower
            )
        self._tokens += len(ids)
        return start

    def _see(self, placed: Placed, pictures: Sequence[int], tower: TowerGeometry) -> Int[np.ndarray, " m"]:
        """Writes pictures for the tower; returns where their tokens will be."""
        merge = tower.images.merge_size
        first = self._patches
        for number in pictures:
            shown = placed.sample.pictures[number]
            assert shown.seen is not None
            cut = patches_of(shown.seen, tower.images)
            part = slice(self._patches, self._patches + len(cut.values))
            self._frames += 1
            grid = _grid(cut.grid)
            places = frame_cells(grid, merge)
            cells, weights = interpolation(places, grid, tower.position_side)
            self._arrays["patches"][part] = cut.values
            self._arrays["patch_rope"][part] = places
            self._arrays["patch_frames"][part] = self._frames
            self._arrays["patch_cells"][part] = cells
            self._arrays["patch_cell_weights"][part] = weights
            self._patches += len(cut.values)
        return np.arange(first // merge**2, self._patches // merge**2)

    def _draw(
        self, placed: Placed, drawn: Drawn, diffusion: DiffusionGeometry, starts: Sequence[int]
    ) -> None:
        """Writes the diffusion side of a sample."""
        arrays, packing = self._arrays, self._packing
        slot, start = self._samples, starts[drawn.conditioning]
        sample = slot + 1
        self._samples += 1
        arrays["token_sample"][start + drawn.image] = sample
        queries = packing.tokens + slot * diffusion.queries + np.arange(drawn.queries)
        condition = np.concatenate([start + drawn.condition, queries])
        part = slice(self._conditions, self._conditions + len(condition))
        arrays["condition_index"][part] = condition
        arrays["condition_segments"][part] = sample
        joint = [np.arange(part.start, part.stop)]
        self._conditions = part.stop

        grids = [placed.sample.pictures[i].latents for i in (*drawn.references, drawn.target)]
        places = diffusion.positions.place(len(condition), [grid for grid in grids if grid is not None])
        for number, (picture, where) in enumerate(zip(drawn.references, places[:-1], strict=True)):
            part = slice(self._references, self._references + len(where))
            self._pictures += 1
            arrays["reference_patches"][part] = latent_patches(placed, picture, diffusion)[0]
            arrays["reference_segments"][part] = self._pictures
            arrays["reference_number"][part] = number
            arrays["reference_sample"][part] = sample
            arrays["reference_positions"][part] = where
            joint.append(packing.conditions + np.arange(part.start, part.stop))
            self._references = part.stop

        part = slice(self._targets, self._targets + len(places[-1]))
        mean, std = latent_patches(placed, drawn.target, diffusion)
        arrays["target_mean"][part] = mean
        arrays["target_std"][part] = std if diffusion.posterior == "sample" else 0
        arrays["target_sample"][part] = sample
        arrays["target_positions"][part] = places[-1]
        joint.append(packing.conditions + packing.references + np.arange(part.start, part.stop))
        self._targets = part.stop

        whole = np.concatenate(joint)
        part = slice(self._joint, self._joint + len(whole))
        arrays["joint_index"][part] = whole
        arrays["joint_segments"][part] = sample
        self._joint = part.stop
        arrays["sample_number"][slot] = placed.number
        arrays["sample_task"][slot] = placed.pool
        arrays["sample_tokens"][slot] = len(places[-1])


def latent_patches(
    placed: Placed, picture: int, diffusion: DiffusionGeometry
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"]]:
    """Mean and standard deviation of a picture's latents, scaled as the network sees them, as patch tokens.

    Raises:
      InputError: the encoder gave another size than asked for.
    """
    encoded, grid = placed.encoded[picture], placed.sample.pictures[picture].latents
    assert grid is not None
    expected = (grid[0] * diffusion.patch, grid[1] * diffusion.patch, diffusion.channels)
    if encoded.mean is None or encoded.mean.shape != expected:
        found = None if encoded.mean is None else encoded.mean.shape
        raise InputError(
            f"latents of shape {found}: expected {expected}; encode pictures with this model's VAE"
        )
    mean = np.asarray(encoded.mean, np.float32)
    std = np.zeros_like(mean)
    if encoded.logvar is not None:
        std = np.exp(np.float32(0.5) * np.asarray(encoded.logvar, np.float32)) * np.float32(
            abs(diffusion.scale)
        )
    scaled = (mean - np.float32(diffusion.shift)) * np.float32(diffusion.scale)
    return _patches(scaled, diffusion.patch), _patches(std, diffusion.patch)


def _patches(x: np.ndarray, patch: int) -> Float[np.ndarray, "n p"]:
    return np.asarray(patchify(x[None], patch)[0])  # type: ignore[arg-type]


def _codes(placed: Placed, picture: int, shape: tuple[int, ...]) -> Int[np.ndarray, "rows cols"]:
    codes = placed.encoded[picture].codes
    if codes is None or codes.shape != shape:
        found = None if codes is None else codes.shape
        raise InputError(
            f"codes of shape {found}: expected {shape}; encode pictures with this model's MammothTok"
        )
    return codes.astype(np.int32)


def _grid(grid: Grid) -> Int[np.ndarray, "3"]:
    return np.asarray(grid, np.int64)
