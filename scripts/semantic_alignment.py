"""What the semantic loss does to visual tokens, on the synthetic world: with it and without it, several seeds.

A small AIMv2 tower is first trained to name what is in a scene (which shapes in which colours, from its mean feature);
frozen, it is the teacher of MammothTok's semantic loss.  Tokenizers of equal budget are trained with and without that
loss.  Linear probes then read the shape and the colour at each token's cell from its code's vector, on scenes that
neither tokenizer nor teacher saw.

    python scripts/semantic_alignment.py --out runs/semantic --steps 1500 --seeds 0 1 2

Everything resumes; the table is printed and written to OUT/table.json when all runs are there.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from checkpoint_convert import aimv2
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.rules import expand
from checkpoint_convert.stream import by_target
from checkpoint_convert.to_torch import released_specs, write_released
from mammoth_jax.core.compilation_cache import enable_compilation_cache
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.data.synthetic.labels import scene_labels
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.vocabulary import COLOURS, SHAPES
from mammoth_jax.layers.linear import Linear
from mammoth_jax.models.aimv2 import SemanticEncoder
from mammoth_jax.models.mammothtok.config import EncoderConfig
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.objectives.tokenizer import as_float
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.loop import train
from mammoth_jax.training.metrics import read_metrics
from mammoth_jax.training.optimizer import AdamWConfig, Group, assign_groups, build_optimizer, learning_rates
from mammoth_jax.training.player import Outcome, Player
from mammoth_jax.training.runs import load_weights, open_run
from mammoth_jax.training.schedules import WarmupCosine
from mammoth_jax.training.state import TrainState, create_state
from mammoth_jax.training.step import Frozen, build_step
from mammoth_jax.training.tasks import build_work, load_tokenizer
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_kinds import MammothTokKind
from mammoth_jax.training.work import RunConfig, Work

TOWER = EncoderConfig(patch_size=8, width=64, mlp_width=176, num_layers=3, num_heads=4)
TEACHER_SCENES, PROBE_TRAIN, PROBE_TEST = 11, 12, 13  # seeds: the tokenizers draw theirs with 1


class Teacher(nnx.Module):
    """A tower and a linear layer that names the (shape, colour) pairs of a scene."""

    def __init__(self):
        self.tower = SemanticEncoder(TOWER, pixels_per_token=8)
        self.names = Linear(TOWER.width, len(SHAPES) * len(COLOURS), axes=("embed", None), bias=True)

    def __call__(self, picture: jax.Array) -> jax.Array:
        return self.names(jnp.mean(self.tower(picture), axis=(1, 2)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherTraining:
    """What the run of the teacher is told."""

    run: RunConfig


class NamedScenes:
    """Batches of scenes with their (shape, colour) pairs; batch ``n`` is a function of ``n``."""

    def __init__(self, batch_size: int):
        self._source = SyntheticScenes(split="train", seed=TEACHER_SCENES)
        self._size, self._position = batch_size, 0

    def __next__(self) -> dict[str, np.ndarray]:
        numbers = range(self._position * self._size, (self._position + 1) * self._size)
        self._position += 1
        records = [self._source[n] for n in numbers]
        pairs = [scene_labels(r.fields["scene"])["shape_colour"].reshape(-1) for r in records]
        pictures = [r.pictures[0].decode() for r in records]
        return {"picture": np.stack(pictures), "pairs": np.stack(pairs)}

    def state(self) -> dict[str, Any]:
        return {"position": self._position}

    def restore(self, states: Any) -> None:
        self._position = states[0]["position"]

    def report(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None: ...


def name_scene(
    models: Any, batch: Any, passed: Any, carried: Any, key: Any, step: Any, whole: Any
) -> Outcome:
    """Binary cross entropy of every pair; the share of scenes with all pairs right beside it."""
    logits, pairs = models["model"](as_float(batch["picture"])), batch["pairs"]
    losses = jax.nn.softplus(logits) - logits * pairs
    loss = LossSum(jnp.sum(losses), jnp.float32(losses.shape[0]))
    right = jnp.all((logits > 0) == pairs, axis=-1)
    return Outcome(
        loss.mean, {"names": loss, "scenes_right": LossSum(jnp.sum(right), loss.weight)}, None, carried
    )


def teacher_work(config: RunConfig, rate: float) -> Work:
    """Training of the teacher."""
    mesh, template = single_device_mesh(), abstract(Teacher)
    schedule = WarmupCosine(learning_rate=rate, warmup_steps=min(100, config.steps // 4), end=rate / 100)
    optimizer = AdamWConfig(groups=(Group(name="all", schedule=schedule),))
    labels = assign_groups(named_parameters(template), optimizer.groups)
    player = Player(
        template=template,
        names=frozenset(labels),
        objective=name_scene,
        optimizer=build_optimizer(optimizer, labels, config.steps, {}),
    )

    def initial() -> TrainState:
        return create_state({"model": player}, {"model": initialize(Teacher, 0, mesh)}, {}, mesh)

    return Work(
        initial=initial,
        step=build_step({"model": player}),
        frozen=Frozen({}, {"model": {}}),
        batches=lambda: NamedScenes(config.batch_size),
        rates=learning_rates(optimizer, config.steps),
        evaluate=lambda state, step, pictures: {},
    )


def train_teacher(out: Path, steps: int) -> Path:
    """The folder of the frozen tower, in AIMv2's published layout.

    Raises:
      InputError: ``out`` has a teacher of other settings.
    """
    config = RunConfig(
        steps=steps, batch_size=64, log_interval=20, checkpoint_interval=200, evaluation_interval=steps
    )
    folder, run, mesh = out / "teacher_weights", out / "teacher", single_device_mesh()
    open_run(run, TeacherTraining(run=config))
    if folder.is_dir():
        return folder
    train(teacher_work(config, 2e-3), config, run, mesh)
    tower = load_weights(run, abstract(Teacher), mesh).tower  # type: ignore[attr-defined]
    parameters = named_parameters(tower)
    groups = by_target(expand(aimv2.rules("aimv2", TOWER)), parameters)
    with new_folder(folder) as new:
        arrays = ((name, p[...]) for name, p in parameters.items())
        write_released(new, groups, released_specs(groups, parameters), arrays, max_bytes=None)
        heads = {"num_attention_heads": TOWER.num_heads}
        (new / "config.json").write_text(json.dumps(heads), encoding="utf-8")
    return folder


def train_tokenizer(out: Path, name: str, steps: int, seed: int, teacher: Path | None, weight: float) -> Path:
    """One tokenizer's run, from the nano recipe."""
    words = ["--run.steps", steps, "--run.seed", seed, "--run.evaluation_interval", steps]
    words += ["--run.evaluation_pictures", 512, "--run.log_interval", 20]
    if teacher is not None:
        words += ["--losses.semantic", weight, "--networks.semantic_encoder", str(teacher)]
    config = _with_short_warmup(load_training(Path("nano/mammothtok"), None, [str(w) for w in words]))
    run, mesh = out / name, single_device_mesh()
    open_run(run, config)
    train(build_work(config, mesh), config.run, run, mesh)
    return run


def _with_short_warmup(config: TokenizerTraining) -> TokenizerTraining:
    """The same with warm-ups of at most a quarter of the run."""
    groups = tuple(
        dataclasses.replace(
            group,
            schedule=dataclasses.replace(
                group.schedule, warmup_steps=min(group.schedule.warmup_steps, config.run.steps // 4)
            ),
        )
        for group in config.optimizer.groups
    )
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, groups=groups))


def embeddings(run: Path, seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Code vectors of every token of ``count`` scenes, and shape and colour at its cell (0: background)."""
    config = load_training(run / "config.yaml").model
    model = load_tokenizer(run, MammothTokKind(config), single_device_mesh())
    encode = jax.jit(lambda m, x: m.quantizer.lookup(m.encode(as_float(x))))
    source = SyntheticScenes(split="train", seed=seed)
    vectors, shapes, colours = [], [], []
    for first in range(0, count, 64):
        records = [source[i] for i in range(first, first + 64)]
        labels = [scene_labels(r.fields["scene"]) for r in records]
        vectors.append(np.asarray(encode(model, np.stack([r.pictures[0].decode() for r in records]))))
        shapes.append(np.stack([x["cell_shape"] for x in labels]))
        colours.append(np.stack([x["cell_colour"] for x in labels]))
    flat = np.concatenate(vectors).reshape(-1, vectors[0].shape[-1])
    return flat, np.concatenate(shapes).reshape(-1), np.concatenate(colours).reshape(-1)


def probe(train_set: tuple[np.ndarray, np.ndarray], test_set: tuple[np.ndarray, np.ndarray]) -> float:
    """Balanced accuracy of a multinomial logistic regression, over the cells that show an item."""
    (x, y), (xt, yt) = ((v[labels > 0], labels[labels > 0] - 1) for v, labels in (train_set, test_set))
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, xt = jnp.asarray((x - mean) / std), (xt - mean) / std
    classes = int(y.max()) + 1
    share = jnp.asarray(1 / (classes * np.bincount(y, minlength=classes).clip(1))[y], jnp.float32)

    def loss(weights: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = x @ weights[0] + weights[1]
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(y)[:, None], 1)[:, 0]
        return -jnp.sum(share * picked) + 1e-5 * jnp.sum(jnp.square(weights[0]))

    weights = (jnp.zeros((x.shape[1], classes)), jnp.zeros(classes))
    optimizer = AdamWConfig(
        groups=(Group(name="all", schedule=WarmupCosine(learning_rate=0.1, warmup_steps=10)),)
    )
    transform = build_optimizer(optimizer, {"w": "all", "b": "all"}, 600, {})
    params = {"w": weights[0], "b": weights[1]}

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        gradient = jax.grad(lambda p: loss((p["w"], p["b"])))(params)
        updates, state = transform.update(gradient, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=600))(
        (params, transform.init(params))
    )
    guess = np.argmax(xt @ np.asarray(params["w"]) + np.asarray(params["b"]), axis=1)
    return float(np.mean([np.mean(guess[yt == c] == c) for c in range(classes) if np.any(yt == c)]))


def row(run: Path, scenes: int) -> dict[str, float]:
    """Probes, PSNR and perplexity of a run."""
    known, shapes, colours = embeddings(run, PROBE_TRAIN, scenes)
    new, new_shapes, new_colours = embeddings(run, PROBE_TEST, scenes)
    last = next(r for r in reversed(read_metrics(run)) if "evaluation/psnr" in r)
    return {
        "shape": probe((known, shapes), (new, new_shapes)),
        "colour": probe((known, colours), (new, new_colours)),
        "psnr": last["evaluation/psnr"],
        "perplexity": last["evaluation/perplexity"],
    }


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="of each tokenizer")
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weight", type=float, default=0.5, help="of the semantic loss")
    parser.add_argument("--probe-scenes", type=int, default=1024)
    args = parser.parse_args()
    enable_compilation_cache()
    try:
        compare(args)
    except InputError as error:
        parser.error(str(error))


def compare(args: argparse.Namespace) -> None:
    """Trains what is missing, then probes.

    Raises:
      InputError: OUT has a teacher or tokenizers of other settings.
    """
    teacher = train_teacher(args.out, args.teacher_steps)
    rows: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for seed in args.seeds:
        for arm, given in (("without", None), ("with", teacher)):
            run = train_tokenizer(args.out, f"{arm}_{seed}", args.steps, seed, given, args.weight)
            rows[arm].append({"seed": seed, **row(run, args.probe_scenes)})
            print(json.dumps({"arm": arm, **rows[arm][-1]}), flush=True)
    table = {
        arm: {
            name: [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]
            for name in ("shape", "colour", "psnr", "perplexity")
            if (values := [r[name] for r in found])
        }
        for arm, found in rows.items()
    }
    (args.out / "table.json").write_text(
        json.dumps({"rows": rows, "mean_and_std": table}, indent=1), encoding="utf-8"
    )
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
