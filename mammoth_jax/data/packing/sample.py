"""A sample ready for a row: its token sequences, its pictures, what is drawn of it, and how long all of that is.

A drawn sample has one to three sequences:

====================  =============================================================================================
nothing dropped       the prompt with the picture: targets and condition
``prompt``            the opening with the picture: targets; the prompt with the picture, read only: condition
``condition``         the prompt with the picture: targets; the negative prompt: condition
both                  the opening with the picture: targets; the negative prompt: condition
====================  =============================================================================================

(where the condition of an edit is read as in the release, a sequence of its own without pixels takes that part).
"""

import dataclasses
from typing import Literal

import numpy as np

from mammoth_jax.core.types import Int
from mammoth_jax.data.example import Example
from mammoth_jax.data.packing.dropout import Dropped
from mammoth_jax.data.packing.geometry import DiffusionGeometry, Forms, Geometry
from mammoth_jax.data.packing.lengths import Lengths, PackingConfig
from mammoth_jax.data.packing.pictures import ReadPicture, read_reference, read_shown, read_target
from mammoth_jax.data.packing.sequences import (
    TokenSequence,
    answered,
    conversation_sequence,
    cut,
    document_sequence,
    drawing_sequence,
    negative_sequence,
    opening_sequence,
)
from mammoth_jax.processing.condition_tokens import condition_tokens


class TooLong(Exception):
    """A sample that fits no row; ``where`` names the array."""

    def __init__(self, where: str):
        super().__init__(where)
        self.where = where


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """The diffusion side of a sample.

    Attributes:
        conditioning: number of the sequence whose features condition the transformer.
        condition: tokens of it that do so as text.
        image: tokens of it that the alignment module makes its queries of; none in a negative branch.
        queries: how many queries there are.
        references: numbers of the pictures whose latents are given, in order.
        target: number of the picture that is drawn.
    """

    conditioning: int
    condition: Int[np.ndarray, " n"]
    image: Int[np.ndarray, " n"]
    queries: int
    references: tuple[int, ...]
    target: int

    @property
    def condition_length(self) -> int:
        """Condition tokens, queries included."""
        return len(self.condition) + self.queries


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A sample ready for a row."""

    sequences: tuple[TokenSequence, ...]
    pictures: tuple[ReadPicture, ...]
    drawn: Drawn | None
    lengths: Lengths
    fate: Literal["whole", "cut"] = "whole"


def prepare(example: Example, geometry: Geometry, packing: PackingConfig, dropped: Dropped) -> Prepared:
    """Lays a sample out and reads its pictures.

    Raises:
      TooLong: it fits no row, or its text must not be cut.
      UnreadableRecord: a picture cannot be read.
      InputError: turns out of order, or a picture that the model cannot take.
    """
    prepared = (
        _text(example, geometry, packing) if example.target is None else _drawing(example, geometry, dropped)
    )
    for name, length, room in zip(Lengths._fields, prepared.lengths, packing.budget, strict=True):
        if length > room:
            raise TooLong(name)
    return prepared


def _text(example: Example, geometry: Geometry, packing: PackingConfig) -> Prepared:
    turns = answered(example.turns)
    pictures = tuple(read_shown(picture, geometry) for turn in turns for picture in turn.pictures)
    if example.document is not None:
        sequence = document_sequence(geometry, example.document)
    else:
        sequence = conversation_sequence(geometry, turns, pictures)
    if len(sequence) <= packing.tokens:
        return _measured(geometry, (sequence,), pictures, None)
    shorter = cut(geometry, sequence, packing.tokens, pictures)
    if packing.too_long == "drop" or not len(shorter):
        raise TooLong("tokens")
    return dataclasses.replace(_measured(geometry, (shorter,), pictures, None), fate="cut")


def _drawing(example: Example, geometry: Geometry, dropped: Dropped) -> Prepared:
    assert example.target is not None
    diffusion, words = geometry.diffusion, example.turns[0].text
    read_prompt = not (dropped.prompt and (dropped.condition or diffusion is None))
    forms = Forms(
        vision=geometry.references.vision and read_prompt and geometry.tower is not None,
        tokens=geometry.references.tokens and read_prompt,
        latents=geometry.references.latents and diffusion is not None and not dropped.references,
    )
    references = tuple(read_reference(picture, geometry, forms) for picture in example.pictures)
    if diffusion is not None and forms.latents and len(references) > diffusion.max_references:
        raise TooLong("references")
    target = read_target(example.target, geometry)
    pictures, number = (*references, target), len(references)
    assert target.codes is not None
    sequences: list[TokenSequence] = []
    conditioning = 0
    if read_prompt:
        prompt = drawing_sequence(geometry, words, references, target.codes, example.reasoning)
        sequences.append(prompt.without_targets() if dropped.prompt else prompt)
    if dropped.prompt:
        sequences.append(opening_sequence(geometry, target.codes, number))
    if diffusion is None:
        return _measured(geometry, tuple(sequences), pictures, None)
    if dropped.condition:
        conditioning = len(sequences)
        sequences.append(negative_sequence(geometry))
        everything = np.arange(len(sequences[conditioning]))
        text, image = everything, everything[:0]
    else:
        if sequences[0].seen and diffusion.edit_condition == "release":
            again = sequences[0].reread()
            sequences = [*(s for s in sequences if s.targets.any()), again]
            conditioning = len(sequences) - 1
        text, image = conditioning_tokens(
            sequences[conditioning], geometry, diffusion, with_answer_text=example.reasoning is not None
        )
    shown = tuple(i for i in range(number) if pictures[i].latents is not None)
    queries = diffusion.queries if len(image) else 0
    drawn = Drawn(conditioning, text, image, queries, shown, number)
    return _measured(geometry, tuple(sequences), pictures, drawn)


def conditioning_tokens(
    sequence: TokenSequence,
    geometry: Geometry,
    diffusion: DiffusionGeometry,
    *,
    with_answer_text: bool = False,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """The tokens that condition the transformer as text, and those that the alignment module makes queries of.

    Text of the answer counts ``with_answer_text`` or where the geometry says so.
    """
    text, image = condition_tokens(
        sequence.ids,
        np.arange(len(sequence)) >= sequence.answer_start,
        generation_start=geometry.vocabulary.generation_start,
        vision_ids=geometry.vocabulary.vision_ids,
        mode=diffusion.mode,
        with_answer_text=with_answer_text or diffusion.with_answer_text,
    )
    return np.flatnonzero(text), np.flatnonzero(image)


def _measured(
    geometry: Geometry,
    sequences: tuple[TokenSequence, ...],
    pictures: tuple[ReadPicture, ...],
    drawn: Drawn | None,
) -> Prepared:
    tokens = sum(map(len, sequences))
    merge = geometry.template.merge_size**2
    seen = [pictures[i].seen_grid for sequence in sequences for i in sequence.seen]
    patches = sum(merge * grid.tokens(geometry.template.merge_size) for grid in seen if grid is not None)
    if drawn is None:
        return Prepared(sequences, pictures, None, Lengths(tokens, patches))
    references = sum(pictures[i].num_patches for i in drawn.references)
    target = pictures[drawn.target].num_patches
    joint = drawn.condition_length + references + target
    lengths = Lengths(tokens, patches, drawn.condition_length, references, target, joint, 1)
    return Prepared(sequences, pictures, drawn, lengths)
