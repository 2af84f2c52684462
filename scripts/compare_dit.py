"""A step of the diffusion transformer against diffusers' Lumina2, with the same weights and inputs.

The two differ in one thing: Lumina2 counts condition tokens on the first rope axis, the release on all
three (as OmniGen2).  With a single condition token both are the same function: there their results are compared.
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert import dit as names
from checkpoint_convert.source import DictSource
from checkpoint_convert.stream import load_onto
from mammoth_jax.benchmarks.timing import Timing, time_alternated
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.transformer import Context, DiT
from mammoth_jax.ops.patchify import patchify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes; a guided picture is a batch of two."""
    parser.add_argument("--width", type=int, default=720)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--grid", type=int, default=32, help="patches a side")
    parser.add_argument("--context", type=int, default=64, help="condition tokens")
    parser.add_argument("--batch", type=int, default=2)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios; below 1 we are faster."""
    torch = importlib.import_module("torch")
    lumina = importlib.import_module("diffusers").Lumina2Transformer2DModel
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    axis = 2 * (args.width // args.heads // 6)
    axes = (args.width // args.heads - 2 * axis, axis, axis)
    sizes = {
        "in_channels": 16,
        "hidden_size": args.width,
        "num_layers": args.layers,
        "num_refiner_layers": 2,
        "axes_dim_rope": axes,
        "axes_lens": (max(300, args.context + 1), 512, 512),
    }
    theirs = lumina(
        **sizes, num_attention_heads=args.heads, num_kv_heads=args.kv_heads, cap_feat_dim=args.width
    ).eval()
    with torch.no_grad():
        for tensor in theirs.parameters():  # the release starts gates and the output at zero
            if tensor.ndim > 1:
                tensor.normal_(std=tensor.shape[1] ** -0.5)
    config = DiTConfig(**sizes, num_heads=args.heads, num_kv_heads=args.kv_heads, condition_width=args.width)
    dit = load(config, {name: tensor.numpy() for name, tensor in theirs.state_dict().items()})

    rng = np.random.default_rng(0)
    latents = rng.standard_normal((args.batch, 2 * args.grid, 2 * args.grid, 16), np.float32)
    features = rng.standard_normal((args.batch, args.context, args.width), np.float32)
    time = np.full(args.batch, 0.3, np.float32)
    pictures, times = torch.from_numpy(latents.transpose(0, 3, 1, 2).copy()), torch.from_numpy(time)
    patches, grids = patchify(jnp.asarray(latents), config.patch_size), jnp.full((args.batch, 2), args.grid)
    evaluate = jax.jit(lambda dit, x, t, context: dit(x, t, context, grids))
    encode = jax.jit(lambda dit, condition: encode_condition(dit, None, condition))

    def their_step(features: np.ndarray) -> np.ndarray:
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        with torch.inference_mode():
            return theirs(pictures, times, torch.from_numpy(features), mask, return_dict=False)[0].numpy()

    def condition(features: np.ndarray) -> Condition:
        return Condition(jnp.asarray(features), jnp.ones(features.shape[:2], bool), None, None)

    def our_step(context: Context) -> jax.Array:
        return jax.block_until_ready(evaluate(dit, patches, time, context))

    one = features[:, :1].copy()
    expected = patchify(jnp.asarray(their_step(one).transpose(0, 2, 3, 1)), config.patch_size)
    error = float(jnp.abs(our_step(encode(dit, condition(one))) - expected).max() / jnp.abs(expected).max())
    if error > 1e-3:
        raise InputError(f"the two do not compute the same: relative difference {error:.2g}")
    words = condition(features)
    context = encode(dit, words)
    calls: dict[str, Callable[[], Any]] = {
        "diffusers": lambda: their_step(features),
        "ours": lambda: our_step(context),
        "ours, with the condition's encoder": lambda: our_step(encode(dit, words)),
    }
    timings = time_alternated(calls, repeats=args.repeats)
    return report(timings) | {
        "tokens": args.grid**2 + args.context,
        "batch": args.batch,
        "width": args.width,
        "layers": args.layers,
        "heads": [args.heads, args.kv_heads],
        "ffn_width": config.ffn_width,
        "relative_difference": error,
        "diffusers_version": importlib.import_module("diffusers").__version__,
    }


def report(timings: dict[str, Timing]) -> dict[str, Any]:
    """Each one's figures, and ours over theirs."""
    base = timings["diffusers"].median
    figures = {name: timing.to_json() for name, timing in timings.items()}
    return {
        "ratio": timings["ours"].median / base,
        "ratio_with_condition": timings["ours, with the condition's encoder"].median / base,
        "seconds": figures,
    }


def load(config: DiTConfig, tensors: dict[str, np.ndarray]) -> DiT:
    """Our transformer with Lumina2's weights, whose names are the release's; for reference pictures it has none: 0."""
    module = abstract(lambda: DiT(config))
    given = dict(tensors)
    for rule in names.rules(config):
        if "ref_image" in rule.source or rule.source == "image_index_embedding":
            for layer in rule.layers or [None]:
                name = rule.source.format(layer=layer)
                like = name.replace("ref_image_patch_embedder", "x_embedder")
                like = like.replace("ref_image_refiner", "noise_refiner")
                shape = (
                    tensors[like].shape if like in tensors else (config.max_references, config.hidden_size)
                )
                given[name] = np.zeros(shape, np.float32)
    return load_onto(module, names.rules(config), DictSource(given), single_device_mesh())
