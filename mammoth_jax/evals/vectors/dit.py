"""Runs our diffusion transformer and Q-Former on recorded cases.

The release lays sequences out compactly, ``[condition ; references ; target]`` without gaps, and its latents are
channels first; ours have masked gaps and are channels last.  Only this file rearranges.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert import align
from checkpoint_convert import dit as table
from checkpoint_convert.load import load_arrays, released_tensors
from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.flow.path import interpolate, velocity_target
from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.embeddings import time_sinusoid
from mammoth_jax.models.dit.positions import grid_positions, rope_factors
from mammoth_jax.models.dit.transformer import DiT, References
from mammoth_jax.objectives.flow_matching import flow_matching_losses
from mammoth_jax.ops.patchify import patchify, unpatchify

PADDED = ReleaseFaults(padded_context=True)
_TRANSFORMER, _REFINER = "gen_transformer.", "gen_image_condition_refiner."


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row: latent ``[c, rows, cols]``, time, compacted features and references' latents, as recorded."""

    latent: np.ndarray
    time: np.floating
    text: np.ndarray
    text_mask: np.ndarray
    image: np.ndarray | None = None
    image_mask: np.ndarray | None = None
    references: tuple[np.ndarray, ...] = ()


def load_models(case: Case) -> tuple[DiT, QFormer | None]:
    """The case's transformer and Q-Former (inside the transformer, or beside it), through the converter."""
    width = int(case.config["llm_hidden_size"])
    config = table.config_from_released(case.config["gen_dit_config"], width)
    beside = any(name.startswith(_REFINER) for name in case.weights)
    transformer = _below(case.weights, _TRANSFORMER) if beside else dict(case.weights)
    query = _below(case.weights, _REFINER) if beside else _below(transformer, table.IMAGE_EMBEDDER)
    rest = {name: x for name, x in transformer.items() if not name.startswith(table.IMAGE_EMBEDDER)}
    dit = load_arrays(abstract(lambda rngs: DiT(config, rngs=rngs)), table.rules(config), rest, case.name)
    if not query:
        return dit, None
    stage, out = ("llm", width) if beside else ("dit", config.hidden_size)
    refiner = align.config_from_released(case.config["gen_image_condition_refiner_config"], width, out, stage)
    return dit, _load_qformer(refiner, query, case.name)


def _load_qformer(config: QFormerConfig, tensors: Mapping[str, np.ndarray], where: str) -> QFormer:
    return load_arrays(abstract(lambda rngs: QFormer(config, rngs=rngs)), align.rules(config), tensors, where)


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


class Batch:
    """Samples of any sizes and lengths as one batch of ours, and its results in the release's layout."""

    def __init__(
        self, dit: DiT, refiner: QFormer | None, samples: Sequence[Sample], faults: ReleaseFaults = NO_FAULTS
    ):
        self.config, self.samples = dit.config, samples
        patch = dit.config.patch_size
        has_images = samples[0].image is not None
        self.condition = Condition(
            jnp.asarray(_padded([s.text for s in samples])),
            jnp.asarray(_padded([s.text_mask for s in samples])),
            jnp.asarray(_padded([s.image for s in samples])) if has_images else None,
            jnp.asarray(_padded([s.image_mask for s in samples])) if has_images else None,
        )
        self.sizes = np.array([_grid(s.latent, patch) for s in samples], np.int32)
        self.references = _references([s.references for s in samples], patch)
        x = _padded([_tokens(s.latent, patch) for s in samples])
        time = np.array([s.time for s in samples], np.float32)
        out = _evaluate(dit, refiner, self.condition, x, time, self.sizes, self.references, faults)
        self.out: dict[str, Any] = jax.tree.map(np.asarray, out)

    def velocity(self, row: int) -> np.ndarray:
        """``[c, rows, cols]`` of one sample."""
        rows, cols = self.sizes[row]
        return _latent(self.out["velocity"][row], int(rows), int(cols), self.config.patch_size)

    def variant(self, rows: Sequence[int], name: str = "") -> dict[str, Any]:
        """Every quantity of the samples ``rows``, as a batch of the release records it, names prefixed."""
        out = {
            key: value[list(rows)]
            for key, value in self.out.items()
            if value is not None and not key.endswith("blocks")
        }
        mask, context_mask = out["mask"], out["context_mask"]
        lengths, context_lengths = mask.sum(1), context_mask.sum(1)
        cos, sin = (np.repeat(out[key], 2, axis=-1) for key in ("cos", "sin"))
        noise = np.arange(mask.shape[1]) >= mask.shape[1] - self.out["velocity"].shape[1]
        context = np.arange(mask.shape[1]) < context_mask.shape[1]
        streams = {"context": mask & context, "ref": mask & ~noise & ~context, "noise": mask & noise}
        text_length = max(len(self.samples[row].text) for row in rows)
        padded_text = self.condition.text.shape[1]
        width = {"context": text_length + context_mask.shape[1] - padded_text}
        results: dict[str, Any] = {
            "timestep_proj": out["sinusoid"],
            "temb": out["time"],
            "caption_embed": out["caption"][:, :text_length],
            "position_ids": _compact(out["positions"], mask),
            "seq_lengths": lengths,
            "encoder_seq_lengths": context_lengths,
            "rope.joint.cos": _compact(cos, mask, fill=1),
            "rope.joint.sin": _compact(sin, mask),
        }
        if out.get("queries") is not None:
            results["ar_image_embed"] = out["queries"]
        for stream, valid in streams.items():
            results[f"rope.{stream}.cos"] = _compact(cos, valid, width.get(stream))
            results[f"rope.{stream}.sin"] = _compact(sin, valid, width.get(stream))
        last = self.config.num_refiner_layers - 1
        kept = np.r_[0:text_length, padded_text : context_mask.shape[1]]
        results[f"hidden.context_refiner.{last}"] = (out["context"] * out["embedded_mask"][..., None])[
            :, kept
        ]
        blocks = self.out["noise_blocks"][:, list(rows)]
        for layer in range(len(blocks)):
            results[f"hidden.noise_refiner.{layer}"] = _compact(blocks[layer], mask[:, noise])
        for layer, block in enumerate(self.out["joint_blocks"][:, list(rows)]):
            results[f"hidden.layers.{layer}"] = _compact(block, mask)
        if self.references is not None:
            for layer, block in enumerate(self.out["reference_blocks"]):
                results[f"hidden.ref_image_refiner.{layer}"] = self._refined_references(block, rows)
        return {f"{name}{key}": value for key, value in results.items()}

    def _refined_references(self, block: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """All references in order as rows of their own; a sample without any has one empty row."""
        assert self.references is not None
        sizes = np.asarray(self.references.sizes)
        block = block.reshape(*sizes.shape[:2], *block.shape[1:])
        longest = max(int(np.prod(size)) for row in rows for size in sizes[row])
        found = []
        for row in rows:
            count = max(1, len(self.samples[row].references))
            for each in range(count):
                valid = np.arange(longest) < np.prod(sizes[row, each])
                found.append(block[row, each, :longest] * valid[:, None])
        return np.stack(found)


@functools.partial(jax.jit, static_argnames="faults")
def _evaluate(
    dit: DiT,
    refiner: QFormer | None,
    condition: Condition,
    x: Array,
    time: Array,
    sizes: Array,
    references: References | None,
    faults: ReleaseFaults,
) -> dict[str, Any]:
    context = encode_condition(dit, refiner, condition, faults=faults)
    trace = dit.trace(x, time, context, sizes, references, faults=faults)
    cos, sin = rope_factors(trace.positions, dit.config.axes_dim_rope)
    embedded_mask, queries = condition.text_mask, None
    if refiner is not None and condition.image is not None and condition.image_mask is not None:
        queries = refiner(condition.image, condition.image_mask)
        embedded_mask = jnp.concatenate([embedded_mask, jnp.ones(queries.shape[:2], bool)], axis=1)
    return {
        "sinusoid": time_sinusoid(time, dit.config.timestep_scale),
        "time": trace.time,
        "caption": dit.caption(condition.text),
        "queries": queries,
        "embedded_mask": embedded_mask,
        "context": context.tokens,
        "context_mask": context.mask,
        "positions": trace.positions,
        "mask": trace.mask,
        "cos": cos,
        "sin": sin,
        "velocity": trace.velocity,
        "noise_blocks": trace.noise_blocks,
        "reference_blocks": trace.reference_blocks,
        "joint_blocks": trace.joint_blocks,
    }


def _grid(latent: np.ndarray, patch: int) -> tuple[int, int]:
    return latent.shape[1] // patch, latent.shape[2] // patch


def _tokens(latent: np.ndarray, patch: int) -> np.ndarray:
    """``[n, p]`` from ``[c, rows, cols]``."""
    return np.asarray(patchify(jnp.asarray(latent.transpose(1, 2, 0)[None]), patch))[0]


def _latent(tokens: np.ndarray, rows: int, cols: int, patch: int) -> np.ndarray:
    """``[c, rows, cols]`` from ``[n, p]``."""
    return np.asarray(unpatchify(jnp.asarray(tokens[None]), rows, cols, patch))[0].transpose(2, 0, 1)


def _padded(arrays: Sequence[Any]) -> np.ndarray:
    """Arrays of different lengths as one, zeros at the end."""
    out = np.zeros((len(arrays), max(len(a) for a in arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return out


def _compact(x: np.ndarray, mask: np.ndarray, length: int | None = None, fill: float = 0) -> np.ndarray:
    """The masked positions of each row at its front, ``fill`` after them."""
    length = int(mask.sum(1).max()) if length is None else length
    out = np.full((len(x), length, *x.shape[2:]), fill, x.dtype)
    for row, valid in enumerate(mask):
        out[row, : valid.sum()] = x[row][valid]
    return out


def _references(latents: Sequence[Sequence[np.ndarray]], patch: int) -> References | None:
    count = max(len(row) for row in latents)
    if not count:
        return None
    tokens = [[_tokens(latent, patch) for latent in row] for row in latents]
    longest = max(len(x) for row in tokens for x in row)
    values = next(x.shape[1] for row in tokens for x in row)
    patches = np.zeros((len(latents), count, longest, values), np.float32)
    sizes = np.zeros((len(latents), count, 2), np.int32)
    for i, row in enumerate(tokens):
        for j, x in enumerate(row):
            patches[i, j, : len(x)] = x
            sizes[i, j] = _grid(latents[i][j], patch)
    return References(jnp.asarray(patches), jnp.asarray(sizes))


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
        factors = rope_factors(jnp.arange(length)[None, :, None], (dim,))
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


def run_dit_grads(case: Case) -> dict[str, Any]:
    """The flow-matching loss of given noise, data and time, and its gradients by released name."""
    dit, refiner = load_models(case)
    assert refiner is not None
    data, patch = case.inputs, dit.config.patch_size
    rows = range(len(data["t"]))
    keys = ("text_hidden_states", "text_attention_mask", "ar_image_hidden_states", "ar_image_attention_mask")
    condition = Condition(*(jnp.asarray(data[key]) for key in keys))
    references = _references([_recorded_references(data, i) for i in rows], patch)
    noise, target_data = (np.stack([_tokens(data[key][i], patch) for i in rows]) for key in ("x0", "x1"))
    sizes = np.array([_grid(data["x1"][i], patch) for i in rows], np.int32)

    @jax.jit
    def step(models: tuple[DiT, QFormer], noise: Array, target_data: Array, time: Array) -> tuple[Any, Any]:
        def loss(models: tuple[DiT, QFormer]) -> tuple[Array, dict[str, Array]]:
            dit, refiner = models
            xt, ut = interpolate(noise, target_data, time), velocity_target(noise, target_data)
            context = encode_condition(dit, refiner, condition)
            pred = dit(xt, time, context, jnp.asarray(sizes), references)
            term = flow_matching_losses(pred, ut, grid_positions(jnp.asarray(sizes), noise.shape[1])[2])
            return term.total / term.weight, {"xt": xt, "ut": ut, "pred": pred, "task_loss": term.losses}

        return jax.value_and_grad(loss, has_aux=True)(models)

    (loss, aux), (dit_grads, refiner_grads) = step((dit, refiner), noise, target_data, data["t"])
    results: dict[str, Any] = {"loss": np.asarray(loss)[None], "task_loss": aux["task_loss"]}
    for name in ("xt", "ut", "pred"):
        tokens = np.asarray(aux[name])
        results[name] = np.stack([_latent(tokens[i], *_grid(data["x1"][i], patch), patch) for i in rows])
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
