"""The recorded joint training step, through the step that trains: losses, gradients, two updates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.load import released_tensors
from checkpoint_convert.model import model_rules
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.evals.vectors.dit_batch import to_latent
from mammoth_jax.evals.vectors.joint_batch import Arrays, JointSample, pack, read_samples
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.joint import JointForward, joint_forward, survey
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.objectives.joint_draws import Batch, Draws
from mammoth_jax.training.joint_objective import JointObjective, same_key
from mammoth_jax.training.optimizer import AdamWConfig, Group, assign_groups, build_optimizer
from mammoth_jax.training.parameter_groups import with_group_patterns
from mammoth_jax.training.player import Models, Player
from mammoth_jax.training.schedules import WarmupConstant
from mammoth_jax.training.state import TrainState, create_state
from mammoth_jax.training.step import Frozen, StepReport, build_step

VARIANTS = ("t2i", "edit")
_OUR_GROUP = {"rest": "understanding", "generation": "generation", "dit": "dit"}


class Trained(NamedTuple):
    """Two steps on one batch, with the gradients of the first."""

    gradients: dict[str, Array]
    states: tuple[TrainState, TrainState]
    reports: tuple[StepReport, StepReport]


def run_joint_step(case: Case) -> dict[str, Any]:
    """Both variants; samples packed into one row and one sample a row (as two micro-batches) must agree."""
    model = ModelFolder.open(case.weights_path).load(single_device_mesh())
    results: dict[str, Any] = {}
    for variant in VARIANTS:
        samples = read_samples(case, variant, model)
        queries = model.config.refiner.num_queries
        packed = pack([samples], queries)
        wanted = {
            name.removeprefix(f"{variant}.")
            for name in case.entry["outputs"]
            if name.startswith(f"{variant}.")
        }
        outputs = _forward_outputs(case, variant, samples, _forward(model, packed))
        trained = _train(case, model, packed, parts=1)
        outputs |= _trained_outputs(model, trained, wanted)
        outputs |= _tensors(
            model, _train(case, model, packed, 1, detached=True).gradients, wanted, "grad_detached."
        )
        outputs |= _losses(outputs, trained.reports[0])
        if len(samples) > 1:
            separate = _train(case, model, pack([[s] for s in samples], queries), parts=len(samples))
            alone = _trained_outputs(model, separate, wanted)
            alone |= _losses(outputs, separate.reports[0])
            _must_agree(case, variant, outputs, alone)
        results |= {f"{variant}.{name}": outputs[name] for name in wanted if name in outputs}
    return results


def _recorded(batch: Batch, key: Any = None, models: Models | None = None) -> Draws:
    """The recorded time and noise in place of drawn ones."""
    return Draws(batch["ids"], batch["time"], batch["target_mean"], batch["noise"])


def _forward(model: Mammoth, batch: Arrays) -> JointForward:
    run = jax.jit(lambda model, batch: joint_forward(model, batch, _recorded(batch)))
    return jax.tree.map(np.asarray, run(model, jax.tree.map(jnp.asarray, batch)))


def _optimizer(case: Case) -> AdamWConfig:
    asked = case.entry["flow"]["optimizer"]
    groups = tuple(
        Group(name=_OUR_GROUP[name], schedule=WarmupConstant(learning_rate=rate))
        for name, rate in asked["lr"].items()
    )
    beta1, beta2 = asked["betas"]
    return with_group_patterns(
        AdamWConfig(
            groups=groups,
            beta1=beta1,
            beta2=beta2,
            eps=asked["eps"],
            weight_decay=asked["weight_decay"],
            decayed=None,
            clip_norm=asked["clip_global_norm"],
        )
    )


def _train(case: Case, model: Mammoth, batch: Arrays, parts: int, *, detached: bool = False) -> Trained:
    """Two steps of the player; rows are dealt out to ``parts`` micro-batches."""
    asked = case.entry["flow"]["loss_weights"]
    config = JointObjectiveConfig(ntp=asked["ntp"], flow=asked["flow"], condition_gradients=not detached)
    optimizer = _optimizer(case)
    labels = assign_groups(named_parameters(model), optimizer.groups)
    player = Player(
        template=jax.eval_shape(lambda: model),
        names=frozenset(labels),
        objective=JointObjective(config=config, drawing=_recorded),
        optimizer=optax.chain(_kept_gradients(), build_optimizer(optimizer, labels, 2, {})),
        survey=survey,
        micro_key=same_key,
    )
    mesh = single_device_mesh()
    with jax.set_mesh(mesh):
        state = create_state({"model": player}, {"model": model}, None, mesh)
        frozen = Frozen({}, {"model": player.rest(model)})
        step = jax.jit(build_step({"model": player}, accumulation=parts))
        data = {
            name: jnp.asarray(x.reshape(parts, len(x) // parts, *x.shape[1:])) for name, x in batch.items()
        }
        first, report = step(state, frozen, data, jax.random.key(0))
        second, other = step(first, frozen, data, jax.random.key(0))
    return Trained(first.optimizer["model"][0], (first, second), (report, other))  # type: ignore[index]


def _kept_gradients() -> optax.GradientTransformation:
    """Passes gradients on and keeps them as its state."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda updates, state, params=None: (updates, updates),
    )


def _trained_outputs(model: Mammoth, trained: Trained, wanted: set[str]) -> dict[str, Any]:
    """Gradients, norms and weights after each step."""
    results = _tensors(model, trained.gradients, wanted, "grad.")
    for number, prefix in enumerate(("adamw.", "adamw2.")):
        results |= _tensors(model, trained.states[number].params["model"], wanted, prefix)
    for number, name in enumerate(("global_norm", "global_norm2")):
        results[name] = np.asarray(trained.reports[number].gradient_norms["model"])[None]
    return results


def _tensors(model: Mammoth, named: dict[str, Array], wanted: set[str], prefix: str) -> dict[str, Any]:
    """Released tensors out of trained parameters or their gradients."""
    names = [name.removeprefix(prefix) for name in wanted if name.startswith(prefix)]
    rest = {name: p[...] for name, p in named_parameters(model).items() if name not in named}
    found = released_tensors(with_parameters(model, {**rest, **named}), model_rules(model.config), names)
    return {f"{prefix}{name}": x for name, x in found.items()}


def _losses(outputs: dict[str, Any], report: StepReport) -> dict[str, Any]:
    terms = report.terms
    ntp, flow = np.asarray(terms["ntp"].mean), np.asarray(terms["flow"].mean)
    return {
        "num_tokens": np.asarray(terms["ntp"].weight, np.int64)[None],
        "ntp_loss": ntp[None],
        "flow_loss": flow[None],
        "total": (ntp + flow)[None],
    }


def _forward_outputs(
    case: Case, variant: str, samples: list[JointSample], forward: JointForward
) -> dict[str, Any]:
    """What the one packed row gave, in the recorded layout: a row a sample, padded at the left."""
    assert forward.features is not None and forward.velocity is not None and forward.flow is not None
    length = case.inputs[f"{variant}.input_ids"].shape[1]
    patch = case.config["gen_dit_config"]["patch_size"]
    results: dict[str, Any] = {"flow_per_sample": forward.flow.losses[0]}
    hidden, losses, text, image = [], [], [], []
    start = first = 0
    for number, sample in enumerate(samples):
        part = slice(start, start + len(sample))
        features, token = forward.features[0, part], forward.ntp.losses[0, part]
        pad = length - len(sample)
        hidden.append(np.pad(features, ((pad, 0), (0, 0))))
        losses.append(np.pad(token, (pad, 0)))
        text.append(features[sample.text])
        image.append(features[sample.image])
        tokens = forward.velocity[0, first : first + len(sample.data)]
        results[f"velocity.{number}"] = to_latent(np.asarray(tokens), *sample.grid, patch)
        start, first = part.stop, first + len(sample.data)
    results |= {"hidden_mean": np.stack(hidden), "token_loss": np.stack(losses)}
    for name, found in (("text_condition", text), ("image_condition", image)):
        longest = max(map(len, found))
        results[name] = np.stack([np.pad(x, ((0, longest - len(x)), (0, 0))) for x in found])
        results[f"{name}_mask"] = np.stack([np.arange(longest) < len(x) for x in found]).astype(np.int64)
    return results


def _must_agree(case: Case, variant: str, packed: dict[str, Any], alone: dict[str, Any]) -> None:
    tolerances = case.tolerances
    for name, x in alone.items():
        tolerance = tolerances.get(f"{variant}.{name}")
        if tolerance is not None and np.abs(packed[name] - x).max() > tolerance:
            raise AssertionError(f"{variant}.{name}: packed into one row and one sample a row differ")


RUNNERS: dict[str, Runner] = {"joint_step": run_joint_step}
