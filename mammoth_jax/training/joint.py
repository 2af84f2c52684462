"""Training the model: backbone and diffusion transformer as one player, everything else frozen."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.data.packing.geometry import Geometry
from mammoth_jax.data.packing.loader import JointDataConfig, JointLoader
from mammoth_jax.data.packing.pictures import PictureEncoder
from mammoth_jax.data.packing.prefetch import Prefetched
from mammoth_jax.layers.remat import with_remat
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.objectives.noise import Neighbours, SimilarityNoise, VisualCodes, nearest_codes
from mammoth_jax.processing.generation_config import drawing_of_folder
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.training.checkpoint import complete_steps
from mammoth_jax.training.flops import StepLoad
from mammoth_jax.training.hosts import reading_share
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.joint_evaluation import ChangePools, JointEvaluation, SamplePictures
from mammoth_jax.training.joint_files import (
    fingerprints,
    keep_words,
    load_frozen,
    need_codebook,
    read_words,
    words_folder,
)
from mammoth_jax.training.joint_objective import DrawByName, JointObjective, same_key, survey
from mammoth_jax.training.lora import Adapters
from mammoth_jax.training.muon import stacked_matrices
from mammoth_jax.training.optimizer import assign_groups, build_optimizer, learning_rates
from mammoth_jax.training.origin import keep_origin
from mammoth_jax.training.packing_geometry import packing_geometry
from mammoth_jax.training.parameter_groups import read_names
from mammoth_jax.training.picture_encoder import FrozenEncoder, local_mesh
from mammoth_jax.training.player import Player
from mammoth_jax.training.runs import FROZEN, abstract_arrays, read_frozen, save_frozen
from mammoth_jax.training.start_weights import parts_of, start_weights
from mammoth_jax.training.state import Named, TrainState, abstract_state, create_state
from mammoth_jax.training.step import Frozen, StepFunction, build_step
from mammoth_jax.training.work import Work

MODEL = "model"


def joint_work(
    config: JointTraining,
    mesh: Mesh,
    init: str | None = None,
    run: Path | None = None,
    samples: SamplePictures | None = None,
) -> Work:
    """The work of a stage.

    Args:
      config: what to train, and on what.
      mesh: devices.
      init: a model folder or a run to start from (:func:`origin.start_of`); random weights by default.
      run: the run's folder, where what is frozen is kept for those who go on or read the run; None keeps nothing.
      samples: draws pictures after each evaluation.

    Raises:
      InputError: a folder does not hold what it is named for, a group is empty, or the data cannot be opened.
    """
    dtype = parse_dtype(config.dtype)
    words = words_folder(config.frozen, init, run)
    tokenizer = read_words(config.model, words)
    mammothtok, vae = load_frozen(config.model, config.frozen, init, local_mesh())
    precomputed = any(source.encoded is not None for source in config.sources)
    known = fingerprints({"mammothtok": mammothtok, "vae": vae}) if precomputed else {}
    player = joint_player(
        config, VisualCodes(tokenizer.visual_token_id(0), config.model.mammothtok.codebook_size)
    )
    start = _Start(config, player, mesh, init, run, words)
    frozen = Frozen(
        _neighbours(config.objective, mammothtok, mesh),
        {MODEL: {n: x.astype(dtype) for n, x in start.rest().items()}},
    )
    encoder = None
    if mammothtok is not None and config.draws:
        encoder = FrozenEncoder(mammothtok, vae if "dit" in config.parts(config.data) else None)

    def batches(data: JointDataConfig, rows: int, change: ChangePools = list) -> JointLoader:
        geometry = joint_geometry(config, tokenizer, data, drawing_of_folder(words))
        return open_loader(data, geometry, rows, config.run.seed, encoder, known, change, reading_share(mesh))

    return Work(
        initial=start,
        step=joint_step(config, player),
        frozen=frozen,
        batches=lambda: Prefetched(batches(config.data, config.run.batch_size)),
        rates={f"{MODEL}/{n}": r for n, r in learning_rates(config.optimizer, config.run.steps).items()},
        evaluate=JointEvaluation(config, player, frozen, mesh, batches, samples),
        like=lambda: abstract_state({MODEL: player}, {}, mesh, config.run.guard),
        load=StepLoad.of(config.model, player.template, changed_names(player)),
    )


def joint_player(config: JointTraining, codes: VisualCodes | None = None) -> Player:
    """The model as a stage trains it: the parts that its tasks run, with their policies of what to keep.

    Raises:
      InputError: a group that no parameter belongs to, or without adapters where they are asked for.
    """
    parts = config.parts(config.data)
    template = abstract(lambda: Mammoth(config.model, parts=parts))
    for name, policy in (
        ("decoder", config.remat.decoder),
        ("vision", config.remat.vision),
        ("dit", config.remat.dit),
        ("refiner", config.remat.dit),
    ):
        part = getattr(template, name)
        if part is not None:
            setattr(template, name, with_remat(part, policy))
    parameters = named_parameters(template)
    read = read_names(parameters, config.tasks, next_tokens=config.objective.ntp > 0)
    labels = assign_groups(read, config.optimizer.groups)
    adapters = None if config.lora is None else Adapters.of(config.lora, parameters, labels)
    if adapters is not None:
        labels = adapters.labels(labels)
    return Player(
        template=template,
        names=frozenset(labels),
        objective=JointObjective(
            config=config.objective, drawing=DrawByName(config=config.objective, codes=codes)
        ),
        optimizer=build_optimizer(config.optimizer, labels, config.run.steps, stacked_matrices(parameters)),
        adapters=adapters,
        ema_decay=config.ema_decay,
        survey=survey,
        micro_key=same_key,
    )


def changed_names(player: Player) -> frozenset[str]:
    """The model's own parameters for which the step takes gradients: the trained ones, or the adapted kernels."""
    return player.names if player.adapters is None else frozenset(player.adapters.kernels)


def joint_step(config: JointTraining, player: Player) -> StepFunction:
    """The step that a stage compiles."""
    run = config.run
    return build_step(
        {MODEL: player}, accumulation=run.accumulation, dtype=parse_dtype(config.dtype), guard=run.guard
    )


def joint_geometry(
    config: JointTraining, tokenizer: Tokenizer, data: JointDataConfig, drawing: Mapping[str, Any] = {}
) -> Geometry:
    """How samples of a stage are laid out; negative prompts as ``drawing``, the checkpoint's own options, has them."""
    parts = config.parts(data)
    geometry = packing_geometry(
        config.model,
        tokenizer,
        vision="vision_tower" in parts,
        diffusion="dit" in parts,
        max_side=config.max_side,
        references=config.references,
    )
    return dataclasses.replace(
        geometry, negative_prompt=drawing.get("negative_prompt", geometry.negative_prompt)
    )


def open_loader(
    data: JointDataConfig,
    geometry: Geometry,
    batch_size: int,
    seed: int,
    encoder: PictureEncoder | None,
    models: Mapping[str, str] = {},
    change: ChangePools = list,
    share: tuple[int, int] = (0, 1),
) -> JointLoader:
    """This host's part of batches of ``batch_size`` rows over all hosts.

    ``models`` are fingerprints by role, for precomputed codes and latents; ``change`` makes other pools of the data's;
    ``share`` is this host's (:func:`mammoth_jax.training.hosts.reading_share`).

    Raises:
      InputError: the rows do not divide by the hosts, or a source is missing, empty or too broken.
    """
    index, hosts = share
    if batch_size % hosts:
        raise InputError(
            f"run.batch_size {batch_size} does not divide by {hosts} hosts; use a multiple of it"
        )
    return JointLoader(
        data,
        change(data.open(seed, models)),
        geometry,
        batch_size=batch_size // hosts,
        seed=seed,
        process_index=index,
        process_count=hosts,
        encoder=encoder,
    )


class _Start:
    """Start weights, read once: the trained ones for the state, the others for the step, and all of them for the run.

    A run keeps every part that it was given, also those that its stage does not run: the next stage starts from it.
    """

    def __init__(
        self,
        config: JointTraining,
        player: Player,
        mesh: Mesh,
        init: str | None,
        run: Path | None,
        words: Path | None,
    ):
        self._config, self._player, self._mesh = config, player, mesh
        self._init, self._run, self._words = init, run, words
        self._model: Mammoth | None = None

    def _weights(self) -> Mammoth:
        parts = frozenset(self._player.template.parts)  # type: ignore[attr-defined]
        if self._init is not None:
            held = parts_of(self._init) & _TRAINABLE
            if not held:
                raise InputError(
                    f"--init {self._init} holds no part that a stage trains: {', '.join(sorted(_TRAINABLE))}"
                )
            parts |= held
        config = self._config
        template = abstract(lambda: Mammoth(config.model, parts=parts))
        return start_weights(config.model, template, self._mesh, config.run.seed, self._init)

    def rest(self) -> Named:
        """The parameters of the stage's parts that it does not train."""
        wanted = {
            n: x
            for n, x in abstract_arrays(self._player.template, self._mesh).items()
            if n not in self._player.names
        }
        # what a start left that came to no checkpoint may be of other weights than this one's
        own_run = self._run if self._run is not None and complete_steps(self._run) else None
        if own_run is not None and (not wanted or (own_run / FROZEN).is_dir()):
            return read_frozen(own_run, wanted)
        self._model = self._weights()
        own = named_parameters(self._model)
        return {name: own[name][...] for name in wanted}

    def __call__(self) -> TrainState:
        """The state before the first step; what is frozen goes to the run."""
        model = self._model or self._weights()
        self._model = None  # the state's arrays are given away with the first step
        own = {name: p[...] for name, p in named_parameters(model).items()}
        if self._run is not None:
            keep_words(self._words, self._run)
            keep_origin(self._run, self._init, self._config.model)
            save_frozen(self._run, {n: x for n, x in own.items() if n not in self._player.names})
        adapters, config = self._player.adapters, self._config.run
        start = model if adapters is None else adapters.start(config.seed, self._mesh)
        return create_state({MODEL: self._player}, {MODEL: start}, {}, self._mesh, config.guard)


_TRAINABLE = frozenset(("text_decoder", "generation_experts", "vision_tower", "dit", "refiner"))


def _neighbours(
    objective: JointObjectiveConfig, mammothtok: MammothTok | None, mesh: Mesh
) -> dict[str, nnx.Module]:
    """The table of similar codes, if the noise needs one; on every device."""
    if not isinstance(objective.noise, SimilarityNoise):
        return {}
    quantizer: Any = need_codebook(mammothtok).quantizer
    table = np.asarray(nearest_codes(quantizer.table(), objective.noise.neighbours))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return {
        "neighbours": Neighbours(jax.make_array_from_callback(table.shape, everywhere, lambda i: table[i]))
    }
