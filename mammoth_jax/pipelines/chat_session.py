"""A conversation of several turns whose cache is kept: each turn reads nothing but what is new."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.pipelines.batching import bucket
from mammoth_jax.pipelines.chat import (
    ChatOptions,
    ChatPipeline,
    chat_options,
    read_program,
    write_program,
    written_ids,
)
from mammoth_jax.pipelines.chat_inputs import ChatFormat, Dialogue, Picture, dialogue, text_inputs
from mammoth_jax.processing.chat import media_first
from mammoth_jax.processing.text_pieces import TextPieces
from mammoth_jax.sampling.text import NO_TOKEN, ReadPrompts, TextState, grow, read_more, start, step

grow_program = jax.jit(grow, static_argnames="capacity")
read_more_program = jax.jit(read_more)
step_program = jax.jit(step, static_argnames="plan", donate_argnames="state")


class ChatSession:
    """A conversation with a model.

    Attributes:
        dialogue: what was said and shown.
        num_read: how many ids each turn has read: all that the cache lacked, the answers not among them.
        read: the cache, which holds the ids of the whole dialogue, with the scores after it; None at first.
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
        asked, prompt = self._read_question(question, images, videos, settings)
        position = int(prompt.cache.position[0])
        with jax.set_mesh(self.pipeline.loaded.mesh):
            state = write_program(
                self.pipeline.loaded.model.decoder,
                prompt,
                settings.requests(1, 1),
                max_tokens=bucket(settings.budget),
                plan=self.pipeline.plan,
            )
        (ids,) = written_ids(state)
        self._keep(asked, position, state, ids)
        return self.pipeline.loaded.tokenizer.decode(ids)

    def stream(
        self, question: str, images: Sequence[Picture] = (), videos: Sequence[Path | str] = (), **options: Any
    ) -> Iterator[str]:
        """The answer in pieces as they are written; each step is launched before the one before it is read.

        An answer that is not followed to its end stays in the conversation as far as it was.

        Raises:
          InputError: as for :meth:`ask`, when the first piece is asked for.
        """
        plan, loaded = self.pipeline.plan, self.pipeline.loaded
        settings = chat_options(options).resolved(loaded)
        asked, prompt = self._read_question(question, images, videos, settings)
        position = int(prompt.cache.position[0])
        pieces, ids = TextPieces(loaded.tokenizer), []

        def launch(state: TextState) -> tuple[TextState, jax.Array]:
            with jax.set_mesh(loaded.mesh):
                return step_program(loaded.model.decoder, state, plan=plan)

        state, coming = launch(start(prompt, settings.requests(1, 1), bucket(settings.budget)))
        try:
            for _ in range(settings.budget):
                drawn = coming
                state, coming = launch(state)
                token = int(np.asarray(drawn)[0])
                if token == NO_TOKEN:
                    break
                ids.append(token)
                if piece := pieces.add(token):
                    yield piece
                if token in plan.stop_ids:
                    break
            if rest := pieces.rest():
                yield rest
        finally:
            self._keep(asked, position, state, ids)

    def _read_question(
        self,
        question: str,
        images: Sequence[Picture],
        videos: Sequence[Path | str],
        settings: ChatOptions,
    ) -> tuple[Dialogue, ReadPrompts]:
        """Reads what the cache lacks, and makes room for the answer."""
        loaded = self.pipeline.loaded
        loaded.model.require("chat", "text_decoder")
        content = media_first(question, len(images), len(videos))
        asked = self.dialogue.ask(content, images, videos)
        cached = len(self.dialogue.conversation.ids)
        capacity = self.pipeline.capacity(len(asked.conversation.ids), settings.budget)
        decoder = loaded.model.decoder
        with jax.set_mesh(loaded.mesh):
            if self.read is None:
                inputs = text_inputs(loaded, [asked], [0], [0], 1)
                prompt = read_program(decoder, inputs, capacity=max(capacity, inputs.ids.shape[1]))
            else:
                before = self.read
                inputs = text_inputs(loaded, [asked], [cached], [int(before.cache.position[0])], 1)
                if capacity > before.cache.capacity:
                    before = dataclasses.replace(before, cache=grow_program(before.cache, capacity=capacity))
                prompt = read_more_program(decoder, before, inputs)
        self.num_read.append(int(inputs.lengths[0]))
        return asked, prompt

    def _keep(self, asked: Dialogue, position: int, state: TextState, ids: list[int]) -> None:
        """Takes the answer into the conversation; the cache is cut to what the conversation holds."""
        before = len(asked.conversation.ids)
        self.dialogue = asked.with_conversation(asked.conversation.answer(ids))
        held = len(self.dialogue.conversation.ids)
        cache = dataclasses.replace(
            state.cache,
            length=jnp.full((1,), held, state.cache.length.dtype),
            position=jnp.full((1,), position + held - before, state.cache.position.dtype),
        )
        self.read = ReadPrompts(cache, state.hidden, state.seen)
