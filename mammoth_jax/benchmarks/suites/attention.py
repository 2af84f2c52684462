"""``attention``: the attentions of a picture at its lengths and the model's heads."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.cache_attention import over_cache
from mammoth_jax.benchmarks.suites.dit import TEXT_TOKENS
from mammoth_jax.benchmarks.suites.task import size_facts, task_size
from mammoth_jax.models.costs import Cost
from mammoth_jax.ops.attention import attention
from mammoth_jax.pipelines.loading import LoadedModel


@dataclasses.dataclass(frozen=True)
class Heads:
    """Sizes of an attention."""

    batch: int
    length: int
    query_heads: int
    kv_heads: int
    width: int

    def arrays(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Random queries, keys and values."""
        heads = (self.query_heads, self.kv_heads, self.kv_heads)
        keys = jax.random.split(jax.random.key(0), 3)
        return tuple(
            jax.random.normal(key, (self.batch, self.length, h, self.width)).astype(dtype)
            for key, h in zip(keys, heads, strict=True)
        )  # type: ignore[return-value]

    def cost(self, itemsize: int, *, causal: bool = False) -> Cost:
        """The two products; queries, keys, values and the output once each."""
        n = self.length
        pairs = n * (n + 1) // 2 if causal else n * n
        numbers = 2 * n * (self.query_heads + self.kv_heads)
        flops = 4 * self.batch * self.query_heads * self.width * pairs
        return Cost(flops, itemsize * self.batch * self.width * numbers)


@dataclasses.dataclass(frozen=True)
class Attention:
    """Without weights: only the functions of ``ops/attention``."""

    name: str = "attention"
    summary: str = (
        "causal (decoder), over a cache (its steps) and full (diffusion, forward and with gradients)"
    )
    parts: frozenset[str] = frozenset()

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """Five cases; ``tokens`` are the queries.

        What ``settings`` say about the implementation is not for the cache, which has a choice of its own.
        """
        config, size, dtype = loaded.config, task_size(loaded, settings), jnp.dtype(meter.roofline.dtype)
        batch, itemsize = settings.batch, dtype.itemsize
        facts = {"implementation": settings.implementation or "table", **size_facts(loaded, settings)}
        decoder, dit = config.backbone.decoder, config.dit
        visual = size.tokens[0] * (size.tokens[1] + 1) + 1

        causal = Heads(batch, visual, decoder.num_heads, decoder.num_kv_heads, decoder.head_dim)
        arrays = causal.arrays(dtype)
        work = Work(causal.cost(itemsize, causal=True), batch * visual, "tokens")
        call = jax.jit(
            lambda q, k, v: attention(q, k, v, causal=True, implementation=settings.implementation)
        )
        yield meter.measure("causal", lambda: call(*arrays), work, **facts, length=visual)

        held = TEXT_TOKENS + visual  # by the first of each guided pair
        yield from over_cache(decoder, 2 * batch, held, meter, **size_facts(loaded, settings))

        joint = size.patches[0] * size.patches[1] + TEXT_TOKENS + config.refiner.num_queries
        full = Heads(2 * batch, joint, dit.num_heads, dit.num_kv_heads, dit.hidden_size // dit.num_heads)
        arrays = full.arrays(dtype)
        segments = jnp.ones((2 * batch, joint), jnp.int32)

        def forward(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            masks = {"query_segments": segments, "key_segments": segments}
            return attention(q, k, v, **masks, implementation=settings.implementation)

        work = Work(full.cost(itemsize), 2 * batch * joint, "tokens")
        call = jax.jit(forward)
        yield meter.measure("full", lambda: call(*arrays), work, **facts, length=joint)

        gradient = jax.jit(jax.grad(lambda q, k, v: jnp.sum(jnp.square(forward(q, k, v))), (0, 1, 2)))
        both = full.cost(itemsize)
        # forward; then the scores again and four products, and every array once more with its gradient
        work = Work(Cost(7 * both.flops // 2, 3 * both.bytes), 2 * batch * joint, "tokens")
        yield meter.measure("full, gradient", lambda: gradient(*arrays), work, **facts, length=joint)
