"""Runs our image autoencoder and our picture sizes on recorded cases."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from checkpoint_convert import vae
from checkpoint_convert.load import load_arrays
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array, Float
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.evals.vectors.mammothtok import channels_first, channels_last, thin_channels
from mammoth_jax.models.vae.model import VAE, postprocess, posterior
from mammoth_jax.processing.image import RESAMPLE, SizeRule, preprocess, smart_resize


def run_vae(case: Case) -> dict[str, Any]:
    """Posterior, its sample in the scaled space, and decoding."""
    config = vae.config_from_released(case.config)
    model = abstract(lambda rngs: VAE(config, rngs=rngs))
    model = load_arrays(model, vae.rules(config), case.weights, str(case.weights_path))
    inputs = {name: channels_last(x) for name, x in case.inputs.items()}
    values = _vae(model, inputs["image"], inputs["posterior_noise"], inputs["latents"])
    return {name: thin_channels(case, name, values[name]) for name in case.tolerances if name in values}


@jax.jit
def _vae(
    model: VAE, image: Float[Array, "b r c 3"], noise: Float[Array, "b r2 c2 z"], latents: Float[Array, "b r3 c3 z"]
) -> dict[str, Array]:
    encoder = dict(model.encoder.stages(image))
    gaussian = posterior(encoder["moments"])
    unscaled = model.unscale_latents(latents)
    values = {
        "mean": gaussian.mean,
        "logvar": gaussian.logvar,
        "encoded_scaled": model.scale_latents(model.encode(image).sample(noise)),
        "unscaled": unscaled,
        "decoded": model.decode(unscaled),
        **{f"encoder.{name}": x for name, x in encoder.items()},
        **{f"decoder.{name}": x for name, x in model.decoder.stages(unscaled)},
    }
    return {name: channels_first(x) for name, x in values.items()}


def run_image_processing(case: Case) -> dict[str, Any]:
    """Both size rules on the recorded tables, pixels of the examples, and the conversion to bytes."""
    config = case.config
    out: dict[str, Any] = {"@resample": RESAMPLE}
    defaults = SizeRule()
    rule = {
        "vae_scale_factor": defaults.factor,
        "max_pixels": defaults.max_pixels,
        "max_side_length": defaults.max_side_length,
    }
    out |= {f"@released_defaults.{key}": value for key, value in rule.items()}
    for i, row in enumerate(config["get_new_height_width"]):
        size = _rule(row, config).size(row["height"], row["width"])
        out |= _leaves(f"@get_new_height_width.{i}", {"new_height": size[0], "new_width": size[1]})
    for i, row in enumerate(config["smart_resize"]):
        bounds = {key: row[key] for key in ("factor", "min_pixels", "max_pixels")}
        try:
            size = list(smart_resize(row["height"], row["width"], **bounds))
        except InputError:
            size = "ValueError"
        out |= _leaves(f"@smart_resize.{i}.result", size)
    for i, row in enumerate(config["preprocess_examples"]):
        name = row["name"]
        picture = preprocess(Image.fromarray(case.inputs[f"{name}.image"]), _rule(row, config))
        out[f"{name}.pixels"] = np.moveaxis(picture, -1, 0)[None]
        out |= _leaves(f"@preprocess_examples.{i}.out", list(out[f"{name}.pixels"].shape))
    for name, x in case.inputs.items():
        if name.endswith(".in"):
            pixels = postprocess(channels_last(x))
            target = name.removesuffix("in") + "out"
            batched = len(case.entry["outputs"][target]["shape"]) == 4
            out[target] = pixels if batched else pixels[0]
    return out


def compared_leaves(config: Mapping[str, Any]) -> set[str]:
    """The leaves of the case's configuration that are results: sizes, errors, and the released defaults."""
    known = ("vae_scale_factor", "max_pixels", "max_side_length")
    out = {f"@released_defaults.{key}" for key in known if key in config.get("released_defaults", {})}
    out |= {"@resample"} if "resample" in config else set()
    for i, row in enumerate(config["get_new_height_width"]):
        out |= set(_leaves(f"@get_new_height_width.{i}", {key: row[key] for key in ("new_height", "new_width")}))
    for i, row in enumerate(config["smart_resize"]):
        out |= set(_leaves(f"@smart_resize.{i}.result", row["result"]))
    for i, row in enumerate(config["preprocess_examples"]):
        out |= set(_leaves(f"@preprocess_examples.{i}.out", row["out"]))
    return out


def _rule(row: Mapping[str, Any], config: Mapping[str, Any]) -> SizeRule:
    """The rule of a table's row, with the release's fault, which the tables show."""
    values = {**config["released_defaults"], **row}
    return SizeRule(
        factor=values["vae_scale_factor"],
        max_pixels=values["max_pixels"],
        max_side_length=values["max_side_length"],
        release_faults=True,
    )


def _leaves(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _leaves(f"{path}.{key}", item).items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in _leaves(f"{path}.{i}", item).items()}
    return {path: value}


RUNNERS: dict[str, Runner] = {"vae": run_vae, "vae_image_processing": run_image_processing}
COMPARED: dict[str, Callable[[dict[str, Any]], set[str]]] = {"vae_image_processing": compared_leaves}
