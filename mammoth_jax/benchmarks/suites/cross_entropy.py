"""``cross_entropy``: the loss over the joint vocabulary, from hidden states and both heads."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.task import size_facts, task_size
from mammoth_jax.models.costs import Cost
from mammoth_jax.ops.cross_entropy import cross_entropy
from mammoth_jax.pipelines.loading import LoadedModel


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Labels anywhere in the joint vocabulary, as many as a picture has visual tokens."""

    name: str = "cross_entropy"
    summary: str = "the loss over the joint vocabulary, forward and with gradients"
    parts: frozenset[str] = frozenset()

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """Two cases; the scores that the backward pass computes again are counted, scores in memory are not."""
        config, size = loaded.config.backbone.decoder, task_size(loaded, settings)
        dtype = jnp.dtype(meter.roofline.dtype)
        d, columns = config.hidden_size, config.joint_vocab_size
        tokens = settings.batch * (size.tokens[0] * (size.tokens[1] + 1) + 1)
        keys = jax.random.split(jax.random.key(0), 4)
        hidden = jax.random.normal(keys[0], (tokens, d), dtype)
        widths = (config.vocab_size, config.gen_vocab_size)
        heads = [
            (jax.random.normal(key, (d, width), dtype) * d**-0.5).astype(dtype)
            for key, width in zip(keys[1:], widths, strict=False)
        ]
        labels = jax.random.randint(keys[3], (tokens,), 0, columns)
        once = Cost(2 * tokens * d * columns, dtype.itemsize * (columns + tokens) * d)
        gradients = Cost(4 * once.flops, 3 * once.bytes)
        facts = {**size_facts(loaded, settings), "columns": columns}

        forward = jax.jit(lambda hidden, heads, labels: cross_entropy(hidden, heads, labels))
        gradient = jax.jit(
            jax.grad(lambda hidden, heads, labels: jnp.mean(cross_entropy(hidden, heads, labels)), (0, 1))
        )
        yield meter.measure(
            "forward", lambda: forward(hidden, heads, labels), Work(once, tokens, "tokens"), **facts
        )
        yield meter.measure(
            "gradient", lambda: gradient(hidden, heads, labels), Work(gradients, tokens, "tokens"), **facts
        )
