"""``generate``: whole pictures by the pipeline, with the time of each of its stages."""

import dataclasses
import time
from collections.abc import Iterator

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.decode import loop_facts, prefill, visual_tokens
from mammoth_jax.benchmarks.suites.dit import diffusion
from mammoth_jax.benchmarks.suites.task import Task, itemsize, picture_task, size_facts
from mammoth_jax.benchmarks.timing import Timing
from mammoth_jax.models.costs import Cost, vae_decode
from mammoth_jax.pipelines.loading import LoadedModel

STAGES = ("reading prompts", "visual tokens", "diffusion", "decoding")
"""As the pipeline reports them; the last is what follows the diffusion, copies to the host included."""


@dataclasses.dataclass(frozen=True)
class Generate:
    """A batch from the prompt to pixels on the host."""

    name: str = "generate"
    summary: str = "whole pictures and each stage: seconds, images/s, fractions of the floors"
    parts: frozenset[str] = frozenset({"text_decoder", "generation_experts", "dit", "refiner", "vae"})

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """A case for each stage, then ``whole``."""
        task = picture_task(loaded, settings)
        self._draw(task)
        runs = [self._draw(task) for _ in range(settings.repeats)]
        facts = size_facts(loaded, settings) | {"steps": settings.steps, **loop_facts(task)}
        costs = stage_costs(task)
        for stage in STAGES:
            timing = Timing(tuple(run[stage] for run in runs))
            tokens = stage == "visual tokens"
            items = settings.batch * (task.num_tokens if tokens else 1)
            work = Work(costs[stage], items, "tokens" if tokens else "images")
            yield meter.record(stage, timing, work, **facts, **shares(stage, costs[stage], timing, meter))
        whole = Work(sum(costs.values(), Cost()), settings.batch, "images")
        yield meter.record("whole", Timing(tuple(run["whole"] for run in runs)), whole, **facts)

    def _draw(self, task: Task) -> dict[str, float]:
        """Seconds of each stage and of the whole."""
        clock = _StageClock()
        task.pipeline.generate(task.requests, task.options, progress=clock)
        return clock.finish()


class _StageClock:
    """Receives the pipeline's progress, which waits for each stage."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done == total:
            now = time.perf_counter()
            self.seconds[stage] = now - self.last
            self.last = now

    def finish(self) -> dict[str, float]:
        now = time.perf_counter()
        return {**self.seconds, "decoding": now - self.last, "whole": now - self.start}


def stage_costs(task: Task) -> dict[str, Cost]:
    """The counted work of each stage; conditions are as long as the prompts' text."""
    loaded, batch = task.pipeline.loaded, len(task.requests)
    config, model, rows = loaded.config, loaded.model, task.rows
    question = int(rows.answer_start[rows.prompt[0]])  # the pictures have one prompt
    negative = None if rows.negative is None else int(rows.lengths[rows.negative[0]])
    cells = task.size.patches[0] * task.size.patches[1] * config.dit.patch_size**2
    size, item = task.size, itemsize(model.dit)
    return {
        "reading prompts": prefill(task, itemsize(model.decoder)),
        "visual tokens": visual_tokens(task, itemsize(model.decoder)),
        "diffusion": diffusion(config, size, task.options, question, task.num_tokens, negative, batch, item),
        "decoding": vae_decode(config.vae, batch, cells, itemsize(model.vae)),
    }


def shares(stage: str, cost: Cost, timing: Timing, meter: Meter) -> dict[str, float]:
    """The two figures by which the stages are judged: decoding by its bytes, diffusion by its operations."""
    if stage == "visual tokens":
        return {"copy_floor_fraction": meter.roofline.copy_seconds(cost) / timing.median}
    if stage == "diffusion":
        return {"product_rate_fraction": meter.roofline.product_seconds(cost) / timing.median}
    return {}
