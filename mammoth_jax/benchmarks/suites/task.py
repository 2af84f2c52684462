"""The pictures that the benchmarks draw, as the pipeline would make them of a prompt."""

import dataclasses

import jax
from flax import nnx

from mammoth_jax.benchmarks.measurement import BenchSettings
from mammoth_jax.pipelines.batching import PictureRequest, PromptRows, prompt_rows
from mammoth_jax.pipelines.buckets import bucket
from mammoth_jax.pipelines.geometry import PictureSize, picture_size
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import TextToImageOptions, parse_options
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline

PROMPT = "a red circle left of a blue square, photographed on a wooden table in the light of the morning"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is drawn: requests, options, and prompts as rows of ids."""

    pipeline: TextToImagePipeline
    requests: list[PictureRequest]
    options: TextToImageOptions
    rows: PromptRows

    @property
    def size(self) -> PictureSize:
        """Of every picture."""
        return self.requests[0].size

    @property
    def num_tokens(self) -> int:
        """Visual tokens of a picture with its line ends and its image end."""
        rows, cols = self.size.tokens
        return rows * (cols + 1) + 1

    @property
    def guides_tokens(self) -> bool:
        """Whether every picture has an unconditional row in the cache."""
        return self.options.ar_guidance_scale > 1

    @property
    def cache_lengths(self) -> list[int]:
        """Tokens that each cache row holds before the first visual token."""
        used = [self.rows.prompt, self.rows.opening] if self.guides_tokens else [self.rows.prompt]
        count = len(self.requests)
        return [int(n) for row in used for n in self.rows.lengths[row[:count]]]


def picture_task(loaded: LoadedModel, settings: BenchSettings) -> Task:
    """``settings.batch`` pictures of one prompt, each with a seed of its own."""
    size = task_size(loaded, settings)
    options = parse_options({"num_inference_steps": settings.steps, **settings.options})
    requests = [PictureRequest(PROMPT, seed, size) for seed in range(settings.batch)]
    rows = prompt_rows(
        loaded.tokenizer,
        requests,
        negative=options.negative_prompt if options.guidance_scale > 1 else None,
        guided=options.ar_guidance_scale > 1,
        num_rows=bucket(len(requests)),
        merge_size=loaded.config.backbone.vision.spatial_merge_size,
    )
    return Task(TextToImagePipeline(loaded), requests, options, rows)


def task_size(loaded: LoadedModel, settings: BenchSettings) -> PictureSize:
    """The size asked for, or the model's."""
    config = loaded.config
    width, height = settings.size or (config.picture_size, config.picture_size)
    return picture_size(config, height, width, settings.grid)


def size_facts(loaded: LoadedModel, settings: BenchSettings) -> dict[str, str | int]:
    """What a reader must know of a figure: size, grid, batch."""
    size = task_size(loaded, settings)
    (height, width), (rows, cols) = size.pixels, size.tokens
    return {"size": f"{width}x{height}", "grid": f"{cols}x{rows}", "batch": settings.batch}


def itemsize(module: nnx.Module | None) -> int:
    """Bytes of a number of a module's first weight."""
    return jax.tree.leaves(module)[0].dtype.itemsize
