"""The programs of text to image and of edits, for the ahead-of-time compiler."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from mammoth_jax.benchmarks import costs
from mammoth_jax.benchmarks.calls import Call, Task, Workload, cache_bytes, integers, shapes
from mammoth_jax.benchmarks.costs import Cost
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import SOLVERS
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.dit.transformer import References
from mammoth_jax.models.mammothtok.encoder import patch_sequence
from mammoth_jax.pipelines import programs
from mammoth_jax.pipelines.batching import PromptRows
from mammoth_jax.pipelines.buckets import bucket, patch_bucket, token_bucket
from mammoth_jax.pipelines.geometry import PictureSize, picture_size
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import TextToImageOptions, parse_options
from mammoth_jax.pipelines.reference_inputs import reference_latents
from mammoth_jax.pipelines.references import Reference, image_processor, size_rule, token_pixels
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.processing.image import preprocess
from mammoth_jax.processing.vision import image_patches
from mammoth_jax.sampling.decode import PromptPictures


@dataclasses.dataclass(frozen=True)
class _Prompts:
    """What a drawing task reads: padded prompts, their pictures, and how many tokens are reference pictures."""

    length: int
    visual_tokens: bool = False
    pictures: Any = None
    latents: References | None = None


def generate(loaded: LoadedModel, work: Workload) -> Task:
    """Text to image, guided in both stages: as many different prompts as pictures."""
    size = _size(loaded.config, work)
    yield from _draw(loaded, work, size, _Prompts(bucket(work.prompt_tokens, 32)))


def edit(loaded: LoadedModel, work: Workload) -> Task:
    """Edits, guided in both stages: each row has its own instruction and its own references of the size drawn."""
    config, model = loaded.config, loaded.model
    item = jnp.dtype(work.dtype).itemsize
    size = _size(config, work)
    picture = Image.new("RGB", (size.pixels[1], size.pixels[0]))
    patch = config.mammothtok.encoder.patch_size
    shown = token_pixels(config, picture)
    rows, cols = shown.shape[0] // patch, shown.shape[1] // patch
    yield Call(
        "MammothTok encoder",
        programs.tokenize_program,
        (model.mammothtok, shapes(patch_sequence(shown, patch, token_bucket(rows * cols)))),
        {},
        {},
        costs.token_encoder(config.mammothtok, rows * cols, item),
    )
    fitted = preprocess(picture, size_rule(config))[None]
    latents = yield Call(
        "VAE encoder",
        programs.encode_references_program,
        (model.vae, shapes(fitted)),
        {},
        {},
        costs.vae_encode(config.vae, 1, fitted.shape[1] * fitted.shape[2], item),
    )
    patches = image_patches(picture, image_processor(loaded))
    reference = Reference(patches, np.zeros((rows, cols), np.int32), np.zeros(latents.shape[1:], np.float32))
    count, pictures = bucket(work.batch + 2), work.batch * work.references
    merge = config.backbone.vision.spatial_merge_size
    assert model.vision is not None
    inputs = model.vision.prepare(
        np.concatenate([patches.values] * pictures),
        [patches.grid] * pictures,
        [patch_bucket(len(patches.values) * pictures, merge)],
    )
    features = yield Call(
        "vision tower",
        programs.see_program,
        (model.vision, shapes(inputs)),
        {},
        {},
        costs.vision_tower(config.backbone.vision, [len(patches.values)] * pictures, item),
    )
    length = token_bucket(work.prompt_tokens + work.references * reference.num_tokens(merge))
    placed = PromptPictures(features, integers(count, length), integers(3, count, length), integers(count))
    packed = reference_latents(config.dit, [(reference,) * work.references] * bucket(work.batch))
    yield from _draw(loaded, work, size, _Prompts(length, True, placed, shapes(packed)))


def _size(config: MammothConfig, work: Workload) -> PictureSize:
    width, height = work.size or (config.picture_size, config.picture_size)
    return picture_size(config, height, width, work.grid)


def _draw(loaded: LoadedModel, work: Workload, size: PictureSize, prompts: _Prompts) -> Task:
    """Prefill, visual tokens, diffusion, VAE."""
    config, model = loaded.config, loaded.model
    pipeline = TextToImagePipeline(loaded)
    decoder, item = config.backbone.decoder, jnp.dtype(work.dtype).itemsize
    options = parse_options({"num_inference_steps": work.steps})
    asked = work.batch + 2  # the prompts, an answer opening, the negative prompt
    r, count = bucket(work.batch), bucket(asked)
    length = prompts.length
    plan, conditions = pipeline.decode_plan, pipeline.condition_plan
    if prompts.pictures is not None and config.condition.edit_condition == "release":
        conditions = dataclasses.replace(conditions, second_pass=True)
    num_tokens = size.tokens[0] * (size.tokens[1] + 1) + 1
    max_tokens = token_bucket(num_tokens)

    prefill = costs.decoder_pass(decoder, asked, length, item, both_experts=prompts.visual_tokens)
    read = yield Call(
        "prefill",
        programs.encode_program,
        (model.decoder, integers(count, length), integers(count)),
        {"pictures": prompts.pictures},
        {"plan": plan},
        prefill + costs.head(decoder, asked, decoder.gen_vocab_size, item),
    )
    cost = costs.decoding(
        decoder, [length] * work.batch + [0] * work.batch, num_tokens, decoder.gen_vocab_size, item
    )
    if conditions.second_pass:
        cost += costs.decoder_pass(decoder, work.batch, length + num_tokens, item, both_experts=True)
    drawing = yield Call(
        "visual tokens",
        programs.draw_program,
        (model.decoder, read, _requests(pipeline, size, r, options), integers(count), integers(r)),
        {},
        {"plan": plan, "conditions": conditions, "max_tokens": max_tokens, "guided": True},
        cost,
        steps=num_tokens,
        cache=cache_bytes(read.cache, config, loaded.mesh, 2 * r, length + max_tokens),
        kept=(prompts.pictures,),
    )
    painting = _painting(config, work, size, r, options, prompts.latents)
    painted = yield Call(
        "diffusion",
        programs.paint_program,
        (model.dit, model.refiner, drawing.positive, drawing.negative, *painting),
        {},
        {
            "num_tokens": math.prod(size.patches),
            "solver": SOLVERS[options.solver],
            "guidance": "always",
            "faults": options.faults,
            "on_step": None,
        },
        _diffusion_cost(config, work, size, length, num_tokens, prompts.latents, item),
        kept=(read, drawing.tokens, prompts.pictures),
    )
    yield Call(
        "VAE decoder",
        programs.develop_program,
        (model.vae, painted.latents, integers(work.batch)),
        {},
        {"grid": size.patches, "patch_size": config.dit.patch_size, "tiling": pipeline.tiling},
        costs.vae_decode(config.vae, work.batch, math.prod(size.patches) * config.dit.patch_size**2, item),
        kept=(read, drawing, prompts.pictures),
    )


def _requests(
    pipeline: TextToImagePipeline, size: PictureSize, rows: int, options: TextToImageOptions
) -> Any:
    """The rows' settings, as the pipeline makes them; every row draws a picture."""
    none = np.zeros(rows, np.int32)
    prompts = PromptRows(none[None], none, none, none, none, none, ())
    made = pipeline.decode_requests([], prompts, options)
    return shapes(dataclasses.replace(made, grid_rows=none, grid_cols=none))


def _painting(
    config: MammothConfig,
    work: Workload,
    size: PictureSize,
    rows: int,
    options: TextToImageOptions,
    latents: References | None,
) -> tuple[Any, ...]:
    """The diffusion program's arguments after the conditions."""
    sizes = np.asarray([size.patches] * rows, np.int32)
    scale = np.full(rows, options.guidance_scale, np.float32)
    times = inference_times(work.steps, sizes * config.dit.patch_size)
    guided = guided_steps(work.steps, options.cfg_range, options.faults)
    made = (np.zeros(rows, np.uint32), sizes, times, guided, scale, None if latents is None else scale)
    return (*shapes(made), latents)


def _diffusion_cost(
    config: MammothConfig,
    work: Workload,
    size: PictureSize,
    text: int,
    features: int,
    latents: References | None,
    item: int,
) -> Cost:
    branches = 2 if latents is None else 3
    references, length = latents.patches.shape[1:3] if latents is not None else (0, 0)
    rows = work.batch
    cost = costs.condition(config.dit, config.refiner, rows, text, features, item)
    cost += costs.condition(config.dit, None, rows, text, 0, item)
    step = costs.dit_evaluation(
        config.dit,
        branches * rows,
        text + config.refiner.num_queries,
        math.prod(size.patches),
        item,
        references=references,
        reference_tokens=length,
    )
    return cost + step * work.steps
