"""Training MammothTok or the VAE: the model and, if it is on, its discriminator as two players of each step."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from checkpoint_convert.published import load_lpips, load_semantic_encoder
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, initialize, named_parameters, with_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.core.types import Array, PRNGKeyArray
from mammoth_jax.models.discriminator import Discriminator
from mammoth_jax.models.mammothtok.revival import CodeUsage, Revival, revive_codes
from mammoth_jax.objectives.adversarial import LogitAverages
from mammoth_jax.objectives.tokenizer import (
    Networks,
    Opposite,
    Reconstructed,
    check_networks,
    discriminator_terms,
    generator_terms,
)
from mammoth_jax.objectives.tokenizer_config import AdversarialConfig
from mammoth_jax.training.adversary import DISCRIMINATOR, Adversary, new_adversary
from mammoth_jax.training.batches import open_batches
from mammoth_jax.training.muon import stacked_matrices
from mammoth_jax.training.optimizer import AdamWConfig, assign_groups, build_optimizer, learning_rates
from mammoth_jax.training.player import Models, Objective, Outcome, Player
from mammoth_jax.training.state import TrainState, abstract_state, create_state
from mammoth_jax.training.step import Finish, Frozen, build_step
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_evaluation import TokenizerEvaluation
from mammoth_jax.training.tokenizer_kinds import KINDS, Tokenizer
from mammoth_jax.training.work import Work

MODEL = "model"
_CODEBOOK = "quantizer.codebook"


def tokenizer_work(
    config: TokenizerTraining,
    mesh: Mesh,
    start: nnx.Module | None = None,
    adversary: Adversary | None = None,
) -> Work:
    """The work of a configuration.

    Args:
      config: what to train, and on what.
      mesh: devices.
      start: weights to start from; random ones by default.
      adversary: the same of the discriminator.

    Raises:
      InputError: a term is on without its network, a file of weights does not fit, or the data cannot be opened.
    """
    kind = KINDS[config.task](config.model)
    dtype = parse_dtype(config.dtype)
    networks = _load_networks(config, kind, mesh, dtype)
    players = _players(config, kind, dtype)
    # Module structures stand in for the discriminator, whose weights are the step's.
    template = players[DISCRIMINATOR].template if DISCRIMINATOR in players else None
    check_networks(
        config.losses,
        Networks(template, networks.get("perceptual"), networks.get("teacher")),  # type: ignore[arg-type]
        kind.autoencode(dtype),
    )
    rest: dict[str, dict[str, Array]] = {name: {} for name in players}
    return Work(
        initial=lambda: _initial(config, kind, players, mesh, start, adversary),
        step=build_step(
            players,
            accumulation=config.run.accumulation,
            dtype=dtype,
            finish=_finish(config.revival),
            guard=config.run.guard,
        ),
        frozen=Frozen(networks, rest),
        batches=lambda: open_batches(config.data, config.run.batch_size, config.run.seed),
        rates=_rates(config),
        evaluate=TokenizerEvaluation(config, kind, players[MODEL].template, mesh),
        like=lambda: abstract_state(
            players, jax.eval_shape(lambda: _carried(config)), mesh, config.run.guard
        ),
    )


def _players(config: TokenizerTraining, kind: Tokenizer, dtype: Any) -> dict[str, Player]:
    players = {
        MODEL: _player(
            abstract(kind.build),
            _reconstruct(config, kind, dtype),
            config.optimizer,
            config.run.steps,
            ema_decay=config.ema_decay,
            keep_float32=kind.keep_float32,
        )
    }
    if config.discriminator is not None and config.losses.adversarial is not None:
        network = config.discriminator.network
        players[DISCRIMINATOR] = _player(
            abstract(lambda: Discriminator(network)),
            _discriminate(config.losses.adversarial, dtype),
            config.discriminator.optimizer,
            config.run.steps,
        )
    return players


def _player(
    template: nnx.Module, objective: Objective, optimizer: AdamWConfig, steps: int, **options: Any
) -> Player:
    labels = assign_groups(named_parameters(template), optimizer.groups)
    frozen = sorted(set(named_parameters(template)) - set(labels))
    if frozen:
        raise InputError(
            f"optimizer.groups leave out {frozen[:3]}: a tokenizer is trained whole; add a group with patterns ['']"
        )
    return Player(
        template=template,
        names=frozenset(labels),
        objective=objective,
        optimizer=build_optimizer(optimizer, labels, steps, stacked_matrices(named_parameters(template))),
        **options,
    )


def _reconstruct(config: TokenizerTraining, kind: Tokenizer, dtype: Any) -> Objective:
    autoencode = kind.autoencode(dtype)

    def objective(
        models: Models,
        batch: Mapping[str, Array],
        passed: Any,
        carried: Any,
        key: PRNGKeyArray,
        step: Array,
        whole: Any,
    ) -> Outcome:
        networks = Networks(
            models.get(DISCRIMINATOR),
            models.get("perceptual"),
            models.get("teacher"),  # type: ignore[arg-type]
        )
        loss, terms, made = generator_terms(
            models[MODEL], networks, batch, key, step, config=config.losses, autoencode=autoencode
        )
        return Outcome(loss, terms, made, carried)

    return objective


def _discriminate(config: AdversarialConfig, dtype: Any) -> Objective:
    def objective(
        models: Models,
        batch: Mapping[str, Array],
        passed: Reconstructed,
        carried: dict[str, Any],
        key: PRNGKeyArray,
        step: Array,
        whole: Any,
    ) -> Outcome:
        network = models[DISCRIMINATOR]
        opposite = Opposite(passed.picture, carried["logits"])
        loss, terms, averages = discriminator_terms(
            network,  # type: ignore[arg-type]
            opposite,
            batch,
            key,
            step,
            config=config,
            dtype=dtype,
        )
        return Outcome(loss, terms, None, {**carried, "logits": averages})

    return objective


def _initial(
    config: TokenizerTraining,
    kind: Tokenizer,
    players: Mapping[str, Player],
    mesh: Mesh,
    start: nnx.Module | None,
    adversary: Adversary | None,
) -> TrainState:
    seed = config.run.seed
    if start is None:
        start = initialize(kind.build, seed, mesh)
        if config.networks.encoder is not None:
            start = _with_encoder(start, config.networks.encoder, kind, mesh)
    modules: dict[str, nnx.Module] = {MODEL: start}
    carried = _carried(config)
    if config.discriminator is not None:
        own = adversary or new_adversary(config.discriminator.network, seed, mesh)
        modules[DISCRIMINATOR], carried["logits"] = own.network, own.logits
    return create_state(players, modules, carried, mesh, config.run.guard)


def _carried(config: TokenizerTraining) -> dict[str, Any]:
    """What the objectives start with."""
    carried: dict[str, Any] = {}
    if config.discriminator is not None:
        carried["logits"] = LogitAverages.start()
    if config.revival is not None:
        carried["usage"] = CodeUsage.start(config.model.mammothtok.codebook_size)
    return carried


def _with_encoder(model: nnx.Module, file: str, kind: Tokenizer, mesh: Mesh) -> nnx.Module:
    """The model with AIMv2's weights in its encoder; what AIMv2 lacks (the projection to codes) stays as it is."""
    loaded = load_semantic_encoder(Path(file), kind.stride, mesh, jnp.float32)
    if loaded.positions is not None:
        raise InputError(
            f"networks.encoder {file}: an AIMv2 of a fixed resolution; MammothTok starts from one of native resolution"
        )
    own = named_parameters(model)
    values = {f"encoder.{name}": p for name, p in named_parameters(loaded).items()}
    misfits = [n for n, p in values.items() if n not in own or tuple(own[n].shape) != tuple(p.shape)]
    if misfits:
        raise InputError(
            f"networks.encoder {file}: an AIMv2 of other sizes than mammothtok.encoder; {len(misfits)} parameters do "
            f"not fit, e.g. {misfits[:3]}"
        )
    return with_parameters(model, {n: values.get(n, p)[...] for n, p in own.items()})


def _finish(revival: Revival | None) -> Finish | None:
    """Dead codes are revived after the update; their moments start again from 0."""
    if revival is None:
        return None

    def finish(state: TrainState, handed: dict[str, Any], key: PRNGKeyArray) -> TrainState:
        codes = handed[MODEL].codes
        own = state.params[MODEL]
        revived = revive_codes(revival, state.carried["usage"], own[_CODEBOOK], codes.ids, codes.z, key)

        def clear(path: Any, x: Array) -> Array:
            of_codebook = any(getattr(step, "key", None) == _CODEBOOK for step in path)
            return jnp.where(revived.replaced[:, None], 0.0, x) if of_codebook else x

        moments = jax.tree_util.tree_map_with_path(clear, state.optimizer[MODEL])
        return dataclasses.replace(
            state,
            params={**state.params, MODEL: {**own, _CODEBOOK: revived.codebook}},
            optimizer={**state.optimizer, MODEL: moments},
            carried={**state.carried, "usage": revived.usage},
        )

    return finish


def _load_networks(config: TokenizerTraining, kind: Tokenizer, mesh: Mesh, dtype: Any) -> dict[str, Any]:
    """The frozen networks whose terms are on."""
    files, out = config.networks, {}
    if config.losses.perceptual and files.vgg is not None and files.lpips is not None:
        out["perceptual"] = load_lpips(Path(files.vgg), Path(files.lpips), mesh, dtype)
    if config.losses.semantic and files.semantic_encoder is not None:
        out["teacher"] = load_semantic_encoder(Path(files.semantic_encoder), kind.stride, mesh, dtype)
    return out


def _rates(config: TokenizerTraining) -> dict[str, Any]:
    steps = config.run.steps
    rates = {f"{MODEL}/{n}": r for n, r in learning_rates(config.optimizer, steps).items()}
    if config.discriminator is not None:
        own = learning_rates(config.discriminator.optimizer, steps)
        rates |= {f"{DISCRIMINATOR}/{n}": r for n, r in own.items()}
    return rates
