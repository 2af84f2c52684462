"""The programs of chat, for the ahead-of-time compiler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mammoth_jax.benchmarks.calls import Call, Task, Workload, integers, shapes
from mammoth_jax.benchmarks.step_weights import step_decoder
from mammoth_jax.models import costs
from mammoth_jax.pipelines import chat_session, programs
from mammoth_jax.pipelines.buckets import bucket, patch_bucket
from mammoth_jax.pipelines.chat import ChatOptions, ChatPipeline, read_program, write_program
from mammoth_jax.pipelines.chat_inputs import SMALLEST_PROMPT, ChatFormat
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.processing.vision import image_patches
from mammoth_jax.sampling.text import TEXT_EXPERT, ReadPrompts, TextInputs, start


def chat(loaded: LoadedModel, work: Workload) -> Task:
    """A question with one picture in every row, its whole answer, a second question, and a step of its answer.

    The second turn is a conversation's: its cache grows, what is new is read, and the answer is written step by step.
    """
    config, model = loaded.config, loaded.model
    pipeline, decoder = ChatPipeline(loaded), config.backbone.decoder
    item, rows = jnp.dtype(work.dtype).itemsize, bucket(work.batch)
    options = ChatOptions(
        max_new_tokens=work.answer_tokens, decode_weights=work.decode_weights, cache=work.cache
    ).resolved(loaded)
    writer = step_decoder(loaded, work.decode_weights, TEXT_EXPERT)
    held = {"weights": work.decode_weights, "cache": work.cache}
    requests = shapes(options.requests(rows, rows))
    answer = bucket(work.answer_tokens)

    picture = Image.new("RGB", work.size or (config.picture_size, config.picture_size))
    patches = image_patches(picture, ChatFormat.of(loaded).images)
    seen = patches.grid.tokens(config.backbone.vision.spatial_merge_size) + 2
    assert model.vision is not None
    inputs = model.vision.prepare(
        np.concatenate([patches.values] * work.batch),
        [patches.grid] * work.batch,
        [patch_bucket(len(patches.values) * work.batch, config.backbone.vision.spatial_merge_size)],
    )
    features = yield Call(
        "vision tower",
        programs.see_program,
        (model.vision, shapes(inputs)),
        {},
        {},
        costs.vision_tower(config.backbone.vision, [len(patches.values)] * work.batch, item),
    )
    length = bucket(work.prompt_tokens + seen, SMALLEST_PROMPT)
    capacity = max(length, pipeline.capacity(work.prompt_tokens + seen, work.answer_tokens))
    asked = _inputs(rows, length)
    asked = dataclasses.replace(asked, features=features, slots=integers(rows, length))
    read = yield Call(
        "read",
        read_program,
        (model.decoder, asked),
        {},
        {"capacity": capacity, "cache_format": work.cache},
        costs.decoder_pass(decoder, rows, length, item),
    )
    written = yield Call(
        "write",
        write_program,
        (writer, read, requests),
        {},
        {"max_tokens": answer, "plan": pipeline.plan},
        costs.decoding(decoder, [length] * rows, work.answer_tokens, decoder.vocab_size, item, **held),
        steps=work.answer_tokens,
    )
    before = length + work.answer_tokens
    entries = jax.tree.leaves((written.cache.keys, written.cache.values))
    grown = yield Call(
        "grow",
        chat_session.grow_program,
        (written.cache,),
        {},
        {
            "capacity": pipeline.capacity(before + work.prompt_tokens, work.answer_tokens),
            "cache_format": work.cache,
        },
        costs.Cost(0, 2 * sum(x.size * x.dtype.itemsize for x in entries)),
    )
    more = bucket(work.prompt_tokens, SMALLEST_PROMPT)
    again = yield Call(
        "read more",
        chat_session.read_more_program,
        (model.decoder, ReadPrompts(grown, written.hidden, shapes(written.seen)), _inputs(rows, more)),
        {},
        {},
        costs.decoder_pass(decoder, rows, more, item, cached=before),
    )
    state = jax.eval_shape(lambda prompts, asked: start(prompts, asked, answer), again, requests)
    state = dataclasses.replace(state, cache=again.cache, hidden=again.hidden, seen=again.seen)
    yield Call(
        "step",
        chat_session.step_program,
        (writer, state),
        {},
        {"plan": pipeline.plan},
        costs.decoding(decoder, [before + more] * rows, 1, decoder.vocab_size, item, **held),
    )


def _inputs(rows: int, length: int) -> TextInputs:
    return TextInputs(integers(rows, length), integers(rows), integers(3, rows, length))
