"""Requests of pictures as arrays of a few fixed shapes, so that few programs are compiled."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Int
from mammoth_jax.pipelines.buckets import bucket, prompt_bucket
from mammoth_jax.pipelines.geometry import PictureSize
from mammoth_jax.pipelines.references import Reference
from mammoth_jax.processing.prompts import Part, answer_opening, drawing_prompt, negative_prompt
from mammoth_jax.processing.tokenizer import Tokenizer

MAX_PROMPT_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class Reasoning:
    """What was written before a picture: its ids without the token that ended it, and their text."""

    ids: tuple[int, ...]
    text: str
    ended_by: Literal["image start", "end of turn", "budget"]


@dataclasses.dataclass(frozen=True)
class PictureRequest:
    """One picture to draw.

    Raises:
      InputError: a seed that is no unsigned 32-bit number.
    """

    prompt: str
    seed: int
    size: PictureSize
    references: tuple[Reference, ...] = ()
    reasoning: Reasoning | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: expected 0 to {2**32 - 1}")

    def content(self, merge_size: int) -> list[Part]:
        """The user's turn: the references' blocks, then the words."""
        return [*(part for shown in self.references for part in shown.parts(merge_size)), self.prompt]


@dataclasses.dataclass(frozen=True)
class PromptRows:
    """Distinct prompts, right-padded, and which of them each picture uses.

    ``negative`` is ``None`` without a negative branch.  Rows past the requests (``num_rows`` is a bucket) repeat the
    first one with an empty grid.  ``references`` are the pictures of each distinct prompt.
    """

    ids: Int[np.ndarray, "p s"]
    lengths: Int[np.ndarray, " p"]
    answer_start: Int[np.ndarray, " p"]
    prompt: Int[np.ndarray, " r"]
    opening: Int[np.ndarray, " r"]
    negative: Int[np.ndarray, " r"] | None
    references: tuple[tuple[Reference, ...], ...]


def prompt_rows(
    tokenizer: Tokenizer,
    requests: Sequence[PictureRequest],
    *,
    negative: str | None,
    guided: bool,
    num_rows: int,
    num_prompts: int | None = None,
    length: int | None = None,
    max_prompt_tokens: int = MAX_PROMPT_TOKENS,
    merge_size: int = 2,
) -> PromptRows:
    """Tokenizes each distinct prompt once; with ``guided`` also each distinct answer opening.

    ``num_prompts`` and ``length`` are the padded sizes of the prompts, by default buckets.
    ``max_prompt_tokens`` bounds what is left of a prompt without its references and its reasoning, and ``merge_size``
    is the vision tower's.

    Raises:
      InputError: a prompt longer than ``max_prompt_tokens``.
    """
    known: dict[tuple, int] = {}
    rows: list[list[int]] = []
    starts: list[int] = []
    shown: list[tuple[Reference, ...]] = []

    def row(key: tuple, make, references: tuple[Reference, ...] = (), reasoning: Sequence[int] = ()) -> int:
        if key not in known:
            ids, start = make()
            shown_ids = sum(reference.num_tokens(merge_size) for reference in references)
            check_words(len(ids) - shown_ids - len(reasoning), key[1], max_prompt_tokens)
            known[key] = len(rows)
            rows.append(ids)
            starts.append(start)
            shown.append(references)
        return known[key]

    def question(request: PictureRequest) -> int:
        written = None if request.reasoning is None else request.reasoning.ids

        def make():
            prompt = drawing_prompt(tokenizer, request.content(merge_size), *request.size.tokens, written)
            return prompt.ids, prompt.answer_start

        key = ("prompt", request.prompt, request.references, request.size.tokens, written)
        return row(key, make, request.references, written or ())

    def opening(request: PictureRequest) -> int:
        return row(
            ("opening", request.size.tokens), lambda: (answer_opening(tokenizer, *request.size.tokens), 0)
        )

    prompts = [question(r) for r in requests]
    openings = [opening(r) if guided else 0 for r in requests]
    negatives = None
    if negative is not None:

        def make():
            ids = negative_prompt(tokenizer, negative)
            return ids, len(ids)

        negatives = np.full(num_rows, row(("negative", negative), make), np.int32)
    fill = num_rows - len(requests)
    ids, lengths = padded_rows(rows, pictures=any(shown), count=num_prompts, length=length)
    answer_start = np.zeros(len(ids), np.int32)
    answer_start[: len(rows)] = starts
    return PromptRows(
        ids,
        lengths,
        answer_start,
        np.asarray(prompts + prompts[:1] * fill, np.int32),
        np.asarray(openings + openings[:1] * fill, np.int32),
        negatives,
        tuple(shown),
    )


def padded_rows(
    rows: Sequence[Sequence[int]], *, pictures: bool, count: int | None = None, length: int | None = None
) -> tuple[Int[np.ndarray, "p s"], Int[np.ndarray, " p"]]:
    """Ids of prompts, right-padded, and their lengths; buckets are finer where there are ``pictures``."""
    count = count or bucket(len(rows))
    length = length or prompt_bucket(max(map(len, rows)), pictures=pictures)
    ids = np.zeros((count, length), np.int32)
    for i, values in enumerate(rows):
        ids[i, : len(values)] = values
    lengths = np.zeros(count, np.int32)
    lengths[: len(rows)] = [len(values) for values in rows]
    return ids, lengths


def check_words(count: int, prompt: str, most: int = MAX_PROMPT_TOKENS) -> None:
    """Checks the length of a prompt's words.

    Raises:
      InputError: there are more than ``most`` tokens.
    """
    if count > most:
        raise InputError(f"prompt of {count} tokens: at most {most} fit the cache; shorten {prompt!r:.60}")
