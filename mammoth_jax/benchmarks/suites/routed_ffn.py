"""``routed_ffn``: one layer's experts over sequences of text and visual tokens."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.dit import TEXT_TOKENS
from mammoth_jax.benchmarks.suites.task import size_facts, task_size
from mammoth_jax.models.costs import Cost
from mammoth_jax.ops.routed_ffn import ExpertKernels, routed_ffn, use_routed_ffn
from mammoth_jax.pipelines.loading import LoadedModel


@dataclasses.dataclass(frozen=True)
class RoutedFfn:
    """A prompt of text, then the visual tokens of a picture, in every row."""

    name: str = "routed_ffn"
    summary: str = "one layer's experts over text and visual tokens, forward and with gradients"
    parts: frozenset[str] = frozenset()

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """Two cases; each token's work is that of its own expert."""
        config, size = loaded.config.backbone.decoder, task_size(loaded, settings)
        dtype = jnp.dtype(meter.roofline.dtype)
        d, inner, count = config.hidden_size, config.intermediate_size, config.num_ffn_experts
        visual = size.tokens[0] * (size.tokens[1] + 1) + 1
        length = TEXT_TOKENS + visual

        def draw(seed: int, *shape: int) -> jax.Array:
            x = jax.random.normal(jax.random.key(seed), shape, dtype)
            return (x * shape[-2] ** -0.5).astype(dtype)

        experts = [
            ExpertKernels(draw(3 * i, d, inner), draw(3 * i + 1, d, inner), draw(3 * i + 2, inner, d))
            for i in range(count)
        ]
        x = draw(100, settings.batch, length, d)
        expert = jnp.broadcast_to(jnp.arange(length) >= TEXT_TOKENS, x.shape[:2]).astype(jnp.int32)
        tokens, weights = settings.batch * length, 3 * d * inner
        forward = Cost(2 * weights * tokens, dtype.itemsize * (count * weights + 2 * tokens * d))
        # the forward products again for both gradients; kernels and their gradients, states and theirs
        both = Cost(3 * forward.flops, 2 * forward.bytes)
        facts = {"implementation": settings.implementation or "table", **size_facts(loaded, settings)}
        facts |= {"text_tokens": settings.batch * TEXT_TOKENS, "visual_tokens": settings.batch * visual}

        apply = jax.jit(routed_ffn)
        gradient = jax.jit(
            jax.grad(lambda x, experts, expert: jnp.sum(jnp.square(routed_ffn(x, experts, expert))), (0, 1))
        )
        chosen = settings.implementation
        with contextlib.nullcontext() if chosen is None else use_routed_ffn(chosen):
            yield meter.measure(
                "forward", lambda: apply(x, experts, expert), Work(forward, tokens, "tokens"), **facts
            )
            yield meter.measure(
                "gradient", lambda: gradient(x, experts, expert), Work(both, tokens, "tokens"), **facts
            )
