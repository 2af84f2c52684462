"""A training task of two tiny players on numbers, for tests of the trainer."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.training.guard import Guard
from mammoth_jax.training.muon import stacked_matrices
from mammoth_jax.training.optimizer import AdamWConfig, Group, assign_groups, build_optimizer
from mammoth_jax.training.player import Outcome, Player
from mammoth_jax.training.schedules import WarmupConstant
from mammoth_jax.training.state import create_state
from mammoth_jax.training.step import Frozen, build_step
from mammoth_jax.training.work import Work

WIDTH = 8


class Net(nnx.Module):
    """Two linear layers."""

    def __init__(self):
        self.first = Linear(WIDTH, 16, axes=("embed", "mlp"), bias=True)
        self.second = Linear(16, WIDTH, axes=("mlp", "embed"), bias=True)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


class LayeredBlock(nnx.Module):
    """A layer with two outputs axes in its first map and two input axes in its second."""

    def __init__(self):
        self.split = Linear(WIDTH, (2, 6), axes=("embed", ("heads", None)))
        self.join = Linear((2, 6), WIDTH, axes=(("heads", None), "embed"), bias=True)


class LayeredNet(nnx.Module):
    """Three such layers in a stack, then one map."""

    def __init__(self):
        self.layers = stack_layers(LayeredBlock, 3)
        self.last = Linear(WIDTH, 4, axes=("embed", None))

    def __call__(self, x):
        y, _ = scan_layers(
            lambda y, block, _: (y + block.join(jnp.tanh(block.split(y))), None), x, self.layers
        )
        return self.last(y)


def _mean(x):
    return LossSum(jnp.sum(x), jnp.float32(x.size))


def generate(models, batch, passed, carried, key, step, whole):
    """Reconstructs, with noise, and pleases the critic."""
    noise = 0.1 * jax.random.normal(key, batch["x"].shape)
    made = models["model"](batch["x"] + noise)
    error, score = _mean(jnp.square(made - batch["x"])), _mean(models["critic"](made))
    carried = {**carried, "mean": 0.9 * carried["mean"] + 0.1 * error.mean}
    return Outcome(error.mean - 0.1 * score.mean, {"error": error, "score": score}, made, carried)


def criticise(models, batch, passed, carried, key, step, whole):
    """Tells real from made."""
    real, made = models["critic"](batch["x"]), models["critic"](passed)
    loss = _mean(jax.nn.relu(1 - real) + jax.nn.relu(1 + made))
    return Outcome(loss.mean, {"critic": loss}, None, carried)


def player(objective, groups=("",), *, ema_decay=None, rate=1e-2, clip_norm=1.0):
    """A player over ``Net``."""
    config = AdamWConfig(
        groups=tuple(
            Group(name=f"g{i}", patterns=(p,), schedule=WarmupConstant(learning_rate=rate))
            for i, p in enumerate(groups)
        ),
        clip_norm=clip_norm,
    )
    template = abstract(Net)
    labels = assign_groups(named_parameters(template), config.groups)
    return Player(
        template=template,
        names=frozenset(labels),
        objective=objective,
        optimizer=build_optimizer(config, labels, 100, stacked_matrices(named_parameters(template))),
        ema_decay=ema_decay,
    )


def players(**options):
    """The two, in order."""
    return {"model": player(generate, **options), "critic": player(criticise)}


def state_and_frozen(who, mesh, seed=0, guard=Guard()):
    """Start state and frozen parts of the toy."""
    modules = {name: initialize(Net, seed + i, mesh) for i, name in enumerate(who)}
    frozen = Frozen({}, {name: p.rest(modules[name]) for name, p in who.items()})
    return create_state(who, modules, {"mean": jnp.float32(0)}, mesh, guard), frozen


class Numbers:
    """Batches of random numbers, a function of their number."""

    def __init__(self, batch_size, *, broken_at=None):
        self.batch_size, self.broken_at, self.position = batch_size, broken_at, 0

    def __next__(self):
        x = np.random.default_rng(self.position).standard_normal((self.batch_size, WIDTH)).astype(np.float32)
        self.position += 1
        if self.position == self.broken_at:
            x[0, 0] = np.nan
        return {"x": x}

    def state(self):
        return {"position": self.position}

    def restore(self, states):
        (state,) = states
        self.position = state["position"]

    def report(self):
        return {"data/rows": self.position * self.batch_size}

    def close(self):
        pass


def work(config, mesh, *, broken_at=None):
    """The toy as work for the loop."""
    who = players(ema_decay=0.9)
    _, frozen = state_and_frozen(who, mesh)
    return Work(
        initial=lambda: state_and_frozen(who, mesh, guard=config.guard)[0],
        step=build_step(who, accumulation=config.accumulation, guard=config.guard),
        frozen=frozen,
        batches=lambda: Numbers(config.batch_size // jax.process_count(), broken_at=broken_at),
        rates={"model": WarmupConstant(learning_rate=1e-2).build(config.steps)},
        evaluate=lambda state, step, pictures: {"step_seen": int(state.step)},
    )


def squares(models, batch, passed, carried, key, step, whole):
    """Far from what is wanted."""
    error = jnp.square(models["model"](batch["x"]) - 1.0)
    term = LossSum(jnp.sum(error), jnp.float32(error.size))
    return Outcome(term.mean, {"error": term}, None, carried)
