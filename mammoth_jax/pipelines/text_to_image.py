"""Text to image: prompts in, pictures out, four compiled programs a batch."""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import SOLVERS
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.ops.patchify import patchify
from mammoth_jax.pipelines.batching import PictureRequest, PromptRows, prompt_rows
from mammoth_jax.pipelines.development import develop_pictures, develop_token_pictures
from mammoth_jax.pipelines.geometry import picture_size
from mammoth_jax.pipelines.launch import Progress, launcher
from mammoth_jax.pipelines.loading import Pipeline
from mammoth_jax.pipelines.options import Picture, TextToImageOptions, parse_options, require_mode
from mammoth_jax.pipelines.output import CONVERT, OutputType, TextToImageOutput
from mammoth_jax.pipelines.picture_lengths import picture_lengths
from mammoth_jax.pipelines.programs import (
    draw_program,
    encode_program,
    paint_program,
    read_program,
)
from mammoth_jax.pipelines.reference_inputs import prompt_pictures, reference_latents
from mammoth_jax.pipelines.shape_plan import BucketShape, KnownShapes, ShapePlan, ShapePolicy, plan_shapes
from mammoth_jax.pipelines.think_then_draw import ThinkOptions, check_reasoning, with_reasoning
from mammoth_jax.processing.special_tokens import IMAGE_END
from mammoth_jax.sampling.decode import DecodePlan, Requests, VisualVocabulary
from mammoth_jax.sampling.diffusion import Guidance, OnStep
from mammoth_jax.sampling.logits import SamplingSettings
from mammoth_jax.sampling.step_cache import StepCache
from mammoth_jax.sampling.unified import ConditionPlan

StepCallback = Callable[["TextToImagePipeline", int, np.ndarray, dict[str, np.ndarray]], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class TextToImagePipeline(Pipeline):
    """Draws pictures from prompts with a loaded model.

    ``known`` are the shapes drawn so far; later calls prefer them, and draw the same pictures as without them.
    """

    tiling: Tiling = Tiling()
    known: KnownShapes = dataclasses.field(default_factory=KnownShapes)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | Sequence[int] | None = None,
        width: int | Sequence[int] | None = None,
        grid: tuple[int, int] | Sequence[tuple[int, int] | None] | None = None,
        num_images_per_prompt: int = 1,
        seed: int | Sequence[int] = 0,
        latents: Float[np.ndarray, "b rows cols c"] | None = None,
        think: ThinkOptions | None = None,
        output_type: OutputType = "pil",
        batch_size: int = 16,
        progress: Progress | None = None,
        callback_on_step_end: StepCallback | None = None,
        **options: Any,
    ) -> TextToImageOutput:
        """Draws ``num_images_per_prompt`` pictures of every prompt.

        Args:
          prompt: one prompt or several.
          height, width: pixels, one for all or one a prompt; the model's own square size by default.
          grid: (columns, rows) of visual tokens, likewise; by default one for every ``pixels_per_token`` pixels.
          seed: image ``i`` of a prompt is drawn with ``seed + i``, so that each can be drawn again alone.
          latents: initial noise of every picture instead of that of its seed (equal sizes only).
          think: write about the picture first, and draw it from prompt and reasoning (``think_then_draw.py``); each
            ``pictures[i].request.reasoning`` holds what was written.
          output_type: ``pil``, ``np`` (uint8 arrays) or ``latent`` (float32 VAE latents, scaled as the network sees
            them; no pixels are decoded).
          batch_size: pictures a launch, at most; pictures of like lengths are drawn together (``shape_plan.py``).
          progress: called with (stage, done, total): before and after each program, and with the pictures done.
          callback_on_step_end: called on the host after each diffusion step with the pipeline, the step, the rows'
            times and ``{"latents": [b, n, p] patch tokens}`` (padded to the bucket); it watches, what it returns is
            not used.
          options: fields of :class:`TextToImageOptions`.

        Raises:
          InputError: a bad size, option or prompt, latents of other sizes, or a part that the checkpoint lacks.
        """
        settings = parse_options(options, self.loaded.settings.drawing)
        requests = self.requests(prompt, height, width, grid, num_images_per_prompt, seed)
        if think is not None:
            requests = with_reasoning(self.loaded, requests, think, batch_size=batch_size, progress=progress)
        return self.draw(
            requests,
            settings,
            latents,
            output_type=output_type,
            batch_size=batch_size,
            progress=progress,
            callback_on_step_end=callback_on_step_end,
        )

    def draw(
        self,
        requests: Sequence[PictureRequest],
        settings: TextToImageOptions,
        latents: Float[np.ndarray, "b rows cols c"] | None = None,
        *,
        output_type: OutputType = "pil",
        batch_size: int = 16,
        progress: Progress | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> TextToImageOutput:
        """Draws requests, which may have references and reasoning, bucket by bucket; see :meth:`__call__`."""
        if output_type not in CONVERT:
            raise InputError(f"output_type {output_type!r}: expected one of {sorted(CONVERT)}")
        if latents is not None:
            _check_latents(latents, requests, self.loaded.config.dit)
        check_reasoning(requests)
        on_step = None if callback_on_step_end is None else _OnStep(weakref.ref(self), callback_on_step_end)
        drawn: dict[int, Picture] = {}
        for bucket in self.plan(requests, settings, batch_size).buckets:
            for numbers in bucket.launches:
                pictures = self.generate(
                    [requests[number] for number in numbers],
                    settings,
                    None if latents is None else np.asarray(latents)[list(numbers)],
                    shape=bucket.shape,
                    pixels=output_type != "latent",
                    progress=progress,
                    on_step=on_step,
                )
                drawn |= dict(zip(numbers, pictures, strict=True))
                if progress is not None:
                    progress("drawing", len(drawn), len(requests))
        pictures = [drawn[number] for number in range(len(requests))]
        return TextToImageOutput([CONVERT[output_type](p) for p in pictures], pictures)

    def plan(
        self,
        requests: Sequence[PictureRequest],
        options: TextToImageOptions,
        batch_size: int = 16,
        policy: ShapePolicy = ShapePolicy(),
    ) -> ShapePlan:
        """Which requests are drawn together, in which shapes, and how much of that is padding."""
        lengths = [picture_lengths(self.loaded, request, options) for request in requests]
        return plan_shapes(
            lengths,
            batch_size=batch_size,
            shards=self.loaded.mesh.shape["data"] * self.loaded.mesh.shape["fsdp"],
            known=self.known,
            policy=policy,
        )

    def generate(
        self,
        requests: Sequence[PictureRequest],
        options: TextToImageOptions,
        latents: Float[np.ndarray, "b rows cols c"] | None = None,
        *,
        shape: BucketShape | None = None,
        pixels: bool = True,
        progress: Progress | None = None,
        on_step: OnStep | None = None,
    ) -> list[Picture]:
        """Draws one batch, whatever its mixture of prompts, grids and sizes, in a ``shape`` that holds it."""
        loaded = self.loaded
        require_mode(loaded.model, "text to image", options.mode)
        if shape is None:
            shape = self.plan(requests, options, len(requests), ShapePolicy(max_buckets=1)).buckets[0].shape
        self.known.add(shape)
        guides = options.guidance_scale > 1 and options.mode != "ar"
        rows = prompt_rows(
            loaded.tokenizer,
            requests,
            negative=options.negative_prompt if guides else None,
            guided=options.ar_guidance_scale > 1 and options.mode != "diffusion",
            num_rows=shape.rows,
            num_prompts=shape.prompts,
            length=shape.prompt,
            merge_size=loaded.config.backbone.vision.spatial_merge_size,
        )
        conditions = dataclasses.replace(self.condition_plan, text_size=shape.text or None)
        if check_reasoning(requests):
            conditions = dataclasses.replace(conditions, with_answer_text=True)
        with jax.set_mesh(loaded.mesh):
            launch = launcher(progress)
            pictures = prompt_pictures(loaded, rows.ids, rows.lengths, rows.references, num_tokens=shape.seen)
            if pictures is not None and loaded.config.condition.edit_condition == "release":
                conditions = dataclasses.replace(conditions, second_pass=True)
                if options.mode == "diffusion":
                    pictures = None  # nothing is decoded: the pass without pixels is the only one
            encode = functools.partial(encode_program, plan=self.decode_plan, pictures=pictures)
            prompts = launch("reading prompts", encode, loaded.model.decoder, rows.ids, rows.lengths)
            if options.mode == "diffusion":
                tokens = None
                positive, negative = read_program(
                    prompts, rows.prompt, rows.answer_start, rows.negative, conditions=conditions
                )
            else:
                drawing = launch(
                    "visual tokens",
                    draw_program,
                    loaded.model.decoder,
                    prompts,
                    self.decode_requests(requests, rows, options),
                    rows.answer_start,
                    rows.negative,
                    plan=self.drawing_plan(options),
                    conditions=conditions,
                    max_tokens=shape.visual,
                    guided=options.ar_guidance_scale > 1,
                    **self.step_weights(options),
                )
                tokens, positive, negative = drawing.tokens, drawing.positive, drawing.negative
            if options.mode == "ar":
                assert tokens is not None
                return develop_token_pictures(loaded, requests, tokens)
            painted = self._paint(launch, requests, positive, negative, shape, options, latents, on_step)
            if on_step is not None:
                jax.effects_barrier()
            return develop_pictures(loaded, requests, painted, tokens, self.tiling if pixels else None)

    @property
    def decode_plan(self) -> DecodePlan:
        """What the decoding programs are compiled for."""
        settings = self.loaded.settings
        vocabulary = VisualVocabulary(
            settings.end_of_line,
            self.loaded.tokenizer.id_of(IMAGE_END),
            settings.visual_start,
            settings.visual_end,
        )
        return DecodePlan(vocabulary, self.loaded.config.condition.taps)

    def drawing_plan(self, options: TextToImageOptions) -> DecodePlan:
        """The same for the loop of visual tokens, whose cache may be held in another form than it was read."""
        return dataclasses.replace(self.decode_plan, cache_format=options.cache)

    @property
    def condition_plan(self) -> ConditionPlan:
        """Which tokens condition the diffusion transformer."""
        config = self.loaded.config
        return ConditionPlan(
            config.backbone.decoder.gen_vocab_start_index,
            config.backbone.vision_ids,
            config.condition.mode,
            config.condition.with_answer_text,
        )

    def decode_requests(
        self, requests: Sequence[PictureRequest], rows: PromptRows, options: TextToImageOptions
    ) -> Requests:
        """Each row's settings as arrays; rows past the requests are empty."""
        settings, n, fill = self.loaded.settings, len(rows.prompt), len(rows.prompt) - len(requests)
        temperature = options.temperature
        if temperature is None:
            temperature = settings.temperature if settings.do_sample else 0.0

        def each(value: float | None, default: float | None, dtype: Any) -> np.ndarray:
            return np.full(n, default if value is None else value, dtype)

        return Requests(
            prompt=rows.prompt,
            opening=rows.opening,
            seed=np.asarray([r.seed for r in requests] + [0] * fill, np.uint32),
            grid_rows=np.asarray([r.size.tokens[0] for r in requests] + [0] * fill, np.int32),
            grid_cols=np.asarray([r.size.tokens[1] for r in requests] + [0] * fill, np.int32),
            settings=SamplingSettings(
                guidance=np.full(n, options.ar_guidance_scale, np.float32),
                temperature=np.full(n, temperature, np.float32),
                top_k=each(options.top_k, settings.top_k or 0, np.int32),
                top_p=each(options.top_p, settings.top_p, np.float32),
                repetition_penalty=each(options.repetition_penalty, settings.repetition_penalty, np.float32),
            ),
        )

    def step_weights(self, options: TextToImageOptions) -> dict[str, Decoder]:
        """The argument that puts other weights under the loop of visual tokens, if such are asked for."""
        return {"steps": self.loaded.int8_decoder} if options.decode_weights == "int8" else {}

    def _paint(
        self,
        launch: Callable[..., Any],
        requests: Sequence[PictureRequest],
        positive: Condition,
        negative: Condition | None,
        shape: BucketShape,
        options: TextToImageOptions,
        latents: np.ndarray | None,
        on_step: OnStep | None,
    ) -> jax.Array:
        config, num_rows = self.loaded.config, shape.rows
        fill = [requests[0]] * (num_rows - len(requests))
        sizes = np.asarray([r.size.patches for r in (*requests, *fill)], np.int32)
        guided = guided_steps(options.num_inference_steps, options.cfg_range, options.faults)
        guidance: Guidance = "never" if negative is None else "always" if guided.all() else "ranged"
        if latents is not None:
            start = np.asarray(patchify(np.asarray(latents, np.float32), config.dit.patch_size))
            start = np.pad(start, ((0, num_rows - len(start)), (0, shape.target - start.shape[1]), (0, 0)))
        else:
            start = np.asarray([r.seed for r in (*requests, *fill)], np.uint32)
        references = reference_latents(
            config.dit,
            [r.references for r in (*requests, *fill)],
            num_references=shape.num_references,
            num_tokens=shape.reference,
        )
        by_image = references is not None and options.image_guidance_scale > 1
        result = launch(
            "diffusion",
            paint_program,
            self.loaded.model.dit,
            self.loaded.model.refiner,
            positive,
            negative,
            start,
            sizes,
            inference_times(options.num_inference_steps, sizes * config.dit.patch_size),
            guided,
            np.full(num_rows, options.guidance_scale, np.float32),
            np.full(num_rows, options.image_guidance_scale, np.float32) if by_image else None,
            references,
            num_tokens=shape.target,
            solver=SOLVERS[options.solver],
            guidance=guidance,
            step_cache=StepCache(options.step_cache) if options.step_cache > 0 else None,
            faults=options.faults,
            on_step=on_step,
        )
        return result.latents

    def requests(
        self, prompt: str | Sequence[str], height: Any, width: Any, grid: Any, num_images: int, seed: Any
    ) -> list[PictureRequest]:
        """One request a picture, ``num_images`` for each prompt; see :meth:`__call__`."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise InputError("no prompt: give at least one")
        if num_images < 1:
            raise InputError(f"num_images_per_prompt {num_images}: at least 1 is needed")
        config, n = self.loaded.config, len(prompts)
        heights = _one_each("height", config.picture_size if height is None else height, n)
        widths = _one_each("width", config.picture_size if width is None else width, n)
        grids = [grid] * n if grid is None or isinstance(grid[0], int) else list(grid)
        seeds = _one_each("seed", seed, n)
        sizes = [picture_size(config, h, w, g) for h, w, g in zip(heights, widths, grids, strict=True)]
        return [
            PictureRequest(text, seeds[i] + image, sizes[i])
            for i, text in enumerate(prompts)
            for image in range(num_images)
        ]


@dataclasses.dataclass(frozen=True)
class _OnStep:
    """A user's callback in the form that the diffusion program calls; equal ones share a compiled program.

    Programs stay in memory with what they call, and must not keep a model there with them.
    """

    pipeline: weakref.ref[TextToImagePipeline]
    callback: StepCallback

    def __call__(self, step: jax.Array, times: jax.Array, latents: jax.Array) -> None:
        pipeline = self.pipeline()
        assert pipeline is not None  # it draws
        self.callback(pipeline, int(step), np.asarray(times), {"latents": np.asarray(latents)})


def _check_latents(
    latents: Float[np.ndarray, "b rows cols c"], requests: Sequence[PictureRequest], dit: DiTConfig
) -> None:
    """InputError unless there are latents for each picture, in its size."""
    for request in requests:
        (height, width), (rows, cols) = request.size.pixels, request.size.patches
        expected = (len(requests), rows * dit.patch_size, cols * dit.patch_size, dit.in_channels)
        if np.shape(latents) != expected:
            raise InputError(
                f"latents of shape {np.shape(latents)}: expected {expected} (pictures, rows, columns, channels) for "
                f"{len(requests)} of {width}x{height} pixels; draw pictures of another size in a call of their own"
            )


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise InputError(f"{name}: {len(values)} values for {count} prompts; give one, or one a prompt")
    return values
