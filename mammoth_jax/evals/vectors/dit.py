"""Runs our diffusion transformer and Q-Former on recorded cases."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert import align
from checkpoint_convert import dit as table
from checkpoint_convert.load import load_arrays, released_tensors
from mammoth_jax.core.compat import ReleaseFaults
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.evals.vectors.dit_batch import (
    Batch,
    Sample,
    stack_references,
    to_latent,
    to_tokens,
    token_grid,
)
from mammoth_jax.flow.path import interpolate, velocity_target
from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.positions import grid_positions, rope_factors
from mammoth_jax.models.dit.transformer import DiT, References
from mammoth_jax.objectives.flow_matching import flow_matching_losses

PADDED = ReleaseFaults(padded_context=True)
_TRANSFORMER, _REFINER = "gen_transformer.", "gen_image_condition_refiner."


def load_models(case: Case) -> tuple[DiT, QFormer | None]:
    """The case's transformer and Q-Former (inside the transformer, or beside it), through the converter."""
    width = int(case.config["llm_hidden_size"])
    config = table.config_from_released(case.config["gen_dit_config"], width)
    beside = any(name.startswith(_REFINER) for name in case.weights)
    transformer = _below(case.weights, _TRANSFORMER) if beside else dict(case.weights)
    query = _below(case.weights, _REFINER) if beside else _below(transformer, table.IMAGE_EMBEDDER)
    rest = {name: x for name, x in transformer.items() if not name.startswith(table.IMAGE_EMBEDDER)}
    dit = load_arrays(abstract(lambda: DiT(config)), table.rules(config), rest, case.name)
    if not query:
        return dit, None
    stage, out = ("llm", width) if beside else ("dit", config.hidden_size)
    refiner = align.config_from_released(case.config["gen_image_condition_refiner_config"], width, out, stage)
    return dit, _load_qformer(refiner, query, case.name)


def _load_qformer(config: QFormerConfig, tensors: Mapping[str, np.ndarray], where: str) -> QFormer:
    return load_arrays(abstract(lambda: QFormer(config)), align.rules(config), tensors, where)


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _recorded_references(inputs: Mapping[str, np.ndarray], row: int) -> tuple[np.ndarray, ...]:
    prefix = f"ref_image_hidden_states_{row}_"
    return tuple(
        inputs[name]
        for name in sorted((n for n in inputs if n.startswith(prefix)), key=lambda n: int(n[len(prefix) :]))
    )


def _select(case: Case, results: Mapping[str, Any]) -> dict[str, Any]:
    return {name: results[name] for name in case.entry["outputs"] if name in results}


def run_dit_text(case: Case) -> dict[str, Any]:
    """Text condition alone, with different lengths; also the whole rope tables."""
    dit, _ = load_models(case)
    data = case.inputs
    rows = range(len(data["timestep"]))
    samples = [
        Sample(
            *(
                data[key][i]
                for key in ("hidden_states", "timestep", "text_hidden_states", "text_attention_mask")
            )
        )
        for i in rows
    ]
    batch = Batch(dit, None, samples)
    results = batch.variant(rows) | {"velocity": np.stack([batch.velocity(i) for i in rows])}
    config = dit.config
    for axis, (dim, length) in enumerate(zip(config.axes_dim_rope, config.axes_lens, strict=True)):
        factors = jax.jit(rope_factors, static_argnums=1)(jnp.arange(length)[None, :, None], (dim,))
        for name, factor in zip(("cos", "sin"), factors, strict=True):
            results[f"rope_table.axis{axis}.{name}"] = np.repeat(np.asarray(factor)[0], 2, axis=-1)
    return _select(case, results)


def run_dit_text_image(case: Case) -> dict[str, Any]:
    """Text and query tokens; with unequal text lengths both the right values and the release's."""
    dit, refiner = load_models(case)
    data = case.inputs

    def sample(variant: str, i: int) -> Sample:
        text = [data[f"{variant}.{key}"][i] for key in ("text_hidden_states", "text_attention_mask")]
        image = [data[key][i] for key in ("ar_image_hidden_states", "ar_image_attention_mask")]
        return Sample(data["hidden_states"][i], data["timestep"][i], *text, *image)

    rows = range(len(data["timestep"]))
    unequal = [sample("ne", i) for i in rows]
    right = Batch(dit, refiner, [sample("eq", i) for i in rows] + unequal)
    faulty = Batch(dit, refiner, unequal, PADDED)
    results = right.variant(rows, "eq.") | faulty.variant(rows, "ne.")
    results["eq.velocity"] = np.stack([right.velocity(i) for i in rows])
    results["ne.velocity"] = np.stack([faulty.velocity(i) for i in rows])
    for i in rows:
        results[f"ne.solo_{i}.velocity"] = right.velocity(len(rows) + i)[None]
    return _select(case, results)


def run_dit_ref(case: Case) -> dict[str, Any]:
    """References and targets of different sizes; the variant ``none`` drops the last sample's references."""
    dit, _ = load_models(case)
    data = case.inputs
    rows = range(len(data["timestep"]))

    def sample(i: int, references: tuple[np.ndarray, ...]) -> Sample:
        keys = ("timestep", "text_hidden_states", "text_attention_mask")
        return Sample(data[f"hidden_states_{i}"], *(data[key][i] for key in keys), references=references)

    one = [sample(i, _recorded_references(data, i)) for i in rows]
    none = [*one[:-1], dataclasses.replace(one[-1], references=())]
    batch = Batch(dit, None, none + one)
    results: dict[str, Any] = {}
    for name, first in (("none", 0), ("one", len(none))):
        members = range(first, first + len(rows))
        results |= batch.variant(members, f"{name}.")
        results |= {f"{name}.velocity_{i}": batch.velocity(first + i) for i in rows}
    return _select(case, results)


def run_dit_q25(case: Case) -> dict[str, Any]:
    """The Q-Former in the backbone's width before the caption embedder; the reference belongs to the first sample."""
    dit, refiner = load_models(case)
    assert refiner is not None
    data = case.inputs
    keys = ("hidden_states", "timestep", "text_condition", "text_mask", "image_condition", "image_mask")
    rows = range(len(data["timestep"]))
    samples = [
        Sample(*(data[key][i] for key in keys), references=(data["ref_latent"],) if i == 0 else ())
        for i in rows
    ]
    right, faulty = Batch(dit, refiner, samples), Batch(dit, refiner, samples, PADDED)
    results = {f"solo_{i}.velocity": right.velocity(i)[None] for i in rows}
    results |= {
        "refined": right.out["queries"],
        "velocity_batch": np.stack([faulty.velocity(i) for i in rows]),
    }
    return _select(case, results)


def _loss(
    models: tuple[DiT, QFormer],
    condition: Condition,
    noise: Array,
    target_data: Array,
    time: Array,
    sizes: Array,
    references: References | None,
) -> tuple[Array, dict[str, Array]]:
    xt, ut = interpolate(noise, target_data, time), velocity_target(noise, target_data)
    pred = models[0](xt, time, encode_condition(*models, condition), sizes, references)
    term = flow_matching_losses(pred, ut, grid_positions(sizes, noise.shape[1])[2])
    return term.sum().mean, {"xt": xt, "ut": ut, "pred": pred, "task_loss": term.losses}


def run_dit_grads(case: Case) -> dict[str, Any]:
    """The flow-matching loss of given noise, data and time, and its gradients by released name."""
    dit, refiner = load_models(case)
    assert refiner is not None
    data, patch = case.inputs, dit.config.patch_size
    rows = range(len(data["t"]))
    keys = ("text_hidden_states", "text_attention_mask", "ar_image_hidden_states", "ar_image_attention_mask")
    condition = Condition(*(jnp.asarray(data[key]) for key in keys))
    references = stack_references([_recorded_references(data, i) for i in rows], patch)
    noise, target_data = (np.stack([to_tokens(data[key][i], patch) for i in rows]) for key in ("x0", "x1"))
    sizes = np.array([token_grid(data["x1"][i], patch) for i in rows], np.int32)

    step = jax.jit(jax.value_and_grad(_loss, has_aux=True))
    args = (
        condition,
        jnp.asarray(noise),
        jnp.asarray(target_data),
        jnp.asarray(data["t"]),
        jnp.asarray(sizes),
        references,
    )
    (loss, aux), (dit_grads, refiner_grads) = step((dit, refiner), *args)
    results: dict[str, Any] = {"loss": np.asarray(loss)[None], "task_loss": aux["task_loss"]}
    for name in ("xt", "ut", "pred"):
        tokens = np.asarray(aux[name])
        results[name] = np.stack(
            [to_latent(tokens[i], *token_grid(data["x1"][i], patch), patch) for i in rows]
        )
    wanted = [name.removeprefix("grad.") for name in case.entry["outputs"] if name.startswith("grad.")]
    inside = [
        name.removeprefix(table.IMAGE_EMBEDDER) for name in wanted if name.startswith(table.IMAGE_EMBEDDER)
    ]
    outside = [name for name in wanted if not name.startswith(table.IMAGE_EMBEDDER)]
    grads = released_tensors(dit_grads, table.rules(dit.config), outside)
    for name, grad in released_tensors(refiner_grads, align.rules(refiner.config), inside).items():
        grads[table.IMAGE_EMBEDDER + name] = grad
    return _select(case, results | {f"grad.{name}": grad for name, grad in grads.items()})


def run_qformer(case: Case) -> dict[str, Any]:
    """The Q-Former alone."""
    given = case.config
    config = align.config_from_released(given, int(given["input_dim"]), int(given["hidden_size"]), "dit")
    model = _load_qformer(config, case.weights, case.name)
    evaluate = jax.jit(lambda model, x, mask: (model.embed(x), model(x, mask)))
    kv, out = evaluate(model, case.inputs["x"], case.inputs["attention_mask"].astype(bool))
    return _select(case, {"kv": kv, "out": out})


RUNNERS: dict[str, Runner] = {
    "dit_text": run_dit_text,
    "dit_text_image": run_dit_text_image,
    "dit_ref": run_dit_ref,
    "dit_grads": run_dit_grads,
    "dit_q25": run_dit_q25,
    "qformer": run_qformer,
}
