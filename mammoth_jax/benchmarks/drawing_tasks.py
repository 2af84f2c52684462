"""The programs of text to image and of edits, for the ahead-of-time compiler."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mammoth_jax.benchmarks.calls import Call, Task, Workload, cache_bytes, integers, shapes
from mammoth_jax.benchmarks.step_weights import step_decoder
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import SOLVERS
from mammoth_jax.models import costs
from mammoth_jax.models.backbone.decoder import GENERATION_EXPERT
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.costs import Cost
from mammoth_jax.models.dit.transformer import References
from mammoth_jax.models.mammothtok.encoder import patch_sequence
from mammoth_jax.pipelines import programs
from mammoth_jax.pipelines.batching import PromptRows
from mammoth_jax.pipelines.buckets import token_bucket
from mammoth_jax.pipelines.geometry import PictureSize, picture_size
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import TextToImageOptions, parse_options
from mammoth_jax.pipelines.picture_lengths import PictureLengths
from mammoth_jax.pipelines.reference_inputs import reference_latents
from mammoth_jax.pipelines.references import Reference, image_processor, size_rule, token_pixels
from mammoth_jax.pipelines.shape_plan import BucketShape, ShapePolicy, plan_shapes
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.processing.image import preprocess
from mammoth_jax.processing.vision import image_patches
from mammoth_jax.sampling.decode import PromptPictures


def generate(loaded: LoadedModel, work: Workload) -> Task:
    """Text to image, guided in both stages: as many different prompts as pictures."""
    size = _size(loaded.config, work)
    yield from _draw(loaded, work, size, _launch_shape(loaded, work, size))


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
    shape = _launch_shape(loaded, work, size, (reference,) * work.references)
    pictures, merge = work.batch * work.references, config.backbone.vision.spatial_merge_size
    assert model.vision is not None
    inputs = model.vision.prepare(
        np.concatenate([patches.values] * pictures), [patches.grid] * pictures, [shape.seen * merge**2]
    )
    features = yield Call(
        "vision tower",
        programs.see_program,
        (model.vision, shapes(inputs)),
        {},
        {},
        costs.vision_tower(config.backbone.vision, [len(patches.values)] * pictures, item),
    )
    count, length = shape.prompts, shape.prompt
    placed = PromptPictures(features, integers(count, length), integers(3, count, length), integers(count))
    packed = reference_latents(
        config.dit,
        [(reference,) * work.references] * shape.rows,
        num_references=shape.num_references,
        num_tokens=shape.reference,
    )
    yield from _draw(loaded, work, size, shape, placed, shapes(packed))


def _size(config: MammothConfig, work: Workload) -> PictureSize:
    width, height = work.size or (config.picture_size, config.picture_size)
    return picture_size(config, height, width, work.grid)


def _launch_shape(
    loaded: LoadedModel, work: Workload, size: PictureSize, references: Sequence[Reference] = ()
) -> BucketShape:
    """The padded sizes of a launch, by the pipeline's own plan; the negative prompt is as long as the others."""
    config, mesh = loaded.config, loaded.mesh.shape
    merge, patch = config.backbone.vision.spatial_merge_size, config.dit.patch_size
    lengths = [
        PictureLengths(
            prompt=work.prompt_tokens + sum(shown.num_tokens(merge) for shown in references),
            visual=_num_tokens(size),
            text=work.prompt_tokens,
            references=tuple(shown.num_patches(patch) for shown in references),
            target=math.prod(size.patches),
            seen=sum(shown.patches.grid.tokens(merge) for shown in references if shown.patches is not None),
            reads=(number, "opening", "negative"),
            negative=work.prompt_tokens,
            shows=bool(references),
        )
        for number in range(work.batch)
    ]
    policy, shards = ShapePolicy(max_buckets=1), mesh["data"] * mesh["fsdp"]
    (one,) = plan_shapes(lengths, batch_size=work.batch, shards=shards, policy=policy).buckets
    return one.shape


def _num_tokens(size: PictureSize) -> int:
    return size.tokens[0] * (size.tokens[1] + 1) + 1


def _draw(
    loaded: LoadedModel,
    work: Workload,
    size: PictureSize,
    shape: BucketShape,
    pictures: PromptPictures | None = None,
    latents: References | None = None,
) -> Task:
    """Prefill, visual tokens, diffusion, VAE."""
    config, model = loaded.config, loaded.model
    pipeline = TextToImagePipeline(loaded)
    decoder, item = config.backbone.decoder, jnp.dtype(work.dtype).itemsize
    options = parse_options(
        {"num_inference_steps": work.steps, "decode_weights": work.decode_weights, "cache": work.cache}
    )
    asked = work.batch + 2  # the prompts, an answer opening, the negative prompt
    r, count, length = shape.rows, shape.prompts, shape.prompt
    plan = pipeline.decode_plan
    conditions = dataclasses.replace(pipeline.condition_plan, text_size=shape.text)
    if pictures is not None and config.condition.edit_condition == "release":
        conditions = dataclasses.replace(conditions, second_pass=True)
    num_tokens = _num_tokens(size)

    prefill = costs.decoder_pass(decoder, asked, length, item, both_experts=pictures is not None)
    read = yield Call(
        "prefill",
        programs.encode_program,
        (model.decoder, integers(count, length), integers(count)),
        {"pictures": pictures},
        {"plan": plan},
        prefill + costs.head(decoder, asked, decoder.gen_vocab_size, item),
    )
    cost = costs.decoding(
        decoder,
        [length] * work.batch + [0] * work.batch,
        num_tokens,
        decoder.gen_vocab_size,
        item,
        weights=work.decode_weights,
        cache=work.cache,
    )
    if conditions.second_pass:
        cost += costs.decoder_pass(decoder, work.batch, length + num_tokens, item, both_experts=True)
    held = jax.eval_shape(lambda cache: cache.in_format(work.cache), read.cache)
    steps = step_decoder(loaded, work.decode_weights, GENERATION_EXPERT)
    drawing = yield Call(
        "visual tokens",
        programs.draw_program,
        (model.decoder, read, _requests(pipeline, size, r, options), integers(count), integers(r)),
        {} if work.decode_weights == "model" else {"steps": steps},
        {
            "plan": pipeline.drawing_plan(options),
            "conditions": conditions,
            "max_tokens": shape.visual,
            "guided": True,
        },
        cost,
        steps=num_tokens,
        cache=cache_bytes(held, config, loaded.mesh, 2 * r, length + shape.visual),
        kept=(pictures,),
    )
    painting = _painting(config, work, size, r, options, latents)
    painted = yield Call(
        "diffusion",
        programs.paint_program,
        (model.dit, model.refiner, drawing.positive, drawing.negative, *painting),
        {},
        {
            "num_tokens": shape.target,
            "solver": SOLVERS[options.solver],
            "guidance": "always",
            "faults": options.faults,
            "on_step": None,
        },
        _diffusion_cost(config, work, size, num_tokens, latents, item),
        kept=(read, drawing.tokens, pictures),
    )
    yield Call(
        "VAE decoder",
        programs.develop_program,
        (model.vae, painted.latents, integers(work.batch)),
        {},
        {"grid": size.patches, "patch_size": config.dit.patch_size, "tiling": pipeline.tiling},
        costs.vae_decode(config.vae, work.batch, math.prod(size.patches) * config.dit.patch_size**2, item),
        kept=(read, drawing, pictures),
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
    features: int,
    latents: References | None,
    item: int,
) -> Cost:
    branches = 2 if latents is None else 3
    references, length = latents.patches.shape[1:3] if latents is not None else (0, 0)
    rows, text = work.batch, work.prompt_tokens
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
