"""A whole model small enough for tests: the nano preset, narrower and shallower, with every weight random."""

import functools

import jax
import numpy as np
from jax.sharding import Mesh

from mammoth_jax.core.config import decode, encode, merge
from mammoth_jax.core.initializers import generator
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.core.presets import load_preset
from mammoth_jax.core.sharding import named_sharding
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.loading import LoadedModel, random_model
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline

CHANGES = {
    "backbone": {
        "decoder": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_layers": 3,
            "head_dim": 8,
            "mrope_section": [2, 1, 1],
            "experts": {"kind": "ffn", "start": 1, "stop": 3},
        },
        "vision": {
            "num_layers": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
        },
    },
    "mammothtok": {
        "encoder": {"width": 16, "mlp_width": 24, "num_layers": 1, "num_heads": 2},
        "z_channels": 16,
        "vit": {"width": 16, "num_layers": 2, "num_heads": 2, "distill_depth": 1, "semantic_width": 8},
        "cnn": {"channels": 8, "multipliers": [1, 1, 1, 1]},
    },
    "refiner": {"input_width": 32, "width": 32, "num_queries": 4, "num_heads": 2},
    "dit": {
        "condition_width": 32,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 1,
        "axes_dim_rope": [4, 6, 6],
    },
    "vae": {"block_out_channels": [8, 8, 8]},
    "condition": {"layers": [-2, -3], "mode": "text_image"},
}


@functools.cache
def tiny_config() -> MammothConfig:
    """The configuration."""
    return decode(MammothConfig, merge(load_preset("nano"), CHANGES))


@functools.cache
def tiny_preview_config() -> MammothConfig:
    """The Preview's architecture (Qwen2.5-VL, Q-Former at the backbone's width, last normed state) as small."""
    tiny = tiny_config()
    decoder = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "vocab_size": 1024,
        "gen_vocab_size": 1040,
        "gen_vocab_start_index": 1024,
        "experts": {"kind": "ffn", "start": 1, "stop": 3},
        "mrope_section": [2, 1, 1],
    }
    vision = {
        "num_layers": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": 32,
    }
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: getattr(tiny.backbone, name) for name in names}  # both tiny models share a tokenizer
    changes = {
        "backbone": {"decoder": decoder, "vision": vision | {"fullatt_block_indexes": [1]}} | ids,
        "mammothtok": encode(tiny.mammothtok),
        "refiner": {"input_width": 32, "width": 32, "num_queries": 4, "num_heads": 2, "num_layers": 1},
        "dit": encode(tiny.dit),
        "vae": encode(tiny.vae),
        "pixels_per_token": 8,
        "picture_size": 64,
    }
    return decode(MammothConfig, merge(load_preset("preview"), changes))


def random_weights(module, seed: int, mesh: Mesh):
    """The module with every parameter drawn at random: about 1 for norm scales, small elsewhere, nothing zero."""
    values = {}
    for name, parameter in named_parameters(module).items():
        noise = generator(seed, name).standard_normal(parameter.shape, np.float32)
        fan_in = max(
            int(np.prod(parameter.shape[:-1])) // (parameter.shape[0] if "layers" in parameter.axes else 1), 1
        )
        scaled = 1 + 0.1 * noise if name.endswith("scale") else 0.5 * noise / np.sqrt(fan_in)
        array = scaled.astype(np.float32)
        sharding = named_sharding(mesh, parameter.axes, parameter.shape)
        values[name] = jax.make_array_from_callback(array.shape, sharding, lambda index, x=array: x[index])
    return with_parameters(module, values)


def tiny_pipeline(
    mesh: Mesh | None = None, seed: int = 0, config: MammothConfig | None = None
) -> TextToImagePipeline:
    """A pipeline over the tiny model; the weights depend on the seed alone, not on the mesh."""
    mesh = mesh or single_device_mesh()
    config = config or tiny_config()
    model = random_weights(abstract(lambda: Mammoth(config)), seed, mesh)
    words = random_model_words()
    return TextToImagePipeline(LoadedModel(model, mesh, words.tokenizer, words.settings, None))


@functools.cache
def random_model_words() -> LoadedModel:
    """The nano preset's tokenizer and generation settings."""
    return random_model("nano")
