"""Requests of pictures as arrays of a few fixed shapes, so that few programs are compiled."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Int
from mammoth_jax.pipelines.geometry import PictureSize
from mammoth_jax.processing.prompts import answer_opening, negative_prompt, text_to_image_prompt
from mammoth_jax.processing.tokenizer import Tokenizer

MAX_PROMPT_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class PictureRequest:
    """One picture to draw."""

    prompt: str
    seed: int
    size: PictureSize


@dataclasses.dataclass(frozen=True)
class PromptRows:
    """Distinct prompts, right-padded, and which of them each picture uses.

    ``negative`` is ``None`` without a negative branch.  Rows past the requests (``num_rows`` is a bucket) repeat the
    first one with an empty grid.
    """

    ids: Int[np.ndarray, "p s"]
    lengths: Int[np.ndarray, " p"]
    answer_start: Int[np.ndarray, " p"]
    prompt: Int[np.ndarray, " r"]
    opening: Int[np.ndarray, " r"]
    negative: Int[np.ndarray, " r"] | None


def bucket(size: int, smallest: int = 1) -> int:
    """The next power of two, at least ``smallest``."""
    out = smallest
    while out < size:
        out *= 2
    return out


def token_bucket(size: int) -> int:
    """A buffer for ``size`` visual tokens: a power of two up to 256, then a multiple of 256."""
    return bucket(size, 32) if size <= 256 else -(-size // 256) * 256


def prompt_rows(
    tokenizer: Tokenizer,
    requests: Sequence[PictureRequest],
    *,
    negative: str | None,
    guided: bool,
    num_rows: int,
    max_prompt_tokens: int = MAX_PROMPT_TOKENS,
) -> PromptRows:
    """Tokenizes each distinct prompt once; with ``guided`` also each distinct answer opening.

    Raises:
      InputError: a prompt longer than ``max_prompt_tokens``.
    """
    known: dict[tuple, int] = {}
    rows: list[list[int]] = []
    starts: list[int] = []

    def row(key: tuple, make) -> int:
        if key not in known:
            ids, start = make()
            if len(ids) > max_prompt_tokens:
                raise InputError(
                    f"prompt of {len(ids)} tokens: at most {max_prompt_tokens} fit the cache; shorten {key[1]!r:.60}"
                )
            known[key] = len(rows)
            rows.append(ids)
            starts.append(start)
        return known[key]

    def question(request: PictureRequest) -> int:
        def make():
            prompt = text_to_image_prompt(tokenizer, request.prompt, *request.size.tokens)
            return prompt.ids, prompt.answer_start

        return row(("prompt", request.prompt, request.size.tokens), make)

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
    count, length = bucket(len(rows)), bucket(max(map(len, rows)), 32)
    ids = np.zeros((count, length), np.int32)
    for i, values in enumerate(rows):
        ids[i, : len(values)] = values
    lengths = np.zeros(count, np.int32)
    lengths[: len(rows)] = [len(values) for values in rows]
    answer_start = np.zeros(count, np.int32)
    answer_start[: len(rows)] = starts
    return PromptRows(
        ids,
        lengths,
        answer_start,
        np.asarray(prompts + prompts[:1] * fill, np.int32),
        np.asarray(openings + openings[:1] * fill, np.int32),
        negatives,
    )
