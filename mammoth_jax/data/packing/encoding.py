"""Codes and latents of the pictures of a step: those that are known, and the others from the frozen models."""

import dataclasses
from collections.abc import Sequence

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.packing.pictures import PictureEncoder, ToEncode
from mammoth_jax.data.packing.rows import Placed
from mammoth_jax.data.packing.sample import Prepared
from mammoth_jax.data.packing.workers import Ready
from mammoth_jax.data.record import Encoded


def encode_rows(
    rows: Sequence[Sequence[tuple[int, Ready]]], encoder: PictureEncoder | None
) -> list[list[Placed]]:
    """The samples of all rows with their pictures encoded, all that must be in one call.

    Raises:
      InputError: a picture must be encoded and there is no encoder.
    """
    asked: list[ToEncode] = []
    places: dict[tuple[int, int], int] = {}
    for _, ready in (each for row in rows for each in row):
        for number in _needed(ready.sample):
            rest = ready.sample.pictures[number].rest
            if rest.tokens is not None or rest.latents is not None:
                places[id(ready), number] = len(asked)
                asked.append(rest)
    if asked and encoder is None:
        raise InputError(
            f"{len(asked)} pictures have no precomputed codes or latents; precompute them, or train with their models"
        )
    made = encoder.encode(asked) if asked and encoder is not None else []

    def place(pool: int, ready: Ready) -> Placed:
        encoded = {}
        for number in _needed(ready.sample):
            known, at = ready.sample.pictures[number].known, places.get((id(ready), number))
            encoded[number] = known if at is None else _joined(known, made[at])
        return Placed(ready.number, pool, ready.sample, encoded)

    return [[place(pool, ready) for pool, ready in row] for row in rows]


def _needed(sample: Prepared) -> list[int]:
    """Numbers of the pictures of which codes or latents go into the row."""
    numbers = {number for sequence in sample.sequences for number, _ in sequence.codes}
    if sample.drawn is not None:
        numbers |= {*sample.drawn.references, sample.drawn.target}
    return sorted(numbers)


def _joined(known: Encoded, made: Encoded) -> Encoded:
    """What was known, with what was made of the rest."""
    given = {f.name: getattr(known, f.name) for f in dataclasses.fields(known)}
    return dataclasses.replace(made, **{name: x for name, x in given.items() if x is not None})
