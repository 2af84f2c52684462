"""A conversation of several turns whose cache is kept: each turn reads nothing but what is new."""

import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.types import Bool
from mammoth_jax.pipelines.buckets import bucket
from mammoth_jax.pipelines.chat import (
    ChatOptions,
    ChatPipeline,
    chat_options,
    read_program,
    without_stop,
    write_program,
    written_ids,
)
from mammoth_jax.pipelines.chat_inputs import ChatFormat, Dialogue, Picture, dialogue, text_inputs
from mammoth_jax.processing.chat import media_first
from mammoth_jax.processing.text_pieces import TextPieces
from mammoth_jax.sampling.text import NO_TOKEN, ReadPrompts, TextState, grow, read_more, start, step

grow_program = jax.jit(grow, static_argnames=("capacity", "cache_format"))
read_more_program = jax.jit(read_more, donate_argnames="before")
step_program = jax.jit(step, static_argnames="plan", donate_argnames="state")


@dataclasses.dataclass(frozen=True)
class Turn:
    """A question that has been read: the dialogue with it, how many ids were new, the cache, its next position."""

    asked: Dialogue
    num_read: int
    prompt: ReadPrompts
    position: int


class ChatSession:
    """A conversation with a model.

    The cache belongs to the turn that is being answered, whose programs write it where it lies.  A question that is
    refused leaves it untouched; where a program fails the cache is given up, and the next question reads the dialogue,
    which then is as it was, from its beginning.

    Attributes:
        dialogue: what was said and shown.
        num_read: how many ids each turn has read: all that the cache lacked, the answers not among them.
        read: the cache, which holds the ids of the whole dialogue, and what goes on from it; None for no cache.
    """

    def __init__(self, pipeline: ChatPipeline):
        self.pipeline = pipeline
        self.dialogue = dialogue(pipeline.loaded, ChatFormat.of(pipeline.loaded))
        self.num_read: list[int] = []
        self.read: ReadPrompts | None = None

    def ask(
        self, question: str, images: Sequence[Picture] = (), videos: Sequence[Path | str] = (), **options: Any
    ) -> str:
        """The whole answer, written in one launch.

        Raises:
          InputError: as for :meth:`ChatPipeline.__call__`; the conversation then stays as it was.
        """
        settings = chat_options(options).resolved(self.pipeline.loaded)
        turn = self._read_question(question, images, videos, settings)
        with jax.set_mesh(self.pipeline.loaded.mesh):
            state = write_program(
                self.pipeline.writer(settings),
                turn.prompt,
                settings.requests(1, 1),
                max_tokens=bucket(settings.budget),
                plan=self.pipeline.plan,
            )
        (ids,) = written_ids(state)
        self._keep(turn, state, ids)
        return self.pipeline.text(ids)

    def stream(
        self, question: str, images: Sequence[Picture] = (), videos: Sequence[Path | str] = (), **options: Any
    ) -> Generator[str, None, None]:
        """The answer in pieces as they are written; each step is launched before the one before it is read.

        An answer that is not followed to its end stays in the conversation as far as it was.

        Raises:
          InputError: as for :meth:`ask`, when the first piece is asked for.
        """
        plan, loaded = self.pipeline.plan, self.pipeline.loaded
        settings = chat_options(options).resolved(loaded)
        turn = self._read_question(question, images, videos, settings)
        pieces, ids, writer = TextPieces(loaded.tokenizer), [], self.pipeline.writer(settings)

        def launch(state: TextState) -> tuple[TextState, jax.Array]:
            with jax.set_mesh(loaded.mesh):
                return step_program(writer, state, plan=plan)

        state, coming = launch(start(turn.prompt, settings.requests(1, 1), bucket(settings.budget)))
        try:
            for _ in range(settings.budget):
                drawn = coming
                state, coming = launch(state)
                token = int(np.asarray(drawn)[0])
                if token == NO_TOKEN:
                    break
                ids.append(token)
                if token in plan.stop_ids:
                    break
                if piece := pieces.add(token):
                    yield piece
            if rest := pieces.rest():
                yield rest
        except GeneratorExit:  # left by its reader, which is no failure
            pass
        self._keep(turn, state, ids)

    def _read_question(
        self,
        question: str,
        images: Sequence[Picture],
        videos: Sequence[Path | str],
        settings: ChatOptions,
    ) -> Turn:
        """Reads what the cache lacks, and makes room for the answer."""
        loaded = self.pipeline.loaded
        loaded.model.require("chat", "text_decoder")
        content = media_first(question, len(images), len(videos))
        asked = self.dialogue.ask(content, images, videos)
        capacity = self.pipeline.capacity(len(asked.conversation.ids), settings.budget)
        before, decoder = self.read, loaded.model.decoder
        with jax.set_mesh(loaded.mesh):
            if before is None:
                inputs = text_inputs(loaded, [asked], [0], [0], 1)
                capacity = max(capacity, inputs.ids.shape[1])
                prompt = read_program(decoder, inputs, capacity=capacity, cache_format=settings.cache)
            else:
                cached = len(self.dialogue.conversation.ids)
                inputs = text_inputs(loaded, [asked], [cached], [int(before.cache.position[0])], 1)
                cache = before.cache
                if capacity > cache.capacity or settings.cache == "int8" != cache.format:
                    capacity = max(capacity, cache.capacity)
                    cache = grow_program(cache, capacity=capacity, cache_format=settings.cache)
                    before = dataclasses.replace(before, cache=cache)
                self.read = None
                prompt = read_more_program(decoder, before, inputs)
        return Turn(asked, int(inputs.lengths[0]), prompt, int(prompt.cache.position[0]))

    def _keep(self, turn: Turn, state: TextState, ids: Sequence[int]) -> None:
        """Takes the answer into the conversation; the cache is cut to what the conversation holds."""
        said = turn.asked.conversation.answer(without_stop(ids, self.pipeline.plan))
        cache = dataclasses.replace(
            state.cache,
            length=jnp.full((1,), len(said.ids), state.cache.length.dtype),
            position=jnp.full(
                (1,), turn.position + len(said.ids) - len(turn.asked.conversation.ids), jnp.int32
            ),
        )
        self.dialogue = turn.asked.with_conversation(said)
        self.num_read.append(turn.num_read)
        self.read = ReadPrompts(cache, state.hidden, _seen(said.ids, state.seen.shape[1]))


def _seen(ids: Sequence[int], num_ids: int) -> Bool[np.ndarray, "1 i"]:
    """Which ids occur in the one row; what was drawn ahead of a stream's reader and cut off again does not."""
    seen = np.zeros((1, num_ids), bool)
    seen[0, list(ids)] = True
    return seen
