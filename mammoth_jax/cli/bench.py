"""Measure how fast this machine runs the model's programs, against what it can do.

First the copy bandwidth and the rate of matrix products of the device are measured, in the run's number format; then
each case: median and spread, tokens/s or images/s, counted operations and bytes, and the fraction of the roofline.
"""

import argparse
import json
import time
from typing import TYPE_CHECKING

from mammoth_jax.cli.argument_types import fraction_range, positive, size
from mammoth_jax.cli.model_options import (
    DEFAULT_PRESET,
    LOOP_SETTINGS,
    add_loop_options,
    add_model_options,
    announce_default,
    model_source,
)
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.benchmarks.measurement import BenchSettings
    from mammoth_jax.pipelines.loading import LoadedModel

NAMES = ("attention", "routed_ffn", "cross_entropy", "decode", "dit", "vae", "generate")
LOOPS = ("decode", "generate")

OPTIONS = {
    "guidance": "guidance_scale",
    "ar_guidance": "ar_guidance_scale",
    "cfg_range": "cfg_range",
    "solver": "solver",
    "step_cache": "step_cache",
    **{name: name for name in LOOP_SETTINGS},
}
"""Options that go to the pipeline under its names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--size", type=size, metavar="WxH", help="in pixels (default: the model's)")
    parser.add_argument("--grid", type=size, metavar="WxH", help="visual tokens (default: by the size)")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="pictures at once (default 1)")
    parser.add_argument(
        "--steps", type=positive, default=50, metavar="N", help="of the diffusion (default 50)"
    )
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="samples (default 5)")
    parser.add_argument("--guidance", type=float, metavar="G", help="of the diffusion; 1 is none")
    parser.add_argument("--ar-guidance", type=float, metavar="G", help="of the visual tokens; 1 is none")
    parser.add_argument("--cfg-range", type=fraction_range, metavar="A,B", help="fraction of guided steps")
    parser.add_argument("--solver", choices=("euler", "heun", "dpmpp2m"))
    parser.add_argument(
        "--step-cache", type=float, metavar="T", help="threshold of reused steps (default 0: off)"
    )
    parser.add_argument(
        "--implementation", metavar="NAME", help="of attention or routed_ffn, instead of their table's"
    )
    add_loop_options(parser.add_argument_group("loop of visual tokens (decode, generate)"))
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints, a line a case."""
    import jax

    from mammoth_jax.benchmarks.measurement import Meter, short
    from mammoth_jax.benchmarks.roofline import measure_roofline
    from mammoth_jax.benchmarks.suites import BENCHES
    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.precision import matmul_precision, parse_dtype

    enable_compilation_cache()
    announce_default(args)
    bench, settings, dtype = BENCHES[args.name], bench_settings(args), parse_dtype(args.dtype)
    with matmul_precision(args.precision):
        loaded = load(args, bench.parts)
        roofline = measure_roofline(dtype, devices=loaded.mesh.size)
        conditions = {**model_source(args), **roofline.to_json(), "precision": args.precision, **versions()}
        if not args.json:
            print(", ".join(f"{name} {short(value)}" for name, value in conditions.items()), flush=True)
        meter = Meter(bench.name, roofline, settings.repeats, loaded.mesh)
        for measured in bench.measure(loaded, settings, meter):
            line = json.dumps(conditions | measured.to_json()) if args.json else measured.line()
            print(line, flush=True)
    if jax.default_backend() != "cpu" and not args.json:
        print(f"peak memory {jax.devices()[0].memory_stats()['peak_bytes_in_use'] / 2**30:.2f} GiB")
    return 0


def bench_settings(args: argparse.Namespace) -> "BenchSettings":
    """The sizes that the options name.

    Raises:
      InputError: an option of a loop that is not run.
    """
    from mammoth_jax.benchmarks.measurement import BenchSettings

    for name in LOOP_SETTINGS:
        if getattr(args, name) is not None and args.name not in LOOPS:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(args, name)}: bench {args.name} has no loop of tokens; leave it "
                f"out, or measure {' or '.join(LOOPS)}"
            )
    given = {keyword: getattr(args, name) for name, keyword in OPTIONS.items()}
    return BenchSettings(
        size=args.size,
        grid=args.grid,
        batch=args.batch,
        steps=args.steps,
        repeats=args.repeats,
        implementation=args.implementation,
        options={keyword: value for keyword, value in given.items() if value is not None},
    )


def load(args: argparse.Namespace, parts: frozenset[str]) -> "LoadedModel":
    """The parts of the model that the benchmark needs; random ones are drawn on the device."""
    from mammoth_jax.benchmarks.weights import random_parts
    from mammoth_jax.core.mesh import make_mesh, parse_mesh, single_device_mesh
    from mammoth_jax.core.precision import parse_dtype
    from mammoth_jax.pipelines.loading import load_model

    mesh = single_device_mesh() if args.mesh is None else make_mesh(parse_mesh(args.mesh))
    dtype = parse_dtype(args.dtype)
    if args.model is not None:
        return load_model(args.model, dtype=dtype, mesh=mesh, parts=parts, lora=args.lora)
    return random_parts(args.preset or DEFAULT_PRESET, parts, dtype=dtype, mesh=mesh).with_lora(args.lora)


def versions() -> dict[str, str]:
    """When, and with what."""
    import jax

    from mammoth_jax import __version__

    return {"date": time.strftime("%Y-%m-%d"), "jax": jax.__version__, "mammoth_jax": __version__}
