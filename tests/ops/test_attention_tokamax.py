"""tokamax behind our attention: what it is handed, and where it is installed its own kernel's values.

The package needs a GPU or a TPU, so that what always runs is a stand-in with its signature (0.0.12).
"""

import dataclasses
import importlib
import inspect
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.ops.attention import library
from mammoth_jax.ops.attention.library import TOKAMAX
from mammoth_jax.ops.attention.reference import REFERENCE
from mammoth_jax.ops.attention.table import choose
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask

SIZES = [(256, 256, (4, 2), 128), (128, 256, (3, 1), 120), (256, 256, (2, 2), 72)]
TASK = AttentionTask("tpu", 2, 256, 256, 4, 2, 128, "bfloat16")


def stand_in(
    query,
    key,
    value,
    bias=None,
    mask=None,
    *,
    scale=None,
    is_causal=False,
    query_seq_lengths=None,
    key_value_seq_lengths=None,
    local_window_size=None,
    logits_soft_cap=None,
    precision=None,
    implementation=None,
    q_sharding=None,
):
    """Attention with the package's arguments, by JAX's own reference; ``implementation`` is one of its kernels."""
    assert implementation in ("mosaic_tpu", "mosaic_gpu"), implementation
    others = (bias, mask, query_seq_lengths, key_value_seq_lengths, local_window_size, logits_soft_cap)
    assert all(x is None for x in (*others, precision, q_sharding))
    return jax.nn.dot_product_attention(query, key, value, scale=scale, is_causal=is_causal)


def arrays(queries: int, keys: int, heads: tuple[int, int], width: int) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    shapes = [(2, queries, heads[0], width)] + 2 * [(2, keys, heads[1], width)]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_its_own_kernel_is_asked_for_in_the_layout_that_it_takes(monkeypatch, platform, sizes, causal):
    asked = []

    def record(*args, **kwargs):
        asked.append(kwargs["implementation"])
        return stand_in(*args, **kwargs)

    monkeypatch.setitem(sys.modules, "tokamax", types.SimpleNamespace(dot_product_attention=record))
    monkeypatch.setattr(library, "target_platform", lambda: platform)
    values, mask = arrays(*sizes), AttentionMask(causal=causal)
    out = TOKAMAX(*values, mask, 0.2)
    np.testing.assert_allclose(out, REFERENCE(*values, mask, 0.2), atol=2e-6)
    assert asked == [f"mosaic_{platform}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": True}, "has no segments"),
        ({"offset": True}, "has no query offset"),
        ({"query_length": 200}, "has no lengths 200 and 256 on TPU .multiples of 128"),
        ({"key_length": 100}, "has no lengths 256 and 100 on TPU"),
        ({"dtype": "float16"}, "has no float16 on TPU"),
    ],
)
def test_what_its_kernels_lack_is_refused_by_name(monkeypatch, change, message):
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: object())
    assert choose(TASK, "tokamax") is TOKAMAX
    assert choose(dataclasses.replace(TASK, platform="gpu", query_length=200), "tokamax") is TOKAMAX
    with pytest.raises(InputError, match=f"'tokamax' {message}"):
        choose(dataclasses.replace(TASK, **change), "tokamax")


@pytest.fixture
def interpreted(monkeypatch):
    """The package with its TPU kernel run by Pallas' interpreter, which its own scheduler does not survive."""
    monkeypatch.setattr(sys, "argv", ["tests"])  # it reads the command line
    package = pytest.importorskip("tokamax")
    inside = "tokamax._src.ops.attention.pallas_mosaic_tpu"
    forward, backward = importlib.import_module(inside), importlib.import_module(f"{inside}_vjp")
    splash = importlib.import_module(
        "tokamax._src.ops.experimental.tpu.splash_attention.splash_attention_kernel"
    )
    config, default = splash.SplashConfig, splash.SplashConfig.get_default
    for kernel in (forward.PallasMosaicTpuFlashAttention, backward.PallasMosaicTpuFlashAttentionVjp):
        choice = kernel._get_heuristics_config
        monkeypatch.setattr(kernel, "supported_on", lambda self, device: True)
        monkeypatch.setattr(
            kernel,
            "_get_heuristics_config",
            lambda self, bound, choice=choice: dataclasses.replace(
                choice(self, bound), use_experimental_scheduler=False
            ),
        )
    monkeypatch.setattr(
        config, "get_default", staticmethod(lambda: dataclasses.replace(default(), interpret=True))
    )
    monkeypatch.setattr(library, "target_platform", lambda: "tpu")
    return package


def test_the_stand_in_has_the_signature_of_the_package(interpreted):
    theirs = inspect.signature(interpreted.dot_product_attention).parameters
    ours = inspect.signature(stand_in).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_its_tpu_kernel_equals_the_reference_in_value_and_gradient(interpreted, sizes, causal):
    values, mask = arrays(*sizes), AttentionMask(causal=causal)
    scale = sizes[3] ** -0.5

    def run(implementation):
        def loss(*values):
            out = implementation(*values, mask, scale)
            return jnp.sum(jnp.sin(out)), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*values)
        return out, *gradients

    for have, want in zip(run(TOKAMAX), run(REFERENCE), strict=True):
        np.testing.assert_allclose(have, want, atol=2e-5)
