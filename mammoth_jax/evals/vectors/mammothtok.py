"""Runs our visual tokenizer on recorded cases."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from checkpoint_convert import mammothtok
from checkpoint_convert.load import load_arrays
from checkpoint_convert.rules import expand, present_parts
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.layers.stack import scan_layers
from mammoth_jax.models.mammothtok.config import MammothTokConfig
from mammoth_jax.models.mammothtok.encoder import sincos_positions
from mammoth_jax.models.mammothtok.estimators import RotationTrick, StraightThrough
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.mammothtok.quantizer import Quantizer
from mammoth_jax.objectives.vqgan import quantizer_losses


def channels_first(x: Float[Array, "b rows cols c"]) -> Float[Array, "b c rows cols"]:
    """A picture in the recorded layout."""
    return jnp.moveaxis(x, -1, 1)


def channels_last(x: np.ndarray) -> Float[Array, "b rows cols c"]:
    """A recorded picture in ours."""
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def thin_channels(case: Case, name: str, x: Float[Array, "b c rows cols"]) -> Float[Array, "b c2 rows cols"]:
    """The recorded channels of an output whose description says "channels 0, N, ... only"."""
    found = re.search(r"channels 0, (\d+),", case.entry["outputs"][name]["meaning"])
    return x[:, :: int(found.group(1))] if found else x


def load(case: Case, config: MammothTokConfig) -> MammothTok:
    """The parts that the case's weights hold, through the converter."""
    table = mammothtok.rules(config)
    parts = frozenset(present_parts(expand(table), case.weights))
    module = abstract(lambda: MammothTok(config, parts=parts))
    rules = [rule for rule in table if rule.part in parts]
    return load_arrays(module, rules, case.weights, str(case.weights_path))


def run_encode(case: Case) -> dict[str, Any]:
    """Picture to ids, for every ``X.image`` of the inputs."""
    model = load(case, mammothtok.config_from_released(case.config))
    out = {}
    for name, image in case.inputs.items():
        values = _encode(model, channels_last(image))
        prefix = name.removesuffix("image")
        out.update(
            {f"{prefix}{key}": value for key, value in values.items() if f"{prefix}{key}" in case.tolerances}
        )
    return out


@jax.jit
def _encode(model: MammothTok, picture: Float[Array, "b rows cols 3"]) -> dict[str, Array]:
    encoder, quantizer = model.encoder, model.quantizer
    assert encoder is not None and quantizer is not None
    patches = encoder.embed(picture)
    positions = sincos_positions(*encoder.grid(picture), patches.shape[-1])

    def block(x: Array, layer: Any, _: None) -> tuple[Array, Array]:
        x = layer(x)
        return x, x

    _, blocks = scan_layers(block, patches + positions, encoder.blocks)
    pre_quant = encoder(picture)
    quantized = quantizer(pre_quant)
    return {
        "patch_tokens": patches,
        "pos_embed": positions,
        "features": encoder.final_norm(blocks[-1]),
        "pre_quant": channels_first(pre_quant),
        "indices": quantized.ids.reshape(-1),
        "quantized": channels_first(quantized.output),
        "codebook_entry": channels_first(quantizer.lookup(quantized.ids)),
        **{f"block_{i}": x for i, x in enumerate(blocks)},
    }


def run_decode(case: Case) -> dict[str, Any]:
    """Ids to picture, for every ``X.indices`` of the inputs with its ``X.grid``."""
    model = load(case, mammothtok.config_from_released(case.config))
    out = {}
    for name, ids in case.inputs.items():
        if name.endswith("indices"):
            prefix = name.removesuffix("indices")
            grid = [int(x) for x in case.inputs[f"{prefix}grid"]]
            for key, value in _decode(model, jnp.asarray(ids).reshape(grid)).items():
                if f"{prefix}{key}" in case.tolerances:
                    out[f"{prefix}{key}"] = (
                        thin_channels(case, f"{prefix}{key}", value) if value.ndim == 4 else value
                    )
    return out


@jax.jit
def _decode(model: MammothTok, ids: Int[Array, "b gr gc"]) -> dict[str, Array]:
    decoder, quantizer = model.decoder, model.quantizer
    assert decoder is not None and quantizer is not None
    vit, codes = decoder.vit, quantizer.lookup(ids)
    z = decoder.from_code(codes)
    rotation = vit.rotation(ids.shape[1:])

    def block(x: Array, layer: Any, _: None) -> tuple[Array, Array]:
        x = layer(x, rotation)
        return x, x

    x, layers = scan_layers(block, vit.embed(z), vit.lower)
    semantic = vit.semantic_head(x)
    if vit.upper is not None:
        x, upper = scan_layers(block, x, vit.upper)
        layers = jnp.concatenate([layers, upper])
    spatial = vit.output(x, ids.shape[1:])
    stages = {name: channels_first(value) for name, value in decoder.cnn.stages(spatial)}
    return {
        "codes": channels_first(codes),
        "inner_feat": semantic,
        "rec_spatial": channels_first(spatial),
        "image": stages.pop("picture"),
        **{f"vit_layer_{i}": x for i, x in enumerate(layers)},
        **stages,
    }


def run_vq_train(case: Case) -> dict[str, Any]:
    """The quantiser's outputs, losses and gradients for both estimators."""
    sizes = case.config
    variants = {"rot": RotationTrick(), "ste": StraightThrough()}
    wanted = [name for name, on in (("rot", True), ("ste", False)) if on in sizes["rot_variants"]]
    out: dict[str, Any] = {}
    for name in wanted:
        config = MammothTokConfig(
            codebook_size=sizes["n_e"],
            code_dim=sizes["e_dim"],
            l2_norm=sizes["l2_norm"],
            commitment=sizes["beta"],
            entropy_ratio=max(sizes["entropy_loss_ratio_variants"]),
            estimator=variants[name],
        )
        z, r = channels_last(case.inputs["z"]), channels_last(case.inputs["r"])
        found = _vq_train(load_quantizer(case, config), z, r, config)
        out |= {f"{name}.z_q": found.pop("z_q"), f"{name}.grad_z": found.pop("grad_z"), **found}
    return out


def load_quantizer(case: Case, config: MammothTokConfig) -> Quantizer:
    """The quantiser alone, from weights that have no prefix."""
    tensors = {f"quantize.{name}": x for name, x in case.weights.items()}
    parts = frozenset({"mammothtok_codebook"})
    table = [rule for rule in mammothtok.rules(config) if rule.part in parts]
    module = abstract(lambda: MammothTok(config, parts=parts))
    quantizer = load_arrays(module, table, tensors, str(case.weights_path)).quantizer
    assert quantizer is not None
    return quantizer


def _vq_train(
    quantizer: Quantizer,
    z: Float[Array, "b rows cols c"],
    r: Float[Array, "b rows cols c"],
    config: MammothTokConfig,
) -> dict[str, Array]:
    def values(quantizer: Quantizer, z: Array) -> tuple[Array, Array]:
        quantized = quantizer(z)
        losses = quantizer_losses(quantized, config)
        means = (losses.vq.mean, losses.commitment.mean, losses.entropy.mean)
        return jnp.stack([jnp.sum(quantized.output * r), *means]), quantized.output

    @jax.jit
    def everything(quantizer: Quantizer, z: Array) -> dict[str, Array]:
        (sums, back, output) = jax.vjp(values, quantizer, z, has_aux=True)
        by_codes, by_z = lax.map(back, jnp.eye(4))
        codes, by_z = by_codes.codebook[...], jnp.moveaxis(by_z, -1, 2)
        return {
            "z_q": channels_first(output),
            "indices": quantizer.encode(z).reshape(-1),
            "grad_z": by_z[0],
            "vq_loss": sums[1:2],
            "commit_loss": sums[2:3],
            "entropy_loss": sums[3:4],
            "grad_embedding.vq_loss": codes[1],
            "grad_z.commit_loss": by_z[2],
            "grad_embedding.entropy_loss": codes[3],
            "grad_z.entropy_loss": by_z[3],
        }

    return everything(quantizer, z)


RUNNERS: dict[str, Runner] = {
    "mammothtok_encode": run_encode,
    "mammothtok_decode": run_decode,
    "vq_train": run_vq_train,
}
