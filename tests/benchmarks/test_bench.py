"""Benchmarks at tiny sizes: every case runs and reports figures that agree with each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mammoth_jax.benchmarks.faster_options import compare
from mammoth_jax.benchmarks.measurement import BenchSettings, Meter, Work
from mammoth_jax.benchmarks.roofline import Roofline, measure_roofline
from mammoth_jax.benchmarks.suites import BENCHES
from mammoth_jax.benchmarks.suites.cache_attention import slots
from mammoth_jax.benchmarks.suites.decode import visual_tokens
from mammoth_jax.benchmarks.suites.dit import TEXT_TOKENS, diffusion
from mammoth_jax.benchmarks.suites.generate import STAGES
from mammoth_jax.benchmarks.suites.task import picture_task, task_size
from mammoth_jax.benchmarks.timing import Timing
from mammoth_jax.benchmarks.weights import initialize_on_device
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import stack_layers
from mammoth_jax.models.costs import Cost
from mammoth_jax.pipelines.options import TextToImageOptions
from tests.tiny_model import tiny_pipeline

ROOFLINE = Roofline("test", "float32", copy_bytes_per_second=100.0, product_flops_per_second=1000.0)


@pytest.fixture(scope="module")
def loaded():
    return tiny_pipeline().loaded


def settings(**more):
    """Two small pictures."""
    return BenchSettings(size=(32, 16), grid=(4, 2), batch=2, steps=2, repeats=1, **more)


def run(name, loaded, **more):
    """The measurements of a benchmark, by case."""
    meter = Meter(name, ROOFLINE, 1, loaded.mesh)
    return {m.case: m for m in BENCHES[name].measure(loaded, settings(**more), meter)}


def test_time_rates_and_bound_follow_from_the_counted_work():
    meter = Meter("name", ROOFLINE, 1, None)
    compute = meter.record("case", Timing((8.0,)), Work(Cost(4000, 100), 16, "tokens"), grid="2x2")
    assert compute.to_json() == {
        "bench": "name", "case": "case", "grid": "2x2", "median_s": 8.0, "min_s": 8.0, "max_s": 8.0,
        "samples": 1, "tokens_per_s": 2.0, "flops": 4000, "bytes": 100, "flops_per_s": 500.0,
        "bytes_per_s": 12.5, "bound": "compute", "roofline_s": 4.0, "roofline_fraction": 0.5,
    }  # fmt: skip
    memory = meter.record("case", Timing((8.0,)), Work(Cost(4000, 600), 1, "images"))
    assert memory.to_json()["bound"] == "memory" and memory.fraction == 0.75
    assert "75.0 % of the memory roofline" in memory.line()


def test_the_roofline_is_measured_on_this_device():
    one = measure_roofline(jnp.bfloat16, repeats=1, scale=1 / 64)
    assert one.device == jax.devices()[0].device_kind and one.dtype == "bfloat16"
    assert min(one.copy_bytes_per_second, one.product_flops_per_second) > 0


@pytest.mark.slow
def test_decoding_counts_the_tokens_of_all_pictures_and_the_cache_of_both_rows(loaded):
    cases = run("decode", loaded)
    assert cases["tokens"].work.items == 2 * (2 * 5 + 1)
    assert len(cases["prefill"].facts["prompt_tokens"]) == 3  # prompt, opening, negative
    plain = picture_task(loaded, settings(options={"ar_guidance_scale": 1.0}))
    assert cases["tokens"].work.cost.flops > 1.5 * visual_tokens(plain, 4).flops
    assert cases["tokens"].work.cost.bytes > visual_tokens(plain, 4).bytes


@pytest.mark.slow
def test_int8_loops_run_and_read_fewer_bytes(loaded):
    own = run("decode", loaded)["tokens"]
    int8 = run("decode", loaded, options={"decode_weights": "int8", "cache": "int8"})["tokens"]
    assert (int8.facts["decode_weights"], int8.facts["cache"]) == ("int8", "int8")
    assert "decode_weights" not in own.facts and "cache" not in own.facts
    assert int8.work.cost.bytes < 0.5 * own.work.cost.bytes  # of float32


def test_attention_over_a_cache_counts_the_slots_in_use_of_each_row(loaded):
    cases = run("attention", loaded)
    own, int8 = cases["over a cache"], cases["over an int8 cache"]
    held = TEXT_TOKENS + 2 * 5 + 1
    used = own.facts["used"]
    assert used[0] == held and len(used) == 4 and len(set(used)) == 4 and min(used) > held / 2
    assert own.facts["slots"] > held and own.work.items == 4
    decoder = loaded.config.backbone.decoder
    k, e, h = decoder.num_kv_heads, decoder.head_dim, decoder.num_heads
    new = 2 * 4 * (h + k) * e * 4
    assert own.work.cost.bytes == decoder.num_layers * (2 * sum(used) * k * e * 4 + new)
    assert int8.work.cost.bytes == decoder.num_layers * (2 * sum(used) * k * (e + 4) + new)
    assert own.work.cost.flops == decoder.num_layers * 4 * (sum(used) + 4) * h * e
    assert own.facts["copy_fraction"] == pytest.approx(own.work.cost.bytes / 100 / own.timing.median)


def test_rows_of_a_cache_start_and_end_in_different_slots():
    start, length = slots(4, 160)
    assert start.tolist() == [0, 10, 20, 30] and length.tolist() == [160, 150, 140, 130]
    start, length = slots(64, 100)  # more rows than a quarter of the tokens: all alike
    assert set((length - start).tolist()) == {100}


def test_diffusion_counts_guided_steps_twice(loaded):
    measured = run("dit", loaded, options={"cfg_range": (0.0, 0.3)})["steps"]
    assert measured.facts["guided_steps"] == 1
    assert measured.facts["step_s"] == measured.timing.median / 2

    def flops(cfg_range, negative=TEXT_TOKENS):
        options = TextToImageOptions(num_inference_steps=2, cfg_range=cfg_range)
        size = task_size(loaded, settings())
        return diffusion(loaded.config, size, options, TEXT_TOKENS, 11, negative, 2, 4).flops

    never, half, always = flops((0, 1), None), flops((0.0, 0.3)), flops((0, 1))
    assert measured.work.cost.flops == half
    assert never < half < always < 2.1 * never


@pytest.mark.slow
def test_the_stages_of_generate_make_up_the_whole(loaded):
    cases = run("generate", loaded)
    assert tuple(cases) == (*STAGES, "whole")
    stages = [cases[stage] for stage in STAGES]
    assert sum(m.timing.median for m in stages) == pytest.approx(cases["whole"].timing.median, rel=1e-3)
    assert sum((m.work.cost for m in stages), Cost()) == cases["whole"].work.cost
    assert cases["visual tokens"].facts["copy_floor_fraction"] > 0
    assert cases["diffusion"].facts["product_rate_fraction"] > 0


@pytest.mark.parametrize("name", ["attention", "routed_ffn", "cross_entropy", "vae"])
def test_the_others_run(loaded, name):
    for measured in run(name, loaded).values():
        assert measured.work.cost.flops > 0 and measured.timing.median > 0


def test_weights_drawn_on_the_device_are_random_and_in_their_shards():
    mesh = make_mesh({"data": 1, "fsdp": 2, "tensor": 1}, jax.devices()[:2])

    def build():
        return nnx.List([stack_layers(lambda: SwiGLU(64, 16), 2), RMSNorm(16, eps=1e-6)])

    drawn = initialize_on_device(build, 0, mesh, jnp.bfloat16)
    values = {name: p[...] for name, p in named_parameters(drawn).items()}
    assert all(v.dtype == jnp.bfloat16 for v in values.values())
    kernel = values["0.up.kernel"]
    assert len(kernel.sharding.device_set) == 2 and kernel.addressable_shards[0].data.size == kernel.size / 2
    numbers = np.asarray(kernel, np.float32)
    assert abs(numbers.std() * 8 - 1) < 0.1 and numbers[0, 0, 0] != numbers[1, 0, 0]
    assert not np.array_equal(numbers, np.asarray(values["0.gate.kernel"], np.float32))
    assert np.all(np.asarray(values["1.scale"], np.float32) == 1)


@pytest.mark.slow
def test_faster_options_are_set_beside_the_exact_run(loaded):
    names = ("exact", "--cfg-range 0.2,0.8", "--step-cache 0.4")
    exact, ranged, cached = compare(loaded, settings(), guidance=2.0, names=names).values()
    assert (exact["guided"], exact["error"], exact["of_exact"]) == (2, 0, 1) and exact["reused"] == 0
    assert ranged["guided"] == 1 and ranged["error"] > 0
    assert cached["guided"] == 2 and (cached["error"] > 0) == (cached["reused"] > 0)


def test_an_implementation_can_be_named(loaded):
    (forward, _) = run("routed_ffn", loaded, implementation="ragged").values()
    assert forward.facts["implementation"] == "ragged"
    with pytest.raises(InputError, match="known: "):
        run("routed_ffn", loaded, implementation="magic")
