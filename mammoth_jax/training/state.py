"""Everything that a training run carries from one step to the next, as one pytree of sharded arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.core.sharding import ShardingRules, named_sharding
from mammoth_jax.core.types import Array, Int
from mammoth_jax.training.guard import Guard, GuardState
from mammoth_jax.training.player import Player

Named = dict[str, Array]
"""Arrays by dotted parameter name."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Attributes:

    step: finished steps.
    params: float32 master weights that are trained, by player and name.
    optimizer: each player's optimiser state; moments lie as their parameters do.
    ema: moving averages of the weights, for the players that keep one.
    carried: what objectives keep from step to step (moving averages, code usage).
    guard: what the guard against divergence keeps.
    """

    step: Int[Array, ""]
    params: dict[str, Named]
    optimizer: dict[str, optax.OptState]
    ema: dict[str, Named]
    carried: Any
    guard: GuardState = dataclasses.field(default_factory=dict)


def create_state(
    players: Mapping[str, Player],
    modules: Mapping[str, nnx.Module | Named],
    carried: Any,
    mesh: Mesh,
    guard: Guard = Guard(),
) -> TrainState:
    """The state before the first step.

    Args:
      players: who is trained.
      modules: their weights, on the mesh; or the trained ones alone, by name.
      carried: what the objectives start with; replicated.
      mesh: devices.
      guard: the step's.
    """
    params, optimizer, ema = {}, {}, {}
    for name, player in players.items():
        start = modules[name]
        own = player.trained(start) if isinstance(start, nnx.Module) else start
        params[name] = {key: jnp.asarray(x, jnp.float32) for key, x in own.items()}
        layout = optimizer_shardings(player, params[name], mesh)
        optimizer[name] = jax.jit(player.optimizer.init, out_shardings=layout)(params[name])
        if player.ema_decay is not None:
            ema[name] = {key: jnp.copy(x) for key, x in params[name].items()}
    everywhere = NamedSharding(mesh, PartitionSpec())
    rest = jax.device_put((jnp.int32(0), carried, guard.start(players)), everywhere)
    return TrainState(rest[0], params, optimizer, ema, rest[1], rest[2])


def abstract_state(
    players: Mapping[str, Player], carried: Any, mesh: Mesh, guard: Guard = Guard()
) -> TrainState:
    """The state's shapes and places, without weights: what a checkpoint is read into, and programs are compiled for.

    Args:
      players, mesh, guard: as for :func:`create_state`.
      carried: arrays or shapes.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    params, optimizer, ema = {}, {}, {}
    for name, player in players.items():
        shapes = {key: p for key, p in player.declared().items() if key in player.names}
        places = _places(shapes, mesh)
        params[name] = {
            key: jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=places[key]) for key, p in shapes.items()
        }
        moments = jax.eval_shape(player.optimizer.init, params[name])
        optimizer[name] = jax.tree.map(place, moments, optimizer_shardings(player, params[name], mesh))
        if player.ema_decay is not None:
            ema[name] = dict(params[name])
    counts = jax.eval_shape(lambda: (jnp.int32(0), guard.start(players)))
    rest = jax.tree.map(lambda x: place(x, everywhere), (counts[0], carried, counts[1]))
    return TrainState(rest[0], params, optimizer, ema, rest[1], rest[2])


def parameter_shardings(
    module: nnx.Module, mesh: Mesh, rules: ShardingRules | None = None
) -> dict[str, NamedSharding]:
    """Where each parameter of a module lies on the mesh, by name."""
    return _places(named_parameters(module), mesh, rules)


def _places(
    parameters: Mapping[str, nnx.Param], mesh: Mesh, rules: ShardingRules | None = None
) -> dict[str, NamedSharding]:
    return {name: named_sharding(mesh, p.axes, tuple(p.shape), rules) for name, p in parameters.items()}


def optimizer_shardings(player: Player, params: Named, mesh: Mesh) -> Any:
    """The optimiser state's shardings: moments beside their parameters, counters everywhere."""
    shapes = jax.eval_shape(player.optimizer.init, params)
    placed = _places(player.declared(), mesh)
    own = {name: placed[name] for name in params}
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(moment: Any, sharding: NamedSharding) -> Any:
        # a group's state holds a mark in place of each parameter of the others
        return moment if isinstance(moment, optax.MaskedNode) else sharding

    return optax.tree.map_params(
        player.optimizer,
        place,
        shapes,
        own,
        transform_non_params=lambda _: everywhere,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
