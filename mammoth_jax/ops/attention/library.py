"""Attention kernels of libraries: JAX's splash attention (TPU), cuDNN (GPU), tokamax (both, an extra).

Each is used by its own name and raises when it cannot serve; none falls back by itself.
"""

import dataclasses
import functools
import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp

from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.ops.attention.block_ranges import fit_block, pad_mask, padded_length
from mammoth_jax.ops.attention.chunked import CHUNKED
from mammoth_jax.ops.attention.segment_runs import Runs, are_only_padded, are_packed, find_runs
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask


@dataclasses.dataclass(frozen=True)
class Splash:
    """JAX's splash attention.  ``interpret`` runs it on any platform, for tests."""

    block: int = 512
    interpret: bool = False
    name = "splash"

    def lacks(self, task: AttentionTask) -> str | None:
        """Why the kernel cannot serve."""
        if task.platform != "tpu" and not self.interpret:
            return f"needs a TPU, not {task.platform}"
        if task.offset:
            return "has no query offset"
        if task.causal and task.query_length != task.key_length:
            return "has no causal mask for queries fewer or more than keys"
        if task.head_dim % 8:
            return f"has no head size {task.head_dim} (multiples of 8)"
        return None

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]:
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        (b, s, h, _), t = query.shape, key.shape[1]
        queries, keys = fit_block(self.block, s, 128), fit_block(self.block, t, 128)
        padded = (padded_length(s, queries), padded_length(t, keys))
        rule = masks.CausalMask(padded) if mask.causal else masks.FullMask(padded)
        kernel = splash.make_splash_mha(
            masks.MultiHeadMask([rule] * h),
            block_sizes=splash.BlockSizes(queries, keys, keys, queries, keys, keys, queries, keys),
            head_shards=1,
            q_seq_shards=1,
            interpret=self.interpret,
        )
        mask = pad_mask(mask, b, s, t, queries, keys)
        segments = None
        if mask.query_segments is not None and mask.key_segments is not None:
            segments = splash.SegmentIds(mask.query_segments, mask.key_segments)
        # The kernel has no scale; the queries take it before they are rounded to their number format.
        query = (query.astype(jnp.float32) * scale).astype(query.dtype)
        query, key, value = (
            jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))).transpose(0, 2, 1, 3)
            for x, length in ((query, padded[0]), (key, padded[1]), (value, padded[1]))
        )
        out = jnp.asarray(jax.vmap(kernel)(query, key, value, segment_ids=segments)).transpose(0, 2, 1, 3)
        if mask.query_segments is not None and mask.key_segments is not None:
            # A query without keys of its segment would get their mean.
            present = jax.vmap(jnp.isin)(mask.query_segments, mask.key_segments)
            out = _where(present & (mask.query_segments > 0), out)
        return out[:, :s]


@dataclasses.dataclass(frozen=True)
class Cudnn:
    """cuDNN's flash attention.

    Segments come in one of three ways, told apart when the program runs: one run a row and padding after it, at most
    ``most_runs`` runs a row (cuDNN's packed form, from Hopper on, whose kept log-sums take memory for so many), and
    anything else, which the chunked form computes.
    """

    most_runs: int = 16
    name = "cudnn"

    def lacks(self, task: AttentionTask) -> str | None:
        """Why the kernel cannot serve."""
        if task.platform != "gpu":
            return f"needs a GPU, not {task.platform}"
        if not _has_cudnn():
            return "needs cuDNN, which JAX does not find here (install the extra: pip install 'mammoth-jax[gpu]')"
        if task.dtype not in ("bfloat16", "float16"):
            return f"has no {task.dtype}"
        if task.head_dim % 8 or task.head_dim > 128:
            return f"has no head size {task.head_dim} (multiples of 8 up to 128)"
        if task.offset:
            return "has no query offset"
        return None

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]:
        if mask.query_segments is None or mask.key_segments is None:
            return jax.nn.dot_product_attention(
                query, key, value, scale=scale, is_causal=mask.causal, implementation="cudnn"
            )
        queries = find_runs(mask.query_segments, self.most_runs)
        keys = find_runs(mask.key_segments, self.most_runs)
        packed = are_packed(queries, keys, mask.causal) & _packs_runs()
        way = jnp.where(are_only_padded(queries, keys), 0, jnp.where(packed, 1, 2))
        # What cuDNN writes at padding, and into its gradients there, is not defined.
        query = _where(mask.query_segments > 0, query)
        key, value = (_where(mask.key_segments > 0, x) for x in (key, value))
        out = jax.lax.switch(
            way,
            [
                functools.partial(_cudnn_padded, causal=mask.causal, scale=scale),
                functools.partial(_cudnn_packed, causal=mask.causal, scale=scale),
                lambda query, key, value, *_: CHUNKED(query, key, value, mask, scale),
            ],
            query,
            key,
            value,
            queries,
            keys,
        )
        return _where(mask.query_segments > 0, out)


def _cudnn_padded(
    query: Array, key: Array, value: Array, queries: Runs, keys: Runs, *, causal: bool, scale: float
) -> Array:
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=scale,
        is_causal=causal,
        query_seq_lengths=jnp.maximum(queries.length[:, 0], 1),
        key_value_seq_lengths=jnp.maximum(keys.length[:, 0], 1),
        implementation="cudnn",
    )


def _cudnn_packed(
    query: Array, key: Array, value: Array, queries: Runs, keys: Runs, *, causal: bool, scale: float
) -> Array:
    from jax._src.cudnn import fused_attention_stablehlo as cudnn  # the packed form has no public name

    pad = ((0, 0), (0, 1))  # offsets have one entry more than lengths
    packed: Any = cudnn.dot_product_attention
    return packed(
        query,
        key,
        value,
        q_seqlen=queries.length,
        kv_seqlen=keys.length,
        q_offsets=jnp.pad(queries.start, pad, constant_values=-1),
        kv_offsets=jnp.pad(keys.start, pad, constant_values=-1),
        scale=scale,
        mask_type=cudnn.MaskType.PADDING_CAUSAL if causal else cudnn.MaskType.PADDING,
    )


def _has_cudnn() -> bool:
    from jax._src.lib import cuda_versions

    return cuda_versions is not None


def _packs_runs() -> bool:
    """Whether the GPU is of the Hopper generation or later."""
    capability = getattr(jax.local_devices()[0], "compute_capability", "0")
    return float(capability) >= 9


@dataclasses.dataclass(frozen=True)
class Tokamax:
    """The Mosaic kernels of the package tokamax, by their own names so that it cannot fall back to XLA in silence.

    ``tpu_block`` is the block of its TPU kernel, which pads nothing.
    """

    tpu_block: int = 128
    name = "tokamax"

    def lacks(self, task: AttentionTask) -> str | None:
        """Why the kernel cannot serve."""
        if task.platform not in ("gpu", "tpu"):
            return f"needs a GPU or a TPU, not {task.platform}"
        if importlib.util.find_spec("tokamax") is None:
            return "needs the package tokamax (install the extra: pip install 'mammoth-jax[tokamax]')"
        if task.segments:
            return "has no segments"
        if task.offset:
            return "has no query offset"
        if task.platform == "tpu":
            if task.query_length % self.tpu_block or task.key_length % self.tpu_block:
                lengths = f"{task.query_length} and {task.key_length}"
                return f"has no lengths {lengths} on TPU (multiples of {self.tpu_block})"
            if task.dtype not in ("bfloat16", "float32"):
                return f"has no {task.dtype} on TPU"
        return None

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]:
        tokamax: Any = importlib.import_module("tokamax")
        return tokamax.dot_product_attention(
            query,
            key,
            value,
            scale=scale,
            is_causal=mask.causal,
            implementation=f"mosaic_{target_platform()}",
        )


def _where(real: Bool[Array, "b s"], x: Float[Array, "b s h e"]) -> Float[Array, "b s h e"]:
    """``x``, and zeros (with zero gradients) elsewhere."""
    return jnp.where(real[:, :, None, None], x, jnp.zeros((), x.dtype))


SPLASH, CUDNN, TOKAMAX = Splash(), Cudnn(), Tokamax()
