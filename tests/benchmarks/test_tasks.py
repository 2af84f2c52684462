"""The calls that are compiled ahead of time are those that the pipelines make."""

import dataclasses
import functools
import sys
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mammoth_jax.benchmarks.calls import Workload
from mammoth_jax.benchmarks.tasks import PARTS, TASKS, abstract_model, resident_weights
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.models import costs
from mammoth_jax.models.mammoth import ALL_PARTS
from mammoth_jax.pipelines import chat, chat_session, programs
from mammoth_jax.pipelines.edit import EditPipeline
from tests.tiny_model import tiny_config, tiny_pipeline

SIZE, GRID = (64, 48), (8, 6)
INT8 = {"decode_weights": "int8", "cache": "int8"}
ENCODE = programs.encode_program
JITTED = type(ENCODE)
LATER_TURNS = [chat_session.grow_program, chat_session.read_more_program, chat_session.step_program]


def described(args: Any, arrays: Any, static: Any) -> Any:
    """Arguments without values: shapes and dtypes of arrays, everything that is compiled for as it is.

    ``None`` is what an option is that is not given.
    """

    def leaf(x: Any) -> Any:
        return (tuple(np.shape(x)), str(x.dtype))

    def each(value: Any) -> Any:
        if isinstance(value, nnx.Module):  # of which a task holds fewer parts
            return {str(x.dtype) for x in jax.tree.leaves(value)}
        return jax.tree.map(leaf, value)

    positional = [each(value) for value in args]
    named = {name: each(value) for name, value in arrays.items() if value is not None}
    return positional, named, {name: value for name, value in static.items() if value is not None}


@pytest.fixture
def calls(monkeypatch) -> list:
    """What the pipelines launch: (program, arguments).  Nothing is compiled, every result is zeros."""
    found = []

    def recorded(program):
        def run(*args, **kwargs):
            found.append((program, args, kwargs))
            return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), program.eval_shape(*args, **kwargs))

        return run

    launched = [
        each for module in (programs, chat) for each in vars(module).values() if isinstance(each, JITTED)
    ]
    for name, module in sys.modules.items():
        if name.startswith("mammoth_jax.pipelines.") and module is not programs:
            for attribute, value in list(vars(module).items()):
                if any(value is program for program in launched):
                    monkeypatch.setattr(module, attribute, recorded(value))
    return found


def planned(task: str, work: Workload) -> list:
    """The calls of a task for the tiny model, each answered by its abstract evaluation."""
    loaded = abstract_model(tiny_config(), task, single_device_mesh(), work.dtype)
    steps, made, sent = TASKS[task](loaded, work), [], None
    while True:
        try:
            call = steps.send(sent)
        except StopIteration:
            return made
        made.append(call)
        sent = jax.eval_shape(functools.partial(call.program, **call.static), *call.args, **call.arrays)


def compare(made: list, found: list) -> None:
    """Each call is one that was launched, with the same arguments, in the same order."""
    assert [call.program for call in made] == [program for program, _, _ in found]
    for call, (_, args, kwargs) in zip(made, found, strict=True):
        arrays = {name: value for name, value in kwargs.items() if name in call.arrays}
        static = {name: value for name, value in kwargs.items() if name not in call.arrays}
        assert described(call.args, call.arrays, call.static) == described(args, arrays, static), call.name


def words(found: list) -> int:
    """Ids of the longest prompt that was read, those of its reference pictures left out."""
    backbone = tiny_config().backbone
    ids, lengths = next(args[1:3] for program, args, _ in found if program is ENCODE)
    shown = (ids >= backbone.decoder.gen_vocab_start_index) | np.isin(ids, backbone.vision_ids)
    return int(np.max(lengths - shown.sum(axis=1)))


@pytest.mark.parametrize("held", [{}, INT8], ids=["model", "int8"])
def test_text_to_image(calls, held):
    pipeline = tiny_pipeline()
    prompts = ["a red circle", "a blue square"]
    pipeline(prompts, width=SIZE[0], height=SIZE[1], grid=GRID, num_inference_steps=2, **held)
    asked = Workload(size=SIZE, grid=GRID, batch=2, steps=2, dtype="float32", **held)
    compare(planned("generate", dataclasses.replace(asked, prompt_tokens=words(calls))), calls)


@pytest.mark.parametrize("references", [1, 2])
def test_edit(calls, references):
    loaded = tiny_pipeline().loaded
    pictures = [[Image.new("RGB", SIZE, shade) for shade in ("red", "blue")[:references]] for _ in range(2)]
    EditPipeline(loaded)(
        pictures, ["make it red", "make it blue"], grid=GRID, num_inference_steps=2, negative_prompt="ugly"
    )
    asked = Workload(size=SIZE, grid=GRID, batch=2, steps=2, references=references, dtype="float32")
    each = 2 * references  # the two programs that read a reference run once for every picture
    compare(planned("edit", dataclasses.replace(asked, prompt_tokens=words(calls))), calls[2 * each - 2 :])


@pytest.mark.parametrize("held", [{}, INT8], ids=["model", "int8"])
def test_chat(calls, held):
    """A question with a picture; all answers are zeros, which nothing stops."""
    loaded = tiny_pipeline().loaded
    pipeline = chat.ChatPipeline(loaded)
    pipeline(["what is this?", "why?"], images=[[Image.new("RGB", SIZE)]] * 2, max_new_tokens=8, **held)
    inputs = calls[1][1][1]
    shown = np.isin(inputs.ids, tiny_config().backbone.vision_ids).sum(axis=1)
    work = Workload(
        size=SIZE,
        batch=2,
        prompt_tokens=int(np.max(inputs.lengths - shown)),
        answer_tokens=8,
        dtype="float32",
        **held,
    )
    made = planned("chat", work)
    assert [call.name for call in made] == ["vision tower", "read", "write", "grow", "read more", "step"]
    compare(made[:3], calls)
    assert [call.program for call in made[3:]] == LATER_TURNS


def test_every_task_keeps_parts_of_the_model():
    assert set(PARTS) == set(TASKS)
    assert all(parts <= ALL_PARTS for parts in PARTS.values())
    assert PARTS["edit"] == ALL_PARTS - {"mammothtok_decoder"}


def test_weights_are_sharded_shapes():
    loaded = abstract_model(
        tiny_config(), "chat", make_mesh({"fsdp": 2, "tensor": 2}, jax.devices()[:4]), "bfloat16"
    )
    leaves = jax.tree.leaves(loaded.model)
    assert {str(x.dtype) for x in leaves} == {"bfloat16"}
    assert any(x.sharding.shard_shape(x.shape) != x.shape for x in leaves)
    assert loaded.model.dit is None and loaded.model.decoder is not None


@pytest.mark.parametrize("task", TASKS)
def test_int8_weights_are_resident_beside_the_models_own_and_sharded_like_them(task):
    loaded = abstract_model(
        tiny_config(), task, make_mesh({"fsdp": 2, "tensor": 2}, jax.devices()[:4]), "bfloat16"
    )
    own, none = resident_weights(loaded, task, Workload())
    assert own is loaded.model and none == []
    _, added = resident_weights(loaded, task, Workload(decode_weights="int8"))
    codes = [x for x in added if x.dtype == "int8"]
    assert {str(x.dtype) for x in added} == {"int8", "float32"}
    config = tiny_config().backbone.decoder
    head = config.vocab_size if task == "chat" else config.gen_vocab_size
    expected = costs.decoder_weights(config) + config.hidden_size * head
    assert sum(x.size for x in codes) == expected
    assert all(x.sharding.shard_shape(x.shape) != x.shape for x in codes)
