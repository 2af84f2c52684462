"""``decode``: the visual tokens of a batch, the whole loop in one launch."""

import dataclasses
from collections.abc import Iterator

import jax

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.task import Task, itemsize, picture_task, size_facts
from mammoth_jax.models.costs import Cost, decoder_pass, decoder_weights, decoding, head
from mammoth_jax.pipelines.buckets import token_bucket
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.programs import draw_program, encode_program


@dataclasses.dataclass(frozen=True)
class Decode:
    """Prefill and visual tokens, by the pipeline's programs."""

    name: str = "decode"
    summary: str = "prompts into the cache, then visual tokens: tokens/s, guided pairs as one token"
    parts: frozenset[str] = frozenset({"text_decoder", "generation_experts"})

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """Two cases: ``prefill`` and ``tokens``."""
        task = picture_task(loaded, settings)
        rows, decoder, pipeline = task.rows, loaded.model.decoder, task.pipeline
        facts = size_facts(loaded, settings) | {"guided": task.guides_tokens}

        def encode():
            return encode_program(decoder, rows.ids, rows.lengths, plan=pipeline.decode_plan)

        lengths = [int(n) for n in rows.lengths if n]
        work = Work(prefill(task, itemsize(decoder)), sum(lengths), "tokens")
        yield meter.measure("prefill", encode, work, **facts, prompt_tokens=lengths)
        with jax.set_mesh(loaded.mesh):
            prompts = encode()
        plan, steps = pipeline.drawing_plan(task.options), pipeline.step_weights(task.options)
        wanted = pipeline.decode_requests(task.requests, rows, task.options)

        def draw():
            return draw_program(
                decoder,
                prompts,
                wanted,
                rows.answer_start,
                rows.negative,
                plan=plan,
                conditions=pipeline.condition_plan,
                max_tokens=token_bucket(task.num_tokens),
                guided=task.guides_tokens,
                **steps,
            )

        work = Work(visual_tokens(task, itemsize(decoder)), settings.batch * task.num_tokens, "tokens")
        yield meter.measure("tokens", draw, work, **facts, **loop_facts(task), tokens=task.num_tokens)


def prefill(task: Task, item: int) -> Cost:
    """Reading the distinct prompts in one pass over the weights."""
    config = task.pipeline.loaded.config.backbone.decoder
    lengths = [int(n) for n in task.rows.lengths if n]
    alone = sum((decoder_pass(config, 1, n, item) for n in lengths), Cost())
    again = decoder_weights(config) * item * (len(lengths) - 1)
    scores = head(config, len(lengths), config.gen_vocab_size, item)
    return Cost(alone.flops, alone.bytes - again) + scores


def visual_tokens(task: Task, item: int) -> Cost:
    """The floor of decoding: attention, the generation feed-forward, the generation head and all rows' cache."""
    config, options = task.pipeline.loaded.config.backbone.decoder, task.options
    return decoding(
        config,
        task.cache_lengths,
        task.num_tokens,
        config.gen_vocab_size,
        item,
        weights=options.decode_weights,
        cache=options.cache,
    )


def loop_facts(task: Task) -> dict[str, str]:
    """How the loop holds weights and cache, where not as the model does."""
    held = {"decode_weights": task.options.decode_weights, "cache": task.options.cache}
    return {name: value for name, value in held.items() if value != "model"}
