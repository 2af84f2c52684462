"""What the options that are faster than the method save of the diffusion, and how far off their latents are.

    python -m mammoth_jax.benchmarks.faster_options --preset nano --side 128

All run in turn on the same random weights and conditions, so that a slow spell of the machine meets all of them.  Times
are of the processor where nothing else serves (``--clock processor``: on a machine that is shared, pinned to a core).
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.benchmarks.measurement import BenchSettings
from mammoth_jax.benchmarks.suites.dit import Dit, painting
from mammoth_jax.benchmarks.suites.task import size_facts, task_size
from mammoth_jax.benchmarks.timing import time_alternated
from mammoth_jax.benchmarks.weights import random_parts
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import parse_options

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "exact": {},
    "--cfg-range 0,0.8": {"cfg_range": (0.0, 0.8)},
    "--cfg-range 0,0.6": {"cfg_range": (0.0, 0.6)},
    "--cfg-range 0.2,0.8": {"cfg_range": (0.2, 0.8)},
    "--step-cache 0.1": {"step_cache": 0.1},
    "--step-cache 0.2": {"step_cache": 0.2},
    "--step-cache 0.4": {"step_cache": 0.4},
}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def compare(
    loaded: LoadedModel,
    settings: BenchSettings,
    *,
    guidance: float = 4.0,
    clock: str = "wall",
    names: Sequence[str] = tuple(OPTIONS),
) -> dict[str, dict[str, Any]]:
    """For each option: guided and reused evaluations, the latents' error in relative L2, seconds, share of exact's.

    ``exact`` must be among the ``names``.
    """
    base = {"num_inference_steps": settings.steps, "guidance_scale": guidance}
    size = task_size(loaded, settings)
    calls, found = {}, {}
    with jax.set_mesh(loaded.mesh):
        for name in names:
            paint = painting(loaded, size, parse_options({**base, **OPTIONS[name]}), settings.batch)
            result = paint()
            found[name] = {
                "guided": int(result.guided_evaluations),
                "reused": int(result.reused_evaluations),
                "latents": np.asarray(result.latents),
            }
            calls[name] = lambda paint=paint: jax.block_until_ready(paint())
        timings = time_alternated(calls, repeats=settings.repeats, clock=CLOCKS[clock])
    exact = found["exact"]["latents"]
    for name, timing in timings.items():
        latents = found[name].pop("latents")
        ratios = [one / other for one, other in zip(timing.samples, timings["exact"].samples, strict=True)]
        found[name] |= {
            "error": float(np.linalg.norm(latents - exact) / np.linalg.norm(exact)),
            **timing.to_json(),
            "of_exact": float(np.median(ratios)),
        }
    return found


def main() -> None:
    """Prints a line an option, and one of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--side", type=int, help="in pixels (default: the model's)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    loaded = random_parts(args.preset, Dit().parts, dtype=jnp.float32, mesh=single_device_mesh())
    square = None if args.side is None else (args.side, args.side)
    settings = BenchSettings(size=square, batch=args.batch, steps=args.steps, repeats=args.repeats)
    found = compare(loaded, settings, guidance=args.guidance, clock=args.clock)
    for name, row in found.items():
        print(
            f"{name}: {row['median_s']:.3f} s [{row['min_s']:.3f}, {row['max_s']:.3f}], "
            f"{row['of_exact']:.2f} of exact, guided {row['guided']}, reused {row['reused']} of {args.steps}, "
            f"error {100 * row['error']:.2g} %"
        )
    conditions = {"date": time.strftime("%Y-%m-%d"), "jax": jax.__version__, "clock": args.clock}
    print(json.dumps(conditions | {"preset": args.preset, **size_facts(loaded, settings), "options": found}))


if __name__ == "__main__":
    main()
