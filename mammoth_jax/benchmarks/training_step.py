"""The training step of a stage for the ahead-of-time compiler: the program that ``train`` runs, on shapes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mammoth_jax.benchmarks.calls import Call, Task
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.data.packing.rows import pack_rows
from mammoth_jax.models.costs import Cost
from mammoth_jax.objectives.noise import Neighbours, SimilarityNoise, VisualCodes
from mammoth_jax.pipelines.loading import byte_words
from mammoth_jax.training.flops import StepLoad
from mammoth_jax.training.joint import MODEL, changed_names, joint_geometry, joint_player, joint_step
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.loop import batch_sharding, compiled_step
from mammoth_jax.training.player import Player
from mammoth_jax.training.state import TrainState, abstract_state, parameter_shardings
from mammoth_jax.training.step import Frozen

_WORDS = 200
"""Tokens of a drawn picture's prompt."""


def step_arguments(config: JointTraining, mesh: Mesh) -> tuple[Player, TrainState, Frozen, dict[str, Any]]:
    """The player, and what its step is called with, as shapes with their places on the mesh.

    Raises:
      InputError: rows that do not divide by the mesh, or a group without parameters.
    """
    tokenizer, _ = byte_words(config.model)
    codes = VisualCodes(tokenizer.visual_token_id(0), config.model.mammothtok.codebook_size)
    player = joint_player(config, codes)
    state = abstract_state({MODEL: player}, {}, mesh, config.run.guard)
    places, dtype = parameter_shardings(player.template, mesh), parse_dtype(config.dtype)
    rest: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(p.shape, dtype, sharding=places[name])
        for name, p in named_parameters(player.template).items()
        if name not in player.names
    }
    models: dict[str, Any] = {}
    noise = config.objective.noise
    if isinstance(noise, SimilarityNoise):
        table: Any = jax.ShapeDtypeStruct((codes.count, noise.neighbours), jnp.int32)
        models["neighbours"] = Neighbours(table)
    placed = batch_sharding(config.run, mesh)
    rows = config.run.batch_size // config.run.accumulation
    batch = {
        name: jax.ShapeDtypeStruct((config.run.accumulation, rows, *x.shape[1:]), x.dtype, sharding=placed)
        for name, x in row_arrays(config).items()
    }
    return player, state, Frozen(models, {MODEL: rest}), batch


def row_arrays(config: JointTraining) -> dict[str, np.ndarray]:
    """The arrays of a batch of one row, empty.

    Raises:
      InputError: the model is of a family whose rows are not packed.
    """
    tokenizer, _ = byte_words(config.model)
    return pack_rows([[]], joint_geometry(config, tokenizer, config.data), config.data.packing)


def training_step(config: JointTraining, mesh: Mesh) -> tuple[Task, Any]:
    """The step as a task of one program, and the weights that stay in memory: state and frozen parameters."""
    player, state, frozen, batch = step_arguments(config, mesh)
    root = jax.eval_shape(lambda: jax.random.key(0))
    program = compiled_step(joint_step(config, player), state)

    def task() -> Task:
        yield Call(
            "training step",
            program,
            (state, frozen, batch, root),
            {},
            {},
            step_cost(config, player),
        )

    return task(), (state, frozen)


def step_cost(config: JointTraining, player: Player) -> Cost:
    """What a step needs at the least: operations of full rows, and each weight, moment and gradient once."""
    load = StepLoad.of(config.model, player.template, changed_names(player))
    sizes = {name: int(np.prod(p.shape)) for name, p in player.declared().items()}
    trained = sum(size for name, size in sizes.items() if name in player.names)
    item = parse_dtype(config.dtype).itemsize
    weights = 12 * trained + item * (sum(sizes.values()) - trained)
    flops = load(full_rows(config)).flops * config.run.batch_size
    return Cost(int(flops), weights + 12 * trained + 4 * trained, weights)


def full_rows(config: JointTraining) -> dict[str, np.ndarray]:
    """A full row by its lengths: as many of the largest drawn pictures as fit, and text in what is left.

    Values stand for nothing but what is counted of them.
    """
    packing, model = config.data.packing, config.model
    start = model.backbone.decoder.gen_vocab_start_index
    segments, generated = [], []
    conditions, targets, references, joint, drawn = [], [], [], [], []
    if packing.samples:
        side = config.max_side or model.picture_size
        grid, patches = side // model.pixels_per_token, (side // model.pixel_step) ** 2
        written, condition = grid * (grid + 1) + 1, _WORDS + model.refiner.num_queries
        each = (
            packing.tokens // (_WORDS + written),
            packing.conditions // condition,
            packing.targets // patches,
            packing.joint // (condition + patches),
            packing.samples,
        )
        drawn = [patches] * min(each)
        room = packing.joint - len(drawn) * (condition + patches)
        shown = min(packing.references, max(room, 0)) // max(len(drawn), 1)
        for _ in drawn:
            segments.append(_WORDS + written)
            generated.append((_WORDS, written))
            conditions.append(condition)
            targets.append(patches)
            references.append(shown)
            joint.append(condition + shown + patches)
    left = packing.tokens - sum(segments)
    segments += [left] if left else []
    generated += [(left, 0)] if left else []
    ids = np.concatenate([np.repeat([0, start], counts) for counts in generated])
    owner = np.concatenate([np.repeat([0, i + 1], counts) for i, counts in enumerate(generated)]) * (
        ids >= start
    )
    row = {
        "token_segments": _runs(segments, packing.tokens),
        "ids": ids,
        "labels": ids,
        "token_sample": owner,
    }
    if needs_vision(config):
        count = ((config.max_side or model.picture_size) // model.backbone.vision.patch_size) ** 2
        frames = [min(count, packing.patches - at) for at in range(0, packing.patches, count)]
        row["patch_frames"] = _runs(frames, packing.patches)
    if packing.samples:
        row |= {
            "condition_segments": _runs(conditions, packing.conditions),
            "reference_segments": _runs(references, packing.references),
            "target_sample": _runs(targets, packing.targets),
            "joint_segments": _runs(joint, packing.joint),
            "sample_tokens": np.asarray(drawn),
        }
    return {name: x[None] for name, x in row.items()}


def needs_vision(config: JointTraining) -> bool:
    """Whether the stage's tasks show pictures to the vision tower."""
    return "vision_tower" in config.parts(config.data)


def _runs(lengths: Sequence[int], total: int) -> np.ndarray:
    """Segments 1, 2, ... of these lengths, then padding."""
    return np.pad(np.repeat(np.arange(1, len(lengths) + 1), lengths), (0, total - sum(lengths)))
