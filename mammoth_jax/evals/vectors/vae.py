"""Runs our image autoencoder and our picture sizes on recorded cases."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from checkpoint_convert import vae
from checkpoint_convert.load import load_arrays
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array, Float
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.evals.vectors.compare import leaves
from mammoth_jax.evals.vectors.mammothtok import channels_first, channels_last, thin_channels
from mammoth_jax.models.vae.model import VAE, posterior, postprocess
from mammoth_jax.processing.image import RESAMPLE, SizeRule, pixels, preprocess, smart_resize


def run_vae(case: Case) -> dict[str, Any]:
    """Posterior, its sample in the scaled space, and decoding."""
    config = vae.config_from_released(case.config)
    model = abstract(lambda: VAE(config))
    model = load_arrays(model, vae.rules(config), case.weights, str(case.weights_path))
    inputs = {name: channels_last(x) for name, x in case.inputs.items()}
    values = _vae(model, inputs["image"], inputs["posterior_noise"], inputs["latents"])
    return {name: thin_channels(case, name, values[name]) for name in case.tolerances if name in values}


@jax.jit
def _vae(
    model: VAE,
    image: Float[Array, "b r c 3"],
    noise: Float[Array, "b r2 c2 z"],
    latents: Float[Array, "b r3 c3 z"],
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
    found = dict(_defaults())
    for i, row in enumerate(config["get_new_height_width"]):
        height, width = _rule(row, config).size(row["height"], row["width"])
        path = f"get_new_height_width.{i}"
        found |= {f"{path}.new_height": height, f"{path}.new_width": width}
    for i, row in enumerate(config["smart_resize"]):
        bounds = {key: row[key] for key in ("factor", "min_pixels", "max_pixels")}
        try:
            size = list(smart_resize(row["height"], row["width"], **bounds))
        except InputError:
            size = "ValueError"
        found.update(leaves(size, f"smart_resize.{i}.result"))
    out: dict[str, Any] = {}
    for i, row in enumerate(config["preprocess_examples"]):
        name = row["name"]
        picture = preprocess(Image.fromarray(case.inputs[f"{name}.image"]), _rule(row, config))
        out[f"{name}.pixels"] = np.moveaxis(picture, -1, 0)[None]
        found.update(leaves(list(out[f"{name}.pixels"].shape), f"preprocess_examples.{i}.out"))
    for name, x in case.inputs.items():
        if name.endswith(".in"):
            out[name.removesuffix("in") + "out"] = postprocess(channels_last(x))[0]
    wanted = compared_leaves(config)
    return out | {f"@{path}": value for path, value in found.items() if path in wanted}


def compared_leaves(config: Mapping[str, Any]) -> set[str]:
    """Paths of the leaves that are results (sizes, errors) or the release's defaults; not the inputs and the prose."""
    result = re.compile(
        r"released_defaults\..*|resample|do_normalize"
        r"|get_new_height_width\.\d+\.new_(height|width)"
        r"|smart_resize\.\d+\.result(\.\d+)?"
        r"|preprocess_examples\.\d+\.out\.\d+"
    )
    return {path for path, _ in leaves(config) if result.fullmatch(path)}


def _defaults() -> dict[str, Any]:
    """Our defaults under the release's names."""
    rule = SizeRule()
    black = pixels(Image.new("RGB", (1, 1)))
    return {
        "released_defaults.vae_scale_factor": rule.factor,
        "released_defaults.max_pixels": rule.max_pixels,
        "released_defaults.max_side_length": rule.max_side_length,
        "resample": RESAMPLE,
        "do_normalize": bool((black == -1).all()),
    }


def _rule(row: Mapping[str, Any], config: Mapping[str, Any]) -> SizeRule:
    """The rule of a table's row, with the release's fault, which the tables show."""
    values = {**config["released_defaults"], **row}
    return SizeRule(
        factor=values["vae_scale_factor"],
        max_pixels=values["max_pixels"],
        max_side_length=values["max_side_length"],
        release_faults=True,
    )


RUNNERS: dict[str, Runner] = {"vae": run_vae, "vae_image_processing": run_image_processing}
COMPARED: dict[str, Callable[[Mapping[str, Any]], set[str]]] = {"vae_image_processing": compared_leaves}
