"""Samples as token sequences, laid out by the very functions by which sampling lays out its prompts.

Targets are what the model writes by itself: an assistant's words with the token that ends its turn, a document from its
second token on, the visual tokens of a drawn picture with their line ends and the image-end; with reasoning also that,
and the opening of the picture that follows it.  The answer opening of a picture that is drawn at once is given while
sampling, so it is no target; nor is anything that a user says or shows.

Visual tokens are placeholders (codebook entry 0) until the pictures are encoded: ``codes`` says where they go.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Bool, Int
from mammoth_jax.data.example import Turn
from mammoth_jax.data.packing.geometry import Geometry
from mammoth_jax.data.packing.pictures import ReadPicture
from mammoth_jax.data.packing.positions import GridSize
from mammoth_jax.data.record import Picture
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.chat import Conversation, Media, reference_layout
from mammoth_jax.processing.mrope import multimodal_positions
from mammoth_jax.processing.prompts import (
    Part,
    answer_opening,
    assistant_opening_layout,
    drawing_prompt,
    drawn_layout,
    layout_ids,
    negative_prompt,
)
from mammoth_jax.processing.vision import Grid


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSequence:
    """One sequence of a row; it attends to itself alone.

    Attributes:
        ids: token ids.
        targets: tokens that the next-token loss counts; never the first.
        positions: on the axes (time, row, column), from 0.
        answer_start: index of the opening of the turn that draws; the length if there is none.
        codes: for each picture that is shown or drawn as visual tokens its number, and where they are.
        drawn: where the tokens of the drawn picture are.
        seen: numbers of the pictures whose tower tokens stand at the placeholders, in order.
    """

    ids: Int[np.ndarray, " n"]
    targets: Bool[np.ndarray, " n"]
    positions: Int[np.ndarray, "3 n"]
    answer_start: int
    codes: tuple[tuple[int, Int[np.ndarray, "rows cols"]], ...] = ()
    drawn: Int[np.ndarray, "rows cols"] | None = None
    seen: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def reread(self) -> "TokenSequence":
        """The same without pixels, on positions that count up equally on all axes, to be read only (release)."""
        counted = np.tile(np.arange(len(self), dtype=np.int32), (3, 1))
        return dataclasses.replace(self.without_targets(), positions=counted, seen=())

    def without_targets(self) -> "TokenSequence":
        """The same, to be read only."""
        return dataclasses.replace(self, targets=np.zeros_like(self.targets))


def drawing_sequence(
    geometry: Geometry,
    words: str,
    references: Sequence[ReadPicture],
    grid: GridSize,
    reasoning: str | None = None,
) -> TokenSequence:
    """A picture of ``grid`` drawn from words and references, after reasoning or at once.

    Pictures count the references from 0 on, then the target.
    """
    tokenizer, merge = geometry.tokenizer, geometry.template.merge_size
    content: list[Part] = []
    for shown in references:
        seen = None if shown.seen_grid is None else shown.seen_grid.tokens(merge)
        content += reference_layout(seen, None if shown.codes is None else _blank(shown.codes))
    written = None if reasoning is None else tokenizer.encode(reasoning)
    prompt = drawing_prompt(tokenizer, [*content, words], *grid, written)
    ids = np.asarray([*prompt.ids, *_drawn_ids(geometry, grid)], np.int32)
    targets = np.arange(len(ids)) >= len(prompt.ids)
    if written is not None:
        opening = len(layout_ids(tokenizer, assistant_opening_layout()))
        targets = np.arange(len(ids)) >= prompt.answer_start + opening
    drawn = len(prompt.ids) + _lines(grid)
    shown_at = np.flatnonzero(ids[: prompt.answer_start] == geometry.vocabulary.visual_start)
    codes = [*_deal_out(shown_at, [shown.codes for shown in references]), (len(references), drawn)]
    seen = [i for i, shown in enumerate(references) if shown.seen_grid is not None]
    grids = [references[i].seen_grid for i in seen]
    return TokenSequence(
        ids, targets, _positions(geometry, ids, grids), prompt.answer_start, tuple(codes), drawn, tuple(seen)
    )


def opening_sequence(geometry: Geometry, grid: GridSize, picture: int) -> TokenSequence:
    """What the unconditional row of autoregressive guidance sees: the answer opening, then the picture."""
    opening = answer_opening(geometry.tokenizer, *grid)
    ids = np.asarray([*opening, *_drawn_ids(geometry, grid)], np.int32)
    drawn = len(opening) + _lines(grid)
    targets = np.arange(len(ids)) >= len(opening)
    return TokenSequence(ids, targets, _positions(geometry, ids), 0, ((picture, drawn),), drawn)


def negative_sequence(geometry: Geometry) -> TokenSequence:
    """The negative prompt, whose every token conditions the diffusion transformer's negative branch."""
    ids = np.asarray(negative_prompt(geometry.tokenizer, geometry.negative_prompt), np.int32)
    return TokenSequence(ids, np.zeros(len(ids), bool), _positions(geometry, ids), len(ids))


def document_sequence(geometry: Geometry, text: str) -> TokenSequence:
    """A plain text from its start to the end-of-text; every token but the first is a target."""
    tokenizer = geometry.tokenizer
    ids = np.asarray([*tokenizer.encode(text), tokenizer.id_of(names.END_OF_TEXT)], np.int32)
    return TokenSequence(ids, np.arange(len(ids)) > 0, _positions(geometry, ids), len(ids))


def conversation_sequence(
    geometry: Geometry, turns: Sequence[Turn], pictures: Sequence[ReadPicture]
) -> TokenSequence:
    """A conversation up to its last answer; answers and the tokens that end them are targets.

    ``pictures`` are those of these turns, in order.

    Raises:
      InputError: turns out of order, an empty question, or a system turn that is not the first.
    """
    template, waiting, turns = geometry.template, iter(pictures), answered(turns)
    if turns and turns[0].role == "system":
        template = dataclasses.replace(template, system=turns.pop(0).text)
    talk = Conversation(geometry.tokenizer, template)
    answers: list[tuple[int, int]] = []
    for turn in turns:
        if turn.role == "user":
            content = [Media.IMAGE if isinstance(part, Picture) else part for part in turn.content]
            grids = [next(waiting).seen_grid for _ in turn.pictures]
            talk = talk.ask(content, [grid for grid in grids if grid is not None])
        elif turn.role == "assistant":
            first = len(talk.ids)
            talk = talk.answer(geometry.tokenizer.encode(turn.text))
            answers.append((first, len(talk.ids) + 1))  # the end of the turn, which the next question writes
        else:
            raise InputError("conversation: a system turn that is not the first")
    ids = np.asarray([*talk.ids, geometry.tokenizer.id_of(names.IM_END)], np.int32)
    targets = np.zeros(len(ids), bool)
    for first, stop in answers:
        targets[first:stop] = True
    seen = range(len(talk.media))
    positions = _positions(geometry, ids, [pictures[i].seen_grid for i in seen])
    return TokenSequence(ids, targets, positions, len(ids), seen=tuple(seen))


def answered(turns: Sequence[Turn]) -> list[Turn]:
    """The turns up to the last answer."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
    return list(turns[: last + 1])


def cut(
    geometry: Geometry, sequence: TokenSequence, tokens: int, pictures: Sequence[ReadPicture]
) -> TokenSequence:
    """The first ``tokens`` of a text at most, ended at its last target; empty if there is none.

    Pictures are shown before answers, so none is cut; those that no answer follows any more go as a whole.
    """
    targets = np.flatnonzero(sequence.targets[:tokens])
    stop = int(targets[-1]) + 1 if len(targets) else 0
    shown = int(np.count_nonzero(sequence.ids[:stop] == geometry.vocabulary.image_pad))
    seen = []
    for i in sequence.seen:
        grid = pictures[i].seen_grid
        shown -= 0 if grid is None else grid.tokens(geometry.template.merge_size)
        if shown >= 0:
            seen.append(i)
    return dataclasses.replace(
        sequence,
        ids=sequence.ids[:stop],
        targets=sequence.targets[:stop],
        positions=sequence.positions[:, :stop],
        answer_start=min(sequence.answer_start, stop),
        seen=tuple(seen),
    )


def _blank(grid: GridSize) -> list[list[int]]:
    """Codes that are not known yet."""
    return [[0] * grid[1]] * grid[0]


def _drawn_ids(geometry: Geometry, grid: GridSize) -> list[int]:
    return layout_ids(geometry.tokenizer, drawn_layout(_blank(grid)))


def _lines(grid: GridSize) -> Int[np.ndarray, "rows cols"]:
    """Where the visual tokens are among those of a drawn picture: each row has a line end."""
    rows, cols = np.indices(grid)
    return rows * (grid[1] + 1) + cols


def _deal_out(
    places: Int[np.ndarray, " n"], grids: Sequence[GridSize | None]
) -> list[tuple[int, Int[np.ndarray, "rows cols"]]]:
    """The places of visual tokens, picture by picture."""
    dealt, at = [], 0
    for number, grid in enumerate(grids):
        if grid is not None:
            count = grid[0] * grid[1]
            dealt.append((number, places[at : at + count].reshape(grid)))
            at += count
    return dealt


def _positions(
    geometry: Geometry, ids: Int[np.ndarray, " n"], grids: Sequence[Grid | None] = ()
) -> Int[np.ndarray, "3 n"]:
    """Positions of a sequence with pictures in the tower."""
    return multimodal_positions(
        ids[None],
        np.ones((1, len(ids)), bool),
        geometry.blocks,
        image_token_id=geometry.vocabulary.image_pad,
        video_token_id=geometry.vocabulary.video_pad,
        images=[grid for grid in grids if grid is not None],
    ).ids[:, 0]
