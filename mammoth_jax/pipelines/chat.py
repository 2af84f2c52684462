"""Chat: questions about pictures, videos or nothing but words, answered in batches."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.cache import CacheFormat
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.pipelines.buckets import bucket
from mammoth_jax.pipelines.chat_inputs import ChatFormat, Dialogue, Picture, dialogue, text_inputs
from mammoth_jax.pipelines.loading import LoadedModel, Pipeline
from mammoth_jax.pipelines.step_formats import WeightFormat, check_formats
from mammoth_jax.processing.chat import media_first
from mammoth_jax.processing.special_tokens import END_OF_TEXT, IM_END
from mammoth_jax.sampling.logits import SamplingSettings
from mammoth_jax.sampling.text import TextPlan, TextRequests, TextState, read, write_answers

NEEDED_PARTS = ("text_decoder", "vision_tower")
CONTEXT_LENGTH = 32768
SMALLEST_CACHE = 64

read_program = jax.jit(read, static_argnames=("capacity", "cache_format"))
write_program = jax.jit(
    write_answers,
    static_argnames=("max_tokens", "plan"),
    donate_argnames="prompts",  # their cache is written on where it lies
)


@dataclasses.dataclass(frozen=True)
class ChatOptions:
    """How to answer: temperature 0 takes the best token; top-k 0, top-p 1 and repetition penalty 1 are off.

    ``None`` takes the checkpoint's setting (``und_generation_config.json``), for the temperature 0 unless the
    checkpoint samples.  ``decode_weights`` and ``cache`` say how writing holds the decoder's weights and its keys and
    values; ``int8`` is smaller and inexact.  A conversation's cache that is int8 once stays so.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int = 0
    decode_weights: WeightFormat = "model"
    cache: CacheFormat = "model"

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens {self.max_new_tokens}: at least 1 is needed")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature {self.temperature}: expected 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 0:
            raise InputError(f"top_k {self.top_k}: expected 0 (off) or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p}: expected more than 0 and at most 1")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < math.inf:
            raise InputError(f"repetition_penalty {self.repetition_penalty}: expected more than 0 (1 is off)")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: expected 0 to {2**32 - 1}")
        check_formats(self.decode_weights, self.cache)

    def resolved(self, loaded: LoadedModel) -> "ChatOptions":
        """With the checkpoint's settings where nothing is said."""
        settings = loaded.text_settings
        checkpoint = {
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature if settings.do_sample else 0.0,
            "top_k": settings.top_k or 0,
            "top_p": settings.top_p,
            "repetition_penalty": settings.repetition_penalty,
        }
        return dataclasses.replace(
            self, **{name: value for name, value in checkpoint.items() if getattr(self, name) is None}
        )

    @property
    def budget(self) -> int:
        """Most tokens of an answer, of resolved options."""
        assert self.max_new_tokens is not None
        return self.max_new_tokens

    def requests(self, count: int, num_rows: int) -> TextRequests:
        """For ``count`` questions, each with a seed of its own, and empty rows after them; of resolved options."""
        assert None not in dataclasses.astuple(self), "options must be resolved with a model first"
        n = num_rows
        asked = np.arange(n) < count
        return TextRequests(
            seed=((self.seed + np.arange(n)) % 2**32).astype(np.uint32),
            max_tokens=np.where(asked, self.budget, 0).astype(np.int32),
            settings=SamplingSettings(
                guidance=np.ones(n, np.float32),
                temperature=np.full(n, self.temperature, np.float32),
                top_k=np.full(n, self.top_k, np.int32),
                top_p=np.full(n, self.top_p, np.float32),
                repetition_penalty=np.full(n, self.repetition_penalty, np.float32),
            ),
        )


@dataclasses.dataclass(frozen=True)
class ChatOutput:
    """Answers in the order of the questions: their texts, and their ids with the stop token if there was one."""

    texts: list[str]
    ids: list[list[int]]


@dataclasses.dataclass(frozen=True, eq=False)
class ChatPipeline(Pipeline):
    """Answers questions with a loaded model; a conversation with its answers is at most ``context_length`` ids."""

    context_length: int = CONTEXT_LENGTH

    def __call__(
        self,
        question: str | Sequence[str | Sequence[Mapping[str, Any]]],
        *,
        images: Sequence[Sequence[Picture]] | None = None,
        videos: Sequence[Sequence[Path | str]] | None = None,
        **options: Any,
    ) -> ChatOutput:
        """Answers a batch: one launch reads all questions (another their pictures), one writes all answers.

        Args:
          question: one question, or several; instead of words also a conversation's messages as
            :func:`mammoth_jax.pipelines.chat_inputs.dialogue` takes them.
          images, videos: pictures and videos of each question, shown before its words (for messages: none).
          options: fields of :class:`ChatOptions`; question ``i`` is sampled with ``seed + i``.

        Raises:
          InputError: bad options, pictures or messages, a conversation longer than the cache, a missing part.
        """
        settings = chat_options(options).resolved(self.loaded)
        rows = self._dialogues([question] if isinstance(question, str) else list(question), images, videos)
        self.loaded.model.require("chat", "text_decoder")
        longest = max(len(row.conversation.ids) for row in rows)
        capacity = self.capacity(longest, settings.budget)
        num_rows = bucket(len(rows))
        with jax.set_mesh(self.loaded.mesh):
            inputs = text_inputs(self.loaded, rows, [0] * len(rows), [0] * len(rows), num_rows)
            decoder = self.loaded.model.decoder
            capacity = max(capacity, inputs.ids.shape[1])
            state = write_program(
                self.writer(settings),
                read_program(decoder, inputs, capacity=capacity, cache_format=settings.cache),
                settings.requests(len(rows), num_rows),
                max_tokens=bucket(settings.budget),
                plan=self.plan,
            )
            ids = written_ids(state)[: len(rows)]
        return ChatOutput([self.text(row) for row in ids], ids)

    def text(self, ids: Sequence[int]) -> str:
        """The words of an answer, without its stop token."""
        return self.loaded.tokenizer.decode(without_stop(ids, self.plan))

    def writer(self, options: ChatOptions) -> Decoder:
        """The decoder that writes answers; questions are read by the model's own."""
        own = self.loaded.model.decoder
        assert own is not None
        return self.loaded.int8_text_decoder if options.decode_weights == "int8" else own

    @property
    def plan(self) -> TextPlan:
        """What the writing programs are compiled for."""
        return TextPlan(stop_ids(self.loaded), self.loaded.config.backbone.vision_ids)

    def capacity(self, num_ids: int, max_new_tokens: int) -> int:
        """Slots a row for a conversation and its next answer, a power of two.

        Raises:
          InputError: they do not fit ``context_length``.
        """
        if num_ids + max_new_tokens > self.context_length:
            raise InputError(
                f"conversation of {num_ids} tokens with an answer of up to {max_new_tokens}: at most "
                f"{self.context_length} fit the cache; shorten it, show smaller pictures, or ask for fewer tokens"
            )
        return bucket(num_ids + max_new_tokens, SMALLEST_CACHE)

    def _dialogues(self, questions: Sequence[Any], images: Any, videos: Any) -> list[Dialogue]:
        if not questions:
            raise InputError("chat: no question; give at least one")
        for name, given in (("images", images), ("videos", videos)):
            if given is not None and len(given) != len(questions):
                raise InputError(
                    f"chat: {name} for {len(given)} of {len(questions)} questions; give one list for each question"
                )
            for item in given or ():
                if not isinstance(item, list | tuple):
                    raise InputError(f"chat: {name} {item!r:.80}; expected a list for each question")
        form, rows = ChatFormat.of(self.loaded), []
        for i, asked in enumerate(questions):
            shown = list(images[i]) if images is not None else []
            clips = list(videos[i]) if videos is not None else []
            if isinstance(asked, str):
                content = media_first(asked, len(shown), len(clips))
                rows.append(dialogue(self.loaded, form).ask(content, shown, clips))
            elif shown or clips:
                raise InputError(
                    "chat: messages with images or videos beside them; put them into the messages"
                )
            else:
                rows.append(dialogue(self.loaded, form, asked))
            if rows[-1].conversation.opening is None:
                raise InputError("chat: messages without a question at their end; end with a user's message")
        return rows


def stop_ids(loaded: LoadedModel) -> tuple[int, ...]:
    """Ids that end an answer: the end of a turn, of a text, and those of the checkpoint's settings."""
    ends = (loaded.tokenizer.id_of(name) for name in (IM_END, END_OF_TEXT))
    return tuple(dict.fromkeys((*ends, *loaded.text_settings.stop_ids)))


def without_stop(ids: Sequence[int], plan: TextPlan) -> list[int]:
    """What an answer adds to its conversation: its ids but a stop token at their end."""
    return list(ids[:-1] if ids and ids[-1] in plan.stop_ids else ids)


def chat_options(values: Mapping[str, Any]) -> ChatOptions:
    """Options by name.

    Raises:
      InputError: an unknown name, or a value out of range.
    """
    known = {field.name for field in dataclasses.fields(ChatOptions)}
    for name in values:
        if name not in known:
            raise InputError(f"unknown option {name!r}; known: {', '.join(sorted(known))}")
    return ChatOptions(**values)


def written_ids(state: TextState) -> list[list[int]]:
    """The ids of each row's answer, the stop token included."""
    tokens, counts = np.asarray(state.tokens), np.asarray(state.count)
    return [row[:count].tolist() for row, count in zip(tokens, counts, strict=True)]
