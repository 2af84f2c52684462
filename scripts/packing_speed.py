"""Tokens a second that are no padding: packed rows against padded and against length-sorted batches, by real steps.

    python scripts/packing_speed.py

Lengths are those of ``scripts/packing_fill.py``, divided by ``--scale``, so that attention is about the same part of a
step's operations in nano's decoder, of width 128, as in one of 4096 at 16,384 tokens.  A step is loss and gradients of
the stage ``text`` on given shapes; a padded batch takes the time of its own length, by straight lines between the
lengths that were measured.  Shapes are timed in turn, several rounds; the fastest of each counts.  Prints one object a
mixture.
"""

import argparse
import datetime
import json
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.compilation_cache import enable_compilation_cache
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.core.types import Array
from mammoth_jax.data.packing.distribution import Kind, compare_fill, padded_batches, stream
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.joint import joint_forward
from mammoth_jax.objectives.joint_draws import Draws
from mammoth_jax.objectives.ntp import IGNORED

MIXTURES: tuple[dict[Kind, float], ...] = (
    {"t2i": 1},
    {"t2i": 0.6, "edit": 0.4},
    {"t2i": 0.4, "edit": 0.2, "it2t": 0.4},
)


def rows_of(rows: int, length: int, segments: int) -> dict[str, Array]:
    """Rows of so many equal segments; values stand for nothing, times do not depend on them."""
    segment = np.arange(length) * segments // length + 1
    place = np.concatenate([np.arange(np.sum(segment == s + 1)) for s in range(segments)])
    random = np.random.default_rng(0)
    ids = random.integers(0, 256, (rows, length))
    return {
        "ids": jnp.asarray(ids, jnp.int32),
        "labels": jnp.asarray(np.where(place == 0, IGNORED, ids), jnp.int32),
        "token_segments": jnp.asarray(np.tile(segment, (rows, 1)), jnp.int32),
        "token_positions": jnp.asarray(np.tile(place, (rows, 3, 1)), jnp.int32),
    }


def measure(
    shapes: Mapping[tuple[int, int], int], rounds: int, clock: Callable[[], float]
) -> dict[tuple[int, int], float]:
    """Seconds of loss and gradients on rows x length, by shape; each has so many segments a row."""
    config = MammothConfig.from_preset("nano")
    model = initialize(
        lambda: Mammoth(config, parts=frozenset(("text_decoder",))), 0, single_device_mesh(), "float32"
    )

    def loss(model: Mammoth, batch: dict[str, Array]) -> Array:
        term = joint_forward(model, batch, Draws(batch["ids"])).ntp.sum()
        return term.total / term.weight

    step = jax.jit(jax.grad(loss, allow_int=True))
    batches = {shape: rows_of(*shape, segments) for shape, segments in shapes.items()}
    for batch in batches.values():
        jax.block_until_ready(step(model, batch))  # compiles
    found = dict.fromkeys(shapes, float("inf"))
    for _ in range(rounds):
        for shape, batch in batches.items():
            start = clock()
            jax.block_until_ready(step(model, batch))
            found[shape] = min(found[shape], clock() - start)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=32)
    parser.add_argument("--rows", type=int, default=4, help="packed rows of a step")
    parser.add_argument("--batch", type=int, default=16, help="samples of a padded batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--processor", action="store_true", help="processor seconds, where others use the cores too"
    )
    args = parser.parse_args()
    enable_compilation_cache()
    length = 16_384 // args.scale
    lengths = [max(length * part // 16, 2) for part in (1, 2, 4, 8, 16)]
    shapes = {(args.rows, length): 6} | {(args.batch, each): 1 for each in lengths}
    seconds = measure(shapes, args.rounds, time.process_time if args.processor else time.perf_counter)
    packed_time = seconds.pop((args.rows, length))
    padded_times = [seconds[args.batch, each] for each in lengths]
    facts = {
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    facts |= {"packed_seconds": packed_time, "padded_seconds": dict(zip(lengths, padded_times, strict=True))}
    print(json.dumps(facts))
    for parts in MIXTURES:
        fill = compare_fill(parts).packed.full["tokens"]
        packed = fill * args.rows * length / packed_time
        draw = stream(parts, 16_384, 0)
        known = [draw() for _ in range(8192)]
        speeds = {}
        for name, sort in (("padded", 0), ("sorted", 64 * args.batch)):
            batches = padded_batches(known, args.batch, sort=sort)
            longest = np.asarray([max(batch) for batch in batches]) / args.scale
            real = sum(map(sum, batches)) / args.scale
            speeds[name] = real / float(np.sum(np.interp(longest, lengths, padded_times)))
        ratios = {f"packed_over_{name}": round(packed / speed, 2) for name, speed in speeds.items()}
        print(
            json.dumps(
                {
                    "parts": parts,
                    "packed": round(packed),
                    **{n: round(s) for n, s in speeds.items()},
                    **ratios,
                }
            )
        )


if __name__ == "__main__":
    main()
