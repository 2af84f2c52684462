"""``dit``: all steps of the diffusion of a batch, in one launch."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.task import itemsize, size_facts, task_size
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import SOLVERS
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.costs import Cost, condition, dit_evaluation
from mammoth_jax.pipelines.geometry import PictureSize
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import TextToImageOptions, parse_options
from mammoth_jax.pipelines.programs import paint_program
from mammoth_jax.sampling.diffusion import DiffusionResult
from mammoth_jax.sampling.step_cache import StepCache

TEXT_TOKENS = 64
"""Of the prompt and of the negative prompt."""


@dataclasses.dataclass(frozen=True)
class Dit:
    """Conditions encoded once, then the solver's steps with both guidance branches as one batch."""

    name: str = "dit"
    summary: str = "all diffusion steps: images/s"
    parts: frozenset[str] = frozenset({"dit", "refiner"})

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """One case, ``steps``."""
        config, size = loaded.config, task_size(loaded, settings)
        options = parse_options({"num_inference_steps": settings.steps, **settings.options})
        image_tokens = size.tokens[0] * (size.tokens[1] + 1) + 1
        batch, guides = settings.batch, options.guidance_scale > 1
        guided = guided_steps(settings.steps, options.cfg_range)
        paint = painting(loaded, size, options, batch)

        negatives = TEXT_TOKENS if guides else None
        item = itemsize(loaded.model.dit)
        cost = diffusion(config, size, options, TEXT_TOKENS, image_tokens, negatives, batch, item)
        evaluations = settings.steps * SOLVERS[options.solver].evaluations
        measured = meter.measure(
            "steps",
            paint,
            Work(cost, batch, "images"),
            **size_facts(loaded, settings),
            steps=settings.steps,
            solver=options.solver,
            guided_steps=int(guided.sum()) if guides else 0,
        )
        share = meter.roofline.product_seconds(cost) / measured.timing.median
        more = {"step_s": measured.timing.median / evaluations, "product_rate_fraction": share}
        if options.step_cache > 0:  # the work is still that of all steps
            with jax.set_mesh(loaded.mesh):
                reused = int(paint().reused_evaluations)
            more |= {"step_cache": options.step_cache, "reused_evaluations": reused}
        yield measured.with_facts(**more)


def painting(
    loaded: LoadedModel, size: PictureSize, options: TextToImageOptions, batch: int
) -> Callable[[], DiffusionResult]:
    """What launches the diffusion of ``batch`` pictures; random conditions of the right lengths, always the same."""
    config, guides = loaded.config, options.guidance_scale > 1
    positive = random_condition(config, batch, TEXT_TOKENS, size.tokens[0] * (size.tokens[1] + 1) + 1)
    negative = random_condition(config, batch, TEXT_TOKENS, 0) if guides else None
    sizes = np.tile(np.asarray(size.patches, np.int32), (batch, 1))
    guided = guided_steps(options.num_inference_steps, options.cfg_range)

    def paint() -> DiffusionResult:
        return paint_program(
            loaded.model.dit,
            loaded.model.refiner,
            positive,
            negative,
            np.arange(batch, dtype=np.uint32),
            sizes,
            inference_times(options.num_inference_steps, sizes * config.dit.patch_size),
            guided,
            np.full(batch, options.guidance_scale, np.float32),
            num_tokens=int(np.prod(size.patches)),
            solver=SOLVERS[options.solver],
            guidance="never" if not guides else "always" if guided.all() else "ranged",
            step_cache=StepCache(options.step_cache) if options.step_cache > 0 else None,
        )

    return paint


def diffusion(
    config: MammothConfig,
    size: PictureSize,
    options: TextToImageOptions,
    text: int,
    images: int,
    negative: int | None,
    rows: int,
    item: int,
) -> Cost:
    """The work of ``rows`` pictures with so many text and image features; padding is not counted.

    ``negative`` is the text length of the unconditional branch, if there is one; it has no image features.
    """
    patches = size.patches[0] * size.patches[1]
    context = text + (config.refiner.num_queries if images else 0)
    steps, each = options.num_inference_steps, SOLVERS[options.solver].evaluations
    plain = dit_evaluation(config.dit, rows, context, patches, item)
    total = condition(config.dit, config.refiner, rows, text, images, item)
    if negative is None:
        return total + plain * (steps * each)
    total += condition(config.dit, config.refiner, rows, negative, 0, item)
    second = dit_evaluation(config.dit, rows, negative, patches, item)
    weights = dit_evaluation(config.dit, 0, 0, 0, item).bytes  # both branches are one batch: read once
    both = plain + Cost(second.flops, second.bytes - weights)
    guided = int(guided_steps(steps, options.cfg_range, options.faults).sum())
    return total + both * (guided * each) + plain * ((steps - guided) * each)


def random_condition(config: MammothConfig, batch: int, text_tokens: int, image_tokens: int) -> Condition:
    """Gaussian features, all of them valid."""
    rng, width = np.random.default_rng(0), config.dit.condition_width

    def features(count: int) -> np.ndarray:
        return rng.standard_normal((batch, count, width), np.float32)

    def mask(count: int) -> np.ndarray:
        return np.ones((batch, count), bool)

    image, image_mask = (features(image_tokens), mask(image_tokens)) if image_tokens else (None, None)
    return Condition(features(text_tokens), mask(text_tokens), image, image_mask)  # type: ignore[arg-type]
